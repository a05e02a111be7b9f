"""XBackend: what asks for TLS is spoken to over TLS, or not at all (GEP-4894)."""

from __future__ import annotations

from typing import Any

import pytest
from support.objects import gateway, obj, route, world
from support.refusals import pem, said_of

from controller.objects.base import Ref
from controller.objects.kinds import AnyObject
from controller.translate import translate
from gateway.snapshot import Backend, Rule

GROUP = "gateway.networking.x-k8s.io"
CA = {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}
NAMED = {"hostname": "api.example"}


def translated(tls: dict[str, Any] | None, *more: AnyObject) -> tuple[Backend | None, Rule, Any]:
    authority, chain, key = pem()
    spec: dict[str, Any] = {
        "type": "ExternalHostname", "externalHostname": {"hostname": "api.example"}, "port": {"number": 443}, "protocol": "HTTP",
    }  # fmt: skip
    found = obj("XBackend", "x", spec={**spec, **({"tls": tls} if tls is not None else {})})
    made = translate(
        world(
            gateway(), found, obj("ConfigMap", "ca", data={"ca.crt": authority}),
            obj("Secret", "own", type="kubernetes.io/tls", stringData={"tls.crt": chain, "tls.key": key}),
            obj("Secret", "own", "vault", type="kubernetes.io/tls", stringData={"tls.crt": chain, "tls.key": key}),
            route("r", {"group": GROUP, "kind": "XBackend", "name": "x"}), *more,
        )
    )  # fmt: skip
    (parts,) = made.parts.values()
    backends = [part for part in parts.values() if isinstance(part, Backend)]
    (rule,) = (part for part in parts.values() if isinstance(part, Rule))
    (resolved,) = (one for one in said_of(made, Ref("HTTPRoute", "default", "r")) if one.type == "ResolvedRefs")
    return (backends[0] if backends else None), rule, resolved


@pytest.mark.parametrize("tls", [None, {"mode": "None"}])
def test_in_the_clear_where_nothing_else_is_asked_for(tls: dict[str, Any] | None) -> None:
    backend, _, resolved = translated(tls)
    assert resolved.is_true
    assert backend is not None
    assert backend.tls is None


def test_the_server_proves_who_it_is() -> None:
    backend, _, resolved = translated({"mode": "ServerOnly", "validation": {**NAMED, **CA}})
    assert resolved.is_true
    assert backend is not None
    assert backend.tls is not None
    assert (backend.tls.server_name, backend.tls.own) == ("api.example", None)
    assert "BEGIN CERTIFICATE" in backend.tls.authorities


def test_both_prove_who_they_are() -> None:
    tls = {
        "mode": "ClientAndServer",
        "validation": {**NAMED, "wellKnownCACertificates": "System"},
        "clientCertificateRef": {"name": "own"},
    }
    backend, _, resolved = translated(tls)
    assert resolved.is_true
    assert backend is not None
    assert backend.tls is not None
    assert backend.tls.own is not None
    assert "BEGIN CERTIFICATE" in backend.tls.own.chain


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ({"mode": "ServerOnly"}, "spec.tls.validation.hostname: is missing"),
        ({"mode": "ServerOnly", "validation": NAMED}, "spec.tls.validation.caCertificateRefs: there is none"),
        ({"mode": "ServerOnly", "validation": {**NAMED, "wellKnownCACertificates": "Other"}}, "System is"),
        ({"mode": "ServerOnly", "validation": {**NAMED, "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "none"}]}},
         'There is no ConfigMap "default/none"; "kubectl create configmap none -n default --from-file=ca.crt=FILE" makes one.'),
        ({"mode": "ServerOnly", "validation": {**NAMED, "caCertificateRefs": [{"group": "", "kind": "Secret", "name": "none"}]}},
         'There is no Secret "default/none" of type kubernetes.io/tls; a ConfigMap with key ca.crt does as well'),
        ({"mode": "ServerOnly", "validation": {**NAMED, **CA, "subjectAltNames": [{"type": "URI"}]}}, "subjectAltNames[0]"),
        ({"mode": "ClientAndServer", "validation": {**NAMED, **CA}}, "spec.tls.clientCertificateRef: is missing"),
        ({"mode": "ClientAndServer", "validation": {**NAMED, **CA}, "clientCertificateRef": {"name": "none"}},
         'There is no Secret "default/none" of type kubernetes.io/tls; "kubectl create secret tls none -n default --cert=FILE'),
        ({"validation": {**NAMED, **CA}}, "spec.tls.mode: is None, or missing, and spec.tls.validation asks for TLS"),
        ({"mode": "None", "validation": NAMED}, "spec.tls.validation asks for TLS"),
        ({"mode": "None", "clientCertificateRef": {"name": "own"}}, "spec.tls.clientCertificateRef asks for TLS"),
        ({"clientCertificateRef": {"name": "own"}}, "spec.tls.clientCertificateRef asks for TLS"),
        ({"mode": ""}, 'spec.tls.mode: found ""'),
        ({"mode": "ServerOnly", "validation": {**NAMED, **CA}, "clientCertificateRef": {"name": "own"}},
         "spec.tls.clientCertificateRef: mode ServerOnly shows none"),
        ({"mode": "Mutual", "validation": {**NAMED, **CA}}, 'spec.tls.mode: found "Mutual"'),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_and_nothing_goes_in_the_clear(tls: dict[str, Any], words: str) -> None:
    backend, rule, resolved = translated(tls)
    assert not resolved.is_true
    assert words in resolved.message
    assert rule.targets[0].fault == 500
    assert backend is None or not backend.endpoints


@pytest.mark.parametrize(("group", "is_granted"), [(GROUP, True), ("gateway.networking.k8s.io", False)])
def test_a_certificate_of_another_namespace_is_granted_to_the_kind_by_its_own_group(group: str, is_granted: bool) -> None:
    grant = obj("ReferenceGrant", "g", "vault", {
        "from": [{"group": group, "kind": "XBackend", "namespace": "default"}], "to": [{"group": "", "kind": "Secret"}],
    })  # fmt: skip
    tls = {
        "mode": "ClientAndServer",
        "validation": {**NAMED, "wellKnownCACertificates": "System"},
        "clientCertificateRef": {"name": "own", "namespace": "vault"},
    }
    _, _, resolved = translated(tls, grant)
    assert resolved.is_true == is_granted
    assert is_granted or f"from {GROUP} XBackend in default to Secret would allow it" in resolved.message
