"""RBAC against what is used: the controller goes through its whole life at an API server that grants what we install.

Its law is in two halves: nothing is refused (no right is missing), and nothing is granted that was not used.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from kubernetes_asyncio import client
from support.apiserver import ApiServer, Json, rights
from support.stage import PLURALS, Stage

from controller.cli.cluster import _remove_roles
from controller.deploy import install
from controller.kubernetes.api import Api
from controller.objects.kinds import KINDS, WITH_STATUS

ROOT = Path(__file__).parent.parent.parent
GATEWAY = "gateway.networking.k8s.io"

HOW = {"autoscaling": "{maxReplicas: 5}", "podDisruptionBudget": "{maxUnavailable: 1}"}

# A status for each of these kinds is provoked by an example; and a Secret that one of them names.
EXAMPLES = ("extensions", "policies", "streams", "listenerset", "grpc")
MORE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: main, namespace: default}
spec:
  gatewayClassName: fsm-gateway-cls
  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: how}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: plain, namespace: default}
spec:
  parentRefs: [{name: main}]
  rules: [{backendRefs: [{name: back, port: 80}, {group: gateway.networking.x-k8s.io, kind: XBackend, name: pods}]}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: pods, namespace: default}
spec: {type: EndpointSelector, endpointSelector: {matchLabels: {app: pods}}, port: {number: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: default}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls, namespace: default}
spec:
  targetRefs: [{group: "", kind: Service, name: back}]
  validation: {hostname: back, wellKnownCACertificates: System}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: budget, namespace: default}
spec: {targetRefs: [{group: "", kind: Service, name: back}], retryConstraint: {}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XTelemetryPolicy
metadata: {name: spans, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: main}]
  tracing: {mode: Disabled}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: how, namespace: default}
data: {autoscaling: "{maxReplicas: 5}", podDisruptionBudget: "{maxUnavailable: 1}"}
---
apiVersion: extension.gateway.flomesh.io/v1alpha1
kind: Filter
metadata: {name: secretive, namespace: default}
spec: {type: T, secrets: [{name: key, secretRef: {name: token, key: k}}]}
---
apiVersion: v1
kind: Secret
metadata: {name: token, namespace: default}
type: Opaque
stringData: {k: v}
"""


def documents() -> list[Json]:
    texts = [file.read_text() for name in EXAMPLES for file in sorted((ROOT / "examples" / name).glob("*.yaml"))]
    found = [one for text in (*texts, MORE) for one in yaml.safe_load_all(text) if one]
    for one in found:
        if KINDS[one["kind"]].namespaced:
            one["metadata"].setdefault("namespace", "default")
    return found


