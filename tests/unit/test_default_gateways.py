"""Default Gateways (GEP-3793): what a change of one costs, what is said of it, and that words for it are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.objects import gateway, obj, route, service, slice_, world
from support.stage import Stage
from support.statuses import NOW

from controller.cli.validate import LoadedFiles
from controller.inspect.explain import Asked, explain
from controller.inspect.status_report import described
from controller.kubernetes.status_writer import MAX_PARENTS, merged
from controller.objects.base import Ref
from controller.objects.kinds import AnyObject
from controller.objects.routes import ROUTES
from controller.translate import Translator, translate
from controller.translate.routes import routes
from controller.translate.shared.status import GatewayStatus, RouteStatus

LISTENERS = (
    {"name": "http", "port": 80, "protocol": "HTTP"},
    {"name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
    {"name": "tcp", "port": 9000, "protocol": "TCP"},
    {"name": "udp", "port": 9000, "protocol": "UDP"},
)


def by_default(name: str, kind: str = "HTTPRoute", scope: str = "All", **spec: Any) -> AnyObject:
    backend = {"name": "s", "port": 53 if kind == "UDPRoute" else 80}
    return obj(kind, name, spec={"useDefaultGateways": scope, "rules": [{"backendRefs": [backend]}], **spec})


def taken(status: Any) -> dict[str, str]:
    """By Gateway: what Accepted says of a route."""
    assert isinstance(status, RouteStatus)
    return {f"{one.parent.namespace}/{one.parent.name}": one.conditions[0].reason for one in status.parents}


def told(status: Any) -> list[str]:
    assert isinstance(status, GatewayStatus)
    return [one.message for one in status.conditions if one.type == "DefaultGateway"]


@pytest.mark.parametrize("kind", ROUTES)
def test_every_kind_follows_the_scope_as_it_comes_and_goes(kind: str) -> None:
    ports = [{"port": 80, "name": "p80"}, {"port": 53, "name": "dns", "protocol": "UDP"}]
    made = world(gateway("gw", *LISTENERS), obj("Service", "s", spec={"ports": ports}), by_default("r", kind))
    ref = Ref(kind, "default", "r")
    translator = Translator(made)
    translator.update()
    assert ref not in translator.statuses  # no Gateway has the scope: it is as if nothing had been asked for
    assert not told(translator.statuses[Ref("Gateway", "default", "gw")])

    made.put(gateway("gw", *LISTENERS, defaultScope="All"))
    update = translator.update()
    assert taken(update.statuses[ref]) == {"default/gw": "Accepted"}
    assert told(update.statuses[Ref("Gateway", "default", "gw")]) == ["Gateway has default scope All."]
    listeners = translator.statuses[Ref("Gateway", "default", "gw")].listeners  # type: ignore[union-attr]
    assert sum(one.attached for one in listeners) == 1
    stands = merged({}, update.statuses[ref], NOW)
    assert [one["parentRef"] for one in stands["parents"]] == [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "default", "name": "gw"}
    ]

    made.put(gateway("gw", *LISTENERS, defaultScope="None"))
    update = translator.update()
    assert update.statuses[ref] is None
    assert merged(stands, update.statuses[ref], NOW) == {"parents": []}
    assert not told(translator.statuses[Ref("Gateway", "default", "gw")])
    assert not [key for key in translator.parts["default", "gw"] if key[0] in ("rule", "relay")]

    made.put(gateway("gw", *LISTENERS, defaultScope="All"))
    translator.update()
    assert ref in translator.statuses
    made.drop(Ref("Gateway", "default", "gw"))
    assert translator.update().statuses[ref] is None


def test_a_scope_costs_the_routes_that_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that name the Gateway, nor those of other Gateways."""
    others = [route(f"named{n}", "s") for n in range(50)] + [
        route(f"other{n}", "s", parents=[{"name": "b"}]) for n in range(50)
    ]
    made = world(gateway(), gateway("b"), service("s"), slice_("s", "10.0.0.1"), *others, by_default("one"), by_default("two"))
    translator = Translator(made)
    translator.update()
    asked: list[str] = []
    real = routes._parents
    monkeypatch.setattr(routes, "_parents", lambda view, found: (asked.append(found.metadata.name), real(view, found))[1])
    for change in (
        lambda: made.put(gateway(defaultScope="All")),
        lambda: made.put(gateway("c", defaultScope="All")),
        lambda: made.put(gateway()),
        lambda: made.drop(Ref("Gateway", "default", "c")),
    ):
        asked.clear()
        change()
        update = translator.update()
        assert sorted(asked) == ["one", "two"]
        assert {ref.name for ref in update.statuses if ref.kind == "HTTPRoute"} == {"one", "two"}
    asked.clear()
    made.put(gateway("c"))  # one without a scope concerns none of them
    translator.update()
    assert not asked


