"""Whom a policy's status speaks to: the Gateways of ours that what it is for leads to (GEP-713, `status.ancestors`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from controller.objects.base import CONTROLLER, Ref
from controller.objects.gateways import Gateway, GatewayClass
from controller.state.view import View
from controller.translate.shared.conditions import Condition
from controller.translate.shared.status import AncestorStatus

MAX_ANCESTORS: Final = 16  # entries that PolicyStatus has room for
MAX_OF_BACKENDS: Final = 32  # and BackendStatus


def is_ours(view: View, class_name: str) -> bool:
    """Whether a GatewayClass names our controller."""
    gateway_class = view.get(GatewayClass, "", class_name)
    return gateway_class is not None and gateway_class.spec.controller_name == CONTROLLER


def of(view: View, targets: Iterable[Ref], *conditions: Condition, most: int = MAX_ANCESTORS) -> tuple[AncestorStatus, ...]:
    """What is said of a policy, or of the target itself, to each of them."""
    gateways = {gateway for target in targets for gateway in _gateways(view, target)}
    return tuple(AncestorStatus(gateway, conditions) for gateway in sorted(gateways)[:most])


def _gateways(view: View, target: Ref) -> Iterable[tuple[str, str]]:
    target_name = (target.namespace, target.name)
    if target.kind != "Gateway":
        is_backend = target.kind in ("Service", "XBackend")
        key = (f"gateways of {target.kind.lower()}",) if is_backend else ("gateways of route", target.kind)
        noted: Iterable[tuple[str, str]] = view.noted(*key, *target_name)
        return noted
    gateway = view.get(Gateway, *target_name)
    return (target_name,) if gateway is not None and view.call(is_ours, gateway.spec.gateway_class_name) else ()
