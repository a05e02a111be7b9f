"""A shop behind the canary's Gateway, as the tests of the admin page show it: a route with something of everything, and a filter."""

from __future__ import annotations

ROUTES = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: simple-fsm-gateway}]
  hostnames: [shop.example]
  rules:
  - matches:
    - {path: {type: PathPrefix, value: /cart}, method: GET, headers: [{name: x-beta, value: "1"}]}
    - {path: {type: Exact, value: /basket}}
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Shop, value: cart}]}}
    - type: ExtensionRef
      extensionRef: {group: extension.gateway.flomesh.io, kind: Filter, name: marks}
    backendRefs:
    - {name: argo-rollouts-stable-service, port: 80, weight: 70}
    - {name: argo-rollouts-canary-service, port: 80, weight: 30}
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example, statusCode: 301}}]
  - matches: [{path: {value: /lost}}]
    backendRefs: [{name: nowhere, port: 80}]
"""
MARKS = """\
\"\"\"Marks requests.\"\"\"

from gateway.filters.api import Request


def request(request: Request) -> None:
    if request.query.get("fail"):
        raise ValueError("asked for")
    request.headers["X-Mark"] = "first"


def test_it_marks() -> None:
    asked = Request.of()
    request(asked)
    assert asked.headers["x-mark"] == "first"
"""
