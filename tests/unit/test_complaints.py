"""What files ask for and will not get: `fsm validate` says so before, with the field, its line, and what would work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme
from support.certificates import certificate

from controller.files.lines import Lines
from controller.inspect.loaded_files import LoadedFiles
from controller.objects.base import Ref

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: fsm-gateway-cls
  listeners:
    - name: http
      protocol: HTTP
      port: 80
"""
SERVICE = """\
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec:
  ports:
    - {name: http, port: 80}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:  # of the slice
  name: s-1
  labels:
    kubernetes.io/service-name: s
addressType: IPv4
ports:
  - name: http
    port: 8081
endpoints: [{addresses: [127.0.0.1]}]
"""
ROUTE = """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs:
    - name: gw
  rules:
    - matches:
        - path: {type: PathPrefix, value: /}
      backendRefs:
        - name: s
          port: 80
"""
ALL = GATEWAY + SERVICE + ROUTE
HTTPS = """\
    - name: https
      protocol: HTTPS
      port: 443
      tls:
        certificateRefs:
          - name: c
"""


def told(folder: Path, text: str) -> list[str]:
    (folder / "f.yaml").write_text(text)
    loaded = LoadedFiles(folder)
    return [str(one).removeprefix(f"{folder}/") for one in (*loaded.faults(), *loaded.notes())]


def line(text: str, wanted: str) -> int:
    return next(number for number, one in enumerate(text.splitlines(), 1) if wanted in one)


def test_good(tmp_path: Path) -> None:
    assert told(tmp_path, ALL) == []


