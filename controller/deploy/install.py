"""What `fsm install` and the Helm chart put on a cluster: the same objects from the same source; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from controller.deploy.manifests import CONFINED, FEED_PORT, Json, default_image, gateway_class, probes
from controller.objects.base import EXTENSION_GROUP, GATEWAY_GROUP, POLICY_GROUP, X_GROUP
from controller.objects.kinds import KINDS
from gateway import __version__

NAME: Final = "fsm-controller"
HEALTH_PORT: Final = 9090
MADE: Final = "get create patch delete"  # what is made for Gateways, by server-side apply
SECRETS: Final = "list watch"
LEASE: Final = "fsm-controller"
FEED_CA: Final = "fsm-feed-ca"


class Values(msgspec.Struct, frozen=True):
    """What can be chosen. Text may be a chart's placeholder; that is how the chart is made."""

    namespace: str = "fsm-system"
    mesh_name: str = "fsm"
    image: str = default_image()
    replicas: Any = 1
    inline_filters: str = "false"  # whether FilterDefinitions may ask for execution: inline
    secret_namespaces: tuple[str, ...] = ()  # whose Secrets the controller may read; empty for all
    version: str = __version__


def objects(values: Values) -> list[Json]:
    """Everything but the CRDs and the namespace, in the order in which to apply it."""
    return [
        _service_account(values),
        *_cluster_role(values),
        *_role(values),
        *(manifest for name in values.secret_namespaces for manifest in secrets_role(values, name)),
        _service(values),
        _deployment(values),
        _disruption_budget(values),
        {**gateway_class(), "metadata": {**gateway_class()["metadata"], "labels": labels(values)}},
    ]


def namespaces(text: str) -> tuple[str, ...]:
    """Names, with commas between them; as Helm writes a list, too: {a,b}."""
    return tuple(dict.fromkeys(name for entry in text.strip("{} ").split(",") if (name := entry.strip())))


def namespace(values: Values) -> Json:
    """The control plane's namespace, which takes no pods but such as ours (Pod Security Standards)."""
    restricted = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": values.namespace, "labels": {**labels(values), **restricted}},
    }


def labels(values: Values) -> dict[str, str]:
    """What tells our objects from other people's."""
    return {
        "app.kubernetes.io/name": "flomesh.io",
        "app.kubernetes.io/instance": values.mesh_name,
        "app.kubernetes.io/version": values.version,
        "app.kubernetes.io/managed-by": "fsm",
    }


def _meta(values: Values, name: str = NAME, *, namespaced: bool = True) -> Json:
    meta: Json = {"name": name, "labels": {**labels(values), "app": NAME}}
    if namespaced:
        meta["namespace"] = values.namespace
    return meta


def _selector(values: Values) -> dict[str, str]:
    return {"app": NAME, "app.kubernetes.io/instance": values.mesh_name}


def _service_account(values: Values) -> Json:
    # Its rights are the controller's; another pod that runs under it gets no token unless it asks.
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _meta(values),
        "automountServiceAccountToken": False,
    }


def _rule(groups: list[str], resources: list[str], verbs: str, *, names: list[str] | None = None) -> Json:
    rule: Json = {"apiGroups": groups, "resources": resources, "verbs": verbs.split()}
    return {**rule, "resourceNames": names} if names else rule


def _followed(group: str) -> Iterator[Json]:
    """What following the kinds of a group, and writing the statuses of those that have one, needs."""
    kinds = [kind for kind in KINDS.values() if kind.group == group]
    silent = [kind.plural for kind in kinds if not kind.has_status]
    written = [kind.plural for kind in kinds if kind.has_status]
    if silent:
        yield _rule([group], silent, "list watch")
    if written:
        yield _rule([group], written, "get list watch")
        yield _rule([group], [f"{plural}/status" for plural in written], "patch")


