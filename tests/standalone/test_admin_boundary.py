"""Whoever reaches the admin port: what they can read, change, break, and make it spend."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.admin import GREETING, ROUTE, Plane, Writable, key, save
from support.standalone import Running

from gateway.admin import callers, server
from gateway.admin.server import Admin, Saved
from gateway.process.messages import Statistics
from gateway.snapshot import Backend, Certificate, Parts

READS = ("/", "/page.js", "/healthz", "/readyz", "/metrics", "/snapshot", "/statistics", "/status", "/filters")


class Editable(Writable):
    """Sources that take what they are given."""

    saved: ClassVar[list[str]] = []

    async def save(self, name: str, text: str, digest: str) -> Saved:
        self.saved.append(text)
        return Saved(True, "in force")


async def nothing() -> Any:
    return []


@asynccontextmanager
async def serving(plane: Plane | None = None, *, edits: bool = True) -> AsyncIterator[Admin]:
    made = Admin(plane or Plane(), extra={"/status": nothing}, editor=Editable() if edits else None)
    made.ready = True
    await made.start("127.0.0.1", 0)
    try:
        yield made
    finally:
        await made.stop()


def where(made: Admin) -> tuple[str, int]:
    host, _, port = made.address.removeprefix("http://").rpartition(":")
    return host, int(port)


async def say(made: Admin, data: bytes) -> tuple[int, bytes]:
    """Send bytes and read until the end, or until nothing more comes: the status, and everything."""
    reader, writer = await asyncio.open_connection(*where(made))
    said = b""
    try:
        writer.write(data)
        async with asyncio.timeout(2):
            if b"Connection: close" not in data:
                writer.write_eof()
            while piece := await reader.read(65536):
                said += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return int(said[9:12]) if said.startswith(b"HTTP/1.") else 0, said


def get(path: str, *lines: str, host: str | None = "localhost") -> bytes:
    head = [f"GET {path} HTTP/1.1", *([f"Host: {host}"] if host is not None else []), *lines, "Connection: close"]
    return "".join(f"{line}\r\n" for line in head).encode("utf-8", "surrogateescape") + b"\r\n"


# --- odd requests ---

HOSTS = {
    "localhost": 200, "LOCALHOST.": 200, "a.localhost": 200, "127.0.0.1:9091": 200, "127.8.8.8": 200, "[::1]": 200, "[::1]:1": 200,
    "evil.example": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421, "10.0.0.1": 421, "[::2]:80": 421, "0": 421,
    "": 400, "grüße": 400, "\udcff\udcfe": 400, "[::1": 400, "::1": 400, "[zz]": 400, "a b": 400, "localhost:http": 400, "127.0.0.1:999999": 400,
    "user@localhost": 400, "localhost/evil": 400, "localhost,evil": 400, "localhost#": 400, "%31": 400, "[::1%25eth0]": 400,
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
async def test_odd_hosts(host: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as made:
        for path in READS:
            assert (await say(made, get(path, host=host)))[0] == HOSTS[host], path
    assert not caplog.records


async def test_one_host_and_no_more() -> None:
    async with serving() as made:
        assert (await say(made, get("/snapshot", "Host: localhost")))[0] == 400
        assert (await say(made, get("/snapshot", "Host: evil.example")))[0] == 400
        assert (await say(made, get("/snapshot", host=None)))[0] == 400
        assert (await say(made, get("/snapshot", host=None).replace(b"HTTP/1.1", b"HTTP/1.0")))[0] == 200


TARGETS = {
    "http://localhost/healthz": 200, "http://LOCALHOST:1/healthz": 200, "http://evil.example/healthz": 421, "https://evil.example/snapshot": 421,
    "http:///healthz": 400, "http://a b/": 400, "http://[::1/healthz": 400, "http://user@localhost/healthz": 400,
    "/%": 404, "/%zz": 404, "/%00": 404, "/%ff%fe": 404, "/..%2f..%2fetc": 404, "/page%2Ejs": 200, "/%2e%2e/page.js": 404, "//evil.example/": 404,
    "*": 404, "/filters/%ff": 405, "/filters/a%2Fb": 405, "/filters/": 404, "/__init__.py": 404, "/page.css/": 404, "/snapshot?%": 200,
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
async def test_odd_targets(target: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as made:
        assert (await say(made, get(target)))[0] in (TARGETS[target], 400)
        assert (await say(made, get("/healthz")))[0] == 200
    assert not caplog.records


@pytest.mark.parametrize(
    "lines",
    [
        ("Host: localhost",), ("Authorization: ",), ("Transfer-Encoding: chunked, gzip",), ("Content-Length: x",), ("Upgrade: websocket", "Connection: Upgrade"),
        ("Expect: 100-continue",), ("Expect: nonsense",), ("Range: bytes=9-",), ("If-None-Match: \udcff",), ("Cookie: \udcff",), ("X: " + "a" * 100_000,),
        *[tuple(f"X-{number}: y" for number in range(500))],
    ],
    ids=range(12),
)  # fmt: skip
@pytest.mark.parametrize("path", ["/metrics", "/snapshot", "/page.js"])
async def test_odd_fields(path: str, lines: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as made:
        status, said = await say(made, get(path, *lines))
        assert status in (100, 200, 400, 417, 431), said[:300]
        assert b"Traceback" not in said
    assert not caplog.records


AUTHORIZATIONS = (
    "", "Bearer", "Bearer ", "Bearer grüße", "Bearer \udcff\udcfe", "bearer x", "Basic eDp5", "Bearer " + "x" * 8000, "\x00", "Bearer KEY KEY", "KEY", "Digest KEY",
)  # fmt: skip


@pytest.mark.parametrize("shown", AUTHORIZATIONS)
async def test_odd_keys_write_nothing(shown: str, caplog: pytest.LogCaptureFixture) -> None:
    Editable.saved.clear()
    async with serving() as made:
        for lines in ([f"Authorization: {shown}"], [f"Authorization: Bearer {made.key}", f"Authorization: {shown}"], []):
            wanted = [line.replace("KEY", made.key) for line in lines]
            data = get("/filters/default%2Fgreeting", *wanted, 'If-Match: "0123"', "Content-Length: 1").replace(
                b"GET", b"PUT", 1
            )
            status, said = await say(made, data + b"x")
            assert status in (400, 401), said[:300]
        good = [f"Authorization: bearer {made.key}", 'If-Match: "0123"', "Content-Length: 1"]
        assert (await say(made, get("/filters/default%2Fgreeting", *good).replace(b"GET", b"PUT", 1) + b"x"))[0] == 200
    assert Editable.saved == ["x"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("lines", "body", "expected"),
    [
        (['If-Match: "\udcff"', "Content-Length: 2"], b"\xff\xfe", 400),
        (["If-Match: *", "Content-Length: 1"], b"x", 200),  # a digest that nobody has; the real editor says 412
        (["Content-Length: 1"], b"x", 428),
        (['If-Match: ""', "Content-Length: 1"], b"x", 428),
        (['If-Match: "0"', f"Content-Length: {2 << 20}"], b"x" * (2 << 20), 413),
        (['If-Match: "0"', "Content-Encoding: gzip", "Content-Length: 2"], b"\x1f\x8b", 400),
        (['If-Match: "0"', "Transfer-Encoding: chunked"], b"zz\r\n", 400),
    ],
)
async def test_odd_bodies(lines: list[str], body: bytes, expected: int, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as made:
        head = get("/filters/a", f"Authorization: Bearer {made.key}", *lines).replace(b"GET", b"PUT", 1)
        status, said = await say(made, head + body)
        assert status == expected, said[:300]
        assert (await say(made, get("/healthz")))[0] == 200
    assert not [record for record in caplog.records if record.name == "fsm.admin"]


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "DELETE", "PATCH", "TRACE", "CONNECT", "PUT", "PROPFIND", "get"])
async def test_other_methods_are_refused(method: str) -> None:
    async with serving() as made:
        for path in READS:
            status, said = await say(made, get(path).replace(b"GET", method.encode(), 1))
            assert status in (400, 404, 405), (path, said[:200])
            assert b"access-control-" not in said.lower()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["GET", "PUT", "HEAD"]),
    st.sampled_from([*READS, "/events?", "/filters/", "http://"]),
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n "), max_size=20),
    st.binary(max_size=20),
    st.binary(max_size=30),
)
def test_no_bytes_make_it_fail(method: str, path: str, more: str, host: bytes, authorization: bytes) -> None:
    """Neither where an editor is behind it, nor where others can reach it and there is none."""

    async def both() -> None:
        for edits in (True, False):
            async with serving(edits=edits) as made:
                made._is_local = edits
                line = f"{method} {path}{more} HTTP/1.1\r\nHost: ".encode("latin-1") + host.translate(None, b"\r\n")
                fields = b"\r\nAuthorization: " + authorization.translate(None, b"\r\n") + b"\r\nConnection: close\r\n\r\n"
                reader, writer = await asyncio.open_connection(*where(made))
                writer.write(line + fields)
                said = await reader.readuntil(b"\r\n") if not path.startswith("/events") else b"HTTP/1.1 200"
                writer.close()
                assert said[9:12] not in (b"500", b"503"), (line, said)
                assert (await say(made, get("/healthz")))[0] == 200

    asyncio.run(both())


# --- other sites ---


@pytest.mark.parametrize("path", [*READS, "/nothing", "/events"])
async def test_every_answer_is_for_this_site_and_in_nobodys_frame(path: str) -> None:
    async with serving() as made:
        requests = [get(path), get(path, host="evil.example"), get(path).replace(b"GET", b"POST", 1)]
        for request in requests if path != "/events" else requests[1:]:
            _, said = await say(made, request)
            head = said.partition(b"\r\n\r\n")[0].decode().lower()
            for line in (
                "x-content-type-options: nosniff", "x-frame-options: deny", "referrer-policy: no-referrer", "cache-control: no-store",
                "cross-origin-resource-policy: same-origin", "frame-ancestors 'none'",
            ):  # fmt: skip
                assert line in head, (request[:40], line)
            assert "access-control-" not in head
            assert "aiohttp" not in head


@pytest.mark.parametrize(
    ("site", "mode", "method", "expected"),
    [
        ("cross-site", "no-cors", "GET", 403),
        ("cross-site", "cors", "GET", 403),
        ("same-site", "cors", "GET", 403),
        ("cross-site", "navigate", "GET", 200),
        ("cross-site", "navigate", "PUT", 403),
        ("same-origin", "cors", "GET", 200),
        ("none", "navigate", "GET", 200),
    ],
)
async def test_pages_of_other_sites_get_nothing(site: str, mode: str, method: str, expected: int) -> None:
    async with serving() as made:
        for path in READS:
            request = get(path, f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}").replace(b"GET", method.encode(), 1)
            assert (await say(made, request))[0] == expected


# --- what it may cost ---


class Slow(Plane):
    """Counts how often it is asked, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()

    async def statistics(self) -> list[Statistics]:
        self.asked += 1
        await self.go.wait()
        return []


