"""The table of `smuggling.py`, through the gateway to a backend that is strict and to one that forgives.

One law for all rows: however what came out of the gateway is read (`reading.READINGS`), there are the same requests in it, no
more than the gateway has answered, and each answer reaches who asked.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import msgspec
import pytest
from hpack import Decoder
from support.framing_readers import LENIENT, READINGS, STRICT, Backend, Reading
from support.http2_bytes import HELLO
from support.proxy import Proxy, make_rule
from support.smuggling_rows import ROWS, Row

from gateway import snapshot
from gateway.http.http2_frames import ACK, DATA, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, frame
from gateway.snapshot import Endpoint, Limits, Listener, Mirror, RequestHeaders, Retry, Script, Scripted, Target

# What the fast path has learned before: nothing, a head in which one value changes, or two.
LEARNED = {
    1: b"GET /warm/%d HTTP/1.1\r\nHost: a\r\nX-Id: %d\r\nCookie: c=9\r\n\r\n",
    2: b"GET /warm/%d HTTP/1.1\r\nHost: a\r\nX-Id: %d\r\nCookie: c=%d\r\n\r\n",
}
CHANGES = """
async def request(request):
    request.headers["x-seen"] = "filter"
    if request.method in ("POST", "PUT"):
        request.set_body(await request.body())
"""
SETS = "def request(request):\n    request.headers['x-seen'] = 'filter'\n"
POPS = "def request(request):\n    request.headers.pop('x-seen', None)\n"
PASSES = """
def request_body(chunk):
    pass
"""


@pytest.fixture(params=[STRICT, LENIENT], ids=lambda reading: reading.name)
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    made = await Backend(request.param).start()
    yield made
    await made.stop()


@pytest.fixture
async def copied() -> AsyncIterator[Backend]:
    made = await Backend(LENIENT).start()
    yield made
    await made.stop()


async def stage(proxy: Proxy, scene: str, backend: Backend, copied: Backend) -> None:
    """One rule to the backend, with whoever has a hand in this scene's bodies."""
    filters: tuple[snapshot.Filter, ...] = ()
    limits, retry = Limits(), None
    match scene:
        case "edited":
            filters = (RequestHeaders(set=(("X-User", "nobody"),), remove=("X-Secret",)),)
        case "mirrored":
            filters = (Mirror("m"),)
        case "retried":
            retry, backend.refuses = Retry((503,), attempts=3), 1
        case "scripted" | "body-filter" | "setting" | "setting-later" | "popping":
            sources = {
                "scripted": CHANGES,
                "body-filter": PASSES,
                "setting": SETS,
                "setting-later": f"async {SETS}",
                "popping": POPS,
            }
            filters = (Scripted("f"),)
            await proxy.apply(Script("f", sources[scene], execution="inline", is_tried=False))
        case "upgrading":
            backend.upgrades = True
        case "rejecting":
            limits = Limits(underscores="Reject")
        case "dropping":
            limits = Limits(underscores="Drop")
    rule = make_rule("r", "a", targets=(Target(1, "b"),), filters=filters, retry=retry)
    await proxy.apply(
        Listener("l", 80, limits=limits),
        snapshot.Backend("b", (Endpoint("127.0.0.1", backend.port),)),
        snapshot.Backend("m", (Endpoint("127.0.0.1", copied.port),)),
        msgspec.structs.replace(rule, grpc=scene == "grpc"),
    )


# --- clients ---


def answers_of(data: bytes, methods: list[bytes]) -> list[tuple[int, bytes]]:
    """Statuses and contents of what came back on a connection; an answer that is cut is (0, b"")."""
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end, data
        status = int(head[9:12])
        if status == 101:
            return [*found, (101, rest)]
        if status < 200:
            data = rest
            continue
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields.get(b"content-length", b"0"))
        if methods[len(found) : len(found) + 1] == [b"HEAD"]:
            size = 0
        if fields.get(b"transfer-encoding") == b"chunked":
            body, rest = b"", rest
            while True:
                line, _, rest = rest.partition(b"\r\n")
                length = int(line, 16)
                body, rest = body + rest[:length], rest[length + 2 :]
                if not length:
                    break
            found.append((status, body))
        else:
            found.append((status, rest[:size]))
            rest = rest[size:]
        data = rest
    return found


async def ask1(proxy: Proxy, row: Row, *, learned: int) -> list[tuple[int, bytes]]:
    """Send a row's bytes on a connection, perhaps one that has taken the fast path before."""
    reader, writer = await proxy.connect()
    try:
        async with asyncio.timeout(5):
            for n in range(3 if learned else 0):
                writer.write(LEARNED[learned] % ((n,) * (learned + 1)))
                answer = await reader.readuntil(b"\r\n\r\n")
                size = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(size)
            writer.write(row.sent)
            writer.write_eof()
            data = await reader.read()
    finally:
        writer.close()
    return answers_of(data, [line.split(b" ")[0] for line, _ in row.seen])


