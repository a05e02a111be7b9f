"""The chunked transfer coding without I/O (RFC 9112 §7.1): the end of bodies that tell it themselves. Strict.

Its law: nothing of a sender's framing goes on. Chunks leave as chunks of ours, without extensions and with trailers that
were looked at.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Final

from gateway.http.http1 import FIELD_LINE, NOT_A_TRAILER, TOKEN, Field, ProtocolError, field_of, sifted
from gateway.snapshot import Limits

MAX_CHUNK_LINE: Final = 4096
MAX_TRAILERS: Final = 65536  # bytes of a trailer section
# Bytes of extensions and leading zeros, besides one for each two of content: whoever sends more keeps us busy with nothing.
SPARE_FRAMING: Final = 16384
SMALL: Final = 512  # bytes that are sooner copied than looked at through a view
MANY_CHUNKS: Final = 128  # in one turn
_OURS: Final = Limits(fields=1 << 30)  # of a body that was framed here: it has passed its sender's limits

# chunk-size [ chunk-ext ] CRLF (RFC 9112 §7.1, §7.1.1): an extension has a name, and a token or a quoted string as its value.
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_EXTENSION = rb"(?:[ \t]*+;[ \t]*+" + TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + TOKEN + rb"|" + _QUOTED + rb"))?+)++"
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")?+\r\n")


def chunk(data: bytes) -> bytes:
    """Data as one chunk (RFC 9112 §7.1). None of it is no chunk: one of size 0 would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: Iterable[Field]) -> bytes:
    """The last chunk and the trailer section (RFC 9112 §7.1)."""
    return b"0\r\n%b\r\n" % b"".join(field.line + b"\r\n" for field in trailers)


class Chunks:
    """Reads a chunked body: `payload` collects its content, without framing, and `trailers` what follows.

    What was fed is taken as content (`taken`), or as one chunk of ours for all of it
    (`framed`): so its size is never more than what is there, small chunks become large ones, and extensions end here, as
    whoever passes a body on may have them end (§7.1.1).
    """

    __slots__ = ("_ended", "_left", "_limits", "_line", "_spare", "_state", "_trailer_bytes", "payload", "trailers")
    _SIZE, _DATA, _DATA_END, _TRAILER = range(4)

    def __init__(self, limits: Limits = _OURS) -> None:
        self._state = self._SIZE
        self._left = 0
        self._line = b""
        self._limits = limits
        self._spare = SPARE_FRAMING
        self._trailer_bytes = 0
        self._ended = False
        self.payload: list[bytes | memoryview] = []
        self.trailers: list[Field] = []

    def taken(self) -> bytes:
        """The content of what was fed since the last time."""
        payload = self.payload
        if not payload:
            return b""
        data = payload[0] if len(payload) == 1 else b"".join(payload)
        self.payload = []
        return bytes(data)

    def framed(self) -> bytes:
        """What has come since the last call, as one chunk, with the last chunk and the trailers once those have come."""
        payload = self.payload
        if payload:
            self.payload = []
            size = sum(map(len, payload))
            parts = [b"%x\r\n" % size, *payload, b"\r\n"]
            if self._ended:
                parts.append(last_chunk(self.trailers))
            return b"".join(parts)
        return last_chunk(self.trailers) if self._ended else b""

    def feed(self, data: bytes, start: int = 0) -> int:
        """The index just past the body's end, or -1 when it goes on. Raises ProtocolError."""
        return self._feed(data, start, sys.maxsize)[0]

    def feed_some(self, data: bytes) -> tuple[int, int]:
        """As `feed`, but no more than is work for one turn of the loop: what `feed` returns, and the index of what is left.

        Chunks are work by their number, not by their size.
        """
        return self._feed(data, 0, MANY_CHUNKS)

    def _feed(self, data: bytes, start: int, most: int) -> tuple[int, int]:
        at, size = start, len(data)
        view = memoryview(data)
        payload = self.payload
        enough = len(payload) + most
        while at < size:
            if len(payload) >= enough:
                return -1, at
            if self._state == self._SIZE and not self._line:
                # Whole chunks, one look at each.
                while len(payload) < enough and (match := _CHUNK.match(data, at)) is not None:
                    begin = match.end()
                    end = begin + int(match[1], 16)
                    if begin == end or data[end : end + 2] != b"\r\n" or begin - at > MAX_CHUNK_LINE:
                        break
                    if begin - at > 18:
                        self._account(begin - at, end - begin)
                    payload.append(data[begin:end] if end - begin < SMALL else view[begin:end])
                    at = end + 2
                if at == size or len(payload) >= enough:
                    continue
            elif self._state == self._DATA:
                take = min(self._left, size - at)
                payload.append(view[at : at + take] if take < size else data)
                at += take
                self._left -= take
                if not self._left:
                    self._state = self._DATA_END
                continue
            end = data.find(b"\n", at)
            line = self._line + (data[at:] if end < 0 else data[at : end + 1])
            if len(line) > MAX_CHUNK_LINE:
                raise ProtocolError(400, "a chunk's size line or a trailer is too long")
            if end < 0:
                if self._state == self._DATA_END and line != b"\r":
                    raise ProtocolError(400, "a chunk is longer than its size")
                self._line = line
                return -1, size
            self._line = b""
            at = end + 1
            if line[-2:] != b"\r\n":
                raise ProtocolError(400, "a chunk's line ends in a bare LF")
            if self._take(line):
                self._ended = True
                return at, at
        return -1, size

    def _account(self, framing: int, content: int) -> None:
        """A size line of so many bytes, for so much content."""
        self._spare = min(self._spare - framing + (content >> 1), SPARE_FRAMING)
        if self._spare < 0:
            raise ProtocolError(400, "chunk extensions are longer than what they are about")

    def _take(self, line: bytes) -> bool:
        """One line of framing; True when it was the last."""
        if self._state == self._SIZE:
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise ProtocolError(400, "a chunk's size is malformed" if b";" not in line else _extension_fault(line))
            self._left = int(match.group(1), 16)
            self._account(len(line), self._left)
            self._state = self._DATA if self._left else self._TRAILER
        elif self._state == self._DATA_END:
            if line != b"\r\n":
                raise ProtocolError(400, "a chunk is longer than its size")
            self._state = self._SIZE
        elif line == b"\r\n":
            self.trailers = sifted(self.trailers, self._limits)
            return True
        else:
            self._take_trailer(line[:-2])
        return False

    def _take_trailer(self, line: bytes) -> None:
        if not FIELD_LINE.fullmatch(line):
            raise ProtocolError(400, "a trailer is malformed")
        if line.partition(b":")[0].lower() in NOT_A_TRAILER:
            raise ProtocolError(400, "a trailer carries a field that must not be one")
        self._trailer_bytes += len(line)
        if len(self.trailers) >= self._limits.fields or self._trailer_bytes > MAX_TRAILERS:
            raise ProtocolError(431, f"the trailers are more than {self._limits.fields}, or longer than {MAX_TRAILERS} bytes")
        self.trailers.append(field_of(line))


def _extension_fault(line: bytes) -> str:
    size = line.partition(b";")[0].rstrip(b" \t")
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size):
        return "a chunk's size is malformed"
    return "a chunk's size is malformed: its extension is no name with a token or a quoted string"
