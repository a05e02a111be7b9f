"""Ports of this machine: free ones that stay free until they are used, and who has those that are not free.

A port that the kernel gives out (bind to 0) may be given to an outgoing connection the moment it is let go; ports
outside of the range for those are nobody's.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from gateway.base.logs import plain

NAME: Final = 60  # characters of what a process is called
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PROC: Final = Path("/proc")
# Of /proc/net: the tables of a transport, and the state of who takes what comes (include/net/tcp_states.h).
_TABLES: Final = {"TCP": (("tcp", "tcp6"), "0A"), "UDP": (("udp", "udp6"), "07")}


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address on which nobody listens."""
    ports: set[int] = set()
    low = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32768
    while len(ports) < count:
        port = random.randrange(10000, max(low, 12000))  # noqa: S311  # not a secret
        try:
            with socket.create_server(("127.0.0.1", port)):
                ports.add(port)
        except OSError:
            continue
    return list(ports)


class Holder(NamedTuple):
    """Who has a port."""

    pid: int  # 0 where it cannot be seen
    name: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})" if self.pid else self.name


def sign(transport: str, port: int) -> socket.socket:
    """Let others of our kind know by whom a port is held, for as long as this socket is open.

    A process that may hold private keys lets nobody look at its descriptors, so that /proc does not tell. An abstract name
    (unix(7)) goes with its process, and everybody can read it.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with suppress(OSError):  # then there is no sign
        made.bind(f"\0{_signed(transport, port)}{os.getpid()}")
    return made


def holder(transport: str, port: int) -> Holder:
    """Who has a port of this machine, as far as the signs of our kind and /proc tell."""
    with suppress(OSError):
        for line in (_PROC / "net" / "unix").read_text().splitlines():
            _, here, pid = line.partition(f"@{_signed(transport, port)}")
            if here and pid.isdigit():
                return Holder(int(pid), "fsm run")
    inodes = set(_inodes(transport, port))
    for folder in _PROC.iterdir() if inodes else ():
        if folder.name.isdigit() and any(one in inodes for one in _sockets(folder)):
            return Holder(int(folder.name), plain(_name(folder), NAME))
    return Holder(0, "another program")


def _signed(transport: str, port: int) -> str:
    return f"fsm/{transport}/{port}/"


def _inodes(transport: str, port: int) -> Iterator[str]:
    tables, state = _TABLES[transport]
    for table in tables:
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == state:
                    yield f"socket:[{fields[9]}]"


def _sockets(process: Path) -> Iterator[str]:
    with suppress(OSError):  # another user's, or gone
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                yield os.readlink(descriptor)


def _name(process: Path) -> str:
    """What a process is called; of an interpreter, what it runs."""
    try:
        name = (process / "comm").read_text().strip()
        words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "?"
    if not name.startswith(("python", "node", "ruby", "java")):
        return name
    if "-m" in words[1:-1]:
        return f"{name} -m {words[words.index('-m', 1) + 1]}"
    script = next((word for word in words[1:] if word and not word.startswith("-")), "")
    return f"{name} {Path(script).name}" if script else name
