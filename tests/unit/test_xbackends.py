"""XBackend: what is refused and why, which Service finds its pods, and whom its status speaks to (GEP-4894)."""

from __future__ import annotations

from typing import Any

import pytest
from support.objects import gateway, obj, route, world
from support.refusals import pem, said_of
from support.statuses import NOW

from controller.kubernetes.status_writer import merged
from controller.objects.base import CONTROLLER, Ref
from controller.objects.naming import name_prefix
from controller.translate import Translator, translate
from controller.translate.shared import conditions
from controller.translate.shared.status import AncestorStatus, BackendStatus
from controller.translate.xbackends import Pods, PodService
from gateway.snapshot import Backend, Rule

X = {"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "x"}
REF = Ref("XBackend", "default", "x")
HOST: dict[str, Any] = {"type": "ExternalHostname", "externalHostname": {"hostname": "a.example"}, "port": {"number": 80}}
PODS: dict[str, Any] = {"type": "EndpointSelector", "endpointSelector": {"matchLabels": {"app": "a"}}, "port": {"number": 80}}
TLS = {"mode": "ServerOnly", "validation": {"hostname": "a.example", "wellKnownCACertificates": "System"}}
COOKIE = {"type": "Cookie", "cookie": {"name": "c"}}
UID = "u-1"


def xbackend(spec: dict[str, Any]) -> Any:
    return obj("XBackend", "x", spec=spec, metadata={"uid": UID})


def slice_of(name: str, *addresses: str, number: int = 80, namespace: str = "default") -> Any:
    labels = {"gateway.flomesh.io/xbackend": "x"}
    endpoints = [{"addresses": [address]} for address in addresses]
    return obj("EndpointSlice", name, namespace, metadata={"labels": labels}, endpoints=endpoints, ports=[{"port": number}])


def grpc_route(*rules: dict[str, Any]) -> Any:
    return obj("GRPCRoute", "g", spec={"parentRefs": [{"name": "gw"}], "rules": rules or [{"backendRefs": [X]}]})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({**PODS, "endpointSelector": {"matchLabels": {}}}, "matchLabels: found 0 labels; 1 to 64"),
        ({**PODS, "endpointSelector": {}}, "matchLabels: found 0 labels"),
        ({**PODS, "endpointSelector": {"matchLabels": {f"l{n}": "" for n in range(65)}}}, "matchLabels: found 65 labels"),
        ({**PODS, "endpointSelector": {"matchLabels": {"-a": "b"}}}, 'matchLabels: "-a" cannot be the name of a label'),
        ({**PODS, "endpointSelector": {"matchLabels": {"UPPER.example/a": "b"}}}, "cannot be the name of a label"),
        ({**PODS, "endpointSelector": {"matchLabels": {"a": "b c"}}}, 'matchLabels[a]: "b c" cannot be a label\'s value'),
        ({**PODS, "endpointSelector": {"matchLabels": {"a": "b" * 64}}}, "matchLabels[a]"),
        ({**PODS, "port": {"number": 0}}, "spec.port.number: found 0; 1 to 65535 is needed"),
        ({**PODS, "port": {"number": 65536}}, "spec.port.number: found 65536"),
        ({**HOST, "port": {}}, "spec.port.number: found 0"),
        ({**PODS, "externalHostname": {"hostname": "a.example"}}, "spec.externalHostname: is for type ExternalHostname"),
        ({**HOST, "endpointSelector": {"matchLabels": {"a": "b"}}}, "spec.endpointSelector: is for type EndpointSelector"),
        ({"type": "EndpointSelector", "port": {"number": 80}}, "spec.endpointSelector: is missing"),
        ({"type": "ExternalHostname", "port": {"number": 80}}, "spec.externalHostname: is missing"),
        ({**HOST, "type": "Other"}, 'spec.type: found "Other"'),
        ({**HOST, "externalHostname": {"hostname": "a.b.svc.cluster.local"}}, "is a name of the cluster"),
        ({**HOST, "externalHostname": {"hostname": "a.b.svc.Cluster.Local."}}, "is a name of the cluster"),
        ({**HOST, "externalHostname": {"hostname": "10.0.0.1"}}, "is an address"),
        ({**HOST, "externalHostname": {"hostname": "fd00::1"}}, "is an address"),
        ({**HOST, "externalHostname": {"hostname": "0xa000001"}}, "is an address"),
        ({**HOST, "externalHostname": {"hostname": f"{'a' * 64}.example"}}, "a name as DNS has it"),
        ({**HOST, "externalHostname": {"hostname": "a b"}}, "a name as DNS has it"),
        ({**HOST, "externalHostname": {"hostname": ""}}, "a name as DNS has it"),
        ({**HOST, "externalHostname": {"hostname": "localhost"}}, "points to the data plane itself"),
        ({**HOST, "protocol": "MCP"}, "spec.protocol: MCP is not looked into here; with HTTP11"),
        ({**HOST, "protocol": "QUIC"}, 'spec.protocol: found "QUIC"; GRPC, H2C, HTTP, HTTP11, HTTP2, TCP, WSS are supported'),
        ({**HOST, "protocol": "TCP"}, "requests of HTTP are sent to it here, so it must be HTTP, HTTP11, HTTP2"),
        ({**HOST, "protocol": "HTTP2"}, "spec.protocol: HTTP2 needs spec.tls"),
        ({**HOST, "protocol": "HTTP2", "tls": {"mode": "None"}}, "spec.protocol: HTTP2 needs spec.tls"),
        ({**HOST, "protocol": "WSS"}, "spec.protocol: WSS needs spec.tls"),
        ({**HOST, "protocol": "H2C", "tls": TLS}, "spec.protocol: H2C is HTTP/2 in the clear"),
        ({**HOST, "sessionPersistence": COOKIE}, "spec.sessionPersistence: is for type EndpointSelector"),
        ({**PODS, "sessionPersistence": {**COOKIE, "type": "Query"}}, 'sessionPersistence.type: found "Query"'),
        ({**PODS, "sessionPersistence": {"type": "Cookie", "cookie": {"name": "c d"}}}, "spec.sessionPersistence.cookie.name"),
        ({**PODS, "sessionPersistence": {"type": "Header", "header": {"name": "Host"}}}, "spec.sessionPersistence.header.name"),
        ({**PODS, "sessionPersistence": {"type": "Cookie", "cookie": {"lifetimeType": "Permanent"}}},
         "spec.sessionPersistence.absoluteTimeout: is missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_and_said_to_both(spec: dict[str, Any], words: str) -> None:
    made = translate(world(gateway(), xbackend(spec), slice_of("s", "10.0.0.1"), route("r", X)))
    (parts,) = made.parts.values()
    (rule,) = (part for part in parts.values() if isinstance(part, Rule))
    (resolved,) = (one for one in said_of(made, Ref("HTTPRoute", "default", "r")) if one.type == "ResolvedRefs")
    assert not resolved.is_true
    assert resolved.reason in ("BackendNotFound", "UnsupportedProtocol")
    assert words in resolved.message
    assert rule.targets[0].fault == 500
    assert not [part for part in parts.values() if isinstance(part, Backend) and part.endpoints]
    (accepted,) = said_of(made, REF)
    if "sent to it here" not in words:  # that is for each route to say
        assert (accepted.is_true, accepted.reason) == (False, "Invalid")
        assert words in accepted.message


@pytest.mark.parametrize(
    ("protocol", "tls", "requests", "calls"),
    [
        ("", None, "http", "h2c"),
        ("HTTP", None, "http", "h2c"),
        ("HTTP11", None, "http", None),
        ("H2C", None, "h2c", "h2c"),
        ("HTTP2", TLS, "h2c", "h2c"),
        ("GRPC", None, "h2c", "h2c"),
        ("GRPC", TLS, "h2c", "h2c"),
        ("WSS", TLS, "http", None),
        ("TCP", None, None, None),
    ],
)
def test_how_it_is_spoken_to(protocol: str, tls: Any, requests: str | None, calls: str | None) -> None:
    spec = {**PODS, **({"protocol": protocol} if protocol else {}), **({"tls": tls} if tls else {})}
    objects = (gateway(), xbackend(spec), slice_of("s", "10.0.0.1"))
    for one, wanted in ((route("r", X), requests), (grpc_route(), calls)):
        (parts,) = translate(world(*objects, one)).parts.values()
        (rule,) = (part for part in parts.values() if isinstance(part, Rule))
        backend = parts.get(("backend", rule.targets[0].backend))
        assert (isinstance(backend, Backend) and backend.protocol) == (wanted if wanted else False)
        assert isinstance(backend, Backend) == (rule.targets[0].fault == 0)
        if isinstance(backend, Backend):
            assert [(e.address, e.port) for e in backend.endpoints] == [("10.0.0.1", 80)]
            assert (backend.tls is not None) == bool(tls)


def test_who_is_asked_by_grpc_is_not_one_that_only_speaks_http1() -> None:
    """ExternalAuth of an HTTPRoute: the route speaks HTTP, the question does not."""
    auth = {"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC", "backendRef": X}}
    objects = (xbackend({**HOST, "protocol": "HTTP11"}), route("r", "a", filters=[auth]))
    made = translate(world(gateway(), *objects))
    (resolved,) = (one for one in said_of(made, Ref("HTTPRoute", "default", "r")) if one.type == "ResolvedRefs")
    assert "calls of gRPC are sent to it here" in resolved.message
    assert not [part for part in made.parts["default", "gw"].values() if isinstance(part, Backend) and part.endpoints]


def test_a_reference_names_no_port() -> None:
    made = translate(world(gateway(), xbackend(HOST), route("r", {**X, "port": 80})))
    (resolved,) = (one for one in said_of(made, Ref("HTTPRoute", "default", "r")) if one.type == "ResolvedRefs")
    assert 'backendRef "x" has port 80; a reference to an XBackend has none' in resolved.message
    (accepted,) = said_of(made, REF)
    assert accepted.is_true


@pytest.mark.parametrize(
    ("kind", "group"), [("XBackend", "gateway.networking.x-k8s.io"), ("XBackend", "gateway.networking.k8s.io")]
)
def test_its_certificate_may_come_from_elsewhere_where_that_is_granted_to_its_own_group(kind: str, group: str) -> None:
    _, chain, key = pem()
    tls = {**TLS, "mode": "ClientAndServer", "clientCertificateRef": {"name": "c", "namespace": "certs"}}
    grant = {"from": [{"group": group, "kind": kind, "namespace": "default"}], "to": [{"group": "", "kind": "Secret"}]}
    made = translate(
        world(
            gateway(), xbackend({**HOST, "tls": tls}), route("r", X), obj("ReferenceGrant", "g", "certs", grant),
            obj("Secret", "c", "certs", type="kubernetes.io/tls", stringData={"tls.crt": chain, "tls.key": key}),
        )
    )  # fmt: skip
    (accepted,) = said_of(made, REF)
    assert accepted.is_true == (group == "gateway.networking.x-k8s.io"), accepted


@pytest.mark.parametrize(("is_from_files", "address"), [(True, "db.other"), (False, "db.other.")])
def test_a_name_is_absolute_where_a_pod_would_look_for_it_in_other_namespaces(address: str, *, is_from_files: bool) -> None:
    """db.other is db.other.svc.cluster.local by a pod's search list: a Service that nobody granted."""
    all_of_it = world(gateway(), xbackend({**HOST, "externalHostname": {"hostname": "db.other"}}), route("r", X))
    if is_from_files:
        all_of_it.note(("setting", "loopback backends"), True)
    (parts,) = translate(all_of_it).parts.values()
    assert [e.address for part in parts.values() if isinstance(part, Backend) for e in part.endpoints] == [address]


# --- the Service by which its pods are found ---


WANTED = PodService((("app", "a"),), ((80, 80),), "x")


def pods(*objects: Any) -> Pods | None:
    translator = Translator(world(gateway(), *objects))
    return translator.update().pods.get(REF)


def found_service(name: str, owner: str = UID, **spec: Any) -> Any:
    meta = {"labels": {"gateway.flomesh.io/xbackend": "x"}, "ownerReferences": [{"kind": "XBackend", "uid": owner}]}
    said = {"clusterIP": "None", "selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": 80}], **spec}
    return obj("Service", name, spec=said, metadata=meta)


