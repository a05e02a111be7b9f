"""HTTPRouteMatch → snapshot.Match, and the values that no data plane could act on."""

from __future__ import annotations

from collections.abc import Iterator

from controller.objects import HTTPMatch, HTTPRule, ValueMatch
from gateway import snapshot
from gateway.expressions import full_match


def matches(rule: HTTPRule) -> tuple[snapshot.Match, ...]:
    """The matches of a rule; a rule without any matches everything."""
    return tuple(translated(match) for match in rule.matches or (HTTPMatch(),))


def translated(match: HTTPMatch) -> snapshot.Match:
    """One match of an HTTPRoute's rule."""
    return snapshot.Match(
        path=snapshot.PathMatch(match.path.type, match.path.value),  # type: ignore[arg-type]  # checked by `faults`
        method=match.method,
        headers=tuple(value(header) for header in match.headers),
        query=tuple(value(parameter) for parameter in match.query_params),
    )


def value(match: ValueMatch) -> snapshot.ValueMatch:
    """A condition on a header or a query parameter."""
    return snapshot.ValueMatch(match.name, match.value, match.type == "RegularExpression")


def faults(rule: HTTPRule) -> Iterator[str]:
    """What is wrong with a rule's matches, in words that name the field."""
    for index, match in enumerate(rule.matches):
        where = f"matches[{index}]"
        if match.path.type not in ("Exact", "PathPrefix", "RegularExpression"):
            yield f'{where}.path.type: "{match.path.type}" is not supported'
        if match.path.type == "RegularExpression":
            yield from expression_faults(f"{where}.path.value", match.path.value)
        for field, values in (("headers", match.headers), ("queryParams", match.query_params)):
            for at, value in enumerate(values):
                if value.type not in ("Exact", "RegularExpression"):
                    yield f'{where}.{field}[{at}].type: "{value.type}" is not supported'
                if value.type == "RegularExpression":
                    yield from expression_faults(f"{where}.{field}[{at}].value", value.value)


def expression_faults(where: str, text: str) -> Iterator[str]:
    """What is wrong with a regular expression."""
    try:
        full_match(text)
    except ValueError as error:
        yield f'{where}: "{text}" is not an expression in RE2 syntax ({error})'
