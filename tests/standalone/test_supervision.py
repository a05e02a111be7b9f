"""Workers that die, hang, or talk nonsense, at every moment: another follows, the others go on, and health says what is so."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from controller.ports import free_ports
from gateway.process import supervisor, worker_process
from gateway.process.messages import Applied, FilterStatistics, Ready, Statistics
from gateway.process.supervisor import Workers
from gateway.snapshot import Attachment, Change, Listener, Match, Order, PathMatch, Rule, Script, Scripted

LISTENER = Listener("l", 80)
ENDS = "import os\nos._exit(3)\n"
HANGS = "while True:\n    pass\n"
GOOD = "from gateway.filters.api import Response\n\ndef request(request):\n    return Response(200, 'good')\n"


class Plane(Workers):
    """Workers on a port of their own, and what they were said to have done."""

    def __init__(self, count: int) -> None:
        (self.port,) = free_ports(1)
        super().__init__(count, bind="127.0.0.1", port_offset=self.port - 80)
        self.said: list[str] = []
        self.on_failure = self.said.append

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.002)

    def all_pids(self) -> set[int]:
        """Also of those that do not serve yet."""
        return {worker.process.pid for worker in self._workers.values()}

    async def kill(self, pid: int, how: signal.Signals = signal.SIGKILL) -> None:
        os.kill(pid, how)

    async def whole(self) -> None:
        await self.until(lambda: len(self.pids()) == self._count)

    async def answer(self, path: str = "/") -> tuple[int, str]:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            data = await reader.read()
            writer.close()
        return int(data[9:12]), data.partition(b"\r\n\r\n")[2].decode()


@asynccontextmanager
async def plane(count: int = 1, *parts: object) -> AsyncIterator[Plane]:
    made = Plane(count)
    await made.start()
    try:
        if parts:
            assert not await made.apply(Change("1", parts))
        yield made
    finally:
        await made.stop(grace=0.5)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats that are shorter: what takes ten seconds takes two."""
    monkeypatch.setattr(worker_process, "BEAT", 0.2)


def script(name: str, source: str) -> Script:
    return Script(name, source, "{}", "inline", is_tried=False)  # where its own process would catch it


def rule(name: str, filter_name: str = "") -> Rule:
    body = json.dumps({"response": {"status": 200, "body": name}})
    assert body
    match = Match(PathMatch("PathPrefix", f"/{name}"))
    return Rule(name, Order("", name), (Attachment("l"),), (match,), filters=(Scripted(filter_name or f"f/{name}"),))


def hello(name: str) -> tuple[Script, Rule]:
    """A path that answers its name."""
    config = json.dumps({"response": {"status": 200, "body": name}})
    return Script(f"f/{name}", "", config, "inline", built_in="RequestTermination"), rule(name)


# --- killed, at every moment ---


@pytest.mark.parametrize("count", [1, 2])
async def test_killed_between_its_start_and_ready(count: int) -> None:
    async with plane(count, LISTENER, *hello("a")) as made:
        old = made.pids()[0]
        await made.kill(old)
        await made.until(lambda: old not in made.all_pids() and len(made.all_pids()) == count)
        (young,) = made.all_pids() - set(made.pids())
        await made.kill(young)  # before it is ready
        await made.until(lambda: young not in made.all_pids())
        await made.whole()
        assert await made.is_well()
        assert await made.answer("/a") == (200, "a")