def test_pods_are_looked_for_where_a_route_of_ours_leads_there() -> None:
    assert pods(xbackend(PODS)) is None
    assert pods(xbackend(PODS), route("r", X, parents=[{"name": "not-ours"}])) is None
    assert pods(xbackend(HOST), route("r", X)) is None
    assert pods(xbackend({**PODS, "protocol": "MCP"}), route("r", X)) is None
    assert pods(xbackend(PODS), route("r", X)) == Pods(UID, WANTED)
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": X}}
    assert pods(xbackend(PODS), route("r", "a", filters=[mirror])) == Pods(UID, WANTED)


def test_what_stands_is_compared_with_what_should() -> None:
    one = found_service("x-1")
    assert pods(xbackend(PODS), route("r", X), one) == Pods(UID, WANTED, (("x-1", WANTED),))
    strange = found_service("x-2", owner="another")
    assert pods(xbackend(PODS), route("r", X), strange) == Pods(UID, WANTED)
    assert pods(xbackend(PODS), one) == Pods(UID, None, (("x-1", WANTED),))  # nobody asks any more


def test_its_names() -> None:
    assert name_prefix("shop") == "shop-"
    assert name_prefix("1.shop") == "xb-1-shop-"
    assert len(name_prefix("a" * 253)) + 5 <= 63


