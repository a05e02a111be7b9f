"""What a status refuses has no effect, and nothing is in force without a status that accepts it: every kind × every reason.

Each world is translated with and without the object. Where they differ, the object is accepted; or it guards something,
cannot be done, and says FailingClosed: then the only difference is that less passes than without it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from support.objects import obj
from support.refusals import HOME, OTHER, made, pem, said_of, slices, world

from controller.objects.base import Ref
from controller.objects.kinds import KINDS, AnyObject
from controller.objects.policies import POLICIES, statement
from controller.translate import Translation, translate
from gateway import snapshot
from gateway.snapshot import Parts

GATEWAY_GROUP = "gateway.networking.k8s.io"


def base() -> list[AnyObject]:
    """Gateways, routes and Services in two namespaces, with all that a valid object of any kind could need."""
    ca, chain_, key = pem()
    found: list[AnyObject] = [
        obj("GatewayClass", "fsm-gateway-cls", spec={"controllerName": "flomesh.io/gateway-controller"}),
        obj("Namespace", HOME, "", metadata={"labels": {"team": "home"}}),
        obj("Namespace", OTHER, "", metadata={"labels": {"team": "other"}}),
    ]
    for namespace in (HOME, OTHER):
        listeners = [
            {"name": "http", "port": 80, "protocol": "HTTP"},
            {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "cert"}]}},
            {"name": "tls", "port": 8443, "protocol": "TLS", "tls": {"certificateRefs": [{"name": "cert"}]}},
            {"name": "tcp", "port": 9000, "protocol": "TCP"},
            {"name": "udp", "port": 9001, "protocol": "UDP"},
        ]
        spec = {
            "gatewayClassName": "fsm-gateway-cls",
            "listeners": listeners,
            "allowedListeners": {"namespaces": {"from": "Same"}},
        }
        forward = {"backendRefs": [{"name": "app", "port": 80}]}
        parents = [{"name": "gw"}]
        at_path = {"matches": [{"path": {"type": "Exact", "value": "/x"}}, {"path": {"value": "/"}}], **forward}
        call = {"matches": [{"method": {"service": "a.B"}}], **forward}
        found += [
            obj("Gateway", "gw", namespace, spec),
            obj("Service", "app", namespace, {"ports": [{"name": "p", "port": 80}, {"name": "u", "port": 53, "protocol": "UDP"}]}),
            slices("app", namespace),
            obj("Secret", "cert", namespace, type="kubernetes.io/tls", stringData={"tls.crt": chain_, "tls.key": key, "ca.crt": ca}),
            obj("ConfigMap", "ca", namespace, data={"ca.crt": ca}),
            obj("HTTPRoute", "r", namespace, {"parentRefs": parents, "hostnames": ["www.example"], "rules": [at_path]}),
            obj("GRPCRoute", "g", namespace, {"parentRefs": parents, "hostnames": ["rpc.example"], "rules": [call]}),
            obj("TLSRoute", "s", namespace, {"parentRefs": parents, "hostnames": ["www.example"], "rules": [forward]}),
            obj("TCPRoute", "t", namespace, {"parentRefs": parents, "rules": [{"name": "only", **forward}]}),
            obj("UDPRoute", "u", namespace, {"parentRefs": parents, "rules": [{"name": "only", "backendRefs": [{"name": "app", "port": 53}]}]}),
            obj("IPRestriction", "ips", namespace, {"allowed": ["10.0.0.0/8"]}),
            obj("Filter", "f", namespace, {"type": "IPRestriction", "configRef": {"kind": "IPRestriction", "name": "ips"}}),
        ]  # fmt: skip
    return found


# --- the law ---


def law(others: list[AnyObject], subject: AnyObject) -> str:
    """Checks the law for one object; returns what became of it: "in force", "shut", "refused", "silent" (no status, no effect)."""
    without = translate(world(one for one in others if one.ref != subject.ref))
    with_ = translate(world([*(one for one in others if one.ref != subject.ref), subject]))
    assert not with_.failing
    conditions = list(said_of(with_, subject.ref))
    accepted = [one for one in conditions if one.type == "Accepted"]
    shut = any(one.type == "FailingClosed" and one.is_true for one in conditions)
    if without.parts == with_.parts:
        assert not shut or not any(one.is_true for one in accepted)
        if any(one.is_true for one in accepted):
            return "accepted"
        return "refused" if accepted else "silent"
    if any(one.is_true for one in accepted):
        assert not shut, conditions
        return "in force"
    assert shut, f"{subject.ref} has an effect, and its status refuses it: {conditions}"
    assert accepted
    for gateway in without.parts.keys() | with_.parts.keys():
        assert passes_less(without.parts.get(gateway, {}), with_.parts.get(gateway, {})), differing(without, with_)
    return "shut"


def differing(one: Translation, other: Translation) -> dict[Any, Any]:
    return {
        key: (one.parts.get(name, {}).get(key), other.parts.get(name, {}).get(key))
        for name in one.parts.keys() | other.parts.keys()
        for key in one.parts.get(name, {}).keys() | other.parts.get(name, {}).keys()
        if one.parts.get(name, {}).get(key) != other.parts.get(name, {}).get(key)
    }


def passes_less(before: Parts, after: Parts) -> bool:
    """Whether all that differs is that something is refused which was not. A rule may be apart: what it was must be shut."""
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        match new:
            case None if key[0] in ("listener", "certificate", "relay", "script", "backend"):
                continue
            case None if key[0] == "rule":
                continue
            case snapshot.Rule() | snapshot.Relay() if is_shut(new, after) or (old is not None and same_but_place(old, new)):
                continue
            case snapshot.Backend() if not new.endpoints:
                continue
            case snapshot.Listener() if isinstance(old, snapshot.Listener) and lets_nobody_in(old, new, after):
                continue
            case snapshot.Script():
                continue  # by itself it does nothing; who names it has been looked at
            case _:
                return False
    return True


def lets_nobody_in(old: snapshot.Listener, new: snapshot.Listener, parts: Parts) -> bool:
    """Whether all that is new is a filter of connections that is not there."""
    missing = any(("script", one.script) not in parts for one in new.filters)
    return missing and msgspec.structs.replace(new, filters=old.filters) == old


def same_but_place(old: snapshot.Part, new: snapshot.Rule | snapshot.Relay) -> bool:
    """A part of what a rule was: some of its matches or places, the rest of it the same."""
    if not isinstance(old, snapshot.Rule) or not isinstance(new, snapshot.Rule):
        return isinstance(old, snapshot.Relay) and set(new.at) <= set(old.at)
    same = msgspec.structs.replace(new, at=old.at, matches=old.matches) == old
    return same and set(new.at) <= set(old.at) and set(new.matches) <= set(old.matches)


def is_shut(part: snapshot.Rule | snapshot.Relay, parts: Parts) -> bool:
    for one in part.filters:
        if isinstance(one, snapshot.Fault):
            return True
        if isinstance(one, snapshot.Scripted) and ("script", one.script) not in parts:
            return True
    return all(target.fault for target in part.targets)


# --- kinds that are attached ---

CONFIG: dict[str, Any] = {
    "AccessControlPolicy": {"config": {"blacklist": ["10.0.0.1"]}},
    "RateLimitPolicy": {"config": {"requests": 5, "statTimeWindow": 1}},
    "FaultInjectionPolicy": {"config": {"abort": {"percent": 50}}},
    "CircuitBreakingPolicy": {
        "config": {"minRequestAmount": 1, "statTimeWindow": 1, "degradedTimeWindow": 1, "errorAmountThreshold": 1}
    },
    "RetryPolicy": {"config": {"retryOn": ["503"]}},
    "SessionStickyPolicy": {"config": {"cookieName": "x"}},
    "LoadBalancerPolicy": {"type": "LeastConnectionLoadBalancer"},
    "BackendLBPolicy": {"algorithm": "LeastLoad"},
    "HealthCheckPolicy": {"config": {"interval": 1}},
    "GatewayTLSPolicy": {"config": {"mTLS": True}},
    "UpstreamTLSPolicy": {"config": {"certificateRef": {"name": "cert"}}},
}
NAMES = {"Gateway": "gw", "HTTPRoute": "r", "GRPCRoute": "g", "Service": "app"}
TARGETS = {
    "AccessControlPolicy": ("Gateway", "HTTPRoute", "GRPCRoute"),
    "RateLimitPolicy": ("Gateway", "HTTPRoute", "GRPCRoute"),
    "FaultInjectionPolicy": ("HTTPRoute", "GRPCRoute"),
    "GatewayTLSPolicy": ("Gateway",),
}
GUARDING = ("AccessControlPolicy", "RateLimitPolicy", "GatewayTLSPolicy", "UpstreamTLSPolicy")
ATTACHED = [(kind, target) for kind in CONFIG for target in TARGETS.get(kind, ("Service",))]


def spec_of(kind: str, target: str, /, **changes: Any) -> dict[str, Any]:
    group = "" if target == "Service" else GATEWAY_GROUP
    return {**deepcopy(CONFIG[kind]), "targetRef": {"group": group, "kind": target, "name": NAMES[target], **changes}}


def test_every_policy_is_here() -> None:
    assert CONFIG.keys() == POLICIES.keys()


@pytest.mark.parametrize(("kind", "target"), ATTACHED)
def test_a_valid_policy_is_in_force(kind: str, target: str) -> None:
    assert law(base(), made(kind, "p", spec_of(kind, target))) == "in force"


@pytest.mark.parametrize("where", ["targetRef", "targetRefs"])
@pytest.mark.parametrize(("kind", "target"), ATTACHED)
def test_of_another_namespace(kind: str, target: str, where: str) -> None:
    """The finding that began this: the target is there, and it is another's."""
    spec = spec_of(kind, target, namespace=OTHER)
    if where == "targetRefs":
        spec["targetRefs"] = [spec.pop("targetRef")]
    assert law(base(), made(kind, "p", spec)) == "refused"
    own = spec_of(kind, target)["targetRef"]
    both = {**{k: v for k, v in spec.items() if k != "targetRef"}, "targetRefs": [own, {**own, "namespace": OTHER}]}
    assert law(base(), made(kind, "p", both)) == "refused"


