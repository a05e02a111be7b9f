"""Steady load: a fixed rate over a few keep-alive connections, every answer looked at."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field

VERSION = re.compile(rb"ver: ([^\n<]+)")


@dataclass(repr=False)
class DemoTally:
    """Answers to the requests sent since it was begun."""

    began: float = field(default_factory=time.monotonic)
    versions: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Tally {self.versions} failures={self.failures[:5]}>"

    @property
    def requests(self) -> int:
        """How many."""
        return sum(self.versions.values()) + len(self.failures)

    def share(self, version: str) -> float:
        """Percent of the good answers that came from a version."""
        good = sum(self.versions.values())
        return 100 * self.versions.get(version, 0) / good if good else 0.0

    def quantile(self, q: float) -> float:
        """Milliseconds within which this part of the answers came."""
        ordered = sorted(self.seconds)
        return ordered[min(int(len(ordered) * q), len(ordered) - 1)] * 1000 if ordered else 0.0


class DemoLoad:
    """Requests at a rate, until cancelled. `tally` may be replaced at any time."""

    def __init__(self, host: str, port: int, name: str, *, rate: int, connections: int = 8, path: str = "/callme") -> None:
        self._where = (host, port)
        self._request = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: fsm-demo\r\nAccept: */*\r\n\r\n".encode()
        self._rate = rate
        self._connections = connections
        self.tally = DemoTally()
        self.total = DemoTally()

    async def run(self) -> None:
        """Every connection sends its part of the rate, evenly spread."""
        async with asyncio.TaskGroup() as group:
            for index in range(self._connections):
                group.create_task(self._send(index))

    async def _send(self, index: int) -> None:
        interval = self._connections / self._rate
        due = time.monotonic() + interval * index / self._connections
        connection = _Connection(self._where)
        try:
            while True:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = max(due + interval, time.monotonic() - 1)
                await self._ask(connection)
        finally:
            connection.close()

    async def _ask(self, connection: _Connection) -> None:
        tally, sent = self.tally, time.monotonic()
        try:
            status, version, body = await connection.exchange(self._request)
            problem = "" if status == 200 and version else f"status {status}: {body.decode(errors='replace').strip()[:200]}"
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            connection.close()
            problem, version = f"{type(error).__name__}: {error}", ""
        for record in (tally, self.total):
            if problem:
                record.failures.append(problem)
            else:
                record.versions[version] = record.versions.get(version, 0) + 1
                record.seconds.append(time.monotonic() - sent)


class _Connection:
    """One keep-alive connection, made when it is needed."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._where = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, request: bytes) -> tuple[int, str, bytes]:
        """The status, the version that answered, and the body."""
        async with asyncio.timeout(10):
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._where)
            reader, writer = self._streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            length = re.search(rb"content-length: *(\d+)", lower)
            body = await reader.readexactly(int(length.group(1))) if length else b""
        if b"connection: close" in lower:
            self.close()
        version = VERSION.search(body)
        return int(head[9:12]), version.group(1).decode().strip() if version else "", body

    def close(self) -> None:
        """Let it go."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
