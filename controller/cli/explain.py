"""`fsm explain`: the way of one request, from files or from a running data plane."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace
from rich.tree import Tree

from controller.cli import console
from controller.cli.console import escape
from controller.inspect.explain import Asked, Explanation, aimed_at, explain, url_fault
from gateway.snapshot import Part

T = TypeVar("T")
UNREADABLE: Final = (OSError, ValueError, HTTPException, msgspec.DecodeError)  # where no admin address is, or another program
MOST: Final = 5  # things that are wrong and told with an explanation


class ServedParts(msgspec.Struct):
    """What a data plane's /snapshot says."""

    parts: list[Part]
    port_offset: int = 0


def explain_request(
    url: str, *, paths: Sequence[Path], admin: str, method: str, headers: list[str], port_offset: int, as_json: bool
) -> None:
    """Print the explanation; exit with 1 when the gateway itself would answer with an error."""
    if bool(paths) == bool(admin):
        raise console.wrong("give either --file, to ask YAML, or --admin, to ask a running data plane")
    fault = url_fault(url)
    if fault:
        raise console.wrong(fault)
    pairs = tuple((name.strip(), value.strip()) for name, _, value in (header.partition(":") for header in headers))
    asked = Asked(url, method, pairs)
    if admin:
        served = _from_admin(admin)
        result = explain(served.parts, asked, served.port_offset)
        if not result.rule:
            result = replace(result, hints=(*result.hints, *_amiss(admin)))
    else:
        result = _from_files(paths, asked, port_offset)
    if as_json:
        console.json(result)
    else:
        console.out.print(_tree(result))
    raise SystemExit(1 if result.status >= 400 or result.outcome.startswith("nothing") else 0)


def _from_files(paths: Sequence[Path], asked: Asked, port_offset: int) -> Explanation:
    from controller.cli.validate import looked_at, shown

    with looked_at(paths) as loaded:
        for fault in loaded.source.faults:
            console.err.print(f"[red]{escape(str(fault))}[/]")
        parts = [part for parts in loaded.translation.parts.values() for part in parts.values()]
        result = explain(parts, asked, port_offset)
        host, port = aimed_at(asked)
        # Where a rule was found, what its references lead to is told with it.
        aside = [
            str(shown(fault))
            for complaint, fault in loaded.set_aside(host, (port, port - port_offset))
            if not (result.rule and complaint.reason.startswith("ResolvedRefs"))
        ]
    more = (f"and {len(aside) - MOST} more: fsm validate tells each",) if len(aside) > MOST else ()
    return replace(result, hints=(*result.hints, *aside[:MOST], *more))


def _address(admin: str) -> str:
    return (admin if "//" in admin else f"http://{admin}").rstrip("/")


def _read(url: str, type_: type[T]) -> T:
    """What an admin address answers. Raises one of UNREADABLE."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        return msgspec.json.decode(answer.read(), type=type_)


def _amiss(admin: str) -> tuple[str, ...]:
    """Where to read what is not in force as written; only a gateway without a cluster knows."""
    where = f"{_address(admin)}/faults"
    try:
        count = len(_read(where, list[Any]))
    except UNREADABLE:
        return ()
    return (f"not all is in force as written, which may be why: {where} says what is wrong ({count})",) if count else ()


def _from_admin(admin: str) -> ServedParts:
    address = _address(admin)
    if not address.startswith(("http://", "https://")):
        raise console.wrong(f"--admin: found {admin!r}; an address such as http://127.0.0.1:9091 is needed")
    try:
        return _read(f"{address}/snapshot", ServedParts)
    except UNREADABLE as error:
        raise SystemExit(f"no data plane answers at {address}: {getattr(error, 'reason', None) or error}") from None


def _tree(result: Explanation) -> Tree:
    colour = "red" if result.status >= 400 else "green"
    tree = Tree(f"[bold]{escape(result.request)}[/] → [{colour}]{escape(result.outcome)}[/]")
    for label, value in (
        ("listener", result.listener),
        ("hostname", result.hostname),
        ("rule", result.rule),
        ("match", result.match),
    ):
        if value:
            tree.add(f"{label} [cyan]{escape(value)}[/]")
    for rule_filter in result.filters:
        tree.add(f"filter {escape(rule_filter)}")
    for choice in result.choices:
        leads = escape(choice.backend or "no backend")
        if choice.status:
            leads += f" [red]{choice.status}: {escape(choice.reason)}[/]"
        else:
            leads += f" [dim]{escape(', '.join(choice.endpoints))}[/]"
        tree.add(f"{choice.share:.0%} {leads}")
    for near in result.nearest:
        branch = tree.add(f"near [cyan]{escape(near.rule)}[/] ({escape(near.match)})")
        for text in near.failed:
            branch.add(f"[red]{escape(text)}[/]")
    for hint in result.hints:
        tree.add(f"[yellow]{escape(hint)}[/]")
    return tree