WRONG_TARGETS: dict[str, dict[str, Any]] = {
    "missing": {"name": "nobody"},
    "unsupported kind": {"kind": "ConfigMap"},
    "another group": {"group": "example.com"},
    "no name": {"name": None},
    "a name that is none": {"name": ["r"]},
}


@pytest.mark.parametrize("reason", WRONG_TARGETS)
@pytest.mark.parametrize(("kind", "target"), ATTACHED)
def test_wrong_targets(kind: str, target: str, reason: str) -> None:
    assert law(base(), made(kind, "p", spec_of(kind, target, **WRONG_TARGETS[reason]))) == "refused"


@pytest.mark.parametrize("given", [None, {}, "x", [], {"targetRef": None}, {"targetRefs": []}, {"targetRefs": "x"}])
@pytest.mark.parametrize("kind", CONFIG)
def test_no_target_at_all(kind: str, given: Any) -> None:
    assert law(base(), made(kind, "p", given)) == "refused"


@pytest.mark.parametrize("damage", ["null", "text", "a list", "unknown only", "entries", "an entry"])
@pytest.mark.parametrize(("kind", "target"), ATTACHED)
def test_said_wrongly(kind: str, target: str, damage: str) -> None:
    """It is its owner's to say, and cannot be read: nothing, or, where it guards something, nothing passes."""
    spec = spec_of(kind, target)
    values: dict[str, Any] = {
        "null": None,
        "text": "x",
        "a list": ["x"],
        "unknown only": {"retryOn": 5, "blacklist": 5, "mTLS": 5},
    }
    if damage in values:
        for field in ("config", "type", "algorithm"):
            if field in spec:
                spec[field] = values[damage]
    else:
        spec["ports" if target in ("Gateway", "Service") else "hostnames"] = "x" if damage == "entries" else [5]
    outcome = law(base(), made(kind, "p", spec))
    if damage == "unknown only" and kind in ("SessionStickyPolicy", "HealthCheckPolicy"):
        assert outcome in ("in force", "accepted")  # nothing of it is wrong: every field has a default
    else:
        assert outcome == ("shut" if kind in GUARDING else "refused")


