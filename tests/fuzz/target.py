"""A fuzz target (libFuzzer through atheris): bytes from clients and backends, guided by coverage of the parser.

    python tests/fuzz/target.py -max_total_time=60 [CORPUS]

Three things must hold for every input: a head is parsed or refused with a status, and nothing else happens; what is
accepted, h11 reads in the same way; and a shortcut does what the full parse would have done.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from gateway.http1 import Chunks, ProtocolError, parse_request, parse_response

sys.path.append(str(Path(__file__).parent.parent / "unit"))

import h11
from conversing import Side
from test_shortcut import RULES

HEAD = b"GET /p/1 HTTP/1.1\r\nHost: a.example\r\nAccept: a/b\r\nX-Id: %d\r\nCookie: s=%d; t=dark\r\nX-Forwarded-For: 10.0.0.%d\r\n\r\n"
REPLY = b'HTTP/1.1 200 OK\r\nServer: s\r\nETag: "%d"\r\nContent-Length: 5\r\nX-Id: %d\r\n\r\nhello'


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
    assert [(field.name, field.value) for field in request.fields] == [(name, value) for name, value in event.headers]


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
            try:
                Chunks().feed(provider.ConsumeBytes(1 << 12))
            except ProtocolError as error:
                assert error.status == 400
        elif kind == 3:
            pair.compare(spliced(provider, request), reply)
        else:
            pair.compare(request, spliced(provider, reply))

    atheris.Setup(sys.argv, lambda data: loop.run_until_complete(one(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
