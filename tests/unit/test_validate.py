"""Bad YAML: the line, the object, the field, what was found and what would work."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.files.validate import Valid, validate
from controller.inspect.loaded_files import LoadedFiles
from controller.objects.documents import Document, DocumentFault, read

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: r
spec:
  parentRefs:
    - name: gw
  rules:
    - backendRefs:
        - name: s
          port: 80
"""
GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: gw
spec:
  gatewayClassName: fsm-gateway-cls
  listeners:
    - name: http
      port: 80
      protocol: HTTP
"""


def faults(text: str) -> list[str]:
    found: list[str] = []
    for item in read(text, "f.yaml"):
        result = [item] if isinstance(item, DocumentFault) else validate(item)
        if isinstance(result, list):
            found += map(str, result)
    return found


def test_good() -> None:
    assert faults(ROUTE) == faults(GATEWAY) == faults(ROUTE.replace("/v1\n", "/v1beta1\n")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ROUTE.replace("port: 80", "port: 0"), ["f.yaml:11: HTTPRoute default/r: spec.rules[0].backendRefs[0].port: 0 is less than the minimum of 1; if a share of the traffic was meant, write \"weight: 0\" and the Service's port here"]),
        (ROUTE.replace("port: 80", "prot: 80"), ['f.yaml:11: HTTPRoute default/r: spec.rules[0].backendRefs[0].prot: unknown field; did you mean "port"?', "Must have port for Service reference"]),
        (ROUTE.replace("          port: 80\n", ""), ["f.yaml:10: HTTPRoute default/r: spec.rules[0].backendRefs[0]: Must have port for Service reference"]),
        (ROUTE.replace("port: 80", 'port: "80"'), ['f.yaml:11: HTTPRoute default/r: spec.rules[0].backendRefs[0].port: found "80"; a number is needed: write it without quotes']),
        (ROUTE.replace("name: gw", "name: gw\n      sectionName: 8080"), ["f.yaml:8: HTTPRoute default/r: spec.parentRefs[0].sectionName: found 8080; text is needed: quote it"]),
        (ROUTE + "      matches: [{headers: [{name: x, value: on}]}]\n", ["matches[0].headers[0].value: found true; text is needed: quote it (YAML reads yes, on and true so)"]),
        (ROUTE.replace("  name: r\n", "  name: r\n  labels: {x: 1}\n"), ['f.yaml:5: HTTPRoute default/r: metadata.labels["x"]: found 1; text is needed: quote it']),
        (ROUTE.replace("  name: r\n", "  name: r\n  annotations:\n    a.b/c: no\n"), ['f.yaml:6: HTTPRoute default/r: metadata.annotations["a.b/c"]: found false; text is needed: quote it (YAML reads no, off and false so)']),
        (ROUTE.replace("  name: r\n", '  name: r\n  labels: {x: "-"}\n'), ['metadata.labels["x"]: found "-"; letters, digits']),
        (ROUTE.replace("  name: r\n", "  name: r\n  labels: [x]\n"), ['metadata.labels: found ["x"]; names and values are needed']),
        (ROUTE.replace("name: r\n", "name: 12\n"), ["f.yaml:4: HTTPRoute default/12: metadata.name: found 12; text is needed: quote it"]),
        ("kind: ConfigMap\napiVersion: v1\nmetadata: {name: s}\ndata:\n  a: x\n  b.c: 1\n", ['f.yaml:6: ConfigMap default/s: data["b.c"]: found 1; text is needed: quote it']),
        ("kind: Service\napiVersion: v1\nmetadata: {name: s}\nspec: {ports: [{port: '80'}]}\n", ['spec.ports[0].port: found "80"; a number is needed: write it without quotes']),
        (ROUTE.replace("port: 80", "port: eighty"), ['"eighty" is not of type "integer"']),
        (ROUTE.replace("        - name: s\n          port: 80\n", "        - name: s\n          port: 80\n          port: 100\n"), ['f.yaml:12: "port" is given twice; keep one']),
        (ROUTE.replace("/v1\n", "/v2\n"), ['f.yaml:1: HTTPRoute r: apiVersion: found "gateway.networking.k8s.io/v2"; gateway.networking.k8s.io/v1 or gateway.networking.k8s.io/v1beta1 is served']),
        (ROUTE.replace("  name: r\n", "  labels: {}\n"), ["metadata.name: is missing"]),
        (ROUTE + "      timeouts: {request: 1s, backendRequest: 2s}\n", ["backendRequest timeout cannot be longer than request timeout"]),
        (ROUTE + "      timeouts: {request: soon}\n", ['"soon" does not match']),
        (ROUTE + "  hostnames: [UPPER.example]\n", ['spec.hostnames[0]: "UPPER.example" does not match']),
        (GATEWAY.replace("protocol: HTTP", "protocol: HTTP\n      tls: {}"), ["tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']"]),
        (GATEWAY.replace("port: 80", "port: 70000"), ["70000 is greater than the maximum of 65535"]),
        (GATEWAY + "    - name: http\n      port: 81\n      protocol: HTTP\n", ["Listener name must be unique within the Gateway"]),
        (GATEWAY.replace("  gatewayClassName: fsm-gateway-cls\n", ""), ['"gatewayClassName" is a required property']),
        ("kind: Service\napiVersion: v1\nmetadata: {name: s}\nspec: {ports: [{port: x}]}\n", ['f.yaml:4: Service default/s: spec.ports[0].port: found "x"; int is needed']),
        ("a: [1\nb: 2\n", ["f.yaml:2: not YAML"]),
        ("just text\n", ["f.yaml:1: not a Kubernetes object"]),
        ("a: b\n", ["not a Kubernetes object"]),
        ("\tx: 1\n", ["not YAML"]),
    ],
)  # fmt: skip
def test_bad(text: str, expected: list[str]) -> None:
    found = faults(text)
    assert len(found) >= 1
    for words in expected[:1]:
        assert words in found[0], found


def test_defaults_are_filled_in() -> None:
    (document,) = read(ROUTE, "f.yaml")
    assert isinstance(document, Document)
    result = validate(document)
    assert isinstance(result, Valid)
    assert document.value["spec"]["parentRefs"][0]["kind"] == "Gateway"
    assert document.value["spec"]["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]


def test_kinds_that_mean_nothing_to_a_gateway_are_passed_over() -> None:
    (document,) = read("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n", "f.yaml")
    assert isinstance(document, Document)
    assert validate(document) is None


@pytest.mark.parametrize(
    ("api_version", "kind", "words"),
    [
        ("gateway.networking.k8s.io/v1", "HttpRoute", "did you mean HTTPRoute (gateway.networking.k8s.io/v1)?"),
        ("gateway.networking.k8s.io/v1", "HTTPRuote", "did you mean HTTPRoute"),
        ("gateway.networking.k8s.io/v1", "GatewayClas", "did you mean GatewayClass"),
        ("gateway.netwroking.k8s.io/v1", "HTTPRoute", "gateway.networking.k8s.io/v1 or"),
        ("gateway.networking.k8s.io/v1", "UDSRoute", "did you mean UDPRoute"),
        ("gateway.networking.k8s.io/v1", "Listener", "of gateway.networking.k8s.io these are known: "),
        ("v1", "service", "did you mean Service (v1)?"),
        (
            "gateway.networking.k8s.io/v1beta2",
            "HTTPRoute",
            'found "gateway.networking.k8s.io/v1beta2"; gateway.networking.k8s.io/v1 or',
        ),
        ("gateway.networking.k8s.io", "HTTPRoute", 'found "gateway.networking.k8s.io"; gateway.networking.k8s.io/v1 or'),
        ("v1", "HTTPRoute", 'found "v1"; gateway.networking.k8s.io/v1 or'),
        ("networking.k8s.io/v1", "HTTPRoute", 'found "networking.k8s.io/v1"; gateway.networking.k8s.io/v1 or'),
        ("null", "HTTPRoute", "apiVersion: is missing; gateway.networking.k8s.io/v1 or"),
        ("discovery.k8s.io/v1", "endpointslices", "did you mean EndpointSlice (discovery.k8s.io/v1)?"),
        ("gateway.flomesh.io/v1alpha1", "RateLimitPolicies", "did you mean RateLimitPolicy (gateway.flomesh.io/v1alpha1)?"),
        ("traefik.io/v1alpha1", "IngressRoute", ""),
        ("networking.k8s.io/v1", "Ingress", ""),
        ("serving.knative.dev/v1", "Service", ""),
        ("networking.istio.io/v1", "Gateway", ""),
    ],
)
def test_a_kind_that_is_nearly_one_of_ours_is_told(api_version: str, kind: str, words: str) -> None:
    (document,) = read(f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n", "f.yaml")
    found = validate(document)
    if words:
        assert isinstance(found, list)
        assert words in str(found[0])
    else:
        assert found is None


def test_several_documents_lists_and_json() -> None:
    text = (
        ROUTE
        + "---\n"
        + GATEWAY
        + '---\n{"kind": "List", "items": [{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "n"}}]}\n---\n'
    )
    assert [item.value["kind"] for item in read(text, "f") if isinstance(item, Document)] == [
        "HTTPRoute",
        "Gateway",
        "Namespace",
    ]


@pytest.mark.parametrize("kind", ["List", "HTTPRouteList"])
def test_what_is_wrong_within_a_list(kind: str) -> None:
    items = "".join(f"  {row}\n" for row in ROUTE.replace("HTTPRoute", "httproute").splitlines()).replace("  a", "- a", 1)
    found = faults(f"apiVersion: v1\nkind: {kind}\nitems:\n{items}- just text\n")
    assert found == [
        'f.yaml:5: httproute r: kind: found "httproute"; did you mean HTTPRoute (gateway.networking.k8s.io/v1)?',
        "f.yaml:15: not a Kubernetes object: apiVersion, kind and metadata are needed",
    ]


def test_timestamps_stay_text() -> None:
    (document,) = read("kind: X\nmetadata: {creationTimestamp: 2024-01-01T00:00:00Z}\n", "f")
    assert isinstance(document, Document)
    assert document.value["metadata"]["creationTimestamp"] == "2024-01-01T00:00:00Z"


def test_all_that_is_wrong_is_said_in_one_go(tmp_path) -> None:
    """The article's route: one port is refused by the schema, the other leads nowhere."""
    from controller.inspect.loaded_files import LoadedFiles

    service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n"
    refs = "        - name: s\n          port: 100\n        - name: s\n          port: 0\n"
    route = ROUTE.replace("        - name: s\n          port: 80\n", refs)
    (tmp_path / "all.yaml").write_text("---\n".join((GATEWAY, service, route)))
    messages = " ".join(fault.message for fault in LoadedFiles(tmp_path).faults())
    assert 'write "weight: 0" and the Service\'s port here' in messages
    assert 'has no port 100; it has 80. If a share of the traffic was meant, write "weight: 100"' in messages


def test_limits_that_mean_nothing_are_a_fault_though_the_gateway_is_accepted(tmp_path: Path) -> None:
    written = GATEWAY.replace("name: gw\n", 'name: gw\n  annotations: {gateway.flomesh.io/limits: "{underscores: drop}"}\n')
    (tmp_path / "f.yaml").write_text(written)
    [fault] = LoadedFiles(tmp_path).faults()
    assert (fault.line, fault.object) == (1, "Gateway default/gw")
    assert "underscores: 'drop' was found; one of Allow, Reject, Drop is needed" in fault.message