@pytest.mark.parametrize("path", ["/metrics", "/statistics"])
async def test_who_asks_meanwhile_gets_the_same_answer(path: str) -> None:
    plane = Slow()
    async with serving(plane) as made:
        asking = [asyncio.create_task(say(made, get(path))) for _ in range(50)]
        while len(made._runner.server.connections) < 50 or not plane.asked:
            await asyncio.sleep(0.001)
        for _ in range(5):
            assert (await say(made, get("/healthz")))[0] == 200
        gone = asking.pop()
        gone.cancel()  # one who goes takes nobody along
        plane.go.set()
        assert {status for status, _ in await asyncio.gather(*asking)} == {200}
        assert plane.asked == 1
        assert (await say(made, get(path)))[0] == 200
        assert plane.asked == 2


async def test_what_is_asked_for_after_a_change_tells_of_it() -> None:
    """Those who ask while an answer is made share the next one, where it matters."""
    made, go = [], asyncio.Event()

    async def make() -> bytes:
        made.append(number)
        await go.wait()
        return b"%d" % number

    once = callers.Once(make, fresh=True)
    number = 1
    first = asyncio.create_task(once.get())
    while not made:
        await asyncio.sleep(0)
    later = [asyncio.create_task(once.get()) for _ in range(10)]
    await asyncio.sleep(0)
    number = 2
    go.set()
    await first
    assert set(await asyncio.gather(*later)) == {b"2"}
    assert made == [1, 2]


