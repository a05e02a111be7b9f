"""A fuzz target (libFuzzer through atheris): bytes from clients and backends, guided by coverage of the parser.

    python tests/fuzz/target.py -max_total_time=60 [CORPUS]

Three things must hold for every input: a head is parsed or refused with a status, and nothing else happens; what is
accepted, h11 reads in the same way; and a shortcut does what the full parse would have done.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from gateway.http.chunked import Chunks
    from gateway.http.http1 import LENGTH, SHADOW, ProtocolError, kind_of, parse_request, parse_response

sys.path.append(str(Path(__file__).parent.parent))

import h11
from support.rules import RULES
from support.wire import Side

HEAD = b"GET /p/1 HTTP/1.1\r\nHost: a.example\r\nAccept: a/b\r\nX-Id: %d\r\nCookie: s=%d; t=dark\r\nX-Forwarded-For: 10.0.0.%d\r\n\r\n"
CHUNKED = b'3\r\nabc\r\n05;a="b";c=d\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n'
REPLY = b'HTTP/1.1 200 OK\r\nServer: s\r\nETag: "%d"\r\nContent-Length: 5\r\nX-Id: %d\r\n\r\nhello'

BAD_SPACE = re.compile(rb"[ \t];")  # before an extension: RFC 9112 §7.1.1 wants it read, h11 does not


class Pair:
    """A proxy with shortcuts and one without; both have learned the same heads."""

    def __init__(self) -> None:
        self.sides = Side(RULES), Side(RULES, shortcuts=False)
        for side in self.sides:
            client, wire = side.connect()
            for n in range(4):
                side.ask(client, wire, HEAD % (n, n, n), [REPLY % (n, n)])

    def compare(self, request: bytes, reply: bytes) -> None:
        """The same bytes to both, on new connections."""
        found = [side.ask(*side.connect(), request, [reply])[1] for side in self.sides]
        assert found[0] == found[1], (request, reply)


def parse(data: bytes) -> None:
    """Parsed or refused; and if parsed, as h11 parses it."""
    head = data.partition(b"\r\n\r\n")[0]
    try:
        request = parse_request(head)
    except ProtocolError as error:
        assert 400 <= error.status < 600
        return
    if request.target == b"*" or b"://" in head.split(b"\r\n")[0] or request.http10:
        return
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(head + b"\r\n\r\n")
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    assert event.method == request.method
    # What goes on is written anew where it frames the message, and without what looks like that.
    there = [(name, b"%d" % int(value) if kind_of(name) == LENGTH else value) for name, value in event.headers]
    assert [(field.name, field.value) for field in request.fields] == [pair for pair in there if kind_of(pair[0]) != SHADOW]


def read_chunks(data: bytes, cut: int) -> None:
    """Read or refused; and what goes on is the same content, to us and to h11, in two pieces as in one."""
    chunks = Chunks()
    try:
        end = chunks.feed(data[:cut])
        out = chunks.framed()
        if end < 0:
            end = chunks.feed(data[cut:])
            out += chunks.framed()
            end += cut if end >= 0 else 0
    except ProtocolError as error:
        assert error.status in (400, 431)
        return
    again = Chunks()
    assert again.feed(out) == (len(out) if end >= 0 else -1)
    content = again.taken()
    assert end < 0 or again.trailers == chunks.trailers
    assert by_h11(out) == (content, end >= 0), (data, out)
    if end >= 0 and not BAD_SPACE.search(data):
        assert by_h11(data[:end]) == (content, True), data


def by_h11(body: bytes) -> tuple[bytes, bool]:
    """A chunked body's content, and whether it is whole."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert isinstance(connection.next_event(), h11.Request)
    seen = b""
    while isinstance(event := connection.next_event(), h11.Data):
        seen += event.data
    return seen, isinstance(event, h11.EndOfMessage)


def spliced(provider: atheris.FuzzedDataProvider, text: bytes) -> bytes:
    """The text with something else in one place."""
    at = provider.ConsumeIntInRange(0, len(text))
    cut = provider.ConsumeIntInRange(0, 4)
    return text[:at] + provider.ConsumeBytes(provider.ConsumeIntInRange(0, 24)) + text[at + cut :]


def main() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pair = Pair()

    async def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        kind = provider.ConsumeIntInRange(0, 4)
        n = provider.ConsumeIntInRange(0, 3)
        request, reply = HEAD % (n, n, n), REPLY % (n, n)
        if kind == 0:
            parse(provider.ConsumeBytes(1 << 12))
        elif kind == 1:
            try:
                parse_response(provider.ConsumeBytes(1 << 12))
            except ProtocolError as error:
                assert error.status == 502
        elif kind == 2:
            cut = provider.ConsumeIntInRange(0, 64)
            if provider.ConsumeBool():
                read_chunks(provider.ConsumeBytes(1 << 12), cut)
            else:
                read_chunks(spliced(provider, CHUNKED), cut)
        elif kind == 3:
            pair.compare(spliced(provider, request), reply)
        else:
            pair.compare(request, spliced(provider, reply))

    atheris.Setup(sys.argv, lambda data: loop.run_until_complete(one(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
