"""`fsm explain`: the way of one request, from files or from a running data plane."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import msgspec
from rich.markup import escape
from rich.tree import Tree

from controller.cli import console
from controller.inspect.explain import Asked, Explanation, explain, url_fault
from gateway.snapshot import Part


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
    served = _from_admin(admin) if admin else ServedParts(_from_files(paths), port_offset)
    result = explain(served.parts, Asked(url, method, pairs), served.port_offset)
    if as_json:
        console.json(result)
    else:
        console.out.print(_tree(result))
    raise SystemExit(1 if result.status >= 400 or result.outcome.startswith("nothing") else 0)


def _from_files(paths: Sequence[Path]) -> list[Part]:
    from controller.cli.validate import looked_at

    with looked_at(paths) as loaded:
        for fault in loaded.source.faults:
            console.err.print(f"[red]{escape(str(fault))}[/]")
        return [part for parts in loaded.translation.parts.values() for part in parts.values()]


def _from_admin(admin: str) -> ServedParts:
    address = admin if "//" in admin else f"http://{admin}"
    if not address.startswith(("http://", "https://")):
        raise console.wrong(f"--admin: found {admin!r}; an address such as http://127.0.0.1:9091 is needed")
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/snapshot", timeout=10) as answer:  # noqa: S310
            return msgspec.json.decode(answer.read(), type=ServedParts)
    except (OSError, ValueError, HTTPException, msgspec.DecodeError) as error:
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
