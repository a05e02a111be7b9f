"""Make before break: a target's share may not rise while its endpoints are empty or not yet its own.

Argo Rollouts moves a Service's selector and flips the weights 20 ms later, while Kubernetes still rewrites the
slices. A rule whose new targets are not fresh is held, the old one stays in force, for a bounded time; then the
rule is obeyed as written. Never held: a rule's first version, and a change whose old targets have nothing left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.snapshot import Backend, Key, Part, Rule

LIMIT = 2.0  # seconds that a rise may wait


class Held(NamedTuple):
    """A rule that waits, and until when."""

    rule: Rule
    deadline: float


class Barrier:
    """The rules of one Gateway, on their way out."""

    def __init__(self, is_fresh: Callable[[str], bool], *, limit: float = LIMIT) -> None:
        self.is_fresh = is_fresh
        self._limit = limit
        self._released: dict[Key, Rule] = {}
        self._held: dict[Key, Held] = {}
        self._drops: dict[Key, None] = {}  # parts that a held rule's predecessor may still need
        self.holds = 0  # how often a rule had to wait

    def filter(self, changes: Mapping[Key, Part | None], parts: Mapping[Key, Part], now: float) -> dict[Key, Part | None]:
        """What of the changes, and of what waited, may go out now. `parts` is the whole of what is wanted."""
        out: dict[Key, Part | None] = {}
        wanted: dict[Key, Held] = dict(self._held)
        for key, part in changes.items():
            if isinstance(part, Rule):
                waiting = self._held.get(key)
                wanted[key] = Held(part, waiting.deadline if waiting else now + self._limit)
            elif key[0] == "rule":
                wanted.pop(key, None)
                self._released.pop(key, None)
                out[key] = None
            elif part is None and key[0] == "backend":
                self._drops[key] = None
            else:
                self._drops.pop(key, None)
                out[key] = part
        held: dict[Key, Held] = {}
        for key, entry in wanted.items():
            if now < entry.deadline and self._must_wait(key, entry.rule, parts):
                held[key] = entry
                self.holds += key not in self._held
            else:
                self._released[key] = entry.rule
                out[key] = entry.rule
        self._held = held
        if not held:
            out.update(dict.fromkeys(self._drops))
            self._drops.clear()
        return out

    @property
    def deadline(self) -> float | None:
        """When the first of what waits is let go in any case."""
        return min((held.deadline for held in self._held.values()), default=None)

    def _must_wait(self, key: Key, rule: Rule, parts: Mapping[Key, Part]) -> bool:
        old = self._released.get(key)
        if old is None:
            return False
        before, after = shares(old), shares(rule)
        rising = [name for name, share in after.items() if share > before.get(name, 0.0)]
        if all(self.is_fresh(name) for name in rising):
            return False
        donors = [parts.get(("backend", name)) for name in before]
        return any(isinstance(donor, Backend) and donor.endpoints for donor in donors)


def shares(rule: Rule) -> dict[str, float]:
    """Each backend's part of a rule's traffic, where it has one."""
    total = sum(target.weight for target in rule.targets)
    result: dict[str, float] = {}
    for target in rule.targets:
        if target.weight and target.backend:
            result[target.backend] = result.get(target.backend, 0.0) + target.weight / total
    return result
