"""Objects that something is wrong with which no status can say: they cannot be read, or our own code fails at them.

Whoever finds one notes it here; whoever tells people (the terminal, Events, metrics, the admin page) hears of each once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from controller.objects.base import Ref

UNREADABLE: Final = "Unreadable"  # it is not what its kind should be
FAILING: Final = "Failing"  # our own code fails at it


class ObjectProblem(NamedTuple):
    """What is wrong with one object."""

    reason: str
    about: Ref
    part: str  # of it, where only a part is set aside
    message: str

    def __str__(self) -> str:
        return f"{self.about}{f', {self.part}' if self.part else ''}: {self.message}"


class Problems:
    """What is wrong with objects and stands in no status. `told` hears of each that is new, `over` of each that is no more."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Ref], tuple[ObjectProblem, ...]] = {}
        self.told: Callable[[ObjectProblem], None] = lambda _: None
        self.over: Callable[[ObjectProblem], None] = lambda _: None
        self.rounds_failed = 0  # rounds of the controller's loop that something of our own broke

    def __iter__(self) -> Iterator[ObjectProblem]:
        return (problem for _, several in sorted(self._found.items()) for problem in several)

    def note(self, reason: str, about: Ref, faults: Iterable[tuple[str, str]]) -> None:
        """What is wrong with an object now, for this reason: parts and messages; nothing, where it is well again."""
        several = tuple(ObjectProblem(reason, about, part, message) for part, message in faults)
        before = self._found.pop((reason, about), ())
        if several:
            self._found[reason, about] = several
        for problem in several:
            if problem not in before:
                self.told(problem)
        for problem in before:
            if problem not in several:
                self.over(problem)

    def forget(self, about: Ref) -> None:
        """An object is gone."""
        for reason in (UNREADABLE, FAILING):
            self._found.pop((reason, about), None)

    def counted(self) -> Counter[tuple[str, str]]:
        """How many objects, by reason and kind."""
        return Counter((reason, about.kind) for reason, about in self._found)

    def metrics(self) -> str:
        """The counts of objects that are set aside, in the text format of Prometheus."""
        lines = [
            "# HELP fsm_controller_objects_set_aside Objects that cannot be read (Unreadable), or at which the controller's own"
            " code fails (Failing).",
            "# TYPE fsm_controller_objects_set_aside gauge",
            *(
                f'fsm_controller_objects_set_aside{{reason="{reason}",kind="{kind}"}} {count}'
                for (reason, kind), count in sorted(self.counted().items())
            ),
            "# HELP fsm_controller_rounds_failed_total Rounds of the controller's loop that had to be started over.",
            "# TYPE fsm_controller_rounds_failed_total counter",
            f"fsm_controller_rounds_failed_total {self.rounds_failed}",
        ]
        return "\n".join(lines) + "\n"
