"""Services and EndpointSlices that the API server would refuse, though their types are right."""

from __future__ import annotations

import pytest

from controller.files.validate import Valid, validate
from controller.objects.documents import Document, read

SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: a, labels: {{kubernetes.io/service-name: s}}}}
addressType: {type}
ports: {ports}
endpoints: {endpoints}
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {spec}\n"


def faults(text: str) -> list[str]:
    (document,) = read(text, "f")
    assert isinstance(document, Document)
    found = validate(document)
    assert found is not None
    return [] if isinstance(found, Valid) else [f"{one.line} {one.field}: {one.message}" for one in found]


@pytest.mark.parametrize(
    ("type_", "address", "words"),
    [
        ("IPv4", "10.0.0.1", ""),
        ("IPv4", "127.0.0.1", ""),  # backends are processes of this machine
        ("IPv6", "2001:db8::1", ""),
        ("IPv6", "::1", ""),
        ("FQDN", "app.example.com", ""),
        ("FQDN", "1.2.3.4", ""),
        ("IPv4", "app", "with addressType IPv4 an IPv4 address is needed; for names, write addressType: FQDN"),
        ("IPv4", "localhost", "with addressType IPv4 an IPv4 address is needed; for names, write addressType: FQDN"),
        ("IPv4", "10.0.0", "with addressType IPv4 an IPv4 address is needed"),
        ("IPv4", "10.0.0.256", "with addressType IPv4 an IPv4 address is needed"),
        ("IPv4", "", "with addressType IPv4 an IPv4 address is needed"),
        ("IPv4", "2001:db8::1", "with addressType IPv4 an IPv4 address is needed; this one is IPv6"),
        ("IPv6", "10.0.0.1", "with addressType IPv6 an IPv6 address is needed; this one is IPv4"),
        ("IPv6", "::ffff:10.0.0.1", "a plain IPv6 address is needed: write 10.0.0.1, with addressType IPv4"),
        ("IPv4", "::ffff:10.0.0.1", "a plain IPv4 address is needed: write 10.0.0.1"),
        ("IPv6", "fe80::1%eth0", "a plain IPv6 address is needed, without a zone"),
        ("IPv4", "0.0.0.0", "an unspecified address is no endpoint's"),
        ("IPv4", "169.254.1.1", "a link-local address is no endpoint's"),
        ("IPv6", "fe80::1", "a link-local address is no endpoint's"),
        ("IPv4", "224.0.0.1", "a multicast address is no endpoint's"),
        ("FQDN", "app", "with addressType FQDN a name such as app.example.com is needed"),
        ("FQDN", "App.example.com", "with addressType FQDN a name such as app.example.com is needed"),
    ],
)  # fmt: skip
def test_addresses(type_: str, address: str, words: str) -> None:
    found = faults(SLICE.format(type=type_, ports="[{port: 80}]", endpoints=f'[{{addresses: ["{address}"]}}]'))
    if not words:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith(f'6 endpoints[0].addresses[0]: found "{address}"; ')
        assert words in found[0]


@pytest.mark.parametrize(
    ("type_", "ports", "endpoints", "words"),
    [
        ("IPv5", "[]", "[]", 'addressType: found "IPv5"; IPv4, IPv6 or FQDN is needed'),
        ("IPv4", "[{port: 99999}]", "[]", "ports[0].port: found 99999; int <= 65535 is needed"),
        ("IPv4", "[{port: 0}]", "[]", "ports[0].port: found 0; int >= 1 is needed"),
        ("IPv4", "[{name: A_b, port: 1}]", "[]", 'ports[0].name: found "A_b"; lower-case letters'),
        ("IPv4", f"[{{name: {'a' * 64}, port: 1}}]", "[]", "at most 63"),
        ("IPv4", "[{name: a, port: 1}, {name: a, port: 2}]", "[]", 'ports[1].name: found "a", as ports[0] has it'),
        ("IPv4", "[{port: 1}, {port: 2}]", "[]", "ports[1].name: is missing; of several ports each needs a name of its own"),
        ("IPv4", "[{port: 1, protocol: HTTP}]", "[]", 'ports[0].protocol: found "HTTP"; TCP, UDP or SCTP is needed'),
        ("IPv4", "[]", "[{addresses: []}]", "endpoints[0].addresses: found none; 1 to 100 are needed"),
        ("IPv4", "[]", f"[{', '.join(['{addresses: [10.0.0.1]}'] * 1001)}]", "endpoints: found 1001; at most 1000 are taken"),
    ],
)
def test_slices(type_: str, ports: str, endpoints: str, words: str) -> None:
    [found] = faults(SLICE.format(type=type_, ports=ports, endpoints=endpoints))
    assert words in found


def test_a_slice_says_of_what_type_its_addresses_are() -> None:
    text = SLICE.format(type="IPv4", ports="[]", endpoints="[]").replace("addressType: IPv4\n", "")
    assert faults(text) == ["1 addressType: is missing; IPv4, IPv6 or FQDN is needed"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{ports: [{port: 80}]}", ""),
        ("{clusterIP: None}", ""),
        ("{type: ExternalName, externalName: app.example.com}", ""),
        ("{ports: [{port: 53, protocol: UDP, name: a}, {port: 53, name: b}]}", ""),
        ("{}", "spec.ports: names no port"),
        (
            "{type: External, ports: [{port: 80}]}",
            'spec.type: found "External"; ClusterIP, NodePort, LoadBalancer or ExternalName',
        ),
        (
            "{type: ExternalName}",
            "spec.externalName: is missing; with type ExternalName a name such as app.example.com is needed",
        ),
        ("{type: ExternalName, externalName: 'http://a'}", 'spec.externalName: found "http://a"'),
        ("{ports: [{port: 80}, {port: 81, name: b}]}", "spec.ports[0].name: is missing; of several ports"),
        (
            "{ports: [{port: 80, name: a}, {port: 80, name: b}]}",
            "spec.ports[1].port: found 80, which ports[0] has for TCP as well",
        ),
        ("{ports: [{port: 80, protocol: tcp}]}", 'spec.ports[0].protocol: found "tcp"; TCP, UDP or SCTP is needed'),
    ],
)
def test_services(spec: str, words: str) -> None:
    found = faults(SERVICE.format(spec=spec))
    assert [words in one for one in found] == ([True] if words else [])
