"""What must run for a Gateway, and be there for an XBackend: objects in, objects out.

Generated names follow GEP-1762: NAME-CLASS in the Gateway's namespace, labelled with the Gateway's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from controller.objects.base import CONTROLLER, GATEWAY_CLASS, GATEWAY_GROUP, X_GROUP, Ref
from controller.objects.core import XBACKEND_NAME
from controller.objects.gateways import Gateway
from controller.objects.naming import limited, name_prefix
from controller.translate.gateways.gateways import Running, is_internal
from controller.translate.gateways.parameters import Autoscaling, DisruptionBudget, Parameters
from controller.translate.xbackends import PodService
from gateway import __version__

Json = dict[str, Any]

ADMIN_PORT: Final = 9091
FEED_PORT: Final = 9443
AUDIENCE: Final = "fsm-feed"  # of the tokens that data planes show to the controller
NAME_LABEL: Final = f"{GATEWAY_GROUP}/gateway-name"
CLASS_LABEL: Final = f"{GATEWAY_GROUP}/gateway-class-name"
APP: Final = "fsm-gateway"


# Containers of ours write nowhere and gain no rights.
CONFINED: Final[Json] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class DeploymentSettings(msgspec.Struct, frozen=True):
    """What the operator chose."""

    image: str
    feed: str  # https://host:port
    authority: str  # the feed's CA, as PEM


def service_account(namespace: str, name: str) -> str:
    """The user name that a data plane's token stands for."""
    return f"system:serviceaccount:{namespace}:{name}"


def labels(gateway: Gateway) -> dict[str, str]:
    """The labels of everything made for a Gateway."""
    return {
        **gateway.spec.infrastructure.labels,
        "app": APP,
        "app.kubernetes.io/name": APP,
        "app.kubernetes.io/managed-by": "fsm",
        NAME_LABEL: limited(gateway.metadata.name),
        CLASS_LABEL: limited(gateway.spec.gateway_class_name),
    }


def for_gateway(running: Running, settings: DeploymentSettings) -> list[Json]:
    """ServiceAccount, Deployment and Service of a Gateway, and what its parameters add."""
    gateway, parameters = running.gateway, running.parameters
    manifests = [_service_account(gateway), _deployment(gateway, parameters, settings), _service(running)]
    if parameters.autoscaling is not None:
        manifests.append(_autoscaler(gateway, parameters.autoscaling))
    if parameters.pod_disruption_budget is not None:
        manifests.append(_disruption_budget(gateway, parameters.pod_disruption_budget))
    return manifests


def optional(gateway: Gateway) -> list[Json]:
    """What parameters may add, so that it can be taken away when they no longer do."""
    return [_autoscaler(gateway, Autoscaling(1)), _disruption_budget(gateway, DisruptionBudget())]


def _autoscaler(gateway: Gateway, asked: Autoscaling) -> Json:
    utilization = {"type": "Utilization", "averageUtilization": asked.target_cpu}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _meta(gateway),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": gateway.generated_name},
            "minReplicas": asked.min_replicas,
            "maxReplicas": asked.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": utilization}}],
        },
    }


def _disruption_budget(gateway: Gateway, asked: DisruptionBudget) -> Json:
    spec: Json = {"selector": {"matchLabels": _selector(gateway)}}
    if asked.max_unavailable is not None:
        spec["maxUnavailable"] = asked.max_unavailable
    else:
        spec["minAvailable"] = 1 if asked.min_available is None else asked.min_available
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": _meta(gateway), "spec": spec}


def _meta(gateway: Gateway) -> Json:
    meta: Json = {
        "name": gateway.generated_name,
        "namespace": gateway.metadata.namespace,
        "labels": labels(gateway),
        "ownerReferences": [
            {
                "apiVersion": f"{GATEWAY_GROUP}/v1",
                "kind": "Gateway",
                "name": gateway.metadata.name,
                "uid": gateway.metadata.uid,
                "controller": True,
            }
        ],
    }
    if gateway.spec.infrastructure.annotations:
        meta["annotations"] = dict(gateway.spec.infrastructure.annotations)
    return meta


def _service_account(gateway: Gateway) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _meta(gateway),
        "automountServiceAccountToken": False,
    }


def _selector(gateway: Gateway) -> dict[str, str]:
    return {"app": APP, NAME_LABEL: limited(gateway.metadata.name)}


