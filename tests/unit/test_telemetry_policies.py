"""XTelemetryPolicy (GEP-4768): which one a Gateway has, as they and their Gateways come and go, and what is written of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.objects import gateway, obj, service, world
from support.statuses import NOW

from controller.cli.validate import LoadedFiles
from controller.kubernetes.status_writer import merged
from controller.objects.base import CONTROLLER, Ref
from controller.objects.kinds import AnyObject
from controller.translate import Translator, translate
from controller.translate.shared.status import PolicyStatus

GW = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}
ENABLED = {"mode": "Enabled", "provider": {"backendRef": {"name": "otel", "port": 80}}}
REFUSED = (
    'spec.tracing.mode: found "Enabled"; tracing is not supported by this version, and nothing is traced. '
    "Disabled and ImplementationDefault are understood."
)


def policy(name: str, tracing: dict[str, Any], *targets: dict[str, Any], created: str = "2026-01-01T00:00:00Z") -> AnyObject:
    spec = {"targetRefs": targets or (GW,), "tracing": tracing}
    return obj("XTelemetryPolicy", name, spec=spec, metadata={"creationTimestamp": created, "generation": 1})


def reasons(statuses: Any, name: str = "p") -> dict[str, tuple[str, str]]:
    """By what it is for: the reasons of Accepted and ResolvedRefs."""
    status = statuses.get(Ref("XTelemetryPolicy", "default", name))
    assert status is None or isinstance(status, PolicyStatus)
    return {one.gateway[1]: (one.conditions[0].reason, one.conditions[1].reason) for one in status.ancestors} if status else {}


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ({"name": "otel", "port": 80}, "ResolvedRefs"),
        ({"name": "otel", "port": 81}, "BackendNotFound"),
        ({"name": "otel"}, "BackendNotFound"),
        ({"name": "nobody", "port": 80}, "BackendNotFound"),
        ({"name": "x", "kind": "ConfigMap"}, "InvalidKind"),
        ({"name": "x", "kind": "XBackend", "group": "gateway.networking.x-k8s.io"}, "BackendNotFound"),
        ({"name": "otel", "port": 80, "namespace": "other"}, "RefNotPermitted"),
        ({"name": "granted", "port": 80, "namespace": "other"}, "ResolvedRefs"),
    ],
)
def test_where_spans_would_go(backend: dict[str, Any], reason: str) -> None:
    """Beside the refusal: all that is wrong is said in one go."""
    grant = obj("ReferenceGrant", "g", "other", {
        "from": [{"group": "gateway.networking.x-k8s.io", "kind": "XTelemetryPolicy", "namespace": "default"}],
        "to": [{"group": "", "kind": "Service", "name": "granted"}],
    })  # fmt: skip
    services = (service("otel"), service("otel", namespace="other"), service("granted", namespace="other"))
    made = world(gateway(), *services, grant, policy("p", {**ENABLED, "provider": {"backendRef": backend}}))
    assert reasons(translate(made).statuses) == {"gw": ("Invalid", reason)}


def test_a_gateway_has_one() -> None:
    """The oldest, then the first by name; the next one comes in when it goes."""
    made = world(gateway(), service("otel"), policy("b", {"mode": "Disabled"}))
    translator = Translator(made)
    translator.update()
    assert reasons(translator.statuses, "b") == {"gw": ("Accepted", "ResolvedRefs")}
    made.put(policy("c", {"mode": "Disabled"}, created="2025-12-31T00:00:00Z"))
    made.put(policy("a", ENABLED))
    translator.update()
    said = {name: reasons(translator.statuses, name)["gw"][0] for name in "abc"}
    assert said == {"a": "Conflicted", "b": "Conflicted", "c": "Accepted"}
    made.drop(Ref("XTelemetryPolicy", "default", "c"))
    translator.update()
    said = {name: reasons(translator.statuses, name)["gw"][0] for name in "ab"}
    assert said == {"a": "Invalid", "b": "Conflicted"}


def test_gateways_come_and_go() -> None:
    made = world(policy("p", {"mode": "Disabled"}))
    translator = Translator(made)
    translator.update()
    assert reasons(translator.statuses) == {"gw": ("TargetNotFound", "ResolvedRefs")}
    made.put(gateway())
    translator.update()
    assert reasons(translator.statuses) == {"gw": ("Accepted", "ResolvedRefs")}
    made.put(gateway(gatewayClassName="of-others"))
    update = translator.update()
    assert update.statuses[Ref("XTelemetryPolicy", "default", "p")] is None


def test_what_is_written() -> None:
    wrong = {"group": "", "kind": "Service", "name": "otel"}
    made = world(gateway(), service("otel"), policy("p", ENABLED, GW, wrong, GW))
    theirs = {"ancestorRef": {"name": "gw"}, "controllerName": "example.com/other", "conditions": []}
    status = translate(made).statuses[Ref("XTelemetryPolicy", "default", "p")]
    written = merged({"ancestors": [theirs]}, status, NOW)["ancestors"]
    assert written[0] == theirs
    assert [one["ancestorRef"] for one in written[1:]] == [{**GW, "namespace": "default"}, {**wrong, "namespace": "default"}]
    assert {one["controllerName"] for one in written[1:]} == {CONTROLLER}
    accepted = written[1]["conditions"][0]
    assert (accepted["type"], accepted["status"], accepted["reason"], accepted["message"]) == (
        "Accepted",
        "False",
        "Invalid",
        REFUSED,
    )
    assert merged({"ancestors": written}, None, NOW) == {"ancestors": [theirs]}


def test_validate_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text("""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: fsm-gateway-cls}
spec: {controllerName: flomesh.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: fsm-gateway-cls, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XTelemetryPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  tracing: {mode: Enabled, provider: {backendRef: {name: otel, port: 4317}}}
""")
    found = [(fault.line, fault.object, fault.message) for fault in LoadedFiles(tmp_path).faults()]
    where = (17, "XTelemetryPolicy default/p on gw")
    assert found == [
        (*where, f"Accepted=False, Invalid: {REFUSED}"),
        (
            *where,
            'ResolvedRefs=False, BackendNotFound: spec.tracing.provider.backendRef: Service "default/otel" does not exist.',
        ),
    ]
