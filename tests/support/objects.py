"""Small builders for objects, so that a test says only what it is about."""

from __future__ import annotations

from typing import Any

import msgspec

from controller.objects.kinds import KINDS, AnyObject
from controller.state.world import World


def obj(kind: str, name: str, namespace: str = "default", spec: Any = None, **rest: Any) -> AnyObject:
    meta = {"name": name, "namespace": namespace if KINDS[kind].namespaced else "", **rest.pop("metadata", {})}
    value = {"metadata": meta, **rest}
    if spec is not None:
        value["spec"] = spec
    return msgspec.convert(value, KINDS[kind].type)


def gateway_class(name: str = "fsm-gateway-cls", controller: str = "flomesh.io/gateway-controller") -> AnyObject:
    return obj("GatewayClass", name, spec={"controllerName": controller})


def gateway(name: str = "gw", *listeners: dict, namespace: str = "default", **spec: Any) -> AnyObject:
    every = listeners or ({"name": "http", "port": 80, "protocol": "HTTP"},)
    return obj("Gateway", name, namespace, {"gatewayClassName": "fsm-gateway-cls", "listeners": every, **spec})


def service(name: str, *ports: int, namespace: str = "default", **spec: Any) -> AnyObject:
    return obj("Service", name, namespace, {"ports": [{"port": port, "name": f"p{port}"} for port in ports or (80,)], **spec})


def slice_(
    service_name: str,
    *addresses: str,
    port: str = "p80",
    namespace: str = "default",
    pods: tuple[str, ...] = (),
    **conditions: bool,
):
    endpoints = [{"addresses": [address], "conditions": conditions} for address in addresses]
    for endpoint, pod in zip(endpoints, pods, strict=False):
        endpoint["targetRef"] = {"kind": "Pod", "name": pod}
    return obj(
        "EndpointSlice", f"{service_name}-1", namespace,
        metadata={"labels": {"kubernetes.io/service-name": service_name}}, endpoints=endpoints, ports=[{"name": port, "port": 8080}],
    )  # fmt: skip


def route(
    name: str, *refs: Any, namespace: str = "default", parents: Any = None, hostnames: Any = (), created: str = "", **rule: Any
):
    backends = [{"name": ref, "port": 80} if isinstance(ref, str) else ref for ref in refs]
    spec = {
        "parentRefs": parents or [{"name": "gw"}],
        "hostnames": list(hostnames),
        "rules": [{"backendRefs": backends, **rule}],
    }
    return obj("HTTPRoute", name, namespace, spec, metadata={"creationTimestamp": created})


def world(*objects: AnyObject) -> World:
    made = World()
    for one in (gateway_class(), *objects):
        made.put(one)
    return made