@pytest.mark.parametrize("kind", GUARDING)
def test_said_wrongly_at_one_port_or_match_only(kind: str) -> None:
    target = TARGETS.get(kind, ("Service",))[0]
    spec = spec_of(kind, target)
    number = 443 if target == "Gateway" else 80
    ports = [{"port": number, "config": {"mTLS": "x", "requests": -1, "blacklist": 1, "certificateRef": 1}}]
    assert law(base(), made(kind, "p", {"targetRef": spec["targetRef"], "ports": ports})) == "shut"


@pytest.mark.parametrize(("kind", "target"), ATTACHED)
def test_the_older_one_wins(kind: str, target: str) -> None:
    older = made(kind, "older", spec_of(kind, target), created="2026-01-01T00:00:00Z")
    younger = made(kind, "p", spec_of(kind, target))
    assert law([*base(), older], younger) == "refused"
    # The younger one says it wrongly: it has no say.
    spec = {**spec_of(kind, target), "config": "x", "type": 5, "algorithm": 5}
    assert law([*base(), older], made(kind, "p", spec)) == "refused"


@pytest.mark.parametrize(("kind", "target"), ATTACHED)
def test_an_older_one_that_is_refused_does_not_win(kind: str, target: str) -> None:
    """What has no effect is in nobody's way."""
    refused = made(kind, "older", spec_of(kind, target, namespace=OTHER), created="2026-01-01T00:00:00Z")
    assert law([*base(), refused], made(kind, "p", spec_of(kind, target))) == "in force"
    if kind not in GUARDING:
        wrong = {**spec_of(kind, target), "config": "x", "type": 5, "algorithm": 5}
        broken = made(kind, "older", wrong, created="2026-01-01T00:00:00Z")
        assert law([*base(), broken], made(kind, "p", spec_of(kind, target))) == "in force"


