"""Statuses for people and programs that have no API server to ask: `fsm status`, the admin page, `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.objects.base import Ref
from controller.objects.documents import spelled
from controller.translate.remarks import Remark, Remarks
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


def described(statuses: Mapping[Ref, Status], remarks: Mapping[Ref, Remarks]) -> list[dict[str, Any]]:
    """One entry for each object, listener and parent: its name and its conditions, and what else is to be said of it."""
    found = []
    for ref in sorted(statuses.keys() | remarks.keys()):
        said = [(name, _conditions(said)) for name, said in parts(ref, statuses[ref])] if ref in statuses else []
        for index, (name, conditions) in enumerate(said or [(str(ref), [])]):
            words = [_in_words(one) for one in remarks.get(ref, ())] if not index else []
            found.append({"object": name, "conditions": conditions, "remarks": words})
    return found


def _conditions(said: Iterable[Condition]) -> list[dict[str, Any]]:
    return [{**as_dict(one), "healthy": is_healthy(one)} for one in said]


def _in_words(remark: Remark) -> str:
    return ": ".join(part for part in (spelled(remark.path), remark.message) if part)


def parts(ref: Ref, status: Status) -> Iterable[tuple[str, tuple[Condition, ...]]]:
    """What conditions are about, with how many routes a listener has, and the conditions."""
    attached = [listener.attached for listener in getattr(status, "listeners", ())]
    for index, (name, said) in enumerate(named(ref, status)):
        yield (f"{name} ({counted(attached[index - 1], 'route')})" if index and attached else name), said


def counted(count: int, what: str) -> str:
    """So many of them, in words."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def named(ref: Ref, status: Status) -> Iterable[tuple[str, tuple[Condition, ...]]]:
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
                yield f"{ref} listener {listener.name}", listener.conditions
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
