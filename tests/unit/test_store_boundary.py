"""A Redis that is an attacker: whatever it says, or does not, costs a request its time limit at most, and nothing is believed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.filters.api.shared_state import Operation
from gateway.scripting.shared_state.local import local
from gateway.scripting.shared_state.memory import MAX_VALUE_BYTES, Memory, create
from gateway.scripting.shared_state.redis import Remote, Unreachable, _key
from gateway.snapshot import Store

PASSWORD = "hunter2-of-the-store"
TAKE = Operation("take", "k", 1.0, burst=5, backlog=3)
ADD = Operation("add", "k", 1.0, 60.0)
COUNT, GET, SET, DROP = (
    Operation("count", "k"),
    Operation("get", "k"),
    Operation("set", "k", value=b"v"),
    Operation("drop", "k"),
)
EVERY = {"take": TAKE, "add": ADD, "count": COUNT, "get": GET, "set": SET, "drop": DROP}
# What the library says before anything else: the answer does not matter.
PREAMBLE = {b"AUTH", b"CLIENT", b"SELECT"}


class Attacker:
    """Speaks RESP as it likes: `answer(command)` gives bytes, None for silence, or a coroutine that writes."""

    def __init__(self, answer: Callable[[list[bytes]], Any]) -> None:
        self.answer = answer
        self.commands: list[list[bytes]] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Attacker:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                count = int((await reader.readline())[1:] or 0)
                command = []
                for _ in range(count):
                    length = int((await reader.readline())[1:])
                    command.append((await reader.readexactly(length + 2))[:-2])
                if not command:
                    break
                self.commands.append(command)
                said = b"+OK\r\n" if command[0] in PREAMBLE else self.answer(command)
                if asyncio.iscoroutine(said):
                    said = await said
                if callable(said):
                    await said(writer)
                elif said is not None:
                    writer.write(said)
        writer.close()


@contextlib.asynccontextmanager
async def asking(port: int, **how: Any) -> AsyncIterator[Callable[[Operation], Any]]:
    remote = Remote(Store("127.0.0.1", port, password=PASSWORD, seconds=0.15, **how))
    do = remote.operations("default/f", lambda _: pytest.fail("not here"))

    async def once(operation: Operation) -> Any:
        remote._rests_until = 0.0
        return await do(operation)

    yield once
    await remote.close()


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(
    "said",
    [
        None,
        b"nonsense\r\n",
        b"\r\n",
        b"$abc\r\n",
        b"$-5\r\n",
        b"$3\r\nab",
        b":12x\r\n",
        b":" + b"9" * 5000 + b"\r\n",
        b"+" + b"x" * 1_000_000,
        b"$%d\r\n" % (MAX_VALUE_BYTES + 1),
        b"$999999999999\r\n",
        b"*1000000000\r\n",
        b"*1\r\n" * 100_000,
        b"*2\r\n:1\r\n:2\r\n",
        b">3\r\n$6\r\nMOVING\r\n:1\r\n$11\r\n127.0.0.1:9\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"-MOVED 1234 127.0.0.1:9\r\n",
        b"-ASK 1234 127.0.0.1:9\r\n",
        b"-NOSCRIPT no\r\n",
        b"-ERR \x1b[31m\x00 and the password is " + PASSWORD.encode() + b"\r\n",
        b"-LOADING busy\r\n",
        b"-READONLY you write\r\n",
        b"-WRONGTYPE no\r\n",
    ],
)  # fmt: skip
async def test_what_is_no_answer(kind: str, said: bytes | None, caplog: Any) -> None:
    async with Attacker(lambda command: said) as attacker, asking(attacker.port) as ask:
        began = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            await ask(EVERY[kind])
        assert time.monotonic() - began < 0.6
        for words in (str(caught.value), caplog.text.removesuffix("\n")):
            assert PASSWORD not in words
            assert len(words) < 500
            assert "\x1b" not in words
            assert "\x00" not in words
        assert "k" not in {command[-1] for command in attacker.commands if command[0] == b"AUTH"}


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (TAKE, b":3600000000\r\n"),  # longer than anybody would wait
        (TAKE, b"$3\r\nnan\r\n"),
        (TAKE, b"$-1\r\n"),
        (TAKE, b"+soon\r\n"),
        (ADD, b"$3\r\nnan\r\n"),
        (ADD, b"$3\r\ninf\r\n"),
        (ADD, b"$-1\r\n"),
        (COUNT, b"$4\r\n-inf\r\n"),
        (COUNT, b"$5\r\nseven\r\n"),
        (GET, b":5\r\n"),
    ],
)
async def test_what_answers_another_question(operation: Operation, said: bytes) -> None:
    async with Attacker(lambda command: said) as attacker, asking(attacker.port) as ask:
        with pytest.raises(Unreachable):
            await ask(operation)


async def test_good_answers() -> None:
    answers = {b"GET": b"$5\r\nvalue\r\n", b"EVALSHA": b":2000000\r\n", b"SET": b"+OK\r\n", b"DEL": b":2\r\n"}
    async with Attacker(lambda command: answers[command[0]]) as attacker, asking(attacker.port) as ask:
        assert await ask(TAKE) == 2.0
        assert await ask(GET) == b"value"
        assert await ask(SET) is None
        assert await ask(DROP) is None
        assert not {b"HELLO", b"INFO"} & {command[0] for command in attacker.commands}


async def test_a_late_answer_is_nobodys() -> None:
    """The answer to a question that was given up must not be taken for that to the next one."""
    late = asyncio.Event()

    def answer(command: list[bytes]) -> Any:
        if command[1].endswith(b"secret"):

            async def wait(writer: asyncio.StreamWriter) -> None:
                await late.wait()
                writer.write(b"$6\r\nsecret\r\n")

            return wait
        return b"$5\r\nother\r\n"

    async with Attacker(answer) as attacker, asking(attacker.port) as ask:
        with pytest.raises(Unreachable):
            await ask(Operation("get", "secret"))
        late.set()
        for _ in range(20):
            assert await ask(Operation("get", "k")) == b"other"


async def test_a_store_that_drips_or_pours_is_bounded_in_time_and_memory() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        for _ in range(1000):
            writer.write(b"+")
            await asyncio.sleep(0.02)

    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(b"$1048576\r\n")
        while True:
            writer.write(b"x" * (1 << 20))
            await writer.drain()

    for behaviour in (drip, pour):
        async with Attacker(lambda command, b=behaviour: b) as attacker, asking(attacker.port) as ask:
            began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            asked = [ask(GET) for _ in range(32)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert time.monotonic() - began < 2
            assert all(isinstance(one, Unreachable | bytes) for one in found)
            assert all(len(one) <= MAX_VALUE_BYTES for one in found if isinstance(one, bytes))
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # 32 at a time, of a megabyte each


async def test_a_store_that_failed_is_left_alone_and_nobody_waits() -> None:
    remote = Remote(Store("127.0.0.1", 1, seconds=5.0))
    do = remote.operations("default/f", lambda _: pytest.fail("not here"))
    with pytest.raises(Unreachable):
        await do(GET)
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(Unreachable, match="cannot be reached"):
            await do(GET)
    assert time.monotonic() - began < 0.2
    await remote.close()


# --- TLS ---


@pytest.mark.parametrize(
    ("issued_by", "name", "is_good"),
    [("ours", "127.0.0.1", True), ("ours", "other.example", False), ("another", "127.0.0.1", False), ("none", "", False)],
)
async def test_a_store_proves_who_it_is_before_it_hears_the_password(issued_by: str, name: str, is_good: bool) -> None:
    ours, another = trustme.CA(), trustme.CA()
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            heard.append(await reader.read(1000))
        writer.close()

    context = None
    if issued_by != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (ours if issued_by == "ours" else another).issue_cert(name).configure_cert(context)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    authorities = ours.cert_pem.bytes().decode()
    async with asking(port, tls=True, authorities=authorities) as ask:
        with pytest.raises(Unreachable):
            await ask(GET)
    assert (PASSWORD.encode() in b"".join(heard)) == is_good
    server.close()


# --- keys ---

NAMES = ("default/f", "default/g", "other/f", "ListenerFilter/default/f")
text = st.text(st.sampled_from("abk:/\0#%\r\n 01.") | st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["k:value", "value:k", "0.1/10\0k", "k\0" + "1/5", "take 1/5:k", "count:k", "x" * 300]
)
operations = st.builds(
    Operation,
    st.sampled_from(["add", "count", "take", "get", "set"]),
    text,
    st.sampled_from([0.1, 1.0]),
    burst=st.sampled_from([5, 10]),
)


def means(operation: Operation) -> tuple[Any, ...]:
    """What is the same place by what `Shared` promises: a filter's own, and numbers, values and turns apart."""
    kind = {"add": "count", "set": "value", "get": "value"}.get(operation.kind, operation.kind)
    return kind, operation.key, (operation.amount, operation.burst) if kind == "take" else ()