async def test_killed_while_it_is_first_brought_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment in which supervision used to end: after Ready, before the first change is applied."""
    async with plane(1, LISTENER, *hello("a")) as made:
        bring_up, left = made._bring_up, [3]

        def and_kill(worker: worker_process.WorkerProcess) -> None:
            bring_up(worker)
            if left[0]:
                left[0] -= 1
                worker.kill()

        monkeypatch.setattr(made, "_bring_up", and_kill)
        await made.kill(made.pids()[0])
        await made.until(lambda: not made.pids())
        assert not await made.is_well()
        await made.until(lambda: not left[0])
        await made.whole()
        await made.until(lambda: not made._turn.locked())  # three deaths: what is in force was doubted, and put anew
        assert await made.is_well(whole=True)
        assert await made.answer("/a") == (200, "a")
        assert not made.problems


async def test_ready_is_who_has_all_that_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """While what was good once is put anew into a worker that has nothing, the worker is alive and not ready."""
    async with plane(1, LISTENER, *hello("a")) as made:
        bring_up, may_go_on = made._bring_up, asyncio.Event()
        put_anew = made._try

        def and_kill(worker: worker_process.WorkerProcess) -> None:
            bring_up(worker)
            if not made._is_doubting:
                worker.kill()

        async def later(*args: object, **options: object) -> None:
            await may_go_on.wait()
            await put_anew(*args, **options)

        monkeypatch.setattr(made, "_bring_up", and_kill)
        monkeypatch.setattr(made, "_try", later)
        await made.kill(made.pids()[0])
        await made.until(lambda: not made.pids())
        await made.whole()
        assert (await made.is_well(), await made.is_well(whole=True)) == (True, False)
        may_go_on.set()
        await made.until(lambda: not made._turn.locked())
        assert await made.is_well(whole=True)
        assert await made.answer("/a") == (200, "a")


@pytest.mark.parametrize("count", [1, 3])
async def test_killed_while_a_change_is_applied(count: int) -> None:
    """Once proves nothing: the change is in force, and nothing is set aside."""
    async with plane(count, LISTENER, *hello("a")) as made:
        applying = asyncio.create_task(made.apply(Change("2", hello("b"))))
        await asyncio.sleep(0)
        old = made.pids()
        for pid in old:
            await made.kill(pid)
        assert not await applying
        await made.until(lambda: not made.all_pids() & set(old))
        await made.whole()
        assert not made.problems
        assert await made.answer("/a") == (200, "a")
        assert await made.answer("/b") == (200, "b")


async def test_killed_while_it_is_asked_for_statistics() -> None:
    async with plane(2, LISTENER) as made:
        asking = asyncio.create_task(made.statistics())
        await asyncio.sleep(0)
        old = made.pids()[0]
        await made.kill(old)
        async with asyncio.timeout(3):
            assert len(await asking) <= 2
        await made.until(lambda: old not in made.all_pids())
        await made.whole()
        assert len(await made.statistics()) == 2


async def test_health_is_what_is_so() -> None:
    async with plane(1, LISTENER) as made:
        loop = asyncio.get_running_loop()
        assert await made.is_well()
        await made.kill(made.pids()[0], signal.SIGSTOP)
        began = loop.time()
        assert not await made.is_well()
        assert loop.time() - began < 1
        await made.kill(made.pids()[0], signal.SIGCONT)
        assert await made.is_well()
        await made.kill(made.pids()[0])
        began = loop.time()
        while await made.is_well():
            pass
        assert loop.time() - began < 1


# --- that hang ---


@pytest.mark.usefixtures("hasty")
async def test_one_that_stands_still_keeps_nobody_waiting_and_is_replaced() -> None:
    async with plane(2, LISTENER, *hello("a")) as made:
        still = made.pids()[0]
        loop = asyncio.get_running_loop()
        await made.kill(still, signal.SIGSTOP)
        began = loop.time()
        assert len(await made.statistics()) <= 2
        assert not await made.apply(Change("2", hello("b")))
        assert loop.time() - began < 3, "the others go on"
        assert await made.is_well()
        await made.until(lambda: still not in made.all_pids())
        await made.whole()
        assert made.supervision().restarts["silent"] == 1
        assert any("has not answered" in line for line in made.said)
        for _ in range(8):
            assert await made.answer("/b") == (200, "b")


@pytest.mark.usefixtures("hasty")
async def test_one_that_comes_back_in_time_is_left_alone_and_catches_up() -> None:
    async with plane(2, LISTENER) as made:
        pids = made.pids()
        await made.kill(pids[0], signal.SIGSTOP)
        assert not await made.apply(Change("2", hello("b")))
        await made.kill(pids[0], signal.SIGCONT)
        assert len(await made.statistics()) == 2
        async with asyncio.timeout(10):
            while [await made.answer("/b") for _ in range(8)] != [(200, "b")] * 8:
                pass  # it has the change, and answers questions beside it
        assert made.pids() == pids
        assert not made.said


@pytest.mark.usefixtures("hasty")
async def test_a_change_waits_for_the_only_worker() -> None:
    """What nobody has in force is not said to be."""
    async with plane(1, LISTENER) as made:
        await made.kill(made.pids()[0], signal.SIGSTOP)
        assert not await made.apply(Change("2", hello("b")))
        assert made.supervision().restarts["silent"] == 1
        assert await made.answer("/b") == (200, "b")


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
async def test_one_that_does_not_get_on_with_a_change_is_replaced(tmp_path: Path) -> None:
    """Its loop goes round, and a change waits for what never comes."""
    waits = tmp_path / "waits"
    waits.touch()
    source = f"""{GOOD}
