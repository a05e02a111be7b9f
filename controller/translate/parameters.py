"""infrastructure.parametersRef: a ConfigMap that says how the data planes of a Gateway run.

    data:
      replicas: "2"
      workers: "2"
      serviceType: LoadBalancer          # or NodePort, ClusterIP
      serviceAnnotations: |
        example.com/balancer: internal
      resources: |
        requests: {cpu: 500m, memory: 256Mi}
      autoscaling: |
        {minReplicas: 2, maxReplicas: 10, targetCPU: 70}
      podDisruptionBudget: |
        {minAvailable: 1}
      nodeSelector: |
        kubernetes.io/arch: amd64
      tolerations: |
        - {key: edge, operator: Exists}

Each value is YAML. What cannot be understood is said so in the Gateway's status (InvalidParameters).
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec
import yaml

from controller.memo import View
from controller.objects import ConfigMap, Gateway


def _resources() -> dict[str, dict[str, str]]:
    return {"requests": {"cpu": "100m", "memory": "96Mi"}}


class Autoscaling(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A HorizontalPodAutoscaler."""

    max_replicas: int
    min_replicas: int = 1
    target_cpu: int = msgspec.field(default=70, name="targetCPU")  # percent of what is requested


class DisruptionBudget(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A PodDisruptionBudget."""

    min_available: int | str | None = None
    max_unavailable: int | str | None = None


class Parameters(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How the data planes of a Gateway run."""

    replicas: int = 1
    workers: int = 1
    service_type: Literal["LoadBalancer", "NodePort", "ClusterIP"] = "LoadBalancer"
    service_annotations: dict[str, str] = {}
    resources: dict[str, dict[str, str]] = msgspec.field(default_factory=_resources)
    autoscaling: Autoscaling | None = None
    pod_disruption_budget: DisruptionBudget | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()


DEFAULTS: Final = Parameters()
Result: TypeAlias = Parameters | str


def of(view: View, gateway: Gateway) -> Result:
    """The parameters of a Gateway, or what is wrong with them."""
    ref = gateway.spec.infrastructure.parameters_ref
    if ref is None:
        return DEFAULTS
    where = "spec.infrastructure.parametersRef"
    if (ref.group, ref.kind) != ("", "ConfigMap"):
        named = f"{ref.group}/{ref.kind}" if ref.group else ref.kind
        return f'{where}: "{ref.name}" is a {named}; a ConfigMap (group "") is understood.'
    found = view.get(ConfigMap, gateway.metadata.namespace, ref.name)
    if found is None:
        return f'{where}: there is no ConfigMap "{gateway.metadata.namespace}/{ref.name}".'
    values: dict[str, Any] = {}
    for key, text in (found.data or {}).items():
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            return f'{where}: ConfigMap "{ref.name}", {key}: not YAML: {str(error).splitlines()[0]}.'
    try:
        made = msgspec.convert(values, Parameters, strict=True)
    except msgspec.ValidationError as error:
        known = ", ".join(msgspec.structs.fields(Parameters)[i].encode_name for i in range(len(Parameters.__struct_fields__)))
        return f'{where}: ConfigMap "{ref.name}": {error}; the keys are {known}.'
    if made.replicas < 0 or made.workers < 1:
        return f'{where}: ConfigMap "{ref.name}": replicas must not be negative, and workers must be at least 1.'
    return made
