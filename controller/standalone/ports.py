"""The ports that this process has to itself: its workers share them, and nobody else may.

Workers take a port together (SO_REUSEPORT), and so could those of another `fsm run` of the same user, which would get a part
of the connections in silence. So the parent takes each port first, as one that nobody has, and lets its workers join then:
it never listens, and the kernel gives it no connection.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias

from controller.ports import holder, sign
from gateway.base.sockets import bound
from gateway.snapshot import Listener

Wanted: TypeAlias = tuple[str, int]  # a transport, and a listener's port
LAST: Final = 65535
KINDS: Final = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}


class NotHad(NamedTuple):
    """Why a port cannot be had: in words, and whether nothing will come of it until somebody does something else."""

    words: str
    is_final: bool = True


def wanted(listener: Listener) -> Wanted:
    """What a listener listens on."""
    return "UDP" if listener.protocol == "UDP" else "TCP", listener.port


class OwnPorts:
    """Ports, taken before they are served. `on_free` is called when who was in the way of one is gone."""

    def __init__(self, bind: str, offset: int, on_free: Callable[[], None]) -> None:
        self._bind = bind
        self._offset = offset
        self._on_free = on_free
        self._held: dict[Wanted, list[socket.socket]] = {}
        self._watched: dict[int, int] = {}  # processes that are in the way, and descriptors of them

    def take(self, one: Wanted) -> NotHad | None:
        """Have a port; says why, where it cannot be had."""
        if one in self._held:
            return None
        transport, port = one
        actual = port + self._offset
        if actual > LAST:
            return NotHad(
                f"port {port} with --port-offset {self._offset} would be {actual}, and there is none above {LAST}; "
                f"--port-offset {LAST - port} is the most for it"
            )
        try:
            self._held[one] = self._taken(transport, actual)
        except OSError as error:
            return self._why_not(transport, actual, error)
        return None

    def keep(self, those: Iterable[Wanted]) -> None:
        """Let go of all others."""
        for one in self._held.keys() - set(those):
            for each in self._held.pop(one):
                each.close()

    def close(self) -> None:
        """Let go of all."""
        self.keep(())
        for pid in list(self._watched):
            self._forget(pid)

    def _taken(self, transport: str, port: int) -> list[socket.socket]:
        made = bound(self._bind, port, KINDS[transport], is_shared=False)
        if transport == "UDP":
            made.close()  # it would be given datagrams
            held = []
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held = [made]
        return [*held, sign(transport, port)]

    def _why_not(self, transport: str, port: int, error: OSError) -> NotHad:
        if error.errno == errno.EACCES:
            return NotHad(
                f"port {port} needs the right to bind ports below 1024; with --port-offset 8000 it is"
                f" {port - self._offset + 8000}; or run as root, or let everybody use low ports:"
                " sysctl -w net.ipv4.ip_unprivileged_port_start=80",
                is_final=False,
            )
        if error.errno != errno.EADDRINUSE:
            return NotHad(f"port {port}: {error.strerror or error}")
        found = holder(transport, port)
        if found.pid == os.getpid():
            return NotHad(f"{transport} port {port} is that of the admin page; --admin or --port-offset can move one of them")
        self._watch(found.pid)
        return NotHad(f"{transport} port {port} is in use by {found}; another --port-offset avoids it")

    # --- who is in the way ---

    def _watch(self, pid: int) -> None:
        """Hear of the end of a process (pidfd_open(2)): its port may be free then."""
        if not pid or pid in self._watched or not hasattr(os, "pidfd_open"):
            return
        with suppress(OSError):
            descriptor = self._watched[pid] = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(descriptor, self._gone, pid)

    def _gone(self, pid: int) -> None:
        self._forget(pid)
        self._on_free()

    def _forget(self, pid: int) -> None:
        descriptor = self._watched.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
