"""Every object by Ref, the indices over them, and what data planes report. `put` says whether it mattered.

A world is read through keys: ("object", ref) for one object, (index, …) for those that share something. A key's
value changes only when `put` or `drop` names it as changed; whoever remembers what it read can tell from that
alone what must be worked out again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from controller.objects.base import Key, Ref
from controller.objects.filters import Settings
from controller.objects.kinds import AnyObject
from controller.objects.policies.base import Policy


@dataclass(frozen=True)
class Report:
    """What is known of a Gateway's data planes."""

    programmed: bool = False
    message: str = ""
    problems: tuple[tuple[str, str], ...] = ()  # listener name (or "") and what is wrong there


def indices(obj: AnyObject) -> Iterator[Key]:
    """The index entries under which an object is found."""
    yield "kind", obj.ref.kind
    yield from obj.index_keys()


def _is_same(old: AnyObject, new: AnyObject) -> bool:
    """Whether equal objects are so by type as well: to Python true is 1, to whoever reads a spec it is not."""
    if isinstance(old, Policy | Settings) and isinstance(new, Policy | Settings):
        return repr(old.spec) == repr(new.spec)
    return True


class World:
    """All objects, their indices, and what data planes report."""

    def __init__(self) -> None:
        self._objects: dict[Ref, AnyObject] = {}
        self._index: dict[Key, dict[Ref, None]] = {}
        self._notes: dict[Key, Any] = {}
        self.changed: set[Key] = set()

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[AnyObject]:
        return iter(self._objects.values())

    def put(self, obj: AnyObject) -> bool:
        """Know an object. True when that changes anything."""
        ref = obj.ref
        old = self._objects.get(ref)
        if old == obj and _is_same(old, obj):
            return False
        self._objects[ref] = obj
        self.changed.add(("object", ref))
        new_keys = set(indices(obj))
        old_keys = set(indices(old)) if old is not None else set()
        for key in old_keys - new_keys:
            self._index[key].pop(ref, None)
        for key in new_keys - old_keys:
            self._index.setdefault(key, {})[ref] = None
        self.changed |= old_keys ^ new_keys
        return True

    def drop(self, ref: Ref) -> bool:
        """Forget an object. True when it was known."""
        old = self._objects.pop(ref, None)
        if old is None:
            return False
        self.changed.add(("object", ref))
        for key in indices(old):
            self._index.get(key, {}).pop(ref, None)
            self.changed.add(key)
        return True

    def note(self, key: Key, value: Any) -> bool:
        """Remember something that is not an object; an empty set is as good as nothing. True when it changes."""
        if value == frozenset():
            if self._notes.pop(key, None) is None:
                return False
        elif self._notes.get(key) == value:
            return False
        else:
            self._notes[key] = value
        self.changed.add(key)
        return True

    def read(self, key: Key) -> Any:
        """The value of a key: an object or None, a sorted tuple of Refs, or a note."""
        if key[0] == "object":
            return self._objects.get(key[1])
        if key in self._notes:
            return self._notes[key]
        return tuple(sorted(self._index.get(key, ())))

    def refs(self, kind: str) -> list[Ref]:
        """The Refs of all objects of a kind."""
        return sorted(self._index.get(("kind", kind), ()))
