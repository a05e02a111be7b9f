"""What a change costs, and that what is remembered equals what would be worked out from nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from support.objects import gateway, gateway_class, obj, route, service, slice_, world

from controller.objects.base import Ref
from controller.objects.kinds import AnyObject
from controller.objects.routes import HeaderFilter, HTTPFilter, NameValue
from controller.state.world import World
from controller.translate import Translator, translate
from controller.translate.filters import faults
from gateway.snapshot import Backend, Rule

NAMES = ("a", "b", "c")


def some(kind: int, which: str, choice: int) -> AnyObject:
    """A small universe in which everything refers to everything."""
    other = NAMES[choice % 3]
    match kind:
        case 0:
            return gateway(
                which,
                {"name": "http", "port": 80 + choice % 2, "protocol": "HTTP", "hostname": f"{other}.example"}
                if choice % 5
                else {"name": "http", "port": 80, "protocol": ["HTTP", "TCP"][choice % 2]},
                defaultScope=["None", "All"][choice % 2],
            )
        case 1 if choice % 4 == 3:
            spec = {"useDefaultGateways": "All", "rules": [{"backendRefs": [{"name": other, "port": 80}]}]}
            return obj("HTTPRoute", which, spec={**spec, "parentRefs": [{"name": "b"}][: choice % 3]})
        case 1:
            ref: dict[str, Any] = {"name": other, "port": 80 + choice % 2, "weight": choice % 4}
            if choice % 3 == 0:
                ref["namespace"] = "other"
            return route(
                which, ref, "c", parents=[{"name": NAMES[choice % 2]}, {"name": "b"}], hostnames=["a.example"][: choice % 2]
            )
        case 2:
            return service(which, 80, *([81] if choice % 2 else []), namespace=["default", "other"][choice % 2])
        case 3:
            return slice_(
                which,
                *(f"10.0.0.{n}" for n in range(choice % 4)),
                ready=choice % 5 != 4,
                namespace=["default", "other"][choice % 2],
            )
        case 4:
            spec = {
                "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default"}],
                "to": [{"group": "", "kind": "Service"}],
            }
            return obj("ReferenceGrant", which, "other", spec)
        case 6 if choice % 3 == 0:
            return obj("RateLimit", which, spec={"requests": choice + 1})
        case 6:
            ref = {"kind": "RateLimit", "name": other}
            targets = [{"name": NAMES[choice % 2], "port": 80}] if choice % 4 else [{"name": "b"}]
            aspect = ["Listener", "Route"][choice % 2]
            spec = {"type": "RateLimit", "configRef": ref, "targetRefs": targets, "aspect": aspect, "priority": choice % 2}
            return obj("ListenerFilter", which, spec=spec)
        case 7:
            kind_of_target = ["Gateway", "HTTPRoute"][choice % 2]
            config = {"requests": choice + 1, "statTimeWindow": 1, **({"mode": "Global"} if choice % 5 == 0 else {})}
            spec = {"targetRef": {"kind": kind_of_target, "name": other}, "config": config}
            if choice % 3 == 1:
                spec["hostnames"] = [{"hostname": "a.example"}]
            return obj("RateLimitPolicy", which, spec=spec)
        case 8:
            config = (
                {"retryOn": ["503"]} if choice % 2 else {"minRequestAmount": 1, "statTimeWindow": 1, "degradedTimeWindow": 1}
            )
            name = "RetryPolicy" if choice % 2 else "CircuitBreakingPolicy"
            return obj(name, which, spec={"targetRef": {"kind": "Service", "name": other}, "config": config})
        case _:
            return gateway_class(controller=["flomesh.io/gateway-controller", "example.com/other"][choice % 2])


steps = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from(NAMES), st.integers(0, 11), st.booleans()), min_size=1, max_size=25
)


@settings(max_examples=150, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_remembering_changes_nothing(changes: list[tuple[int, str, int, bool]], dice: random.Random) -> None:
    """After any changes in any batches, the translator holds what a fresh one would; updates add up to it."""
    made = World()
    translator = Translator(made)
    told: dict[tuple[str, str], dict] = {}
    for kind, which, choice, drop in changes:
        one = some(kind, which, choice)
        made.drop(one.ref) if drop else made.put(one)
        if dice.random() < 0.5:
            continue
        for where, parts in translator.update().parts.items():
            for key, part in parts.items():
                told.setdefault(where, {})[key] = part
    for where, parts in translator.update().parts.items():
        for key, part in parts.items():
            told.setdefault(where, {})[key] = part
    fresh = World()
    for one in made:
        fresh.put(one)
    expected = translate(fresh)
    assert translator.parts == expected.parts
    assert translator.statuses == expected.statuses
    added_up = {where: {k: p for k, p in parts.items() if p is not None} for where, parts in told.items()}
    assert {where: parts for where, parts in added_up.items() if parts} == expected.parts


@pytest.mark.parametrize(
    ("kind", "spec", "store", "said"),
    [
        (
            "ExternalRateLimit",
            {"throttleHost": "127.0.0.1:9091"},
            None,
            'spec.throttleHost: "127.0.0.1:9091" is the data plane',
        ),
        ("ExternalRateLimit", {"throttleHost": "[::1]:9091"}, None, "is the data plane itself"),
        ("HTTPLog", {"target": "http://localhost:9091/"}, None, "is the data plane itself"),
        ("HTTPLog", {"target": "http://169.254.169.254/"}, None, "is the data plane itself"),
        ("RateLimit", {}, {"host": "127.0.0.1"}, 'spec.store.host: "127.0.0.1" is the data plane itself'),
        ("HTTPLog", {"target": "http://logs.default/"}, None, ""),
    ],
)
def test_filters_do_not_lead_to_the_data_plane_itself(kind: str, spec: dict, store: dict | None, said: str) -> None:
    given = {"type": kind, "configRef": {"kind": kind, "name": "f"}, **({"store": store} if store else {})}
    made = world(obj(kind, "f", spec=spec), obj("Filter", "f", spec=given))
    (condition,) = translate(made).statuses[Ref("Filter", "default", "f")].conditions
    assert (said in condition.message, condition.is_true) == (True, not said)


@pytest.mark.parametrize("routes", [5, 2000])
def test_a_change_costs_what_changed(routes: int) -> None:
    """One route edited, one slice rewritten: as many values worked out among 2,000 routes as among 5."""
    made = world(gateway(), *(service(f"s{n}") for n in range(routes)), *(slice_(f"s{n}", "10.0.0.1") for n in range(routes)))
    for number in range(routes):
        made.put(route(f"r{number}", f"s{number}", hostnames=[f"h{number}.example"]))
    translator = Translator(made)
    translator.update()
    before = translator.view.computed
    made.put(route("r1", {"name": "s1", "port": 80, "weight": 7}, hostnames=["h1.example"]))
    update = translator.update()
    assert [list(parts) for parts in update.parts.values()] == [[("rule", "default/r1/0")]]
    assert translator.view.computed - before == 1
    before = translator.view.computed
    made.put(slice_("s2", "10.0.0.9"))
    update = translator.update()
    assert [list(parts) for parts in update.parts.values()] == [[("backend", "default/s2:80")]]
    assert translator.view.computed - before == 1
    assert not update.statuses


def test_what_is_gone_is_forgotten() -> None:
    made = world(gateway(), service("s"), slice_("s", "10.0.0.1"), route("r", "s"))
    translator = Translator(made)
    translator.update()
    cells = len(translator.view._cells)
    for number in range(50):
        made.put(route(f"extra{number}", "s"))
        translator.update()
        made.drop(Ref("HTTPRoute", "default", f"extra{number}"))
        translator.update()
    assert len(translator.view._cells) == cells


def test_older_routes_win_wherever_they_stand() -> None:
    made = world(
        gateway(), service("s"),
        route("young", "s", created="2024-01-02T00:00:00Z"), route("old", "s", created="2024-01-01T00:00:00Z"),
        route("b", "s", created="2024-01-03T00:00:00Z"), route("a", "s", created="2024-01-03T00:00:00Z"),
    )  # fmt: skip
    (parts,) = translate(made).parts.values()
    rules = sorted((part for part in parts.values() if isinstance(part, Rule)), key=lambda rule: rule.order)
    assert [rule.name for rule in rules] == ["default/old/0", "default/young/0", "default/a/0", "default/b/0"]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"ready": True}, ["10.0.0.1"]),
        ({}, ["10.0.0.1"]),
        ({"ready": False}, []),
        ({"ready": False, "serving": True, "terminating": True}, ["10.0.0.1"]),
        ({"ready": False, "serving": False, "terminating": True}, []),
        ({"ready": False, "serving": True}, []),
    ],
)
def test_endpoints_by_readiness(conditions: dict[str, bool], expected: list[str]) -> None:
    made = world(gateway(), service("s"), slice_("s", "10.0.0.1", **conditions), route("r", "s"))
    (parts,) = translate(made).parts.values()
    assert [e.address for e in parts["backend", "default/s:80"].endpoints] == expected


def test_terminating_endpoints_only_where_none_is_ready() -> None:
    leaving = obj(
        "EndpointSlice", "s-2", metadata={"labels": {"kubernetes.io/service-name": "s"}}, ports=[{"name": "p80", "port": 8080}],
        endpoints=[{"addresses": ["10.0.0.2"], "conditions": {"ready": False, "serving": True, "terminating": True}}],
    )  # fmt: skip
    made = world(gateway(), service("s"), slice_("s", "10.0.0.1"), leaving, route("r", "s"))
    (parts,) = translate(made).parts.values()
    assert [e.address for e in parts["backend", "default/s:80"].endpoints] == ["10.0.0.1"]


def test_a_policy_that_shows_a_certificate_has_one() -> None:
    """UpstreamTLSPolicy with mTLS: certificate and key beside the authority, or nothing is sent."""
    authority = trustme.CA()
    mine = authority.issue_cert("gateway.internal")
    whole = {
        "ca.crt": authority.cert_pem.bytes().decode(),
        "tls.crt": b"".join(one.bytes() for one in mine.cert_chain_pems).decode(),
        "tls.key": mine.private_key_pem.bytes().decode(),
    }
    config = {"certificateRef": {"name": "mine"}, "mTLS": True}
    policy = obj("UpstreamTLSPolicy", "p", spec={"targetRef": {"kind": "Service", "name": "a"}, "config": config})
    base = (gateway_class(), gateway(), route("r", "a"), service("a"), slice_("a", "10.0.0.1"), policy)
    made = translate(world(*base, obj("Secret", "mine", stringData=whole)))
    backend = made.parts["default", "gw"]["backend", "default/a:80"]
    assert isinstance(backend, Backend)
    assert backend.tls is not None
    assert backend.tls.own is not None
    assert backend.tls.own.key == whole["tls.key"]
    assert backend.endpoints
    lacking = translate(world(*base, obj("Secret", "mine", stringData={"ca.crt": whole["ca.crt"]})))
    backend = lacking.parts["default", "gw"]["backend", "default/a:80"]
    assert isinstance(backend, Backend)
    assert not backend.endpoints
    accepted, closing = lacking.statuses[policy.ref].conditions
    assert (closing.type, closing.status) == ("FailingClosed", "True")
    assert 'spec.config.mTLS: Secret "default/mine" lacks tls.crt or tls.key' in accepted.message


@pytest.mark.parametrize(
    ("name", "is_editable"),
    [
        ("X-User", True),
        ("X_User", True),
        ("Content-Length", False),
        ("Content_Length", False),
        ("transfer.encoding", False),
        ("HOST", False),
    ],
)
def test_a_filter_frames_no_message(name: str, is_editable: bool) -> None:
    """Nor does it write what many backends take for framing."""
    for edit in (
        HeaderFilter(set=(NameValue(name, "1"),)),
        HeaderFilter(add=(NameValue(name, "1"),)),
        HeaderFilter(remove=(name,)),
    ):
        said = list(faults((HTTPFilter("RequestHeaderModifier", edit),)))
        assert said == (
            [] if is_editable else [f'filters[0].requestHeaderModifier: "{name}" frames the message and cannot be edited']
        )