@pytest.mark.parametrize(
    ("before", "after", "at", "words"),
    [
        ("          port: 80\n", "          port: 8000\n", "port: 8000",
         'HTTPRoute default/r on gw: spec.rules[0].backendRefs[0].port: ResolvedRefs=False, BackendNotFound: Service "default/s" has no port 8000; it has 80 (http).'),
        ("        - name: s\n", "        - name: t\n", "- name: t",
         'HTTPRoute default/r on gw: spec.rules[0].backendRefs[0].name: ResolvedRefs=False, BackendNotFound: Service "default/t" does not exist.'),
        ("        - name: s\n", "        - name: s\n          namespace: other\n", "- name: s",
         "HTTPRoute default/r on gw: spec.rules[0].backendRefs[0].name: ResolvedRefs=False, RefNotPermitted: "),
        ("    - name: gw\n", "    - name: gww\n", "- name: gww",
         'HTTPRoute default/r: spec.parentRefs[0].name: there is no Gateway "default/gww"; did you mean "gw"?'),
        ("    - name: gw\n", "    - name: gw\n      namespace: other\n", "- name: gw",
         'HTTPRoute default/r: spec.parentRefs[0].name: there is no Gateway "other/gw"; there is one in namespace default'),
        ("    - name: gw\n", "    - name: gw\n      sectionName: https\n", "sectionName: https",
         'HTTPRoute default/r on gw listener https: spec.parentRefs[0].sectionName: Accepted=False, NoMatchingParent: Gateway "gw" has no listener with sectionName "https"; it has http (port 80).'),
        ("    - name: gw\n", "    - name: gw\n      port: 81\n", "port: 81",
         "HTTPRoute default/r on gw port 81: spec.parentRefs[0].port: Accepted=False, NoMatchingParent: "),
        ("kind: HTTPRoute\nmetadata: {name: r}", "kind: HTTPRoute\nmetadata: {name: r, namespace: team}", "- name: gw",
         'HTTPRoute team/r: spec.parentRefs[0].name: there is no Gateway "team/gw"; there is one in namespace default'),
        ("kind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs:\n    - name: gw",
         "kind: HTTPRoute\nmetadata: {name: r, namespace: team}\nspec:\n  parentRefs:\n    - name: gw\n      namespace: default", "- name: gw",
         "HTTPRoute team/r on default/gw: spec.parentRefs[0]: Accepted=False, NotAllowedByListeners: No listener allows HTTPRoutes from namespace team"),
        ("{type: PathPrefix, value: /}", '{type: RegularExpression, value: "/(a"}', "RegularExpression",
         "HTTPRoute default/r on gw: spec.rules[0].matches[0].path.value: Accepted=False, UnsupportedValue: "),
        ("gatewayClassName: fsm-gateway-cls", "gatewayClassName: nginx", "gatewayClassName: nginx",
         'Gateway default/gw: spec.gatewayClassName: found "nginx"; there is no GatewayClass of this name; fsm-gateway-cls would be served here.'),
        ("  - name: http\n    port: 8081", "  - name: web\n    port: 8081", "- name: web",
         'EndpointSlice default/s-1: ports[0].name: found "web"; Service "default/s" has a port with the name "http", which has no endpoint by this'),
        ("service-name: s\n", "service-name: t\n", "service-name: t",
         'EndpointSlice default/s-1: metadata.labels["kubernetes.io/service-name"]: there is no Service "default/t"; Services here: s'),
        ("  labels:\n    kubernetes.io/service-name: s\n", "", "# of the slice",
         'EndpointSlice default/s-1: metadata.labels["kubernetes.io/service-name"]: is missing; it names the Service'),
        ("      port: 80\n---", "      port: 80\n" + HTTPS + "---", "- name: c",
         'Gateway default/gw listener https: spec.listeners[1].tls.certificateRefs[0]: ResolvedRefs=False, InvalidCertificateRef: There is no Secret "default/c"'),
        ("      port: 80\n---", "      port: 80\n    - name: tcp\n      protocol: TCP\n      port: 80\n---", "port: 80",
         'Gateway default/gw listener http: spec.listeners[0].port: Accepted=False, ProtocolConflict: Port 80 is HTTP here and TCP in listener "tcp".'),
    ],
)  # fmt: skip
def test_what_is_told(tmp_path: Path, before: str, after: str, at: str, words: str) -> None:
    assert before in ALL
    text = ALL.replace(before, after, 1)
    found = told(tmp_path, text)
    assert any(one.startswith(f"f.yaml:{line(text, at)}: {words}") for one in found), found
    assert len({one.partition(": ")[2] for one in found}) == len(found), "nothing is said twice"
    assert not any("Programmed" in one or "ListenersNotValid" in one for one in found), "nor what only follows from it"


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    one, other = (certificate(trustme.CA(), "c", "a.example") for _ in range(2))
    secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: c}\ntype: kubernetes.io/tls\n"
    both = {"tls.crt": one.chain, "tls.key": other.key}
    secret += "stringData:\n" + "".join(
        f"  {name}: |\n" + "".join(f"    {row}\n" for row in text.splitlines()) for name, text in both.items()
    )
    text = GATEWAY + HTTPS + secret
    [found] = told(tmp_path, text)
    where = f"f.yaml:{line(text, '- name: c')}: Gateway default/gw listener https: spec.listeners[1].tls.certificateRefs[0]: "
    assert found.startswith(where)
    assert 'Secret "default/c": tls.key does not belong to tls.crt' in found


def test_a_port_of_two_gateways_is_a_note(tmp_path: Path) -> None:
    """On a cluster each has an address of its own."""
    text = ALL + "---\n" + GATEWAY.replace("name: gw", "name: later").replace("protocol: HTTP", "protocol: TCP")
    (tmp_path / "f.yaml").write_text(text)
    loaded = LoadedFiles(tmp_path)
    assert loaded.faults() == []
    [note] = loaded.notes()
    assert (note.line, note.object) == (len(text.splitlines()), "Gateway default/later listener http")
    assert "port 80 is taken by listener default/gw/http, which speaks HTTP there and not TCP" in note.message
    assert loaded.notes() == [note]
    served = loaded.translation.statuses
    assert all(condition.is_true for ref in served if ref.kind == "Gateway" for condition in served[ref].conditions)