async def test_who_does_not_read_changes_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as made:
        quiet = socket.create_connection(where(made))
        quiet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        quiet.sendall(get("/events"))
        reader, writer = await asyncio.open_connection(*where(made), limit=1 << 22)
        writer.write(get("/events"))
        await reader.readuntil(b": hello\n\n")
        while len(made._listeners) < 2:
            await asyncio.sleep(0.001)
        names = tuple(f"rule default/{number:0500d}" for number in range(server.LISTED + 10))
        async with asyncio.timeout(20):
            while made._let_go == 0:
                made.applied("1", names, 0.001)
                event = await reader.readuntil(b"\n\n")
        assert "and 10 more" in json.loads(event.partition(b"data: ")[2])["parts"]
        while len(made._listeners) > 1:
            await asyncio.sleep(0.001)
        made.applied("last", (), 0)
        assert b'"last"' in await reader.readuntil(b'"last"'), "the other one goes on"
        assert b"fsm_admin_streams_refused_total 1.0" in (await say(made, get("/metrics")))[1]
        quiet.close()
        writer.close()


async def test_so_many_follow_changes_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STREAMS", 3)
    async with serving() as made:
        followers = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*where(made))
            writer.write(get("/events"))
            await reader.readuntil(b": hello\n\n")
            followers.append(writer)
        assert (await say(made, get("/events")))[0] == 503
        followers[0].close()
        while len(made._listeners) > 2:
            await asyncio.sleep(0.001)
            made.applied("1", (), 0)
        reader, writer = await asyncio.open_connection(*where(made))
        writer.write(get("/events"))
        await reader.readuntil(b": hello\n\n")
        for one in (*followers, writer):
            one.close()