def _service(running: Running) -> Json:
    gateway, parameters = running.gateway, running.parameters
    spec: Json = {
        "type": parameters.service_type,
        "selector": _selector(gateway),
        "ports": [
            {"name": f"{transport.lower()}-{port}", "port": port, "targetPort": port, "protocol": transport}
            for transport, port in running.ports
        ],
    }
    if is_internal(gateway):
        spec["type"] = "ClusterIP"
    if not running.ports:
        spec["ports"] = [{"name": "admin", "port": ADMIN_PORT, "targetPort": ADMIN_PORT, "protocol": "TCP"}]
        spec["type"] = "ClusterIP"
    fixed = [a.value for a in gateway.spec.addresses if a.type == "IPAddress" and a.value]
    if fixed:
        spec["clusterIP" if is_internal(gateway) else "loadBalancerIP"] = fixed[0]
    meta = _meta(gateway)
    if parameters.service_annotations:
        meta["annotations"] = {**meta.get("annotations", {}), **parameters.service_annotations}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def _deployment(gateway: Gateway, parameters: Parameters, settings: DeploymentSettings) -> Json:
    meta = _meta(gateway)
    template_meta: Json = {"labels": labels(gateway)}
    if "annotations" in meta:
        template_meta["annotations"] = meta["annotations"]
    name = meta["name"]
    container: Json = {
        "name": "gateway",
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "gateway"],
        "args": [
            f"--gateway={gateway.metadata.namespace}/{gateway.metadata.name}",
            f"--feed={settings.feed}",
            "--token-file=/var/run/fsm/token/token",
            "--cache=/var/run/fsm/cache/snapshot",
            f"--workers={parameters.workers}",
        ],
        "env": [{"name": "FSM_FEED_CA", "value": settings.authority}],
        "ports": [{"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}],
        **probes("admin"),
        "resources": parameters.resources,
        "securityContext": CONFINED,
        "volumeMounts": [
            {"name": "token", "mountPath": "/var/run/fsm/token", "readOnly": True},
            {"name": "cache", "mountPath": "/var/run/fsm/cache"},
        ],
    }
    token = {"serviceAccountToken": {"path": "token", "audience": AUDIENCE, "expirationSeconds": 3600}}
    pod: Json = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 40,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
            # A safe sysctl of the pod's own network: port 80 needs no capability.
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "containers": [container],
        "volumes": [
            {"name": "token", "projected": {"sources": [token]}},
            # The last good snapshot, certificates' keys included: in memory, gone with the pod.
            {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        ],
    }
    if parameters.node_selector:
        pod["nodeSelector"] = parameters.node_selector
    if parameters.tolerations:
        pod["tolerations"] = list(parameters.tolerations)
    spec: Json = {
        "selector": {"matchLabels": _selector(gateway)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": template_meta, "spec": pod},
    }
    if parameters.autoscaling is None:  # otherwise their number is the autoscaler's
        spec["replicas"] = parameters.replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def probes(port: str) -> Json:
    """A container's probes, patient ones: a pod that is told to go is taken out by its deletion, at once, and one late
    answer on a busy node is no reason to take out one that serves."""

    def probe(path: str, period: int, patience: int, failures: int) -> Json:
        get = {"path": path, "port": port}
        return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": patience, "failureThreshold": failures}

    return {
        "readinessProbe": probe("/readyz", 2, 5, 3),
        "livenessProbe": probe("/healthz", 10, 10, 6),
        "startupProbe": probe("/healthz", 1, 5, 60),
    }


def gateway_class() -> Json:
    """The class that is made where it is absent."""
    return {
        "apiVersion": f"{GATEWAY_GROUP}/v1",
        "kind": "GatewayClass",
        "metadata": {"name": GATEWAY_CLASS, "labels": {"app": APP, "app.kubernetes.io/managed-by": "fsm"}},
        "spec": {"controllerName": CONTROLLER},
    }


def default_image() -> str:
    """The image of this version."""
    return f"docker.io/flomesh/fsm-gateway:{__version__}"


# --- XBackends ---


def pod_service(xbackend: Ref, uid: str, asked: PodService) -> Json:
    """The Service by which an XBackend's pods are found (GEP-4894): headless, as nobody connects to it, and of a name that
    nobody can rely on."""
    owner = {"apiVersion": f"{X_GROUP}/v1alpha1", "kind": "XBackend", "name": xbackend.name, "uid": uid, "controller": True}
    said = pod_service_change(asked, ())
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "generateName": name_prefix(xbackend.name),
            "namespace": xbackend.namespace,
            "labels": {"app.kubernetes.io/managed-by": "fsm", **said["metadata"]["labels"]},
            "ownerReferences": [owner],
        },
        "spec": {"clusterIP": "None", **said["spec"]},
    }


def pod_service_change(asked: PodService, before: Iterable[str]) -> Json:
    """A merge patch (RFC 7396) that makes such a Service what is asked for. `before`: the labels that it selects pods by."""
    ports = [{"port": port, "targetPort": target, "protocol": "TCP"} for port, target in asked.ports]
    selector = {**dict.fromkeys(before), **dict(asked.selector)}
    return {"metadata": {"labels": {XBACKEND_NAME: asked.label}}, "spec": {"selector": selector, "ports": ports}}
