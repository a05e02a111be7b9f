"""GRPCRoute rules → snapshot rules: a call is a POST to /SERVICE/METHOD (GEP-1016)."""

from __future__ import annotations

from collections.abc import Iterator

from controller.memo import View
from controller.objects import GRPCMatch, GRPCRoute, GRPCRule
from controller.translate import filters, matches
from controller.translate.backends import Needed
from controller.translate.conditions import Condition
from controller.translate.rules import Rules, forwarding, order, persistence, resolution, unsupported_rules
from gateway import snapshot


def rules(view: View, found: GRPCRoute) -> Rules:
    """The rules of a GRPCRoute."""
    made: list[snapshot.Rule] = []
    backends: dict[Needed, None] = {}
    faults: list[Condition] = []
    unsupported: list[str] = []
    for index, rule in enumerate(found.spec.rules):
        wrong = [f"rules[{index}].{text}" for text in _faults(rule)]
        unsupported += wrong
        if wrong:
            continue
        specs, targets, needed, resolved = forwarding(view, found.ref, rule.filters, rule.backend_refs)
        made.append(
            snapshot.Rule(
                name=f"GRPCRoute/{found.metadata.namespace}/{found.metadata.name}/{index}",
                order=order(found, index),
                at=(),
                matches=matches_of(rule),
                filters=specs,
                targets=targets,
                persistence=persistence(found, index, rule.session_persistence),
                grpc=True,
            )
        )
        backends.update(dict.fromkeys(needed))
        faults += [one.fault for one in resolved if one.fault is not None]
    return Rules(tuple(made), tuple(backends), resolution(faults), *unsupported_rules(unsupported, len(found.spec.rules)))


def matches_of(rule: GRPCRule) -> tuple[snapshot.Match, ...]:
    """The matches of a rule; a rule without any matches everything."""
    return tuple(translated(match) for match in rule.matches or (GRPCMatch(),))


def translated(match: GRPCMatch) -> snapshot.Match:
    """One match of a GRPCRoute's rule."""
    return snapshot.Match(path=_path(match), headers=tuple(matches.value(header) for header in match.headers))


def _path(match: GRPCMatch) -> snapshot.PathMatch:
    service, method = match.method.service, match.method.method
    if match.method.type == "RegularExpression":
        return snapshot.PathMatch("RegularExpression", f"/(?:{service or '[^/]+'})/(?:{method or '[^/]+'})")
    if service and method:
        return snapshot.PathMatch("Exact", f"/{service}/{method}")
    if service:
        return snapshot.PathMatch("PathPrefix", f"/{service}")
    if method:
        return snapshot.PathMatch("Method", method)
    return snapshot.PathMatch()


def _faults(rule: GRPCRule) -> Iterator[str]:
    for index, match in enumerate(rule.matches):
        where = f"matches[{index}].method"
        method = match.method
        if method.type not in ("Exact", "RegularExpression"):
            yield f'{where}.type: "{method.type}" is not supported'
        elif method.type == "RegularExpression":
            for field, text in (("service", method.service), ("method", method.method)):
                yield from matches.expression_faults(f"{where}.{field}", text)
        for at, header in enumerate(match.headers):
            if header.type == "RegularExpression":
                yield from matches.expression_faults(f"matches[{index}].headers[{at}].value", header.value)
    yield from filters.faults_of_rule(rule)
