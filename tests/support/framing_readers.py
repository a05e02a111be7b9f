"""How backends read HTTP/1.1: one that takes nothing but the plainest framing, and several that forgive what real ones do.

None of it is the gateway's code. A byte stream on which any two of these disagree is one that smuggles.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

Fields = list[tuple[bytes, bytes]]


class Broken(Exception):
    """What comes is not a request to this reader."""


class Unfinished(Exception):
    """The rest has not come yet."""


@dataclass
class Seen:
    """A request, as it was read."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known == name]

    @property
    def line(self) -> bytes:
        return self.method + b" " + self.target

    def __repr__(self) -> str:
        return f"<{self.line.decode('latin-1')} {self.body!r}>"


def plain(text: bytes) -> int:
    """1*DIGIT, without a zero in front."""
    if not re.fullmatch(rb"0|[1-9][0-9]*", text):
        raise Broken(f"{text!r} is no canonical number")
    return int(text)


def plain_hex(text: bytes) -> int:
    if not re.fullmatch(rb"0|[1-9a-f][0-9a-f]*", text):
        raise Broken(f"{text!r} is no canonical chunk size")
    return int(text, 16)


def any_number(text: bytes) -> int:
    """As Python's int(): signs, white space, underscores, other digits."""
    try:
        return int(text.decode("utf-8"))
    except (ValueError, UnicodeDecodeError):
        raise Broken("no number") from None


def any_hex(text: bytes) -> int:
    try:
        return int(text.partition(b";")[0].decode("latin-1"), 16)
    except ValueError:
        raise Broken("no chunk size") from None


def as_c(text: bytes) -> int:
    """As strtol() with base 0: octal behind a 0, hexadecimal behind 0x, and whatever follows is nobody's business."""
    match = re.match(rb"\s*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", text)
    if match is None:
        return 0
    digits = match[2].lower()
    value = (
        int(digits, 16)
        if digits.startswith(b"0x")
        else int(digits, 8)
        if digits[:1] == b"0" and digits != b"0"
        else int(digits)
    )
    return -value if match[1] == b"-" else value


def as_c_hex(text: bytes) -> int:
    """As strtol() with base 16, in 32 bits."""
    match = re.match(rb"\s*(?:0[xX])?([0-9a-fA-F]*)", text)
    assert match is not None
    return int(match[1] or b"0", 16) & 0xFFFFFFFF


@dataclass(frozen=True)
class Reading:
    """One way to read."""

    name: str
    strict: bool = False
    prefers: bytes = b"transfer-encoding"  # where a request has both
    number: Callable[[bytes], int] = any_number
    size: Callable[[bytes], int] = any_hex
    last: bool = False  # of several lines, the last one counts
    folds: bool = False  # `_`, and whatever else is no letter and no digit, is `-` in a name

    def requests(self, data: bytes, *, upgrades: bool = False) -> tuple[list[Seen], bytes]:
        """The whole requests of a stream, to the first that changes protocols where it is taken; and what is left of it."""
        found = []
        while data:
            try:
                seen, data = self._request(data)
            except Unfinished:
                break
            found.append(seen)
            if upgrades and seen.values(b"upgrade"):
                break
        return found, data

    def _line(self, data: bytes) -> tuple[bytes, bytes]:
        line, end, rest = data.partition(b"\r\n" if self.strict else b"\n")
        if not end:
            raise Unfinished
        if self.strict and re.search(rb"[\r\n\0]", line):
            raise Broken("a bare CR, LF or NUL")
        return (line if self.strict else line.rstrip(b"\r")), rest

    def _request(self, data: bytes) -> tuple[Seen, bytes]:
        line, data = self._line(data)
        while not line and not self.strict:
            line, data = self._line(data)
        words = line.split(b" ") if self.strict else line.split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            raise Broken(f"{line!r} is no request line")
        fields, data = self._fields(data)
        seen = Seen(words[0], words[1], fields)
        if self.strict and len(seen.values(b"host")) != 1:
            raise Broken("not one Host")
        return self._body(seen, data)

    def _fields(self, data: bytes) -> tuple[Fields, bytes]:
        fields: Fields = []
        while True:
            line, data = self._line(data)
            if not line:
                return fields, data
            if line[:1] in b" \t" and not self.strict and fields:
                fields[-1] = (fields[-1][0], fields[-1][1] + b" " + line.strip())
                continue
            name, colon, value = line.partition(b":")
            if self.strict and (not colon or not re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name)):
                raise Broken(f"{line!r} is no field")
            name = name.strip().lower()
            if self.folds:
                name = re.sub(rb"[^0-9a-z]", b"-", name)
            fields.append((name, value.strip()))

    def _body(self, seen: Seen, data: bytes) -> tuple[Seen, bytes]:
        codings, lengths = seen.values(b"transfer-encoding"), seen.values(b"content-length")
        if self.strict:
            if len(codings) + len(lengths) > 1 or (codings and codings[0] != b"chunked"):
                raise Broken(f"framing in doubt: {codings} {lengths}")
        is_chunked = bool(codings) and b"chunked" in codings[-1 if self.last else 0].lower()
        if is_chunked and not (lengths and self.prefers == b"content-length"):
            return self._chunks(seen, data)
        if lengths:
            size = self.number(lengths[-1 if self.last else 0])
            if len(data) < size:
                raise Unfinished
            seen.body = data[: max(size, 0)]
            return seen, data[max(size, 0) :]
        return seen, data

    def _chunks(self, seen: Seen, data: bytes) -> tuple[Seen, bytes]:
        while True:
            line, data = self._line(data)
            size = self.size(line)
            if size == 0:
                seen.trailers, data = self._fields(data)
                return seen, data
            if len(data) < size + 2:
                raise Unfinished
            seen.body += data[:size]
            if self.strict and data[size : size + 2] != b"\r\n":
                raise Broken("a chunk is not as long as it says")
            data = data[size + 2 :] if data[size : size + 2] == b"\r\n" else data[size:].lstrip(b"\r\n")


