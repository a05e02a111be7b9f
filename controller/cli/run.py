"""`fsm run`: standalone mode in the foreground."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from pathlib import Path
from typing import Final

import uvloop

from controller.cli.printer import Printer, lines
from controller.ports import holder
from controller.standalone.gateway import PortsUnavailableError, Standalone, default_workers
from gateway.base.privacy import keep_to_yourself
from gateway.base.sockets import bound

WRONG: Final = 2  # exit code where an option cannot be


def run_files(path: Path, *, port_offset: int, workers: int | None, bind: str, admin: str, drain: float, inline: bool) -> None:
    """Run until SIGINT or SIGTERM."""
    keep_to_yourself()
    at = _admin_address(admin)
    everywhere = bind == "0.0.0.0"
    _check_address(bind if not everywhere else "")
    count = workers or default_workers()

    async def run() -> int:
        gateway = Standalone(path, inline=inline, bind="" if everywhere else bind, port_offset=port_offset, workers=count)
        host = "127.0.0.1" if everywhere else "::1" if bind == "::" else bind
        return await _run(gateway, Printer(port_offset, host=host, where=str(path)), at, drain)

    raise SystemExit(uvloop.run(run()))


def _admin_address(admin: str) -> tuple[str, int] | None:
    """Where the admin page listens; None for nowhere. Exits with 2 for what is no address."""
    if not admin:
        return None
    host, _, port = admin.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) <= 65535):
        lines([f"--admin: found {admin!r}; HOST:PORT is needed, such as 127.0.0.1:9091, or nothing for no admin page"])
        raise SystemExit(WRONG)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_address(bind: str) -> None:
    """Exit with 2 for an address that is none of this machine's."""
    try:
        bound(bind, 0, socket.SOCK_STREAM, is_shared=False).close()
    except (OSError, UnicodeError) as error:
        words = f"--bind: found {bind!r} ({getattr(error, 'strerror', None) or error}); an address of this machine is needed,"
        lines([f"{words} such as 127.0.0.1, or 0.0.0.0 for all"])
        raise SystemExit(WRONG) from None


async def _run(standalone: Standalone, printer: Printer, admin: tuple[str, int] | None, drain: float) -> int:
    standalone.on_applied = printer.applied
    standalone.on_faults = printer.faults
    standalone.on_complaints = printer.complaints
    standalone.on_problems = printer.problems
    standalone.on_settled = printer.settled
    standalone.on_problem = lambda words, stands: printer.failing(words, stands=stands)
    standalone.on_failure = lambda words: lines([words])
    printer.origins = lambda: standalone.source.origins
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    stopped = asyncio.create_task(stop.wait())
    starting = asyncio.create_task(standalone.start(admin))
    await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await standalone.stop(grace=0)
        return 0
    failure = _failure(starting, admin)
    if failure or standalone.has_place_for_none:
        lines(failure)
        await standalone.stop(grace=0)
        stopped.cancel()
        return 1
    printer.begin(standalone.admin if admin is not None else None, standalone.summary())
    await stopped
    lines(["draining"], "dim")
    await standalone.stop(grace=drain)
    return 0


def _failure(starting: asyncio.Task[None], admin: tuple[str, int] | None) -> list[str]:
    """Why nothing can be served, in words."""
    try:
        starting.result()
    except PortsUnavailableError as error:
        return [*error.faults, "nothing is served"]
    except OSError as error:
        if admin is None:
            raise
        where = f"{admin[0]}:{admin[1]}"
        if error.errno != errno.EADDRINUSE:
            return [f"the admin page cannot listen on {where}: {error.strerror or error}; --admin HOST:PORT moves it"]
        words = f"the admin page cannot listen on {where}: it is in use by {holder('TCP', admin[1])}"
        return [f"{words}; --admin {admin[0]}:{admin[1] + 1} moves it, --port-offset the listeners"]
    return []