@pytest.mark.parametrize(
    ("kind", "target", "more"),
    [
        (kind, target, {"ports": [{"port": 4444, **CONFIG[kind]}]})
        for kind, target in ATTACHED if target in ("Gateway", "Service") and kind != "BackendLBPolicy"
    ]
    + [
        (kind, "HTTPRoute", {"http": [{"match": {"path": {"value": "/nowhere"}}, **CONFIG[kind]}]})
        for kind in ("AccessControlPolicy", "RateLimitPolicy", "FaultInjectionPolicy")
    ]
    + [
        (kind, "GRPCRoute", {"grpc": [{"match": {"method": {"service": "no.Where"}}, **CONFIG[kind]}]})
        for kind in ("AccessControlPolicy", "RateLimitPolicy", "FaultInjectionPolicy")
    ]
    + [
        (kind, target, {"hostnames": [{"hostname": "nowhere.test", **CONFIG[kind]}]})
        for kind, target in ATTACHED if target in ("HTTPRoute", "GRPCRoute")
    ],
)  # fmt: skip
def test_a_port_match_or_host_that_is_not_there(kind: str, target: str, more: dict[str, Any]) -> None:
    spec = {"targetRef": spec_of(kind, target)["targetRef"], **more}
    assert law(base(), made(kind, "p", spec)) == "refused"
    # Beside something that is there it says so, and takes nothing of the rest away.
    assert law(base(), made(kind, "p", {**spec_of(kind, target), **more})) == "in force"


@pytest.mark.parametrize(
    ("kind", "target", "config"),
    [
        ("RateLimitPolicy", "HTTPRoute", {"requests": 1, "statTimeWindow": 1, "mode": "Global"}),
        ("RateLimitPolicy", "Gateway", {"requests": 1, "statTimeWindow": 1, "mode": "Global", "store": {"host": "x", "passwordRef": {"name": "n", "key": "k"}}}),
        ("RateLimitPolicy", "HTTPRoute", {"requests": 1, "statTimeWindow": 1, "store": {"host": "127.0.0.1"}}),
        ("AccessControlPolicy", "HTTPRoute", {"whitelist": []}),
        ("AccessControlPolicy", "Gateway", {"blacklist": ["10.0.0.300"]}),
        ("UpstreamTLSPolicy", "Service", {"certificateRef": {"name": "nobody"}}),
        ("UpstreamTLSPolicy", "Service", {"certificateRef": {"name": "cert", "kind": "ConfigMap"}}),
    ],
)  # fmt: skip
def test_references_and_values_that_cannot_be_used(kind: str, target: str, config: Any) -> None:
    assert law(base(), made(kind, "p", {**spec_of(kind, target), "config": config})) == "shut"


# --- other kinds ---

FILTER = {"type": "IPRestriction", "configRef": {"kind": "IPRestriction", "name": "ips"}}
TLS = {"hostname": "app.internal", "caCertificateRefs": [{"kind": "ConfigMap", "group": "", "name": "ca"}]}
GW = {"group": GATEWAY_GROUP, "kind": "Gateway", "name": "gw"}
APP = {"group": "", "kind": "Service", "name": "app"}
Row = tuple[str, str, Any, str]


def listener_set(name: str, namespace: str = HOME, parent: str = HOME, **listener: Any) -> dict[str, Any]:
    every = {"name": "x", "port": 7000, "protocol": "HTTP", **listener}
    return {"parentRef": {"name": "gw", "namespace": parent}, "listeners": [every]}


def gateway_spec(**changes: Any) -> dict[str, Any]:
    listener = {"name": "x", "port": 7000, "protocol": "HTTP", **changes.pop("listener", {})}
    return {"gatewayClassName": "fsm-gateway-cls", "listeners": [listener], **changes}


