"""`fsm run`: standalone mode in the foreground."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Final

import uvloop
from rich.markup import escape

from controller.cli.console import err
from controller.objects.documents import DocumentFault
from controller.standalone.gateway import Standalone, default_workers
from gateway.admin.server import Admin
from gateway.base.logs import plain_lines
from gateway.base.privacy import keep_to_yourself
from gateway.snapshot import Change, Listener, Problem, Script, key

MAX_TOLD: Final = 20  # refusals told at once


def run_files(path: Path, *, port_offset: int, workers: int | None, bind: str, admin: str, drain: float, inline: bool) -> None:
    """Run until SIGINT or SIGTERM."""
    keep_to_yourself()
    everywhere = bind == "0.0.0.0"
    count = workers or default_workers()

    async def run() -> int:
        gateway = Standalone(path, inline=inline, bind="" if everywhere else bind, port_offset=port_offset, workers=count)
        return await _run(gateway, admin, drain, port_offset)

    raise SystemExit(uvloop.run(run()))


async def _run(standalone: Standalone, admin: str, drain: float, offset: int) -> int:
    printer = Printer(offset)
    standalone.on_applied = printer.applied
    standalone.on_faults = printer.faults
    standalone.on_refusals = printer.refusals
    standalone.on_problem = lambda text: err.print(f"[red]{_shown(text)}[/]")
    standalone.workers.on_failure = lambda text: err.print(f"[red]{_shown(text)}[/]")
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    host, _, port = admin.rpartition(":")
    if admin and not (host and port.isascii() and port.isdigit() and int(port) <= 65535):
        err.print(f"[red]--admin: found {_shown(repr(admin))}; HOST:PORT is needed, such as 127.0.0.1:9091[/]")
        return 2
    stopped = asyncio.create_task(stop.wait())
    starting = asyncio.create_task(standalone.start((host, int(port)) if admin else None))
    await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await standalone.stop(grace=0)
        return 0
    try:
        starting.result()
    except OSError as error:
        err.print(f"[red]The admin page cannot listen on {admin}: {error.strerror or error}[/]; see --admin")
        await standalone.stop(grace=0)
        stopped.cancel()
        return 1
    listeners = [part for part in standalone.workers.parts.values() if isinstance(part, Listener)]
    refused = {problem.part for problem in standalone.workers.problems}
    if listeners and all(listener.name in refused for listener in listeners):
        await standalone.stop(grace=0)
        stopped.cancel()
        return 1
    if not listeners:
        err.print("[yellow]No valid listener yet; waiting for the files to have one (fsm status says why).[/]")
    for listener in listeners:
        scheme = listener.protocol.lower()
        err.print(f"[bold]{scheme}://{standalone_host(standalone)}:{listener.port + offset}[/] {listener.name}")
    if admin:
        err.print(f"[dim]admin {standalone.admin.address}[/]")
        printer.edits_at(standalone.admin)
    await stopped
    err.print("[dim]draining[/]")
    await standalone.stop(grace=drain)
    return 0


def standalone_host(standalone: Standalone) -> str:
    """The address to tell people."""
    addresses: tuple[str, ...] = standalone.world.read(("setting", "addresses"))
    return "127.0.0.1" if addresses[0] == "0.0.0.0" else addresses[0]


def _shown(text: str) -> str:
    """Words of files and filters, which may be anybody's, as a terminal may have them."""
    return escape(plain_lines(text))


class Printer:
    """Tells what happens, a line each."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._faults: set[DocumentFault] = set()
        self._admin: Admin | None = None  # where filters can be edited, once that is to be said
        self._has_filters = False

    def edits_at(self, admin: Admin) -> None:
        """Where filters can be edited: said when there are any."""
        self._admin = admin if admin.key else None
        self._say_where()

    def _say_where(self) -> None:
        if self._admin is not None and self._has_filters:
            err.print(f"[dim]edit filters at {self._admin.address}/#key={self._admin.key}[/]")
            self._admin = None

    def applied(self, change: Change, seconds: float, problems: tuple[Problem, ...]) -> None:
        """A change is in force."""
        refused = {problem.part for problem in problems}
        names = [f"{kind} {name}" for kind, name in map(key, change.put) if name not in refused]
        names += [f"-{kind} {name}" for kind, name in change.drop]
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        if names:
            err.print(f"[dim]{time.strftime('%H:%M:%S')}[/] in force after [green]{seconds * 1000:.1f} ms[/]: {_shown(shown)}")
        self._has_filters |= any(isinstance(part, Script) and not part.built_in for part in change.put)
        self._say_where()
        for problem in problems:
            words = problem.message.removeprefix(problem.part).lstrip(" ,:")
            err.print(f"[red]{_shown(problem.part)} is not in force: {_shown(words)}[/]{self._way_out(problem.message)}")

    def faults(self, faults: list[DocumentFault]) -> None:
        """What is wrong with the files has changed."""
        for fault in faults:
            if fault not in self._faults:
                err.print(f"[red]{_shown(str(fault))}[/]")
        if self._faults and not faults:
            err.print("[green]all files are good again[/]")
        elif faults and not self._faults.issuperset(faults):
            err.print("[yellow]the last good state of these objects stays in force, where there was one[/]")
        self._faults = set(faults)

    def refusals(self, faults: list[DocumentFault]) -> None:
        """What files ask for, and is refused or has no effect."""
        for fault in faults[:MAX_TOLD]:
            err.print(f"[yellow]{_shown(str(fault))}[/]")
        if len(faults) > MAX_TOLD:
            err.print(f"[yellow]and {len(faults) - MAX_TOLD} more: see fsm status[/]")

    def _way_out(self, message: str) -> str:
        if "below 1024" in message:
            return (
                "\n  Ways out: --port-offset 8000 (port 80 becomes 8080); or run as root; or let everybody use low"
                "\n  ports: sysctl -w net.ipv4.ip_unprivileged_port_start=80"
            )
        if "in use" in message:
            return "\n  Another --port-offset avoids it."
        return ""