async def ask2(proxy: Proxy, row: Row) -> list[tuple[int, bytes]]:
    """The same in frames; what was sent on a stream ends with an answer or a reset, in the order of the streams."""
    reader, writer = await proxy.connect()
    heads: dict[int, bytes] = {}
    bodies: dict[int, bytes] = {}
    done: set[int] = set()
    wanted = {1, 3} if len(row.answers) > 1 else {3}
    try:
        writer.write(HELLO + row.sent)
        async with asyncio.timeout(5):
            while not wanted <= done:
                high, low, kind, flags, stream = struct.unpack(">BHBBI", await reader.readexactly(9))
                payload = await reader.readexactly(high << 16 | low)
                assert kind != GOAWAY, payload
                if kind == HEADERS and not (payload[:1] == b"\x08" and payload[1:].startswith(b"\x031")):
                    heads.setdefault(stream, payload)
                elif kind == DATA:
                    bodies[stream] = bodies.get(stream, b"") + payload
                elif kind == RST_STREAM:
                    done.add(stream)
                elif kind == SETTINGS and not flags & ACK:
                    writer.write(frame(SETTINGS, ACK, 0))
                if kind in (HEADERS, DATA) and flags & END_STREAM:
                    done.add(stream)
            # Whatever else there is has come before this.
            writer.write(frame(PING, 0, 0, b"whatever"))
    finally:
        writer.close()
    return [(status_of(heads.get(stream)), bodies.get(stream, b"")) for stream in sorted(wanted)]


def status_of(block: bytes | None) -> int:
    """The status that a field block of ours begins with (RFC 7541, Appendix A)."""
    if block is None:
        return 0
    known = {0x88: 200, 0x89: 204, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
    if block[0] in known:
        return known[block[0]]
    return int(dict(Decoder().decode(block))[":status"])


# --- the law ---


def requests(backend: Backend, reading: Reading) -> list[tuple[bytes, bytes]]:
    return [(seen.line, seen.body) for seen in backend.seen(reading) if not seen.target.startswith((b"/warm/", b"/victim"))]


async def victim(proxy: Proxy, number: int) -> None:
    """Somebody else, whose request takes the connections that were used before: the answer is to that request."""
    reader, writer = await proxy.connect()
    for turn in range(2):
        target = b"/victim/%d/%d" % (number, turn)
        writer.write(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(size)
        assert (head[9:12], body) == (b"200", b"GET %b 0" % target)
    writer.close()


@pytest.mark.parametrize("row", ROWS, ids=repr)
async def test_row(proxy: Proxy, backend: Backend, copied: Backend, row: Row) -> None:
    await stage(proxy, row.scene, backend, copied)
    times = 0
    for learned in (0, 1, 2) if row.version == 1 else (0,):
        if row.scene == "retried":
            backend.refuses = 1
        answers = await (ask1(proxy, row, learned=learned) if row.version == 1 else ask2(proxy, row))
        assert tuple(status for status, _ in answers) == row.answers
        times += 1
        # Each answer is to the request that it was asked for.
        contents = [body for status, body in answers if status == 200 and row.scene not in ("upgrading", "grpc")]
        expected = [b"%b %d" % (line, len(body)) for line, body in row.seen]
        if not any(line.startswith(b"HEAD") for line, _ in row.seen) and 502 not in row.answers:
            assert contents == expected[len(expected) - len(contents) :]
        if row.scene != "retried":
            await victim(proxy, times)
    await settled(proxy)
    for one in (backend, copied):
        read = {reading.name: requests(one, reading) for reading in READINGS}
        assert all(found == read["strict"] for found in read.values()), read
    seen = requests(backend, STRICT)
    tries = [*row.seen] * times
    if row.scene == "retried":
        assert sorted(set(seen)) == sorted(set(tries))
    else:
        assert sorted(seen) == sorted(tries)
        counted = sum(sum(counter.responses.values()) for counter in proxy.runtime.counters.values())
        assert len(backend.seen(STRICT)) <= counted
        assert len(copied.seen(STRICT)) <= counted
    assert not backend.early
    if row.scene == "mirrored":
        assert set(requests(copied, STRICT)) <= set(tries)
    everything = b"".join(bytes(stream) for stream in (*backend.streams, *copied.streams))
    for shown in row.shows:
        assert shown in everything
    for hidden in row.hides:
        assert hidden.lower() not in everything.lower()


async def settled(proxy: Proxy) -> None:
    """Until no exchange is under way: what was sent for one that was broken off has then been counted."""
    async with asyncio.timeout(5):
        while any(
            not connection.is_idle
            for opened in proxy.runtime.ports.tcp.values()
            for connection in opened.listener_port.connections
        ):
            await asyncio.sleep(0.001)


def test_there_are_enough_rows_of_every_kind() -> None:
    assert len(ROWS) >= 200
    assert len({repr(row) for row in ROWS}) == len(ROWS)
    assert {row.version for row in ROWS} == {1, 2}
