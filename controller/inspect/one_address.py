"""Gateways on one machine: on a cluster each has an address of its own; here a port and hostname can be only one listener's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from controller.objects.base import Ref
from controller.state.world import Report, World
from controller.translate import GatewayName, Translator
from gateway.snapshot import Listener, Parts

WORDS: Final = "Valid; nothing serves it while it is only looked at."


def _collide(one: Listener, other: Listener) -> bool:
    """Whether two listeners cannot be served side by side."""
    if one.port != other.port or (one.protocol != other.protocol and "UDP" in (one.protocol, other.protocol)):
        return False
    together = one.protocol == other.protocol or {one.protocol, other.protocol} == {"HTTPS", "TLS"}
    return not together or one.hostname == other.hostname


def crowded_out(serving: Iterable[Listener], one: Listener) -> str:
    """Why a listener cannot be served beside those that are, in words; "" where it can."""
    other = next((each for each in serving if each.name != one.name and _collide(each, one)), None)
    if other is None:
        return ""
    whose = f"port {one.port} is taken by listener {other.name}"
    if other.protocol != one.protocol:
        return f"{whose}, which speaks {other.protocol} there and not {one.protocol}; another port would work"
    if one.protocol in ("TCP", "UDP"):
        return f"{whose}; another port would work"
    return f"{whose} for the same hostname; another port or hostname would work"


def note_served(world: World) -> None:
    """Note of each Gateway that it is served."""
    for ref in world.refs("Gateway"):
        world.note(("report", ref.namespace, ref.name), Report(True, WORDS))


def note_places(world: World, translator: Translator) -> list[Ref]:
    """Note of each Gateway which of its listeners have no place beside the others', and work out what is said then.

    Returns the objects of which something else is said than before.
    """
    serving: list[Listener] = []
    for ref in world.refs("Gateway"):
        problems = _without_place(translator.parts, (ref.namespace, ref.name), serving)
        world.note(("report", ref.namespace, ref.name), Report(True, WORDS, problems))
    return [ref for ref, status in translator.update().statuses.items() if status is not None]


def _without_place(
    parts: Mapping[GatewayName, Parts], gateway: GatewayName, serving: list[Listener]
) -> tuple[tuple[str, str], ...]:
    problems = []
    for part in parts.get(gateway, {}).values():
        if isinstance(part, Listener):
            words = crowded_out(serving, part)
            if words:
                problems.append((part.name, words))
            else:
                serving.append(part)
    return tuple(problems)
