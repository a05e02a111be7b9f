"""Statuses for people and programs that have no API server to ask: `fsm status`, the admin page, `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.objects.base import Ref
from controller.translate.shared.conditions import Condition
from controller.translate.shared.status import (
    ClassStatus,
    ExtensionStatus,
    GatewayStatus,
    ListenerSetStatus,
    PolicyStatus,
    RouteStatus,
    Status,
)

# Conditions that are good news when they are False.
BAD_WHEN_TRUE = ("Conflicted", "PartiallyInvalid", "OverlappingTLSConfig", "InsecureFrontendValidationMode", "FailingClosed")


def is_healthy(condition: Condition) -> bool:
    """Whether a condition is good news."""
    return condition.is_true != (condition.type in BAD_WHEN_TRUE)


def complaint(condition: Condition) -> str:
    """What a person should hear of a condition; "" of one that is good news."""
    if condition.fault:
        return condition.fault
    return "" if is_healthy(condition) else f"{condition.type}={condition.status}, {condition.reason}: {condition.message}"


def described(statuses: Mapping[Ref, Status]) -> list[dict[str, Any]]:
    """One entry for each object, listener and parent: its name and its conditions."""
    return [
        {"object": name, "conditions": [{**as_dict(c), "healthy": is_healthy(c)} for c in said]}
        for ref, status in sorted(statuses.items())
        for name, said in parts(ref, status)
    ]


def parts(ref: Ref, status: Status) -> Iterable[tuple[str, tuple[Condition, ...]]]:
    """What conditions are about, and the conditions."""
    match status:
        case ClassStatus() | ExtensionStatus(ancestors=()):
            yield str(ref), status.conditions
        case PolicyStatus() | ExtensionStatus():
            for ancestor in status.ancestors:
                kind = "" if ancestor.kind == "Gateway" else f"{ancestor.kind} "
                yield f"{ref} on {kind}{_seen_from(ref, *ancestor.gateway)}", ancestor.conditions
        case GatewayStatus() | ListenerSetStatus():
            yield str(ref), status.conditions
            for listener in status.listeners:
                yield f"{ref} listener {listener.name} ({listener.attached} routes)", listener.conditions
        case RouteStatus():
            for one in status.parents:
                parent = one.parent
                section = f" listener {parent.section_name}" if parent.section_name else ""
                port = f" port {parent.port}" if parent.port is not None else ""
                yield f"{ref} on {_seen_from(ref, parent.namespace, parent.name)}{section}{port}", one.conditions


def _seen_from(ref: Ref, namespace: str | None, name: str) -> str:
    """A Gateway's name, with its namespace where that is another one than the object's."""
    return name if namespace in (None, ref.namespace) else f"{namespace}/{name}"


def as_dict(condition: Condition) -> dict[str, str]:
    """A condition as Kubernetes writes it, without its stamps."""
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
    }
