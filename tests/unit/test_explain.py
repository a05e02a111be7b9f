"""The way of a request, and what came nearest when there is none."""

from __future__ import annotations

import pytest
from support.objects import gateway, route, service, slice_, world

from controller.inspect.explain import Asked, Explanation, explain
from controller.objects.kinds import AnyObject
from controller.translate import translate


def ask(url: str, *objects: AnyObject, method: str = "GET", headers: tuple[tuple[str, str], ...] = ()) -> Explanation:
    parts = [part for found in translate(world(*objects)).parts.values() for part in found.values()]
    return explain(parts, Asked(url, method, headers))


STAGE = (gateway(), service("s"), slice_("s", "10.0.0.1"), service("t"), slice_("t", "10.0.0.2"))


def test_shares_and_endpoints() -> None:
    weighted = route("r", {"name": "s", "port": 80, "weight": 3}, {"name": "t", "port": 80}, hostnames=["demo.example.com"])
    found = ask("http://demo.example.com/x?y", *STAGE, weighted)
    assert found.outcome == "answered by default/s:80 or default/t:80"
    assert (found.listener, found.hostname, found.rule) == ("default/gw/http", "demo.example.com", "default/r/0")
    assert [(c.share, c.backend, c.endpoints) for c in found.choices] == [
        (0.75, "default/s:80", ("10.0.0.1:8080",)),
        (0.25, "default/t:80", ("10.0.0.2:8080",)),
    ]


def test_the_articles_port_100() -> None:
    """Stable has no port 100; what was meant was a weight."""
    found = ask("http://demo.example.com/", *STAGE, route("r", {"name": "s", "port": 100}, hostnames=["demo.example.com"]))
    assert found.status == 500
    assert 'Service "default/s" has no port 100; it has 80 (p80).' in found.outcome
    assert 'write "weight: 100"' in found.outcome


@pytest.mark.parametrize(
    ("url", "outcome", "words"),
    [
        ("http://demo.example.com:8080/", "nothing listens on port 8080", "listeners are on port 80"),
        ("http://demo.exmple.com/", "404: no route is for this hostname", "demo.example.com"),
    ],
)
def test_no_way(url: str, outcome: str, words: str) -> None:
    found = ask(url, *STAGE, route("r", "s", hostnames=["demo.example.com"]))
    assert found.outcome == outcome
    assert words in " ".join(found.hints)


def test_a_wildcard_is_not_its_own_domain() -> None:
    found = ask("http://example.com/", *STAGE, route("r", "s", hostnames=["*.example.com"]))
    assert "*.example.com stands for one or more labels before example.com" in found.hints[-1]


def test_what_came_nearest() -> None:
    matches = [{"path": {"type": "Exact", "value": "/a"}, "method": "POST", "headers": [{"name": "X-V", "value": "2"}]}]
    far = [{"path": {"type": "Exact", "value": "/far"}, "method": "PUT", "headers": [{"name": "X-V", "value": "9"}]}]
    found = ask(
        "http://h/a", *STAGE, route("near", "s", matches=matches), route("far", "s", matches=far), headers=(("x-v", "1"),)
    )
    assert found.status == 404
    assert [near.rule for near in found.nearest] == ["default/near/0", "default/far/0"]
    assert found.nearest[0].failed == ("method POST: found GET", "header X-V = 2: found 1")


def test_no_endpoints_is_503() -> None:
    found = ask("http://h/", gateway(), service("s"), route("r", "s"))
    assert (found.status, found.choices[0].reason) == (503, "no endpoint is ready")
    assert found.outcome == "answered by 503: no endpoint is ready"


@pytest.mark.parametrize(("port", "listener"), [(8080, "default/gw/http"), (80, "default/gw/http"), (8081, "")])
def test_ports_as_clients_see_them(port: int, listener: str) -> None:
    parts = translate(world(*STAGE, route("r", "s"))).parts[("default", "gw")].values()
    found = explain(parts, Asked(f"http://h:{port}/"), port_offset=8000)
    assert found.listener == listener
    assert found.hints == (() if listener else ("listeners are on port 8080",))


def test_a_redirect_says_where_to() -> None:
    filters = [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}]
    found = ask("http://h/x?y", *STAGE, route("r", filters=filters))
    assert found.outcome == "301: redirected to https://h/x?y"


def test_a_share_that_fails_is_said() -> None:
    found = ask("http://h/", *STAGE, route("r", "s", "missing"))
    assert found.outcome.startswith("answered by default/s:80; but 50% of such requests fail, by 500: ")


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("http://demo.example.com/../x", "400: the path climbs above its root"),
        ("http://demo.example.com//a/%7ex/../", "answered by default/s:80"),
    ],
)
def test_paths_are_normalised_as_the_data_plane_does(url: str, outcome: str) -> None:
    assert ask(url, *STAGE, route("r", "s", hostnames=["demo.example.com"])).outcome == outcome
