"""Every field that protects × every protocol and mode: it is enforced, or refused with a reason. Nothing is passed over in silence.

The table says which; `tests/proxy/test_protected.py` tries each mechanism over real connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import pytest
from support.objects import obj
from support.refusals import HOME, made, pem, said_of, slices, world

from controller.objects.kinds import AnyObject
from controller.translate import Translation, translate
from gateway import snapshot

PORT = 7000
CERT = {"certificateRefs": [{"name": "cert"}]}
CA = [{"group": "", "kind": "ConfigMap", "name": "ca"}]


class Spot(NamedTuple):
    """A listener, and the kind of route that it carries."""

    listener: dict[str, Any]
    route: str
    set: bool = False  # in a ListenerSet
    beside: dict[str, Any] | None = None  # another listener at the same port


SPOTS = {
    "HTTP": Spot({"protocol": "HTTP"}, "HTTPRoute"),
    "HTTPS": Spot({"protocol": "HTTPS", "tls": CERT}, "HTTPRoute"),
    "HTTPS, gRPC": Spot({"protocol": "HTTPS", "tls": CERT}, "GRPCRoute"),
    "TLS terminated": Spot({"protocol": "TLS", "tls": {"mode": "Terminate", **CERT}}, "TLSRoute"),
    "TLS passed on": Spot({"protocol": "TLS", "tls": {"mode": "Passthrough"}}, "TLSRoute"),
    "TCP": Spot({"protocol": "TCP"}, "TCPRoute"),
    "UDP": Spot({"protocol": "UDP"}, "UDPRoute"),
    "HTTPS of a set": Spot({"protocol": "HTTPS", "tls": CERT}, "HTTPRoute", set=True),
    "TLS of a set": Spot({"protocol": "TLS", "tls": {"mode": "Terminate", **CERT}}, "TLSRoute", set=True),
    "TLS beside HTTPS": Spot(
        {"protocol": "TLS", "hostname": "a.example", "tls": {"mode": "Terminate", **CERT}}, "TLSRoute",
        beside={"protocol": "HTTPS", "hostname": "b.example", "tls": CERT},
    ),
    "HTTPS beside TLS": Spot(
        {"protocol": "HTTPS", "hostname": "a.example", "tls": CERT}, "HTTPRoute",
        beside={"protocol": "TLS", "hostname": "b.example", "tls": {"mode": "Passthrough"}},
    ),
}  # fmt: skip


class Scene:
    """The objects of one cell."""

    def __init__(self, spot: Spot) -> None:
        self.spot = spot
        self.listener: dict[str, Any] = {"name": "x", "port": PORT, **deepcopy(spot.listener)}
        self.gateway: dict[str, Any] = {"gatewayClassName": "fsm-gateway-cls"}
        self.annotations: dict[str, str] = {}
        number = 53 if spot.route == "UDPRoute" else 80
        self.rule: dict[str, Any] = {"backendRefs": [{"name": "app", "port": number}]}
        self.route: dict[str, Any] = {}
        self.more: list[AnyObject] = []

    def add(self, kind: str, spec: Any, name: str = "subject") -> None:
        self.more.append(made(kind, name, spec))

    def translated(self) -> Translation:
        ca, chain, key = pem()
        beside = [{"name": "y", "port": PORT, **self.spot.beside}] if self.spot.beside else []
        own = [{"name": "z", "port": 1, "protocol": "TCP"}] if self.spot.set else [self.listener, *beside]
        listeners = {"listeners": own, "allowedListeners": {"namespaces": {"from": "Same"}}}
        parent = {"kind": "ListenerSet" if self.spot.set else "Gateway", "name": "gw", "sectionName": "x"}
        objects: list[AnyObject] = [
            obj("GatewayClass", "fsm-gateway-cls", spec={"controllerName": "flomesh.io/gateway-controller"}),
            made("Gateway", "gw", {**self.gateway, **listeners}),
            obj("Service", "app", HOME, {"ports": [{"name": "p", "port": 80}, {"name": "u", "port": 53, "protocol": "UDP"}]}),
            obj("Service", "helper", HOME, {"ports": [{"name": "p", "port": 80}]}),
            slices("app", HOME), slices("helper", HOME),
            obj("Secret", "cert", HOME, type="kubernetes.io/tls", stringData={"tls.crt": chain, "tls.key": key, "ca.crt": ca}),
            obj("ConfigMap", "ca", HOME, data={"ca.crt": ca}),
            obj("IPRestriction", "ips", HOME, {"allowed": ["10.0.0.0/8"]}),
            obj("Filter", "f", HOME, {"type": "IPRestriction", "configRef": {"kind": "IPRestriction", "name": "ips"}}),
            made(self.spot.route, "r", {"parentRefs": [parent], "rules": [self.rule], **self.route}),
            *self.more,
        ]  # fmt: skip
        if self.annotations:
            objects[1] = obj("Gateway", "gw", HOME, {**self.gateway, **listeners}, metadata={"annotations": self.annotations})
        if self.spot.set:
            objects.append(made("ListenerSet", "gw", {"parentRef": {"name": "gw"}, "listeners": [self.listener]}))
        return translate(world(objects))


class Found:
    """What came of a cell."""

    def __init__(self, scene: Scene) -> None:
        self.translation = scene.translated()
        assert not self.translation.failing
        self.parts = self.translation.parts.get((HOME, "gw"), {})
        self.listener = next((one for one in self._of(snapshot.Listener) if one.name.endswith("/x")), None)
        here = [one for one in (*self._of(snapshot.Rule), *self._of(snapshot.Relay)) if not one.name.startswith("listener/")]
        self.rules = here
        self.said = {
            ref: list(said_of(self.translation, ref)) + self._of_listeners(ref)
            for ref in self.translation.statuses
        }  # fmt: skip

    def _of(self, type_: type[Any]) -> list[Any]:
        return [one for one in self.parts.values() if isinstance(one, type_)]

    def _of_listeners(self, ref: Any) -> list[Any]:
        listeners = getattr(self.translation.statuses[ref], "listeners", ())
        return [one for listener in listeners if listener.name == "x" for one in listener.conditions]

    def has_script(self, built_in: str) -> bool:
        """Whether every rule passes a filter of a type, that is there."""
        scripts = {one.name for one in self._of(snapshot.Script) if one.built_in == built_in}
        return bool(self.rules) and all(
            any(isinstance(f, snapshot.Scripted) and f.script in scripts for f in rule.filters) for rule in self.rules
        )

    def meets(self, built_in: str) -> bool:
        """Whether connections meet such a filter at the port."""
        scripts = {one.name for one in self._of(snapshot.Script) if one.built_in == built_in}
        return self.listener is not None and any(one.script in scripts for one in self.listener.filters)

    def backend_over_tls(self, name: str = "app") -> bool:
        found = [one for one in self._of(snapshot.Backend) if one.name.startswith(f"{HOME}/{name}")]
        return bool(found) and all(one.tls is not None for one in found)

    def outcome(self, is_enforced: bool, about: str) -> str:
        """As the table has it: enforced; or what was said of the object, or of the listener."""
        if is_enforced:
            return "enforced"
        told = [
            one for ref, several in self.said.items() for one in several
            if ref.kind in (about, "Gateway", "ListenerSet", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")
        ]  # fmt: skip
        words = [f"{one.reason}: {one.message}" for one in told if one.type in ("Accepted", "ResolvedRefs") and not one.is_true]
        return " ".join(words) or "told: " + " ".join(one.message for one in told if one.type == "Accepted")


# --- fields ---

Field = Callable[[Scene], tuple[Callable[[Found], bool], str]]


def clients(found: Found) -> bool:
    return found.listener is not None and found.listener.clients is not None and not found.listener.clients.optional


def frontend_default(scene: Scene) -> tuple[Callable[[Found], bool], str]:
    scene.gateway["tls"] = {"frontend": {"default": {"validation": {"caCertificateRefs": CA}}}}
    return clients, "Gateway"


def frontend_per_port(scene: Scene) -> tuple[Callable[[Found], bool], str]:
    per_port = [{"port": PORT, "tls": {"validation": {"caCertificateRefs": CA}}}]
    scene.gateway["tls"] = {"frontend": {"default": {}, "perPort": per_port}}
    return clients, "Gateway"


def target(kind: str, name: str) -> dict[str, Any]:
    return {"group": "" if kind == "Service" else "gateway.networking.k8s.io", "kind": kind, "name": name}


def gateway_policy(kind: str, config: Any, check: Callable[[Found], bool], *, at_port: bool) -> Field:
    def field(scene: Scene) -> tuple[Callable[[Found], bool], str]:
        said = {"ports": [{"port": PORT, **config}]} if at_port else config
        scene.add(kind, {"targetRef": target("Gateway", "gw"), **said})
        return check, kind

    return field


def tls_option(name: str, value: str, check: Callable[[Found], bool]) -> Field:
    def field(scene: Scene) -> tuple[Callable[[Found], bool], str]:
        scene.listener.setdefault("tls", {})["options"] = {f"gateway.flomesh.io/{name}": value}
        return check, "Gateway"

    return field


def listener_filter(aspect: str) -> Field:
    def field(scene: Scene) -> tuple[Callable[[Found], bool], str]:
        given = {"type": "IPRestriction", "configRef": {"kind": "IPRestriction", "name": "ips"}}
        scene.add("ListenerFilter", {**given, "aspect": aspect, "targetRefs": [{"name": "gw", "port": PORT}]})
        return lambda found: found.meets("IPRestriction") or found.has_script("IPRestriction"), "ListenerFilter"

    return field


def external_auth_of_listener(scene: Scene) -> tuple[Callable[[Found], bool], str]:
    scene.listener["filters"] = {
        "requests": [
            {"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": {"name": "helper", "port": 80}}}
        ]
    }
    return (
        lambda found: (
            all(any(isinstance(f, snapshot.ExternalAuth) for f in rule.filters) for rule in found.rules) and bool(found.rules)
        ),
        "Gateway",
    )


def limits(scene: Scene) -> tuple[Callable[[Found], bool], str]:
    scene.annotations["gateway.flomesh.io/limits"] = "{connectionsPerAddress: 3, connections: 7}"
    return (
        lambda found: (
            found.listener is not None
            and (found.listener.limits.connections, found.listener.limits.connections_per_address) == (7, 3)
        )
    ), "Gateway"


def backend_tls(kind: str) -> Field:
    def field(scene: Scene) -> tuple[Callable[[Found], bool], str]:
        if kind == "BackendTLSPolicy":
            scene.add(
                kind, {"targetRefs": [target("Service", "app")], "validation": {"hostname": "app", "caCertificateRefs": CA}}
            )
        else:
            scene.add(kind, {"targetRef": target("Service", "app"), "config": {"certificateRef": {"name": "cert"}}})
        return lambda found: found.backend_over_tls(), kind

    return field


def helper_over_tls(filter_: dict[str, Any]) -> Field:
    """TLS towards the backend of a filter: a mirror, or who is asked whether a request may pass."""

    def field(scene: Scene) -> tuple[Callable[[Found], bool], str]:
        scene.add(
            "UpstreamTLSPolicy", {"targetRef": target("Service", "helper"), "config": {"certificateRef": {"name": "cert"}}}
        )
        scene.rule["filters"] = [filter_]
        return lambda found: found.backend_over_tls("helper"), "UpstreamTLSPolicy"

    return field


def allowed_routes(scene: Scene) -> tuple[Callable[[Found], bool], str]:
    scene.listener["allowedRoutes"] = {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"x": "y"}}}}
    return (
        lambda found: (
            not found.rules and any(one.reason == "NotAllowedByListeners" for several in found.said.values() for one in several)
        ),
        "Gateway",
    )


def hostname(scene: Scene) -> tuple[Callable[[Found], bool], str]:
    scene.listener["hostname"] = "a.example"
    return (
        lambda found: bool(found.rules) and all(at.hostname == "a.example" for one in found.rules for at in one.at),
        "Gateway",
    )


def route_policy(kind: str, config: Any, built_in: str) -> Field:
    def field(scene: Scene) -> tuple[Callable[[Found], bool], str]:
        scene.add(kind, {"targetRef": target(scene.spot.route, "r"), **config})
        return lambda found: found.has_script(built_in), kind

    return field


def circuit_breaking(scene: Scene) -> tuple[Callable[[Found], bool], str]:
    config = {"minRequestAmount": 1, "statTimeWindow": 1, "degradedTimeWindow": 1, "errorAmountThreshold": 1}
    scene.add("CircuitBreakingPolicy", {"targetRef": target("Service", "app"), "config": config})
    return lambda found: bool(found.rules) and all(
        any(isinstance(f, snapshot.Scripted) for f in one.filters)
        for rule in found.rules if isinstance(rule, snapshot.Rule) for one in rule.targets
    ) and isinstance(found.rules[0], snapshot.Rule), "CircuitBreakingPolicy"  # fmt: skip


def rule_filter_policy(scene: Scene) -> tuple[Callable[[Found], bool], str]:
    refs = [{"group": "gateway.networking.k8s.io", "kind": scene.spot.route, "name": "r"}]
    scene.add("RouteRuleFilterPolicy", {"targetRefs": refs, "filterRefs": [{"name": "f"}]})
    return lambda found: found.has_script("IPRestriction"), "RouteRuleFilterPolicy"


def extension_ref(scene: Scene) -> tuple[Callable[[Found], bool], str]:
    scene.rule["filters"] = [
        {"type": "ExtensionRef", "extensionRef": {"group": "extension.gateway.flomesh.io", "kind": "Filter", "name": "f"}}
    ]
    return lambda found: found.has_script("IPRestriction"), "HTTPRoute"


ADDRESSES = {"config": {"whitelist": ["10.0.0.0/8"]}}
RATE = {"config": {"requests": 5, "statTimeWindow": 1}}
AUTH = {"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": {"name": "helper", "port": 80}}}
MIRROR = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "helper", "port": 80}}}
TERMINATED = (
    "HTTPS",
    "HTTPS, gRPC",
    "TLS terminated",
    "HTTPS of a set",
    "TLS of a set",
    "TLS beside HTTPS",
    "HTTPS beside TLS",
)
REQUESTS = ("HTTP", "HTTPS", "HTTPS, gRPC", "HTTPS of a set", "HTTPS beside TLS")
HTTP_ROUTES = ("HTTP", "HTTPS", "HTTPS of a set", "HTTPS beside TLS")
EVERYWHERE = tuple(SPOTS)


def rows(enforced: tuple[str, ...], **others: str) -> dict[str, str]:
    """Where a field is enforced, and what is said elsewhere; `elsewhere` of all that is not named."""
    named = {name.replace("_", " "): words for name, words in others.items()}
    return {spot: "enforced" if spot in enforced else named.get(spot, named.get("elsewhere", "?")) for spot in SPOTS}


NO_TLS = "is for listeners that terminate TLS"
NOT_TERMINATED = "TLS is not terminated"
TABLE: dict[str, tuple[Field, dict[str, str]]] = {
    # Validations, the default and those of a port, are for listeners that terminate TLS and leave others as they are (GEP-91): these are told.
    "frontend.default": (frontend_default, rows(TERMINATED, elsewhere=f"told: Gateway is accepted. Listener is accepted. The Gateway's spec.tls.frontend {NO_TLS}")),
    "frontend.perPort": (frontend_per_port, rows(TERMINATED, elsewhere=f"told: Gateway is accepted. Listener is accepted. The Gateway's spec.tls.frontend {NO_TLS}")),
    "GatewayTLSPolicy": (gateway_policy("GatewayTLSPolicy", {"config": {"mTLS": True}}, clients, at_port=False), rows(TERMINATED, elsewhere=NOT_TERMINATED)),
    "GatewayTLSPolicy, ports": (gateway_policy("GatewayTLSPolicy", {"config": {"mTLS": True}}, clients, at_port=True), rows(TERMINATED, elsewhere=NOT_TERMINATED)),
    "minimum version": (tls_option("minimum-tls-version", "1.3", lambda f: f.listener is not None and f.listener.minimum == "1.3"), rows(TERMINATED, TLS_passed_on="they cannot be held to here", elsewhere="is in the clear")),
    "cipher suites": (
        tls_option("cipher-suites", "ECDHE-RSA-AES256-GCM-SHA384", lambda f: f.listener is not None and bool(f.listener.ciphers)),
        rows(tuple(one for one in TERMINATED if one != "TLS beside HTTPS"), TLS_beside_HTTPS="enforced", TLS_passed_on="they cannot be held to here", elsewhere="is in the clear"),
    ),
    "AccessControlPolicy": (gateway_policy("AccessControlPolicy", ADDRESSES, lambda f: f.has_script("IPRestriction"), at_port=False), rows(EVERYWHERE)),
    "AccessControlPolicy, ports": (gateway_policy("AccessControlPolicy", ADDRESSES, lambda f: f.has_script("IPRestriction"), at_port=True), rows(EVERYWHERE)),
    "AccessControlPolicy of a route": (route_policy("AccessControlPolicy", ADDRESSES, "IPRestriction"), rows(REQUESTS, elsewhere="cannot have a AccessControlPolicy")),
    "RateLimitPolicy": (gateway_policy("RateLimitPolicy", RATE, lambda f: f.has_script("RateLimit"), at_port=False), rows(REQUESTS, TLS_beside_HTTPS="told: .*no requests to limit at 7000 .TLS", elsewhere="there are no requests to limit")),
    "RateLimitPolicy, ports": (gateway_policy("RateLimitPolicy", RATE, lambda f: f.has_script("RateLimit"), at_port=True), rows(REQUESTS, TLS_beside_HTTPS="told: .*no requests to limit at 7000 .TLS", elsewhere="there are no requests to limit")),
    "RateLimitPolicy, bps": (gateway_policy("RateLimitPolicy", {"bps": 1000}, lambda f: f.has_script("ByteRate"), at_port=False), rows(EVERYWHERE)),
    "RateLimitPolicy, bps of ports": (gateway_policy("RateLimitPolicy", {"bps": 1000}, lambda f: f.has_script("ByteRate"), at_port=True), rows(EVERYWHERE)),
    "RateLimitPolicy of a route": (route_policy("RateLimitPolicy", RATE, "RateLimit"), rows(REQUESTS, elsewhere="cannot have a RateLimitPolicy")),
    "ListenerFilter": (listener_filter("Listener"), rows(EVERYWHERE)),
    "ListenerFilter for routes": (listener_filter("Route"), rows(EVERYWHERE)),
    "ExternalAuth of a listener": (external_auth_of_listener, rows(REQUESTS, elsewhere="has no requests; HTTP and HTTPS have")),
    "limits of connections": (limits, rows(EVERYWHERE)),
    "allowedRoutes": (allowed_routes, rows(EVERYWHERE)),
    "hostname": (hostname, rows(tuple(one for one in EVERYWHERE if one not in ("TCP", "UDP")), elsewhere="there are no names to tell connections by")),
    "UpstreamTLSPolicy": (backend_tls("UpstreamTLSPolicy"), rows(tuple(one for one in EVERYWHERE if one != "UDP"), UDP="is spoken to over TLS only")),
    "BackendTLSPolicy": (backend_tls("BackendTLSPolicy"), rows(tuple(one for one in EVERYWHERE if one != "UDP"), UDP="is spoken to over TLS only")),
    "TLS towards a mirror": (helper_over_tls(MIRROR), rows(REQUESTS)),
    "TLS towards who is asked": (helper_over_tls(AUTH), rows(REQUESTS)),
    "CircuitBreakingPolicy": (circuit_breaking, rows(REQUESTS, elsewhere="told: .*has no requests to count, and is never held back")),
    "RouteRuleFilterPolicy": (rule_filter_policy, rows(("TCP", "UDP"), elsewhere="cannot have one; TCPRoute and UDPRoute can")),
    "filters of rules": (extension_ref, rows(REQUESTS)),
}  # fmt: skip
# Fields that routes of streams do not have.
NOT_THERE = {
    (field, spot) for field in ("TLS towards a mirror", "TLS towards who is asked", "filters of rules") for spot in SPOTS if spot not in REQUESTS
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "spot"), [(field, spot) for field in TABLE for spot in SPOTS if (field, spot) not in NOT_THERE]
)
def test_matrix(field: str, spot: str) -> None:
    set_up, expected = TABLE[field]
    scene = Scene(SPOTS[spot])
    is_enforced, about = set_up(scene)
    found = Found(scene)
    outcome = found.outcome(is_enforced(found), about)
    wanted = expected[spot]
    if wanted == "enforced":
        assert outcome == "enforced"
    else:
        assert outcome != "enforced"
        assert wanted.startswith("told: ") == outcome.startswith("told: "), outcome
        assert re.search(wanted.removeprefix("told: "), outcome), outcome


@pytest.mark.parametrize("spot", SPOTS)
def test_nothing_is_enforced_that_is_not_asked_for(spot: str) -> None:
    """The table's other side: without the field, none of its checks holds."""
    plain = Found(Scene(SPOTS[spot]))
    assert plain.rules
    for field, (set_up, _) in TABLE.items():
        is_enforced, _about = set_up(Scene(SPOTS[spot]))
        if field != "hostname" or SPOTS[spot].beside is None:
            assert not is_enforced(plain), field