def test_a_change_of_slices_works_out_the_endpoints_and_no_route() -> None:
    known = world(gateway(), xbackend(PODS), route("r", X), slice_of("s", "10.0.0.1"))
    translator = Translator(known)
    translator.update()
    known.put(slice_of("s", "10.0.0.2"))
    update = translator.update()
    (part,) = update.parts["default", "gw"].values()
    assert isinstance(part, Backend)
    assert [e.address for e in part.endpoints] == ["10.0.0.2"]
    assert not update.statuses
    known.put(slice_of("s", "10.0.0.2", number=8080))  # until it follows a change of the port: what it says
    (part,) = translator.update().parts["default", "gw"].values()
    assert isinstance(part, Backend)
    assert [e.port for e in part.endpoints] == [8080]


# --- its status ---


def test_its_status_goes_with_the_last_route() -> None:
    known = world(gateway(), xbackend(HOST), route("r", X))
    translator = Translator(known)
    status = translator.update().statuses[REF]
    assert isinstance(status, BackendStatus)
    assert [one.gateway for one in status.ancestors] == [("default", "gw")]
    known.drop(Ref("HTTPRoute", "default", "r"))
    assert translator.update().statuses[REF] is None


def test_its_status_has_room_for_32_and_others_keep_theirs() -> None:
    foreign = {"ancestorRef": {"name": "theirs"}, "controllerName": "example.com/other", "conditions": []}
    told = tuple(AncestorStatus(("default", f"gw-{n:02d}"), (conditions.backend_accepted(),)) for n in range(32))
    body = merged({"ancestors": [foreign]}, BackendStatus(1, told), NOW)
    assert body["ancestors"][0] == foreign
    assert [one["controllerName"] for one in body["ancestors"][1:]] == [CONTROLLER] * 31
    assert merged(body, None, NOW) == {"ancestors": [foreign]}