@pytest.mark.parametrize(
    ("parents", "expected"),
    [
        ([], {"default/a": 1, "default/b": 1}),
        ([{"name": "a"}], {"None/a": 1, "default/b": 1}),
        ([{"name": "a", "namespace": "default"}], {"default/a": 1, "default/b": 1}),
        ([{"name": "a", "sectionName": "http"}], {"None/a": 1, "default/a": 1, "default/b": 1}),
        ([{"name": "a", "port": 80}], {"None/a": 1, "default/a": 1, "default/b": 1}),
        ([{"name": "missing"}], {"default/a": 1, "default/b": 1}),
        ([{"kind": "Service", "group": "", "name": "a"}], {"default/a": 1, "default/b": 1}),
    ],
)
def test_beside_parents_that_are_named(parents: list[dict[str, Any]], expected: dict[str, int]) -> None:
    made = world(gateway("a", defaultScope="All"), gateway("b", defaultScope="All"), by_default("r", parentRefs=parents))
    statuses = translate(made).statuses
    said, gateway_said = statuses[Ref("HTTPRoute", "default", "r")], statuses[Ref("Gateway", "default", "a")]
    assert isinstance(said, RouteStatus)
    assert isinstance(gateway_said, GatewayStatus)
    names = [f"{one.parent.namespace}/{one.parent.name}" for one in said.parents]
    assert {name: names.count(name) for name in names} == expected
    assert gateway_said.listeners[0].attached == 1  # by whichever way it is attached


def test_allowed_routes_decide_as_they_do_for_routes_that_name_it() -> None:
    made = world(gateway(namespace="other", defaultScope="All"), by_default("r"))
    said = translate(made)
    assert taken(said.statuses[Ref("HTTPRoute", "default", "r")]) == {"other/gw": "NotAllowedByListeners"}
    assert not [key for key in said.parts["other", "gw"] if key[0] == "rule"]


def test_a_status_has_room_for_32_parents() -> None:
    many = [gateway(f"gw{n:02}", defaultScope="All") for n in range(40)]
    ref = Ref("HTTPRoute", "default", "r")
    status = translate(world(*many, by_default("r", parentRefs=[{"name": "gw39"}]))).statuses[ref]
    written = merged({"parents": []}, status, NOW)["parents"]
    assert len(taken(status)) == 40
    assert len(written) == MAX_PARENTS == 32
    assert written[0]["parentRef"]["name"] == "gw39"  # what it names is said first


def test_values_that_are_not_known_are_refused() -> None:
    """The CRDs refuse them; those of another version may not."""
    made = translate(world(gateway(), by_default("r", scope="Some", parentRefs=[{"name": "gw"}])))
    status = made.statuses[Ref("HTTPRoute", "default", "r")]
    assert isinstance(status, RouteStatus)
    accepted = status.parents[0].conditions[0]
    assert (accepted.status, accepted.reason) == ("False", "UnsupportedValue")
    assert accepted.message == 'spec.useDefaultGateways: found "Some"; All and None are known.'
    assert not [key for key in made.parts["default", "gw"] if key[0] == "rule"]

    made = translate(world(gateway(defaultScope="Some"), by_default("r")))
    said = made.statuses[Ref("Gateway", "default", "gw")]
    assert isinstance(said, GatewayStatus)
    assert (said.conditions[0].status, said.conditions[0].reason) == ("False", "Invalid")
    assert said.conditions[0].message == 'spec.defaultScope: found "Some"; All and None are known.'
    assert not told(said)
    assert Ref("HTTPRoute", "default", "r") not in made.statuses


GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: fsm-gateway-cls}
spec: {controllerName: flomesh.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: fsm-gateway-cls, listeners: [{name: http, port: 80, protocol: HTTP}]%s}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec: {%srules: [{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301}}]}]}
"""
NOWHERE = "spec.parentRefs: names no Gateway; Gateways here: gw"


@pytest.mark.parametrize(
    ("scope", "asked", "words"),
    [
        (", defaultScope: All", "useDefaultGateways: All, ", ""),
        (", defaultScope: All", "", NOWHERE),
        (", defaultScope: All", "useDefaultGateways: None, ", NOWHERE),
        ("", "useDefaultGateways: All, ", 'spec.useDefaultGateways: found "All", and no Gateway has defaultScope: All; Gateways here: gw'),
        (", defaultScope: Most", "", 'spec.defaultScope: "Most" is not one of "All" or "None"'),
        (", defaultScope: All", "useDefaultGateways: [All], ", 'spec.useDefaultGateways: ["All"] is not one of "All" or "None"'),
    ],
)  # fmt: skip
def test_validate_says_why_a_route_is_nowhere(tmp_path: Path, scope: str, asked: str, words: str) -> None:
    (tmp_path / "all.yaml").write_text(GATEWAY % (scope, asked))
    found = [": ".join(part for part in (one.field, one.message) if part) for one in LoadedFiles(tmp_path).faults()]
    assert (words in found) if words else (found == [])


async def test_statuses_on_a_cluster_come_and_go_with_the_scope() -> None:
    """Entries of routes, and the Gateway's condition, as the controller writes them; nobody writes parentRefs."""
    stage = Stage(None)
    server = stage.server

    def gateway_at(name: str, generation: int, **spec: Any) -> dict[str, Any]:
        listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
        return {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": name, "namespace": "default", "generation": generation},
            "spec": {"gatewayClassName": "fsm-gateway-cls", "listeners": listeners, **spec},
        }  # fmt: skip

    def parents() -> list[str]:
        found = server.find("httproutes", "default", "r")
        assert found is not None
        assert "parentRefs" not in found["spec"]
        return [one["parentRef"]["name"] for one in found.get("status", {}).get("parents", ())]

    def is_told(name: str) -> bool:
        said = (server.find("gateways", "default", name) or {}).get("status", {}).get("conditions", ())
        return any((one["type"], one["status"]) == ("DefaultGateway", "True") for one in said)

    spec = {"useDefaultGateways": "All", "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]}
    async with stage.running():
        meta = {"name": "r", "namespace": "default", "generation": 1}
        server.put(
            "httproutes", {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta, "spec": spec}
        )
        server.put("gateways", gateway_at("a", 1, defaultScope="All"))
        await stage.until(lambda: parents() == ["a"] and is_told("a"))
        server.put("gateways", gateway_at("b", 1, defaultScope="All"))
        await stage.until(lambda: parents() == ["a", "b"] and is_told("b"))
        server.put("gateways", gateway_at("a", 2))
        await stage.until(lambda: parents() == ["b"] and not is_told("a"))
        server.drop("gateway.networking.k8s.io", "gateways", "default", "b")
        await stage.until(lambda: parents() == [])


@pytest.mark.parametrize(("scope", "status"), [(", defaultScope: All", 301), ("", 404)])
def test_explain_and_status_know_it(tmp_path: Path, scope: str, status: int) -> None:
    (tmp_path / "all.yaml").write_text(GATEWAY % (scope, "useDefaultGateways: All, "))
    made = LoadedFiles(tmp_path).translation
    assert explain(made.parts["default", "gw"].values(), Asked("http://a.example/")).status == status
    entries = {entry["object"] for entry in described(made.statuses, {})}
    assert ("HTTPRoute default/r on gw" in entries) == (status == 301)
