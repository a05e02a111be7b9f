"""Statuses as values: what we say of an object, before it is stamped with times and merged with what others say."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from controller.objects.base import GATEWAY_GROUP
from controller.objects.gateways import GatewayAddress, RouteKind
from controller.objects.references import ParentRef
from controller.translate.shared.conditions import Condition


class ClassStatus(msgspec.Struct, frozen=True):
    """GatewayClassStatus."""

    generation: int
    conditions: tuple[Condition, ...]
    features: tuple[str, ...]


class ListenerStatus(msgspec.Struct, frozen=True):
    """ListenerStatus."""

    name: str
    kinds: tuple[RouteKind, ...]
    attached: int
    conditions: tuple[Condition, ...]


class GatewayStatus(msgspec.Struct, frozen=True):
    """GatewayStatus."""

    generation: int
    addresses: tuple[GatewayAddress, ...]
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...]
    attached_sets: int = 0


class ListenerSetStatus(msgspec.Struct, frozen=True):
    """ListenerSetStatus."""

    generation: int
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...]


class AncestorStatus(msgspec.Struct, frozen=True):
    """PolicyAncestorStatus, for a Gateway (namespace and name), or for a target where there is none."""

    gateway: tuple[str, str]
    conditions: tuple[Condition, ...]
    kind: str = "Gateway"
    group: str = GATEWAY_GROUP


class PolicyStatus(msgspec.Struct, frozen=True):
    """Our entries of PolicyStatus."""

    generation: int
    ancestors: tuple[AncestorStatus, ...]


class BackendStatus(PolicyStatus, frozen=True):
    """Our entries of BackendStatus (GEP-4894), which has room for more."""


class ExtensionStatus(msgspec.Struct, frozen=True):
    """The status of one of our own kinds: in short, and of what is attached to something, to each Gateway."""

    generation: int
    conditions: tuple[Condition, ...]
    ancestors: tuple[AncestorStatus, ...] = ()


class ParentStatus(msgspec.Struct, frozen=True):
    """RouteParentStatus; `parent` is the route's parentRef, verbatim."""

    parent: ParentRef
    conditions: tuple[Condition, ...]


class RouteStatus(msgspec.Struct, frozen=True):
    """Our entries of RouteStatus."""

    generation: int
    parents: tuple[ParentStatus, ...]


Status: TypeAlias = ClassStatus | GatewayStatus | ListenerSetStatus | RouteStatus | PolicyStatus | ExtensionStatus