def _cluster_role(values: Values) -> list[Json]:
    """What the controller may do everywhere: read routes and endpoints, say statuses, run data planes.

    Each right is used, and a test (`test_rights.py`) goes through the controller's life to see that. An object is asked for by
    name (get) only where a status that was to be written met a conflict, or something made for a Gateway is to go.
    """
    rules = [
        *(rule for group in (GATEWAY_GROUP, X_GROUP, EXTENSION_GROUP, POLICY_GROUP) for rule in _followed(group)),
        _rule([GATEWAY_GROUP], ["gatewayclasses"], "create"),
        # ConfigMaps hold certificate authorities and the parameters of Gateways.
        _rule([""], ["namespaces", "configmaps"], "list watch"),
        _rule(["certificates.k8s.io"], ["clustertrustbundles"], "list watch"),
        _rule(["autoscaling"], ["horizontalpodautoscalers"], MADE),
        _rule(["policy"], ["poddisruptionbudgets"], MADE),
        # Asked for are those of type kubernetes.io/tls, and those that a filter or a policy names; RBAC knows no types.
        *([] if values.secret_namespaces else [_rule([""], ["secrets"], SECRETS)]),
        _rule([""], ["services"], f"{MADE} list watch"),
        _rule([""], ["serviceaccounts"], MADE),
        _rule(["apps"], ["deployments"], f"{MADE} list watch"),
        _rule(["discovery.k8s.io"], ["endpointslices"], "list watch"),
        _rule(["apiextensions.k8s.io"], ["customresourcedefinitions"], "list watch"),
        _rule(["authentication.k8s.io"], ["tokenreviews"], "create"),
        # What no status can say (an object cannot be read) is told beside the object.
        _rule([""], ["events"], "create"),
    ]
    name = f"{NAME}-{values.mesh_name}"
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": _meta(values, name, namespaced=False),
        "rules": rules,
    }
    return [role, _binding(values, "ClusterRole", name)]


def secrets_role(values: Values, namespace: str) -> list[Json]:
    """What the controller may do in a namespace whose Secrets it may read, where it may not read all."""
    name = f"{NAME}-{values.mesh_name}"
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {**_meta(values, name), "namespace": namespace},
        "rules": [_rule([""], ["secrets"], SECRETS)],
    }
    binding = _binding(values, "Role", name)
    return [role, {**binding, "metadata": {**binding["metadata"], "namespace": namespace}}]


def _role(values: Values) -> list[Json]:
    """What the controller may do at home: the Lease, and the feed's CA."""
    rules = [
        # What is created has no name yet by which it could be told apart.
        _rule(["coordination.k8s.io"], ["leases"], "create"),
        _rule(["coordination.k8s.io"], ["leases"], "get update", names=[LEASE]),
        _rule([""], ["secrets"], "create"),
        _rule([""], ["secrets"], "get", names=[FEED_CA]),
    ]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _meta(values),
        "rules": rules,
    }
    return [role, _binding(values, "Role", NAME)]


def _binding(values: Values, kind: str, name: str) -> Json:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": _meta(values, name, namespaced=kind == "Role"),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": values.namespace}],
    }


def _service(values: Values) -> Json:
    """Headless: data planes connect to every replica."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(values),
        "spec": {
            "clusterIP": "None",
            "selector": _selector(values),
            "ports": [{"name": "feed", "port": FEED_PORT, "targetPort": "feed", "protocol": "TCP"}],
        },
    }


def _deployment(values: Values) -> Json:
    def from_field(path: str) -> Json:
        return {"fieldRef": {"fieldPath": path}}

    container: Json = {
        "name": "controller",
        "image": values.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["fsm", "controller"],
        "env": [
            {"name": "POD_NAMESPACE", "valueFrom": from_field("metadata.namespace")},
            {"name": "POD_NAME", "valueFrom": from_field("metadata.name")},
            {"name": "FSM_IMAGE", "value": values.image},
            {"name": "FSM_ALLOW_INLINE_FILTERS", "value": values.inline_filters},
            {"name": "FSM_SECRET_NAMESPACES", "value": ",".join(values.secret_namespaces)},
        ],
        "ports": [
            {"name": "feed", "containerPort": FEED_PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
        ],
        **probes("health"),
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": CONFINED,
    }
    pod: Json = {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(values),
        "spec": {
            "replicas": values.replicas,
            "selector": {"matchLabels": _selector(values)},
            "template": {"metadata": {"labels": {**labels(values), "app": NAME}}, "spec": pod},
        },
    }


def _disruption_budget(values: Values) -> Json:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(values),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _selector(values)}},
    }