async def test_who_follows_changes_gets_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a client that vanished is noticed, and its place is free again."""
    monkeypatch.setattr(server, "ALIVE", 0.05)
    async with serving() as made:
        reader, writer = await asyncio.open_connection(*where(made))
        writer.write(get("/events"))
        await reader.readuntil(b": still here\n\n")
        writer.close()


class Large(Plane):
    """A snapshot of a few megabytes."""

    parts: ClassVar[Parts] = {("backend", f"b{n}"): Backend(f"b{n}" + "x" * 1000) for n in range(20_000)}


async def test_who_does_not_read_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ANSWERED", 0.5)
    async with serving(Large()) as made:
        quiet = socket.create_connection(where(made))
        quiet.sendall(get("/snapshot"))
        while not made._runner.server.connections:
            await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            while made._runner.server.connections:
                await asyncio.sleep(0.01)
        quiet.close()


async def test_a_new_connection_takes_the_place_of_whoever_has_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "CONNECTIONS", 10)
    async with serving() as made:
        honest, honest_writer = await asyncio.open_connection(*where(made), local_addr=("127.0.0.2", 0))
        crowd = [socket.create_connection(where(made)) for _ in range(40)]
        while made._places.turned_away < 31:
            await asyncio.sleep(0.001)
        honest_writer.write(get("/healthz"))
        assert (await honest.readline()).startswith(b"HTTP/1.1 200")
        honest_writer.close()
        assert (await say(made, get("/healthz")))[0] == 200
        assert len(made._runner.server.connections) <= 10
        for one in crowd:
            one.close()


async def test_half_a_head_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE", 0.2)
    async with serving() as made:
        reader, writer = await asyncio.open_connection(*where(made))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: local")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_a_source_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SENT", 0.1)
    async with serving() as made:
        lines = (f"Authorization: Bearer {made.key}", 'If-Match: "0"', "Content-Length: 10")
        assert (await say(made, get("/filters/a", *lines).replace(b"GET", b"PUT", 1) + b"x"))[0] == 408


async def test_what_we_do_wrong_is_logged_and_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Plane):
        async def statistics(self) -> list[Statistics]:
            raise RuntimeError("the secret")

    with caplog.at_level(logging.ERROR):
        async with serving(Broken()) as made:
            status, said = await say(made, get("/metrics"))
            assert (status, b"secret" in said, b"Traceback" in said) == (500, False, False)
            assert (await say(made, get("/healthz")))[0] == 200
    assert "the secret" in caplog.text


# --- the key, and files ---


class Keyed(Plane):
    parts: ClassVar[Parts] = {("certificate", "c"): Certificate("c", "PEM", "PRIVATE-KEY", ())}


async def test_no_answer_has_a_key(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Keyed()) as made:
        for path in READS:
            _, said = await say(made, get(path))
            assert made.key.encode() not in said
            assert b"PRIVATE-KEY" not in said
        assert made.key not in caplog.text


async def test_the_key_is_in_no_process_list(running: Running) -> None:
    (running.folder / "greeting.py").write_text(GREETING)
    (running.folder / "greeting.yaml").write_text(ROUTE)
    await running.start()
    await running.until(lambda: "#key=" in running.said)
    found = key(running).encode()
    pids = [running.process.pid]
    for pid in pids:
        pids += [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        assert found not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert found not in Path(f"/proc/{pid}/environ").read_bytes()
    assert len(pids) > 1


async def test_a_link_that_leads_out_of_the_directory_is_read_and_not_written(running: Running, tmp_path_factory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "target.py"
    outside.write_text(GREETING)
    (running.folder / "greeting.py").symlink_to(outside)
    (running.folder / "greeting.yaml").write_text(ROUTE)
    await running.start()
    await running.until(lambda: "#key=" in running.said)
    async with running.session.get(f"{running.admin}/filters") as answer:
        (one,) = await answer.json()
    assert not one["digest"]
    assert "leads out of" in one["unwritable"]
    from controller.standalone.source_editor import digest_of

    status, said = await save(running, GREETING.replace("hello", "again"), digest=digest_of(GREETING))
    assert (status, "leads out of" in said) == (409, True)
    assert outside.read_text() == GREETING
    assert re.search("hello", (await running.get(host="greeting.example"))[1])