@example("default/f", "default/f", COUNT, Operation("count", "k:value"))
@example("default/f", "default/f", GET, Operation("count", "k:value"))
@given(st.sampled_from(NAMES), st.sampled_from(NAMES), operations, operations)
def test_two_keys_are_one_only_where_they_are_meant_to_be(one: str, other: str, a: Operation, b: Operation) -> None:
    assert (_key(one, a) == _key(other, b)) == ((one, means(a)) == (other, means(b)))


def places(name: str, operation: Operation) -> bytes:
    """Where it is kept in the memory of a data plane."""
    seen: list[bytes] = []

    class Recording:
        def __getattr__(self, _: str) -> Any:
            return lambda key, *rest: seen.append(key)

    local(lambda: Recording(), name)(operation)  # type: ignore[arg-type, return-value]
    return seen[0]


@example("default/f", "default/f", TAKE, Operation("count", "k\0" + TAKE.pace.decode()))
@given(st.sampled_from(NAMES), st.sampled_from(NAMES), operations, operations)
def test_the_same_in_memory(one: str, other: str, a: Operation, b: Operation) -> None:
    values = [means(x)[0] == "value" for x in (a, b)]
    if values[0] == values[1]:  # numbers and values are in tables of their own
        assert (places(one, a) == places(other, b)) == ((one, means(a)) == (other, means(b)))


async def test_a_key_of_any_length_costs_a_store_little() -> None:
    async with Attacker(lambda command: b"$-1\r\n") as attacker, asking(attacker.port) as ask:
        assert await ask(Operation("get", "x" * 100_000)) is None
        assert all(len(part) < 400 for command in attacker.commands for part in command)


async def test_what_is_dropped_is_both() -> None:
    async with Attacker(lambda command: b":2\r\n") as attacker, asking(attacker.port) as ask:
        await ask(Operation("drop", "a:count:b"))
        (command,) = (one for one in attacker.commands if one[0] == b"DEL")
        assert command[1:] == [_key("default/f", Operation(kind, "a:count:b")).encode() for kind in ("count", "get")]
    memory = Memory(create(), 0, 1)
    do = local(lambda: memory, "default/f")
    do(Operation("set", "k", value=b"v"))
    do(Operation("add", "k", 1.0))
    do(Operation("drop", "k"))
    assert do(Operation("get", "k")).result() is None
    assert do(Operation("count", "k")).result() == 0
    memory.close()