import asyncio, os
from gateway.scripting.sandbox.host import SandboxedFilter

async def never(_):
    await asyncio.Event().wait()

if os.path.exists({str(waits)!r}):
    os.unlink({str(waits)!r})  # the worker that follows gets on
    SandboxedFilter.start = never
"""
    async with plane(1, LISTENER, script("trap", source)) as made:
        assert not await made.apply(Change("2", (Script("s", GOOD), rule("s", "s"))))
        assert made.supervision().restarts["stuck"] == 1
        assert await made.answer("/s") == (200, "good")


# --- that cannot be started ---


async def test_no_process_can_be_started_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [4]
    spawn = asyncio.create_subprocess_exec

    async def fails(*arguments: object, **options: object) -> asyncio.subprocess.Process:
        if left[0]:
            left[0] -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await spawn(*arguments, **options)

    async with plane(1, LISTENER, *hello("a")) as made:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", fails)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await made.kill(made.pids()[0])
        await made.until(lambda: not made.pids())
        assert not await made.is_well()
        await made.until(lambda: not left[0])
        await made.whole()
        assert loop.time() - began > sum(supervisor.AGAIN[1:5]), "with growing pauses"
        assert await made.answer("/a") == (200, "a")
        assert made.supervision().restarts["unstartable"] == 4


async def test_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async with plane(1, LISTENER, *hello("a")) as made:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = made.pids()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            await made.kill(before[0])
            await made.until(lambda: made.supervision().restarts["unstartable"] > 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await made.whole()
        assert await made.answer("/a") == (200, "a")


# --- parts that end workers ---


@pytest.mark.parametrize(("count", "many"), [(1, 0), (2, 0), (1, 40)])
async def test_what_ends_workers_is_set_aside_and_the_rest_of_its_change_is_in_force(count: int, many: int) -> None:
    async with plane(count, LISTENER, *hello("a")) as made:
        others = [part for number in range(many) for part in hello(f"n{number}")]
        change = Change("2", (script("bad", ENDS), *others, rule("bad", "bad"), *hello("b")))
        (problem,) = await made.apply(change)
        assert problem.part == "bad"
        assert "ends the workers" in problem.message
        assert made.supervision().set_aside == 1
        await made.whole()
        for path in ("a", "b", *(["n0", f"n{many - 1}"] if many else [])):
            assert await made.answer(f"/{path}") == (200, path)
        assert (await made.answer("/bad"))[0] == 500
        # Not tried again, neither by a worker that is new nor when it is told again.
        said = len(made.said)
        assert await made.apply(Change("2", tuple(made.parts.values()), reset=True)) == (problem,)
        assert len(made.said) == said
        await made.kill(made.pids()[0])
        await made.until(lambda: len(made.said) > said)
        await made.whole()
        assert len(made.said) == said + 1
        # One that was edited is tried, and may be good.
        assert not await made.apply(Change("3", (script("bad", GOOD),)))
        assert await made.answer("/bad") == (200, "good")
        assert not made.problems


async def test_of_what_ends_workers_the_last_good_one_stays() -> None:
    async with plane(1, LISTENER, script("s", GOOD), rule("s", "s")) as made:
        (problem,) = await made.apply(Change("2", (script("s", ENDS), *hello("b"))))
        assert "the one before it stays" in problem.message
        assert await made.answer("/s") == (200, "good")
        assert await made.answer("/b") == (200, "b")
        await made.kill(made.pids()[0])
        await made.until(lambda: not made.pids())
        await made.whole()
        assert await made.answer("/s") == (200, "good")
        assert not await made.apply(Change("3", (), (("script", "s"), ("rule", "s"))))
        assert made.supervision().set_aside == 0


@pytest.mark.usefixtures("hasty")
async def test_what_hangs_workers_is_set_aside(capfd: pytest.CaptureFixture[str]) -> None:
    async with plane(2, LISTENER, *hello("a")) as made:
        (problem,) = await made.apply(Change("2", (script("bad", HANGS), *hello("b"))))
        assert problem.part == "bad"
        assert 'File "<filter bad #' in capfd.readouterr().err, "it is written where it hangs"
        await made.whole()
        assert await made.answer("/a") == (200, "a")
        assert await made.answer("/b") == (200, "b")


async def test_what_was_good_once_is_doubted_when_new_workers_end_with_it(tmp_path) -> None:
    """A source that ends whoever loads it from now on, though the worker that has it serves on."""
    trap = tmp_path / "trap"
    source = f"import os\nif os.path.exists({str(trap)!r}):\n    os._exit(3)\n{GOOD}"
    async with plane(1, LISTENER, script("s", source), rule("s", "s"), *hello("a")) as made:
        assert await made.answer("/s") == (200, "good")
        trap.touch()
        await made.kill(made.pids()[0])
        await made.until(lambda: made.supervision().set_aside == 1)
        await made.whole()
        assert [problem.part for problem in made.problems] == ["s"]
        await made.until(lambda: not made._turn.locked())
        assert await made.answer("/a") == (200, "a")


async def test_an_exception_is_a_problem_of_its_part_and_nothing_else() -> None:
    """A port that there cannot be used to end the worker, each time."""
    async with plane(1, LISTENER) as made:
        pids = made.pids()
        problems = await made.apply(Change("2", (Listener("m", 65535), script("exits", "raise SystemExit"), *hello("a"))))
        assert [problem.part for problem in problems] == ["exits", "m"]
        assert await made.answer("/a") == (200, "a")
        assert made.pids() == pids


# --- that talk nonsense ---

NONSENSE = """\
import os, sys
from gateway.filters.api import Response