STRICT = Reading("strict", strict=True, number=plain, size=plain_hex)
LENIENT = Reading("lenient")
READINGS = (
    STRICT,
    LENIENT,
    Reading("length first", prefers=b"content-length", last=True),
    Reading("as C reads numbers", number=as_c, size=as_c_hex),
    Reading("CGI", folds=True, prefers=b"content-length"),
    Reading("CGI, the last of several", folds=True, last=True, number=as_c, size=as_c_hex),
)


class Backend:
    """A backend that reads in one way, answers what it reads by naming it, and remembers every byte by connection."""

    def __init__(self, reading: Reading, *, upgrades: bool = False) -> None:
        self.reading = reading
        self.upgrades = upgrades
        self.refuses = 0  # so many requests are answered by closing the connection
        self.streams: list[bytearray] = []
        self.tunnels: list[bytearray] = []
        self.early = b""  # what came behind a request for another protocol before that was agreed
        self.port = 0
        self._server: asyncio.Server
        self.connections: set[_Connection] = set()

    async def start(self) -> Backend:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    def seen(self, reading: Reading) -> list[Seen]:
        """Every whole request that came, on all connections, in one way to read."""
        return [one for stream in self.streams for one in reading.requests(bytes(stream), upgrades=self.upgrades)[0]]


def said_of(seen: Seen) -> bytes:
    """What a backend answers: which request this is the answer to."""
    return b"%b %b %d" % (seen.method, seen.target, len(seen.body))


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stream = bytearray()
        self._read = b""
        self._tunnel: bytearray | None = None
        self._invited = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._backend.connections.add(self)
        self._backend.streams.append(self._stream)

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel += data
            self.transport.write(data.upper())
            return
        self._stream += data
        self._read += data
        while self._read and self._tunnel is None and not self.transport.is_closing():
            try:
                found, rest = self._backend.reading.requests(self._read, upgrades=self._backend.upgrades)
            except Broken as broken:
                said = str(broken).encode()
                self.transport.write(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(said), said)
                )
                self.transport.close()
                return
            if not found:
                self._invite()
                return
            self._read = rest
            for seen in found:
                self._answer(seen)

    def _invite(self) -> None:
        if not self._invited and b"\r\n\r\n" in self._read and b"\r\nexpect: 100-continue\r\n" in self._read.lower():
            self._invited = True
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, seen: Seen) -> None:
        backend = self._backend
        if backend.refuses:
            backend.refuses -= 1
            self.transport.abort()
        elif seen.values(b"upgrade") and backend.upgrades:
            backend.early += self._read
            self._tunnel = bytearray()
            backend.tunnels.append(self._tunnel)
            self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        else:
            said = said_of(seen)
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said)
            self.transport.write(head + (b"" if seen.method == b"HEAD" else said))
