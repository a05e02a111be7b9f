"""What `fsm run` tells while it serves: each thing once when it comes up and once when it is over, many of a kind as one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from controller.cli.console import err, escape
from controller.files.lines import Lines
from controller.files.source import Origin
from controller.inspect.complaints import Complaint
from controller.inspect.status_report import counted
from controller.objects.base import Ref
from controller.objects.documents import DocumentFault
from controller.standalone.gateway import Summary, not_in_force
from gateway.admin.server import Admin
from gateway.snapshot import Change, Problem, Script, key

FEW: Final = 5  # of a kind that are told one by one
MAX_TOLD: Final = 20  # lines that are told at once
MAX_URLS: Final = 5
SCHEMES: Final = {"HTTP": "http", "HTTPS": "https", "TLS": "tls", "TCP": "tcp", "UDP": "udp"}
_NAMES: Final = re.compile(r'"[^"]*"|\'[^\']*\'|[\w.-]*\d[\w.-]*|\S+/\S+')  # what differs between things of a kind
T = TypeVar("T")


class Summed(NamedTuple):
    """One thing that stands for others of its kind as well."""

    place: int
    others: int


def summed(kinds: Sequence[str]) -> list[Summed]:
    """Which of many things are told, given what kind each is of: all of a few, the first of many."""
    groups: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(index)
    told = []
    for several in groups.values():
        told += [Summed(several[0], len(several) - 1)] if len(several) > FEW else [Summed(one, 0) for one in several]
    return sorted(told)


class Printer:
    """Tells what happens, a line each. `where` is what `fsm validate` would be given."""

    def __init__(self, offset: int = 0, *, host: str = "127.0.0.1", where: str = "PATH") -> None:
        self._offset = offset
        self._host = f"[{host}]" if ":" in host else host
        self._where = where
        self._faults: set[DocumentFault] = set()
        self._complaints: dict[Complaint, None] = {}
        self._problems: set[Problem] = set()
        self._admin: Admin | None = None  # where filters can be edited, once that is to be said
        self._has_filters = False
        self._has_begun = False
        self._has_changed = True  # since the summary was told
        self.origins: Callable[[], Mapping[Ref, Origin]] = dict

    def begin(self, admin: Admin | None, summary: Summary) -> None:
        """Everything is up: where the admin page is, and what is in force."""
        if admin is not None:
            err.print(f"[dim]admin {admin.address}[/]")
            self._admin = admin if admin.key else None
            self._say_where()
        self._has_begun = True
        self.settled(summary)

    def _say_where(self) -> None:
        if self._admin is not None and self._has_filters:
            err.print(f"[dim]edit filters at {self._admin.address}/#key={self._admin.key}[/]")
            self._admin = None

    def settled(self, summary: Summary) -> None:
        """What is in force after all that has happened; told where something has."""
        if self._has_begun and self._has_changed:
            self._has_changed = False
            err.print(self.summary(summary))

    def summary(self, found: Summary) -> str:
        """What is in force, in a line, with URLs as they can be asked for."""
        if not found.listeners:
            return "[yellow]nothing is served: there is no valid listener yet, and the files are followed until there is[/]"
        urls = list(
            dict.fromkeys(f"{SCHEMES[one.protocol]}://{self._host}:{one.port + self._offset}" for one in found.listeners)
        )
        more = f" and {len(urls) - MAX_URLS} more" if len(urls) > MAX_URLS else ""
        routes, listeners = counted(found.routes, "route"), counted(len(found.listeners), "listener")
        return f"[bold]{routes} on {listeners} at {escape(', '.join(urls[:MAX_URLS]))}{more}[/]"

    def applied(self, change: Change, seconds: float, problems: tuple[Problem, ...]) -> None:
        """A change is in force, but for what there are problems with."""
        refused = {problem.part for problem in problems}
        names = [f"{kind} {name}" for kind, name in map(key, change.put) if name not in refused]
        names += [f"-{kind} {name}" for kind, name in change.drop]
        listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        if names:
            self._has_changed = True
            err.print(f"[dim]{time.strftime('%H:%M:%S')}[/] in force after [green]{seconds * 1000:.1f} ms[/]: {escape(listed)}")
        self._has_filters |= any(isinstance(part, Script) and not part.built_in for part in change.put)
        self._say_where()

    def problems(self, now: tuple[Problem, ...]) -> None:
        """What cannot be put in force as it is written, part by part; all of it."""
        for one in now:
            if one not in self._problems:
                err.print(f"[red]{escape(one.part)} {escape(not_in_force(one))}[/]")
        still = {one.part for one in now}
        for part in sorted({one.part for one in self._problems} - still):
            err.print(f"[green]no longer: {escape(part)} is not in force[/]")
        self._problems = set(now)

    def failing(self, words: str, *, stands: bool) -> None:
        """An object at which our own code fails, or does no more."""
        err.print(f"[red]{escape(words)}[/]" if stands else f"[green]no longer: {escape(words)}[/]")

    def faults(self, now: list[DocumentFault]) -> None:
        """What is wrong with the files has changed: all of it."""
        new = [one for one in now if one not in self._faults]
        self._tell("red", new, _kind_of_fault, str)
        topics = {(one.object or one.file, one.field) for one in now}
        if self._faults and not now:
            err.print("[green]all files are good again[/]")
        else:
            over = [one for one in self._faults if (one.object or one.file, one.field) not in topics]
            self._tell("green", sorted(over, key=str), _kind_of_fault, lambda one: f"no longer: {_cut(one)}")
            if new and self._has_begun:  # before that there was none
                err.print("[yellow]the last good state of these objects stays in force, where there was one[/]")
        self._faults = set(now)

    def complaints(self, now: list[Complaint]) -> None:
        """What files ask for and is refused, or has no effect: all of it."""
        origins, lines_of = self.origins(), Lines()
        new = [one for one in now if one not in self._complaints]
        self._tell("yellow", new, _kind, lambda one: str(one.located(origins, lines_of)))
        topics = {one.topic for one in now}
        over = [one for one in self._complaints if one.topic not in topics]
        self._tell("green", over, _kind, lambda one: f"no longer: {_cut(one.located({}, lines_of))}")
        self._complaints = dict.fromkeys(now)

    def _tell(self, colour: str, things: Sequence[T], kind: Callable[[T], str], words: Callable[[T], str]) -> None:
        told = summed([kind(one) for one in things])
        for one in told[:MAX_TOLD]:
            more = f" (and {one.others} more of this kind)" if one.others else ""
            err.print(f"[{colour}]{escape(words(things[one.place]))}{escape(more)}[/]")
        others = sum(1 + one.others for one in told[MAX_TOLD:])
        if others:
            err.print(f"[{colour}]and {others} more of other kinds[/]")
        if colour != "green" and (others or any(one.others for one in told)):
            err.print(f"[dim]fsm validate {escape(self._where)} tells all of them[/]")


def _kind(one: Complaint) -> str:
    return f"{one.about.kind} {one.reason}"


def _kind_of_fault(one: DocumentFault) -> str:
    return f"{one.object.partition(' ')[0]} {re.sub(r'[0-9]+', '', one.field)} {_NAMES.sub('', one.message)}"


def _cut(one: DocumentFault) -> str:
    """What it was about, without what would work."""
    message = re.split(r"; |: | \(", one.message, maxsplit=1)[0]
    return ": ".join(part for part in (one.object or one.file, one.field, message) if part)


def lines(words: Iterable[str], colour: str = "red") -> None:
    """Tell some lines."""
    for one in words:
        err.print(f"[{colour}]{escape(one)}[/]")