line = int(sys.argv[sys.argv.index("--fd") + 1])
data = {data!r}

def request(request):
    os.write(line, len(data).to_bytes(4, "big") + data)
    return Response(200, "said")
"""


def encoded(message: object) -> bytes:
    return worker_process.framing.framed(message)[4:]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xc1", id="no msgpack"),
        pytest.param(encoded(Ready(1)), id="another's Ready"),
        pytest.param(encoded(Applied("1", ())), id="a change that was not told"),
        pytest.param(encoded(Statistics()), id="statistics that nobody asked for"),
        pytest.param(encoded({"type": "Pong", "number": 99, "steps": 1}), id="a ping that was not sent"),
        pytest.param(encoded({"type": "Pong", "number": 1, "steps": -1}), id="steps below zero"),
        pytest.param(encoded({"type": "Applied", "version": "1", "problems": (), "more": 1}), id="a field too many"),
    ],
)
async def test_one_that_talks_nonsense_is_replaced(data: bytes) -> None:
    async with plane(1, LISTENER, script("s", NONSENSE.format(data=data)), rule("s", "s")) as made:
        old = made.pids()
        assert await made.answer("/s") == (200, "said")
        await made.until(lambda: made.pids() not in ([], old))
        assert made.supervision().restarts["nonsense"] == 1
        assert await made.is_well()


@pytest.mark.parametrize(
    "bad",
    [
        {"targets": [["r", "b", [0] * 5, [0] * 32, 0.0]]},
        {"targets": [["r", "b", [0] * 6, [0] * 31, 0.0]]},
        {"targets": [["r", "b", [0] * 6, [0] * 32, float("inf")]]},
        {"targets": [["r", "b", [0] * 6, [0] * 32, float("nan")]]},
        {"unmatched": -1},
        {"unmatched": "1"},
        {"filters": [["f", 0, 0, 0, "", "", [["counter", "a", [], [1.0, 2.0]]]]]},
        {"filters": [["f", 0, 0, 0, "", "", [["sum", "a", [], [1.0]]]]]},
    ],
)
async def test_statistics_are_read_strictly(bad: dict) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(worker_process.framing.framed({"type": "Statistics", **bad}))
    with pytest.raises(ValueError, match=r"."):
        await worker_process.messages.read_from_worker(reader)


def test_what_workers_send_is_what_is_read() -> None:
    FilterStatistics("f", 1, 0, 0, measures=(("histogram", "a", (), (0.0,) * 33),))


# --- the end ---


async def test_stopped_while_it_starts() -> None:
    made = Plane(3)
    starting = asyncio.create_task(made.start())
    await made.until(lambda: bool(made.all_pids()))
    pids = made.all_pids()
    async with asyncio.timeout(5):
        await made.stop(grace=5)
        await starting
    assert not [pid for pid in pids if _lives(pid)]


async def test_stopped_while_a_worker_is_replaced() -> None:
    made = Plane(1)
    await made.start()
    await made.apply(Change("1", (LISTENER,)))
    old = made.pids()[0]
    await made.kill(old)
    await made.until(lambda: old not in made.all_pids() and bool(made.all_pids()))
    pids = made.all_pids()
    async with asyncio.timeout(5):
        await made.stop(grace=5)
    assert not [pid for pid in pids if _lives(pid)]


async def test_stopped_while_a_change_waits_for_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Plane(1)
    await made.start()
    monkeypatch.setattr(made, "_bring_up", lambda worker: None)
    await made.kill(made.pids()[0])
    await made.until(lambda: not made.pids())
    applying = asyncio.create_task(made.apply(Change("1", (LISTENER,))))
    await asyncio.sleep(0)
    async with asyncio.timeout(8):
        await made.stop(grace=1)
        await applying


async def test_stopped_while_one_stands_still() -> None:
    made = Plane(2)
    await made.start()
    pids = made.pids()
    await made.kill(pids[0], signal.SIGSTOP)
    async with asyncio.timeout(8):
        await made.stop(grace=1)
    assert not [pid for pid in pids if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- the process ---


@asynccontextmanager
async def data_plane() -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """As it runs in a pod, but for its controller, whom it does not find."""
    admin, feed = free_ports(2)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "--gateway", "default/g", "--feed", f"http://127.0.0.1:{feed}", "--workers", "2",
        "--bind", "127.0.0.1", "--admin", f"127.0.0.1:{admin}", "--drain-delay", "0", "--drain-grace", "1",
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process, admin
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(one) for one in file.read().split()]
    except FileNotFoundError:
        return []


async def test_probes_say_what_is_so() -> None:
    async with data_plane() as (process, admin), aiohttp.ClientSession() as session:

        async def status(path: str) -> int:
            try:
                async with session.get(f"http://127.0.0.1:{admin}{path}") as answer:
                    return answer.status
            except aiohttp.ClientError:
                return 0

        async def until(path: str, expected: int, seconds: float) -> None:
            async with asyncio.timeout(seconds):
                while await status(path) != expected:
                    await asyncio.sleep(0.01)

        await until("/healthz", 200, 20)
        while len(children(process.pid)) < 2:
            await asyncio.sleep(0.01)
        assert await status("/readyz") == 503, "nothing is in force yet"
        for how in (signal.SIGSTOP, signal.SIGKILL):
            await until("/healthz", 200, 20)
            for pid in children(process.pid):
                os.kill(pid, how)
            await until("/healthz", 503, 2)
            for pid in children(process.pid):
                os.kill(pid, signal.SIGCONT)
        await until("/healthz", 200, 20)
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.5])
async def test_sigterm_at_any_moment_of_the_start(after: float) -> None:
    async with data_plane() as (process, _):
        await asyncio.sleep(after)  # the moment; not synchronisation
        pids = children(process.pid)
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() in (0, -signal.SIGTERM), "the latter before it can hear of it"
        async with asyncio.timeout(10):
            while any(_lives(pid) for pid in pids):
                await asyncio.sleep(0.01)


# --- a hundred times ---


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
async def test_killed_at_100_random_moments_of_its_start(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "AGAIN", (0.0, 0.05))  # the pauses that grow are another test's
    parts = (LISTENER, *(part for number in range(300) for part in hello(f"n{number}")))
    dice = random.Random(count)
    loop = asyncio.get_running_loop()
    slowest = 0.0
    async with plane(count, *parts) as made:
        for turn in range(100):
            old = dice.choice(made.pids())
            before = made.all_pids()
            await made.kill(old)
            await made.until(lambda: len(made.all_pids() - before) == 1)  # noqa: B023
            (young,) = made.all_pids() - before
            await asyncio.sleep(dice.uniform(0, 0.5))  # the moment; not synchronisation
            if young in made.all_pids():
                await made.kill(young)
            if count == 1:
                began = loop.time()
                while await made.is_well() and young in (made.pids() or (young,)):  # that is: while nobody else serves
                    assert loop.time() - began < 1, "health tells the truth within a second"
            began = loop.time()
            await made.until(lambda: young not in made.all_pids() and len(made.pids()) == count)  # noqa: B023
            slowest = max(slowest, loop.time() - began)
            assert await made.is_well()
            assert await made.answer(f"/n{turn}") == (200, f"n{turn}")
        assert not made.problems
    print(f"{count} workers: 100 of 100 replaced, the slowest within {slowest:.2f} s")
