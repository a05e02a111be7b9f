"""infrastructure.parametersRef: a ConfigMap that says how the data planes of a Gateway run; a GatewayClass can name one for
all of its Gateways.

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

from controller.files.written import WrittenError, load
from controller.objects.core import ConfigMap
from controller.objects.gateways import Gateway, GatewayClass
from controller.objects.references import ParametersRef
from controller.state.view import View


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
    """The parameters of a Gateway: its own before those of its class. Or what is wrong with them."""
    values = of_class(view, gateway.spec.gateway_class_name)
    if isinstance(values, str):
        return values
    ref = gateway.spec.infrastructure.parameters_ref
    if ref is None:
        return _typed(values, "") if values else DEFAULTS
    place = "spec.infrastructure.parametersRef"
    own = _values(view, place, ref, gateway.metadata.namespace)
    return own if isinstance(own, str) else _typed({**values, **own}, f'{place}: ConfigMap "{ref.name}"')


def of_class(view: View, name: str) -> dict[str, Any] | str:
    """What a GatewayClass says for all of its Gateways, or what is wrong with that."""
    gateway_class = view.get(GatewayClass, "", name)
    ref = gateway_class.spec.parameters_ref if gateway_class is not None else None
    if ref is None:
        return {}
    place = f"GatewayClass {name}, spec.parametersRef"
    values = _values(view, place, ref, ref.namespace)
    if isinstance(values, str):
        return values
    parameters = _typed(values, f'{place}: ConfigMap "{ref.name}"')
    return parameters if isinstance(parameters, str) else values


def _values(view: View, place: str, ref: ParametersRef, namespace: str) -> dict[str, Any] | str:
    if (ref.group, ref.kind) != ("", "ConfigMap"):
        named = f"{ref.group}/{ref.kind}" if ref.group else ref.kind
        return f'{place}: "{ref.name}" is a {named}; a ConfigMap (group "") is understood.'
    config_map = view.get(ConfigMap, namespace, ref.name)
    if config_map is None:
        return f'{place}: there is no ConfigMap "{namespace}/{ref.name}".'
    values: dict[str, Any] = {}
    for key, text in (config_map.data or {}).items():
        try:
            values[key] = load(text)
        except WrittenError as error:
            return f'{place}: ConfigMap "{ref.name}", {key}: not YAML: {error}.'
    return values


def _typed(values: dict[str, Any], place: str) -> Result:
    try:
        parameters = msgspec.convert(values, Parameters, strict=True)
    except msgspec.ValidationError as error:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(Parameters))
        return f"{place}: {error}; the keys are {known}."
    if parameters.replicas < 0 or parameters.workers < 1:
        return f"{place}: replicas must not be negative, and workers must be at least 1."
    return parameters