def test_several_faults_of_one_condition_have_a_line_each(tmp_path: Path) -> None:
    text = ALL + "        - name: t\n          port: 80\n        - name: s\n          port: 81\n"
    found = told(tmp_path, text)
    assert [one.partition(": ")[0] for one in found] == [
        f"f.yaml:{line(text, '- name: t')}",
        f"f.yaml:{line(text, 'port: 81')}",
    ]


def test_a_fault_for_two_parents_is_told_once(tmp_path: Path) -> None:
    second = "---\n" + GATEWAY.replace("name: gw", "name: two").replace("port: 80", "port: 81")
    route = ROUTE.replace("    - name: gw\n", "    - name: gw\n    - name: two\n").replace("- name: s", "- name: nowhere")
    [found] = told(tmp_path, GATEWAY + second + route)
    assert "HTTPRoute default/r: spec.rules[0].backendRefs[0].name: ResolvedRefs=False, BackendNotFound" in found


def test_the_same_object_twice_names_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ALL)
    (tmp_path / "b.yaml").write_text("# of b\n" + ROUTE.removeprefix("---\n") + ROUTE)
    found = LoadedFiles(tmp_path).faults()
    first = line(ALL, "kind: HTTPRoute") - 1
    assert [(Path(one.file).name, one.line, one.message.replace(f"{tmp_path}/", "")) for one in found] == [
        ("b.yaml", len(ROUTE.splitlines()) + 2, "is defined in line 2 of this file already; that one counts"),
        ("b.yaml", 2, f"is defined in a.yaml:{first} already; that one counts"),
    ]


def test_lines_of_an_item_of_a_list(tmp_path: Path) -> None:
    items = "".join(f"  {row}\n" for row in ROUTE.removeprefix("---\n").splitlines()).replace("  apiVersion", "- apiVersion", 1)
    text = f"apiVersion: v1\nkind: List\nitems:\n{items}".replace("- name: s", "- name: nowhere")
    (tmp_path / "gw.yaml").write_text(GATEWAY)
    [found] = told(tmp_path, text)
    assert found.startswith(f"f.yaml:{line(text, '- name: nowhere')}: HTTPRoute default/r on gw: ")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("      port: 80\n", "      port: 0\n", "Gateway default/gw: spec.listeners[0].port: 0 is less than the minimum of 1"),
        ("    port: 8081", "    port: 99999", "EndpointSlice default/s-1: ports[0].port: found 99999; int <= 65535 is needed"),
        ("{name: http, port: 80}", "{name: HTTP, port: 80}", 'Service default/s: spec.ports[0].name: found "HTTP"; '),
    ],
)
def test_what_leads_to_something_refused_is_no_fault_of_its_own(tmp_path: Path, before: str, after: str, words: str) -> None:
    found = told(tmp_path, ALL.replace(before, after, 1).replace(ROUTE, ROUTE if "Service" not in words else ""))
    assert len(found) == 1, found
    assert words in found[0]


def test_a_gateway_of_another_controller_is_no_fault_of_the_files(tmp_path: Path) -> None:
    """On a cluster that controller serves it; here nobody does, and a note says so."""
    of_others = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: nginx}
spec: {controllerName: gateway.nginx.org/nginx-gateway-controller}
---
"""
    (tmp_path / "f.yaml").write_text(of_others + GATEWAY.replace("fsm-gateway-cls", "nginx"))
    loaded = LoadedFiles(tmp_path)
    assert loaded.faults() == []
    (note,) = loaded.notes()
    assert note.field == "spec.gatewayClassName"
    assert note.message.startswith('found "nginx", a GatewayClass of the controller gateway.nginx.org/')


def test_a_pipe_in_the_place_of_a_file_has_no_lines(tmp_path: Path) -> None:
    """Nothing is ever written to it: whoever read it would wait for ever."""
    os.mkfifo(tmp_path / "f.yaml")
    assert Lines().of(str(tmp_path / "f.yaml"), Ref("HTTPRoute", "default", "r"), 12, ("spec",)) == 12