async def live(stage: Stage, folder: Path) -> None:
    """Everything that the controller ever does at an API server."""
    server = stage.server
    server.conflict_once = set(PLURALS.values())
    async with stage.running() as controller:
        await stage.until(lambda: server.find("gatewayclasses", "", "fsm-gateway-cls"))
        for one in documents():
            server.put(PLURALS[one["kind"]], one)
        made = ("serviceaccounts", "deployments", "services", "horizontalpodautoscalers", "poddisruptionbudgets")
        await stage.until(lambda: all(server.find(one, "default", "main-fsm-gateway-cls") for one in made))
        await stage.until(lambda: any(at[1] == "services" and at[3].startswith("pods-") for at in server.objects))
        service = server.find("services", "default", "main-fsm-gateway-cls")
        assert service is not None
        server.put("services", {**service, "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}})
        async with stage.data_plane(folder, "default/main") as told:
            await stage.until(lambda: told)
            written = WITH_STATUS
            assert written == {kind for kind in written if any(at[1] == PLURALS[kind] for at in server.objects)}, (
                "an example of each"
            )
            for kind in written:
                await stage.until(
                    lambda kind=kind: any("status" in obj for at, obj in server.objects.items() if at[1] == PLURALS[kind])
                )
        # An object that cannot be read: no status can say so, an Event does.
        meta = {"name": "odd", "namespace": "default"}
        server.put(
            "namespacedfilterdefinitions",
            {
                "apiVersion": "extension.gateway.flomesh.io/v1alpha1",
                "kind": "NamespacedFilterDefinition",
                "metadata": meta,
                "spec": "text",
            },
        )
        await stage.until(lambda: any(at[1] == "events" for at in server.objects))
        # Parameters that go, and a Gateway that leaves our class.
        server.put("configmaps", {**server.find("configmaps", "default", "how"), "data": {}})
        await stage.until(lambda: not server.find("horizontalpodautoscalers", "default", "main-fsm-gateway-cls"))
        await stage.until(lambda: not server.find("poddisruptionbudgets", "default", "main-fsm-gateway-cls"))
        gateway = server.find("gateways", "default", "main")
        assert gateway is not None
        server.put("gateways", {**gateway, "spec": {**gateway["spec"], "gatewayClassName": "another"}})
        await stage.until(lambda: not server.find("deployments", "default", "main-fsm-gateway-cls"))
        assert controller.leading
        lease = server.find("leases", "fsm-system", "fsm-controller")
        assert lease is not None
        held = lease["metadata"]["resourceVersion"]
        await stage.until(lambda: server.find("leases", "fsm-system", "fsm-controller")["metadata"]["resourceVersion"] != held)


async def test_every_right_is_used_and_none_is_missing(tmp_path: Path) -> None:
    installed = install.objects(install.Values())
    stage = Stage(installed)
    await live(stage, tmp_path)
    assert not stage.server.denied
    unused = set(rights(installed)) - stage.server.used
    assert not unused, "\n".join(map(str, sorted(unused)))


async def test_the_same_where_secrets_of_some_namespaces_only_may_be_read(tmp_path: Path) -> None:
    values = install.Values(secret_namespaces=("default", "certificates"))
    installed = install.objects(values)
    stage = Stage(installed, values.secret_namespaces)
    listeners = [{"name": "l", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c"}]}}]
    spec = {"gatewayClassName": "fsm-gateway-cls", "listeners": listeners}
    meta = {"name": "g", "namespace": "elsewhere"}
    stage.server.put("gateways", {"apiVersion": f"{GATEWAY}/v1", "kind": "Gateway", "metadata": meta, "spec": spec})
    await live(stage, tmp_path)
    assert not stage.server.denied
    unused = set(rights(installed)) - stage.server.used
    assert not unused, "\n".join(map(str, sorted(unused)))
    assert not any(right.resource == "secrets" and not right.namespace for right in stage.server.used)
    said = str(stage.server.find("gateways", "elsewhere", "g"))
    assert "it may in default, certificates only (fsm.secretNamespaces)" in said


async def test_a_missing_right_is_noticed(tmp_path: Path) -> None:
    """The test above can fail."""
    installed = install.objects(install.Values())
    for role in installed:
        if role["kind"] == "ClusterRole":
            role["rules"] = [rule for rule in role["rules"] if rule["resources"] != ["endpointslices"]]
    stage = Stage(installed)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), stage.running():
            pass
    assert any("endpointslices" in one for one in stage.server.denied)


async def test_a_namespace_that_is_taken_off_the_list_takes_the_right_back() -> None:
    server = ApiServer()
    values = install.Values(secret_namespaces=("kept", "taken"))
    for obj in install.objects(values):
        if obj["kind"] in ("Role", "RoleBinding"):
            server.put(f"{obj['kind'].lower()}s", obj)
    server.put("roles", {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": [],
                         "metadata": {"name": "fsm-controller-fsm", "namespace": "other-people", "labels": {}}})  # fmt: skip
    api_client = client.ApiClient(configuration=client.Configuration(host=await server.start()))
    await _remove_roles(Api(api_client), "fsm", ("kept",))
    await api_client.close()
    await server.stop()
    left = {at[1:] for at in server.objects}
    assert left == {
        ("roles", "fsm-system", "fsm-controller"), ("rolebindings", "fsm-system", "fsm-controller"),
        ("roles", "kept", "fsm-controller-fsm"), ("rolebindings", "kept", "fsm-controller-fsm"),
        ("roles", "other-people", "fsm-controller-fsm"),
    }  # fmt: skip