def route_spec(parent: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    rule = {"backendRefs": [{"name": "app", "port": 80}], **changes.pop("rule", {})}
    return {"parentRefs": [{"name": "gw", **(parent or {})}], "rules": [rule], **changes}


ROWS: list[Row] = [
    ("BackendTLSPolicy", "valid", {"targetRefs": [APP], "validation": TLS}, "in force"),
    ("BackendTLSPolicy", "for a port", {"targetRefs": [{**APP, "sectionName": "p"}], "validation": TLS}, "in force"),
    ("BackendTLSPolicy", "a port that is not there", {"targetRefs": [{**APP, "sectionName": "x"}], "validation": TLS}, "refused"),
    ("BackendTLSPolicy", "missing target", {"targetRefs": [{**APP, "name": "x"}], "validation": TLS}, "silent"),
    ("BackendTLSPolicy", "unsupported kind", {"targetRefs": [{**APP, "kind": "X", "group": "y"}], "validation": TLS}, "silent"),
    ("BackendTLSPolicy", "missing authority", {"targetRefs": [APP], "validation": {**TLS, "caCertificateRefs": [{"name": "x", "kind": "ConfigMap", "group": ""}]}}, "shut"),
    ("BackendTLSPolicy", "no authority", {"targetRefs": [APP], "validation": {"hostname": "x"}}, "shut"),
    ("BackendTLSPolicy", "no hostname", {"targetRefs": [APP], "validation": {**TLS, "hostname": ""}}, "shut"),
    ("BackendTLSPolicy", "unknown version", {"targetRefs": [APP], "validation": TLS, "options": {"gateway.flomesh.io/minimum-tls-version": "9"}}, "shut"),
    ("BackendTLSPolicy", "unknown option", {"targetRefs": [APP], "validation": TLS, "options": {"gateway.flomesh.io/x": "9"}}, "shut"),
    ("BackendTLSPolicy", "unreadable", {"targetRefs": [APP, 5], "validation": 7}, "shut"),
    ("ListenerFilter", "valid", {**FILTER, "targetRefs": [{"name": "gw"}]}, "in force"),
    ("ListenerFilter", "valid for routes", {**FILTER, "aspect": "Route", "targetRefs": [{"name": "gw"}]}, "in force"),
    ("ListenerFilter", "one target is not there", {**FILTER, "targetRefs": [{"name": "x"}, {"name": "gw", "port": 80}]}, "in force"),
    ("ListenerFilter", "missing target", {**FILTER, "targetRefs": [{"name": "x"}]}, "refused"),
    ("ListenerFilter", "a port that is not there", {**FILTER, "targetRefs": [{"name": "gw", "port": 1}]}, "refused"),
    ("ListenerFilter", "unsupported kind", {**FILTER, "targetRefs": [{"name": "gw", "kind": "Service"}]}, "refused"),
    ("ListenerFilter", "another group", {**FILTER, "targetRefs": [{"name": "gw", "group": "x"}]}, "refused"),
    ("ListenerFilter", "no target", {**FILTER, "targetRefs": []}, "refused"),
    ("ListenerFilter", "unknown aspect", {**FILTER, "aspect": "Rout", "targetRefs": [{"name": "gw"}]}, "shut"),
    ("ListenerFilter", "missing configuration", {"type": "IPRestriction", "configRef": {"kind": "IPRestriction", "name": "x"}, "aspect": "Route", "targetRefs": [{"name": "gw"}]}, "shut"),
    ("ListenerFilter", "unknown type", {"type": "Nothing", "aspect": "Route", "targetRefs": [{"name": "gw"}]}, "shut"),
    ("ListenerFilter", "unreadable", {**FILTER, "aspect": "Route", "priority": "x", "targetRefs": [{"name": "gw"}]}, "shut"),
    ("RouteRuleFilterPolicy", "valid", {"targetRefs": [{"kind": "TCPRoute", "name": "t"}], "filterRefs": [{"name": "f"}]}, "in force"),
    ("RouteRuleFilterPolicy", "valid for UDP", {"targetRefs": [{"kind": "UDPRoute", "name": "u", "rule": "only"}], "filterRefs": [{"name": "f"}]}, "in force"),
    ("RouteRuleFilterPolicy", "missing rule", {"targetRefs": [{"kind": "TCPRoute", "name": "t", "rule": "x"}], "filterRefs": [{"name": "f"}]}, "refused"),
    ("RouteRuleFilterPolicy", "missing route", {"targetRefs": [{"kind": "TCPRoute", "name": "x"}], "filterRefs": [{"name": "f"}]}, "refused"),
    ("RouteRuleFilterPolicy", "unsupported kind", {"targetRefs": [{"kind": "TLSRoute", "name": "s"}], "filterRefs": [{"name": "f"}]}, "refused"),
    ("RouteRuleFilterPolicy", "another group", {"targetRefs": [{"kind": "TCPRoute", "name": "t", "group": "x"}], "filterRefs": [{"name": "f"}]}, "refused"),
    ("RouteRuleFilterPolicy", "missing filter", {"targetRefs": [{"kind": "TCPRoute", "name": "t"}], "filterRefs": [{"name": "x"}]}, "shut"),
    ("RouteRuleFilterPolicy", "unsupported filter", {"targetRefs": [{"kind": "TCPRoute", "name": "t"}], "filterRefs": [{"name": "f", "kind": "X"}]}, "shut"),
    ("RouteRuleFilterPolicy", "unreadable", {"targetRefs": [{"kind": "TCPRoute", "name": "t"}], "filterRefs": "x"}, "shut"),
    ("ListenerSet", "valid", listener_set("x"), "in force"),
    ("ListenerSet", "of a Gateway that does not allow it", listener_set("x", parent=OTHER), "refused"),
    ("ListenerSet", "conflicted port", listener_set("x", port=80), "refused"),
    ("ListenerSet", "conflicted protocol", listener_set("x", port=9000), "refused"),
    ("ListenerSet", "unknown protocol", listener_set("x", protocol="QUIC"), "refused"),
    ("ListenerSet", "missing certificate", listener_set("x", protocol="HTTPS", tls={"certificateRefs": [{"name": "x"}]}), "accepted or refused"),
    ("ListenerSet", "certificate of another namespace", listener_set("x", protocol="HTTPS", tls={"certificateRefs": [{"name": "cert", "namespace": OTHER}]}), "accepted or refused"),
    ("ListenerSet", "TLS in the clear", listener_set("x", tls={"certificateRefs": [{"name": "cert"}]}), "refused"),
    ("ListenerSet", "missing Gateway", {"parentRef": {"name": "x"}, "listeners": []}, "silent"),
    ("XTelemetryPolicy", "asks for nothing", {"targetRefs": [GW], "tracing": {"mode": "Disabled"}}, "accepted"),
    ("XTelemetryPolicy", "asks for the default", {"targetRefs": [GW], "tracing": {}}, "accepted"),
    ("XTelemetryPolicy", "asks for tracing", {"targetRefs": [GW], "tracing": {"mode": "Enabled", "provider": {"backendRef": {"name": "app", "port": 80}}}}, "refused"),
    ("XTelemetryPolicy", "unknown mode", {"targetRefs": [GW], "tracing": {"mode": "Sometimes"}}, "refused"),
    ("XTelemetryPolicy", "a provider for nothing", {"targetRefs": [GW], "tracing": {"provider": {"backendRef": {"name": "app", "port": 80}}}}, "refused"),
    ("XTelemetryPolicy", "says nothing", {"targetRefs": [GW]}, "refused"),
    ("XTelemetryPolicy", "missing target", {"targetRefs": [{**GW, "name": "x"}], "tracing": {"mode": "Disabled"}}, "refused"),
    ("XTelemetryPolicy", "unsupported kind", {"targetRefs": [APP], "tracing": {"mode": "Disabled"}}, "refused"),
    ("XTelemetryPolicy", "another group", {"targetRefs": [{**GW, "group": "x"}], "tracing": {"mode": "Disabled"}}, "refused"),
    ("XTelemetryPolicy", "no target", {"targetRefs": [], "tracing": {"mode": "Disabled"}}, "silent"),
    ("Gateway", "valid", gateway_spec(), "in force"),
    ("Gateway", "unknown scope", gateway_spec(defaultScope="Some"), "refused"),
    ("Gateway", "default", gateway_spec(defaultScope="All"), "in force"),
    ("Gateway", "unknown class", {**gateway_spec(), "gatewayClassName": "x"}, "silent"),
    ("Gateway", "unsupported address", gateway_spec(addresses=[{"type": "Hostname", "value": "x"}]), "refused"),
    ("Gateway", "invalid parametersRef", gateway_spec(infrastructure={"parametersRef": {"kind": "ConfigMap", "group": "", "name": "x"}}), "refused"),
    ("Gateway", "parametersRef of another kind", gateway_spec(infrastructure={"parametersRef": {"kind": "Secret", "group": "", "name": "cert"}}, tls={"backend": {"clientCertificateRef": {"name": "cert"}}}), "refused"),
    ("Gateway", "unknown protocol", gateway_spec(listener={"protocol": "QUIC"}), "refused"),
    ("Gateway", "tls on HTTP", gateway_spec(listener={"tls": {"certificateRefs": [{"name": "cert"}]}}), "refused"),
    ("Gateway", "passthrough on HTTPS", gateway_spec(listener={"protocol": "HTTPS", "tls": {"mode": "Passthrough", "certificateRefs": [{"name": "cert"}]}}), "refused"),
    ("Gateway", "unknown mode", gateway_spec(listener={"protocol": "TLS", "tls": {"mode": "Both", "certificateRefs": [{"name": "cert"}]}}), "refused"),
    ("Gateway", "hostname on TCP", gateway_spec(listener={"protocol": "TCP", "hostname": "x.example"}), "refused"),
    ("Gateway", "filters on TCP", gateway_spec(listener={"protocol": "TCP", "filters": {"requests": [{"type": "ExternalAuth"}]}}), "refused"),
    ("Gateway", "unknown filter", gateway_spec(listener={"filters": {"requests": [{"type": "RequestRedirect"}]}}), "refused"),
    ("Gateway", "unknown ciphers", gateway_spec(listener={"protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "cert"}], "options": {"gateway.flomesh.io/cipher-suites": "ROT13"}}}), "refused"),
    ("Gateway", "a port that is none", gateway_spec(listener={"port": 99999}), "refused"),
    ("Gateway", "missing authority", gateway_spec(listener={"protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "cert"}]}}, tls={"frontend": {"default": {"validation": {"caCertificateRefs": [{"name": "x", "kind": "ConfigMap", "group": ""}]}}}}), "refused"),
    ("Gateway", "missing authority for TLS", gateway_spec(listener={"protocol": "TLS", "tls": {"certificateRefs": [{"name": "cert"}]}}, tls={"frontend": {"default": {"validation": {"caCertificateRefs": [{"name": "x", "kind": "ConfigMap", "group": ""}]}}}}), "refused"),
    ("Gateway", "certificate of another namespace", gateway_spec(listener={"protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "cert", "namespace": OTHER}]}}), "accepted"),
    ("HTTPRoute", "valid", route_spec(), "in force"),
    ("HTTPRoute", "unknown scope", route_spec(useDefaultGateways="Some"), "refused"),
    ("HTTPRoute", "no default Gateway", {"useDefaultGateways": "All", "rules": [{"backendRefs": [{"name": "app", "port": 80}]}]}, "silent"),
    ("HTTPRoute", "of another namespace", route_spec({"namespace": OTHER}), "refused"),
    ("HTTPRoute", "missing section", route_spec({"sectionName": "x"}), "refused"),
    ("HTTPRoute", "missing port", route_spec({"port": 1}), "refused"),
    ("HTTPRoute", "section of another protocol", route_spec({"sectionName": "tcp"}), "refused"),
    ("HTTPRoute", "missing Gateway", route_spec({"name": "x"}), "silent"),
    ("HTTPRoute", "unsupported filter", route_spec(rule={"filters": [{"type": "X"}]}), "refused"),
    ("HTTPRoute", "invalid expression", route_spec(rule={"matches": [{"path": {"type": "RegularExpression", "value": "("}}]}), "refused"),
    ("GRPCRoute", "of another namespace", route_spec({"namespace": OTHER}), "refused"),
    ("TLSRoute", "of another namespace", route_spec({"namespace": OTHER}), "refused"),
    ("TCPRoute", "of another namespace", route_spec({"namespace": OTHER}), "refused"),
    ("UDPRoute", "of another namespace", route_spec({"namespace": OTHER}), "refused"),
    ("TCPRoute", "section of another protocol", route_spec({"sectionName": "http"}), "refused"),
    ("UDPRoute", "section of another protocol", route_spec({"sectionName": "tcp"}), "refused"),
    ("Filter", "not used by anybody", FILTER, "accepted"),
    ("Filter", "missing configuration", {"type": "IPRestriction", "configRef": {"kind": "IPRestriction", "name": "x"}}, "refused"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "reason", "spec", "outcome"), ROWS, ids=[f"{kind}-{reason}" for kind, reason, *_ in ROWS])
def test_other_kinds(kind: str, reason: str, spec: Any, outcome: str) -> None:
    found = law(base(), made(kind, "p", spec))
    assert found in outcome.split(" or ")


def test_a_listener_of_the_same_gateway_that_conflicts_has_no_effect() -> None:
    others = [*base(), made("Gateway", "two", gateway_spec())]
    spec = gateway_spec()
    spec["listeners"] *= 2
    spec["listeners"][1] = {**spec["listeners"][1], "name": "y"}
    without = translate(world(base()))
    assert translate(world([*base(), made("Gateway", "two", spec)])).parts == without.parts
    assert translate(world(others)).parts != without.parts


def test_reference_grants() -> None:
    """A grant has no status of its own: what refers says what it led to."""
    crossing = route_spec(rule={"backendRefs": [{"name": "app", "namespace": OTHER, "port": 80}]})
    route = made("HTTPRoute", "crossing", crossing)

    def grant(from_kind: str = "HTTPRoute", from_namespace: str = HOME, to: str = "Service", **more: Any) -> AnyObject:
        to_ = {"group": "", "kind": to, **more}
        spec = {"from": [{"group": GATEWAY_GROUP, "kind": from_kind, "namespace": from_namespace}], "to": [to_]}
        return made("ReferenceGrant", "grant", spec, OTHER)

    def outcome(*grants: AnyObject) -> tuple[bool, str]:
        found = translate(world([*base(), route, *grants]))
        status = {one.type: one for one in said_of(found, route.ref)}
        rule = found.parts[HOME, "gw"]["rule", f"{HOME}/crossing/0"]
        assert isinstance(rule, snapshot.Rule)
        return not rule.targets[0].fault, status["ResolvedRefs"].reason

    assert outcome() == (False, "RefNotPermitted")
    assert outcome(grant()) == (True, "ResolvedRefs")
    refused = (
        grant("GRPCRoute"), grant(from_namespace=OTHER), grant(to="Secret"), grant(name="nobody"), grant("TCPRoute"),
    )  # fmt: skip
    for wrong in refused:
        assert outcome(wrong) == (False, "RefNotPermitted")


def test_what_cannot_be_told_is_not_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of our own in deciding about one policy is that policy's, and shuts what it guards."""

    original: Callable[..., Any] = statement.read

    def broken(policy: Any) -> Any:
        if policy.metadata.name == "p":
            raise KeyError("percent")
        return original(policy)

    monkeypatch.setattr(statement, "read", broken)
    for kind, target in ATTACHED:
        others = base()
        subject = made(kind, "p", spec_of(kind, target))
        without, with_ = translate(world(others)), translate(world([*others, subject]))
        accepted = [one for one in said_of(with_, subject.ref) if one.type == "Accepted"]
        assert accepted
        assert not any(one.is_true for one in accepted)
        assert with_.failing.keys() == {subject.ref}
        for gateway in without.parts:
            before, after = without.parts[gateway], with_.parts[gateway]
            assert passes_less(before, after) if kind in GUARDING else before == after
        assert (without.parts != with_.parts) == (kind in GUARDING)


def test_a_namespace_s_definition_reads_its_own_configmaps() -> None:
    """The CRD leaves no room for another namespace; what is stored may be older than it."""
    for definition, kind, namespace, is_good in (
        ("NamespacedFilterDefinition", "NamespacedFilterDefinition", "", True),
        ("NamespacedFilterDefinition", "NamespacedFilterDefinition", HOME, True),
        ("NamespacedFilterDefinition", "NamespacedFilterDefinition", OTHER, False),
        ("FilterDefinition", "FilterDefinition", OTHER, True),
        ("FilterDefinition", "FilterDefinition", "", False),
    ):
        spec = {"type": "T", "configMapRef": {"name": "source", "key": "s", **({"namespace": namespace} if namespace else {})}}
        objects = [
            *base(), made(definition, "d", spec, HOME if KINDS[definition].namespaced else ""),
            *(obj("ConfigMap", "source", where, data={"s": f"# {where}\nSECRET = 1\n"}) for where in (HOME, OTHER)),
            made("Filter", "scripted", {"type": "T", "definitionRef": {"kind": kind, "name": "d"}}),
        ]  # fmt: skip
        (accepted,) = said_of(translate(world(objects)), Ref("Filter", HOME, "scripted"))
        assert accepted.is_true == is_good, accepted


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "127.0.0.1", "169.254.169.254", "a.localhost.", "[::1]", "0.0.0.0",
        "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "169.254.43518", "::ffff:127.0.0.1", "[::FFFF:a9fe:a9fe]",
        "127.0.0.1.", "ip6-loopback", "localhost.localdomain", "metadata.google.internal", "fd00:ec2::254", "\uff11\uff12\uff17.0.0.1", "\u24dbocalhost", "127\u30020\u30020\u30021",
    ],
)  # fmt: skip
def test_nothing_leads_to_the_data_plane_itself(host: str) -> None:
    """Its admin port, or a cloud's metadata: by an XBackend, a Service's name, or a slice of names."""
    assert not any(_led_to(host))


@pytest.mark.parametrize(
    "host", ["db.other.svc.cluster.local", "DB.Other.svc.Cluster.Local.", "db.other.svc.cluster\u3002local"]
)
def test_no_name_leads_to_another_namespace(host: str) -> None:
    """Its Services have ReferenceGrants, which a name goes around."""
    assert not any(_led_to(host))


def test_names_are_absolute_where_a_pod_would_look_for_them_in_other_namespaces() -> None:
    assert _led_to("db.other") == ["db.other."] * 3
    assert _led_to("db.other.example.") == [None, *["db.other.example."] * 2]  # an XBackend's name has no dot at its end


def _led_to(host: str) -> list[str | None]:
    """Where requests for a host go that an XBackend names, a Service, and an EndpointSlice."""
    named = [
        made("XBackend", "x", {"type": "ExternalHostname", "externalHostname": {"hostname": host}, "port": {"number": 9091}}),
        obj("Service", "named", HOME, {"type": "ExternalName", "externalName": host, "ports": [{"name": "p", "port": 80}]}),
        obj("Service", "sliced", HOME, {"ports": [{"name": "p", "port": 80}]}),
        obj(
            "EndpointSlice", "sliced-1", HOME, metadata={"labels": {"kubernetes.io/service-name": "sliced"}},
            addressType="FQDN", endpoints=[{"addresses": [host]}], ports=[{"name": "p", "port": 9091}],
        ),
    ]  # fmt: skip
    refs = [
        {"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "x"},
        {"name": "named", "port": 80},
        {"name": "sliced", "port": 80},
    ]
    addresses: list[str | None] = []
    for ref in refs:
        subject = made("HTTPRoute", "leads", route_spec(rule={"backendRefs": [ref]}))
        parts = translate(world([*base(), *named, subject])).parts[HOME, "gw"]
        rule = parts["rule", f"{HOME}/leads/0"]
        assert isinstance(rule, snapshot.Rule)
        (target,) = rule.targets
        backend = parts.get(("backend", target.backend))
        endpoints = backend.endpoints if isinstance(backend, snapshot.Backend) and not target.fault else ()
        addresses.append(endpoints[0].address if endpoints else None)
    return addresses
