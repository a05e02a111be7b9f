"""What people should hear of objects in files: one thing that is wrong at a time, with its field and the line of it.

`fsm run` says so as it comes up and when it is over, `fsm validate` before, both in these words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from controller.files.lines import Lines
from controller.files.source import Origin
from controller.inspect.status_report import is_healthy, named
from controller.objects.base import Ref
from controller.objects.conversion import path_of
from controller.objects.documents import DocumentFault, Path, spelled
from controller.translate.remarks import Remark
from controller.translate.shared.conditions import Condition, Detail
from controller.translate.shared.status import Status

# What follows from something else that is said of the same object.
_FOLLOWS: Final = {
    "Programmed": ("Invalid", "ListenersNotValid", "ParentNotAccepted", "ParentNotProgrammed", "NotAllowed", "ProtocolConflict",
                   "HostnameConflict", "PortUnavailable", "UnsupportedProtocol", "UnsupportedValue"),
    "Accepted": ("ListenersNotValid",),
}  # fmt: skip
_PASSING: Final = ("Programmed", "Pending")
_ONLY_HERE: Final = "PortUnavailable"  # on a cluster each Gateway has an address of its own
_FIELD: Final = re.compile(r"([a-zA-Z]\w*(?:\[\d+\])?(?:\.\w+(?:\[\d+\])?)*): ")


class Complaint(NamedTuple):
    """One thing that is wrong with an object, or has no effect."""

    about: Ref
    name: str  # of the object in words, with the listener or the parent that it is about
    path: Path  # of the field; () where none is to blame
    message: str
    reason: str = ""  # the same for complaints of a kind
    here: bool = False  # only on this machine: on a cluster it would be well
    near: Path = ()  # a field by which the line can be found, where the message names it itself

    @property
    def topic(self) -> tuple[str, Path]:
        """What it is about: another complaint about the same takes its place."""
        return self.name, self.path

    def located(self, origins: Mapping[Ref, Origin], lines: Lines) -> DocumentFault:
        """The same, with its file and line."""
        file, begins = origins.get(self.about, ("", 0))
        line = lines.of(file, self.about, begins, self.path or self.near) if file else 0
        return DocumentFault(file, line, self.message, self.name, spelled(self.path))


def located(complaints: Iterable[Complaint], origins: Mapping[Ref, Origin]) -> list[DocumentFault]:
    """The same, each with its file and line; the files are read for that."""
    lines = Lines()
    return [one.located(origins, lines) for one in complaints]


def of_status(ref: Ref, status: Status) -> list[Complaint]:
    """What conditions complain of; what only follows from another complaint is left out."""
    found = [(name, one) for name, said in named(ref, status) for one in said if one.fault or not is_healthy(one)]
    causes = [(name, one) for name, one in found if not _follows(one)]
    made: dict[tuple[Path, str], Complaint] = {}
    for name, one in causes or [(name, one) for name, one in found if (one.type, one.reason) != _PASSING]:
        for detail in one.details or (Detail((), one.fault or one.message),):
            words = detail.message if one.fault else f"{one.type}={one.status}, {one.reason}: {detail.message}"
            near = () if detail.path else _field_in(detail.message)
            said = Complaint(ref, name, detail.path, words, f"{one.type} {one.reason}", one.reason == _ONLY_HERE, near)
            before = made.setdefault((detail.path, detail.message), said)  # Conflicted says what Accepted has said
            if before.name != name:  # to several parents
                made[detail.path, detail.message] = before._replace(name=str(ref))
    return list(made.values())


def _follows(one: Condition) -> bool:
    return one.reason in _FOLLOWS.get(one.type, ()) or (one.type, one.reason) == _PASSING


def _field_in(message: str) -> Path:
    """The field with whose name a message begins."""
    found = _FIELD.match(message)
    path = path_of(found[1]) if found else ()
    return path if path[:1] in ((), ("spec",), ("metadata",)) else ("spec", *path)


def of_remarks(ref: Ref, remarks: Iterable[Remark]) -> Iterator[Complaint]:
    """What is said of an object that no status speaks of."""
    for one in remarks:
        yield Complaint(ref, str(ref), one.path, one.message, f"remark {spelled(one.path[-1:])}", one.here)
