"""Values worked out from a world, remembered together with what they read (absences included).

A function of (view, *arguments) reads the world and other such functions through the view. When keys of the
world change, only values that read them, directly or through others, are looked at again, and only if what
they read has really changed are they worked out again: an equal result stops the wave there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from controller.objects.base import Key, Ref
from controller.objects.kinds import AnyObject
from controller.state.world import World

P = ParamSpec("P")
R = TypeVar("R")
ObjectT = TypeVar("ObjectT")
F = TypeVar("F", bound=Callable[..., Any])
_guards: Final[dict[Any, Callable[..., Any]]] = {}


def guarded(instead: Callable[..., Any]) -> Callable[[F], F]:
    """Where a function raises, its value is `instead(view, error, *arguments)`, which must not raise."""

    def marked(function: F) -> F:
        _guards[function] = instead
        return function

    return marked


class Cell:
    """A remembered value: what it read, when it was worked out, and when it last became different."""

    __slots__ = ("changed", "computed", "reads", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.reads: dict[Key, None] = {}
        self.computed = 0
        self.changed = 0


class View:
    """Reads that are remembered."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._now = 1
        self._cells: dict[Key, Cell] = {}
        self._readers: dict[Key, set[Key]] = {}
        self._leaf_changed: dict[Key, int] = {}
        self._stale: set[Key] = set()
        self._stack: list[tuple[Key, Cell]] = []  # of values that are being worked out: each reads the next
        self.computed = 0  # how many values were worked out, for tests and for the curious
        self.failures: dict[Key, dict[str, Exception]] = {}  # what our own code raised: by the value, and what it was about

    # --- for translating functions ---

    def get(self, type_: type[ObjectT], namespace: str, name: str) -> ObjectT | None:
        """One object, or None."""
        obj: AnyObject | None = self._read(("object", Ref(type_.__name__, namespace, name)))
        return cast("ObjectT | None", obj)

    def index(self, *key: Any) -> tuple[Ref, ...]:
        """The Refs under an index key."""
        return cast("tuple[Ref, ...]", self._read(key))

    def noted(self, *key: Any) -> Any:
        """What `World.note` was told, or () where it was told nothing."""
        return self._read(key)

    def call(self, function: Callable[Concatenate[View, P], R], *arguments: P.args, **_: P.kwargs) -> R:
        """The function's value for these arguments, worked out only if what it read has changed."""
        return cast("R", self._read((function, *arguments)))

    def value(self, key: Key) -> Any:
        """The same, for a call that is held as a key."""
        return self._read(key)

    def attempt(self, about: object, work: Callable[[], R], instead: Callable[[Exception], R]) -> R:
        """A part of a value, or what stands in its place where that part raises."""
        try:
            return work()
        except Exception as error:
            self.failures.setdefault(self._stack[-1][0], {})[str(about)] = error
            return instead(error)

    # --- for who drives ---

    def update(self, changed: Iterable[Key]) -> set[Key]:
        """Note that these keys of the world changed; returns every remembered value that may be affected."""
        self._now += 1
        wave = list(changed)
        for key in wave:
            self._leaf_changed[key] = self._now
        affected: set[Key] = set()
        while wave:
            for reader in self._readers.get(wave.pop(), ()):
                if reader not in affected:
                    affected.add(reader)
                    wave.append(reader)
        self._stale |= affected
        return affected

    def forget(self, key: Key) -> None:
        """Drop a value that nobody asks for any more, and what only it needed."""
        if self._readers.get(key):
            return
        cell = self._cells.pop(key, None)
        self.failures.pop(key, None)
        self._stale.discard(key)
        self._readers.pop(key, None)
        if cell is not None:
            for read in cell.reads:
                self._readers.get(read, set()).discard(key)
                if callable(read[0]):
                    self.forget(read)

    # --- inside ---

    def _read(self, key: Key) -> Any:
        if self._stack:
            reader, cell = self._stack[-1]
            cell.reads[key] = None
            self._readers.setdefault(key, set()).add(reader)
        if not callable(key[0]):
            return self.world.read(key)
        return self._ensure(key).value

    def _ensure(self, key: Key) -> Cell:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell()
            self._compute(key, cell)
        elif key in self._stale:
            self._stale.discard(key)
            if cell.computed == 0 or self._has_changed(cell):
                self._compute(key, cell)
            else:
                cell.computed = self._now
        return cell

    def _has_changed(self, cell: Cell) -> bool:
        try:
            return any(self._changed_at(read) > cell.computed for read in cell.reads)
        except Exception:
            return True  # something that it read cannot be worked out any more: it is for itself, or its guard, to say

    def _changed_at(self, key: Key) -> int:
        return self._ensure(key).changed if callable(key[0]) else self._leaf_changed.get(key, 0)

    def _compute(self, key: Key, cell: Cell) -> None:
        before = cell.reads
        cell.reads = {}
        self._stack.append((key, cell))
        self.failures.pop(key, None)
        depth = len(self._stack)
        try:
            value = key[0](self, *key[1:])
        except Exception as error:
            del self._stack[depth:]
            guard = _guards.get(key[0])
            if guard is None:
                self._stale.add(key)  # not worked out: whoever asks again has it tried again
                cell.reads = {**before, **cell.reads}
                raise
            self.failures.setdefault(key, {})[""] = error
            value = guard(self, error, *key[1:])
        finally:
            del self._stack[depth - 1 :]
        self.computed += 1
        for read in before.keys() - cell.reads.keys():
            self._readers.get(read, set()).discard(key)
            if callable(read[0]):
                self.forget(read)
        if value != cell.value or cell.computed == 0:
            cell.value = value
            cell.changed = self._now
        cell.computed = self._now
