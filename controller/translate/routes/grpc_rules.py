"""GRPCRoute rules → snapshot rules: a call is a POST to /SERVICE/METHOD (GEP-1016)."""

from __future__ import annotations

from collections.abc import Iterator

from controller.objects.routes import GRPCRoute, GRPCRule
from controller.state.view import View
from controller.translate import filters
from controller.translate.routes.http_rules import (
    Rules,
    faults_of,
    forwarding,
    order,
    persistence,
    resolution,
    unsupported_rules,
)
from controller.translate.shared import matches
from controller.translate.shared.conditions import Condition
from controller.translate.shared.names import Needed
from gateway import snapshot


def rules(view: View, route: GRPCRoute) -> Rules:
    """The rules of a GRPCRoute."""
    snapshot_rules: list[snapshot.Rule] = []
    backends: dict[Needed, None] = {}
    faults: list[Condition] = []
    unsupported: list[str] = []
    for index, rule in enumerate(route.spec.rules):
        wrong = [f"rules[{index}].{text}" for text in _faults(rule)]
        unsupported += wrong
        if wrong:
            continue
        sessions = persistence(route, index, rule.session_persistence)
        specs, targets, needed, resolved = forwarding(
            view, route.ref, rule.filters, rule.backend_refs, asks_backends=sessions is None
        )
        snapshot_rules.append(
            snapshot.Rule(
                name=f"GRPCRoute/{route.metadata.namespace}/{route.metadata.name}/{index}",
                order=order(route, index),
                at=(),
                matches=matches.grpc_matches(rule),
                filters=specs,
                targets=targets,
                persistence=sessions,
                grpc=True,
            )
        )
        backends.update(dict.fromkeys(needed))
        faults += faults_of(resolved, index)
    return Rules(
        tuple(snapshot_rules), tuple(backends), resolution(faults), *unsupported_rules(unsupported, len(route.spec.rules))
    )


def _faults(rule: GRPCRule) -> Iterator[str]:
    yield from matches.grpc_faults(rule)
    yield from filters.faults_of_rule(rule)
