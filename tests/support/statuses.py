"""Statuses, at a moment that stands still."""

from __future__ import annotations

from controller.objects.references import ParentRef
from controller.translate.shared import conditions
from controller.translate.shared.status import (
    ParentStatus,
    RouteStatus,
)

PARENT = ParentRef("gw", "gateway.networking.k8s.io", "Gateway", section_name="http")

THEN, NOW = "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"


def route_status(*said: conditions.Condition, generation: int = 2) -> RouteStatus:
    return RouteStatus(generation, (ParentStatus(PARENT, said or (conditions.route_accepted(),)),))
