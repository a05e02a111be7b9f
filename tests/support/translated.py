"""From YAML to answers: objects are translated as on a cluster, and a proxy is brought there."""

from __future__ import annotations

import msgspec
import yaml

from controller.objects.kinds import KINDS
from controller.state.world import World
from controller.translate import Translation, translate
from gateway.snapshot import Change
from support.proxy import Proxy

CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: fsm-gateway-cls}
spec: {controllerName: flomesh.io/gateway-controller}
"""


def service(name: str, port: int, more: str = "") -> str:
    """A Service on loopback, reached at port 80."""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{ports: [{{name: p, port: 80{more}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: p, port: {port}}}]
"""


def gateway(listeners: str = "[{name: http, port: 80, protocol: HTTP}]", more: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: default}}
spec: {{gatewayClassName: fsm-gateway-cls, listeners: {listeners}{more}}}
"""


def http_route(rules: str, name: str = "r", more: str = "", *, created: str = "") -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: default, creationTimestamp: "{created}"}}
spec: {{parentRefs: [{{name: gw}}], rules: {rules}{more}}}
"""


def world(*texts: str) -> World:
    made = World()
    made.note(("setting", "loopback backends"), True)
    for text in (CLASS, *texts):
        for value in yaml.safe_load_all(text):
            made.put(msgspec.convert(value, KINDS[value["kind"]].type))
    return made


async def serve(proxy: Proxy, *texts: str) -> Translation:
    """Translate objects, and bring the proxy there."""
    translation = translate(world(*texts))
    parts = translation.parts[("default", "gw")].values()
    rank = {"certificate": 0, "backend": 1}
    put = sorted(parts, key=lambda part: rank.get(str(part.__struct_config__.tag), 2))
    problems = await proxy.runtime.apply(Change(put=tuple(put), reset=True))
    assert not problems, problems
    return translation
