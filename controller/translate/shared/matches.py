"""HTTPRouteMatch and GRPCRouteMatch → snapshot.Match, and the values that no data plane could act on.

A call of gRPC is a POST to /SERVICE/METHOD (GEP-1016).
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.objects.routes import GRPCMatch, GRPCRule, HTTPMatch, HTTPRule, ValueMatch
from gateway import snapshot
from gateway.routing.regex import full_match


def http_matches(rule: HTTPRule) -> tuple[snapshot.Match, ...]:
    """The matches of a rule; a rule without any matches everything."""
    return tuple(http_match(match) for match in rule.matches or (HTTPMatch(),))


def http_match(match: HTTPMatch) -> snapshot.Match:
    """One match of an HTTPRoute's rule."""
    return snapshot.Match(
        path=snapshot.PathMatch(match.path.type, match.path.value),  # type: ignore[arg-type]  # checked by `http_faults`
        method=match.method,
        headers=tuple(value(header) for header in match.headers),
        query=tuple(value(parameter) for parameter in match.query_params),
    )


def grpc_matches(rule: GRPCRule) -> tuple[snapshot.Match, ...]:
    """The matches of a rule; a rule without any matches everything."""
    return tuple(grpc_match(match) for match in rule.matches or (GRPCMatch(),))


def grpc_match(match: GRPCMatch) -> snapshot.Match:
    """One match of a GRPCRoute's rule."""
    return snapshot.Match(path=_grpc_path(match), headers=tuple(value(header) for header in match.headers))


def _grpc_path(match: GRPCMatch) -> snapshot.PathMatch:
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


def value(match: ValueMatch) -> snapshot.ValueMatch:
    """A condition on a header or a query parameter."""
    return snapshot.ValueMatch(match.name, match.value, match.type == "RegularExpression")


def http_faults(rule: HTTPRule) -> Iterator[str]:
    """What is wrong with a rule's matches, in words that name the field."""
    for index, match in enumerate(rule.matches):
        field_path = f"matches[{index}]"
        if match.path.type not in ("Exact", "PathPrefix", "RegularExpression"):
            yield f'{field_path}.path.type: "{match.path.type}" is not supported'
        if match.path.type == "RegularExpression":
            yield from _expression_faults(f"{field_path}.path.value", match.path.value)
        for field, values in (("headers", match.headers), ("queryParams", match.query_params)):
            for at, value in enumerate(values):
                if value.type not in ("Exact", "RegularExpression"):
                    yield f'{field_path}.{field}[{at}].type: "{value.type}" is not supported'
                if value.type == "RegularExpression":
                    yield from _expression_faults(f"{field_path}.{field}[{at}].value", value.value)


def grpc_faults(rule: GRPCRule) -> Iterator[str]:
    """What is wrong with the matches of a GRPCRoute's rule."""
    for index, match in enumerate(rule.matches):
        field_path = f"matches[{index}].method"
        method = match.method
        if method.type not in ("Exact", "RegularExpression"):
            yield f'{field_path}.type: "{method.type}" is not supported'
        elif method.type == "RegularExpression":
            for field, text in (("service", method.service), ("method", method.method)):
                yield from _expression_faults(f"{field_path}.{field}", text)
        for at, header in enumerate(match.headers):
            if header.type == "RegularExpression":
                yield from _expression_faults(f"matches[{index}].headers[{at}].value", header.value)


def _expression_faults(field_path: str, text: str) -> Iterator[str]:
    """What is wrong with a regular expression."""
    try:
        full_match(text)
    except ValueError as error:
        yield f'{field_path}: "{text}" is not an expression in RE2 syntax ({error})'
