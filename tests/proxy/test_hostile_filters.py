"""What a filter's author can do to the worker with the whole of its process: raw frames, floods, descriptors, system calls."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from support.proxy import Proxy, Server, make_rule

from bench.fuzzing import FUZZER, first_seed, resident
from gateway.filters.api.filter_metrics import OCTETS
from gateway.process import messages
from gateway.process.messages import Applied, Apply, FilterStatistics, Ready, Statistics
from gateway.process.metrics import exposition
from gateway.scripting.sandbox import host, line, supervisor
from gateway.scripting.sandbox.host import SandboxedFilter
from gateway.snapshot import Backend, Change, Endpoint, Listener, Match, PathMatch, Script, Scripted, Target
from gateway.transport import framing

caged = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="there are only limits here"
)
# What a filter that knows this program has at hand: the process's end of the line.
INSIDE = """
import asyncio, ctypes, gc, json, math, os, socket, struct, time, msgspec
from gateway.filters.api import Request, Response, config, http, log, metrics, shared
cell = next((one for one in gc.get_objects() if type(one).__name__ == "FilterRunner"), None)
fd = cell and cell._writer.get_extra_info("socket").fileno()
def raw(data):
    line = socket.socket(fileno=os.dup(fd))
    line.setblocking(True)
    line.sendall(data)
    line.close()
def frame(value):
    data = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    return len(data).to_bytes(4, "big") + data
def say(value):
    raw(frame(value))
"""


async def beside(proxy: Proxy, server: Server, source: str, *, failing: bool = False, **options: object) -> None:
    """A route with a filter at /bad, and one without at /."""
    script = Script("bad", INSIDE + textwrap.dedent(source), **options)
    target = (Target(1, "b"),)
    problems = await proxy.runtime.apply(Change(put=(
        Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", server.port),)), script, make_rule("good", targets=target),
        make_rule("bad", targets=target, matches=(Match(PathMatch("PathPrefix", "/bad")),), filters=(Scripted("bad"),)),
    )))  # fmt: skip
    assert failing or not problems, problems


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def process(proxy: Proxy) -> SandboxedFilter:
    hooks = proxy.runtime.programs.get("bad").hooks
    assert isinstance(hooks, SandboxedFilter)
    return hooks


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def opened(pid: int) -> dict[int, str]:
    """A process's descriptors, and what is behind them."""
    folder = Path(f"/proc/{pid}/fd")
    return {int(one.name): os.readlink(one) for one in folder.iterdir()}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# --- descriptors ---

LISTS = """
def held():
    found = []
    for number in range(4096):
        try:
            kind = os.fstat(number)
        except OSError:
            continue
        found.append((number, kind.st_mode >> 12, kind.st_ino))
    return found
"""


@caged
async def test_the_descriptors_of_every_process() -> None:
    """A worker of which the parent has left everything open: neither it, nor who forks, nor a filter has more than its own."""
    ours, theirs = socket.socketpair()
    memory = os.memfd_create("fsm-shared")
    os.ftruncate(memory, 1 << 30)
    left = [*os.pipe(), os.open("/etc/passwd", os.O_RDONLY), fcntl.fcntl(2, fcntl.F_DUPFD, 200)]
    for descriptor in (*left, theirs.fileno(), memory):
        os.set_inheritable(descriptor, True)
    worker = subprocess.Popen(
        [sys.executable, "-m", "gateway.process.worker", "--fd", str(theirs.fileno()), "--memory", str(memory)],
        close_fds=False, stdin=subprocess.DEVNULL, env={**os.environ, "FSM_TOKEN": "secret"},
    )  # fmt: skip
    theirs.close()
    ours.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        assert isinstance(await messages.read_from_worker(reader), Ready)
        source = (
            INSIDE
            + LISTS
            + textwrap.dedent("""
            def request(request):
                return Response(200, held())
            def test_nothing_of_others():
                assert len(held()) <= 8, held()
                assert not [one for one in held() if one[1] == 0o10], held()  # a file
        """)
        )
        # What an inline one sees when it is loaded for good is its worker's.
        reports = (
            INSIDE
            + LISTS
            + textwrap.dedent("""
            import fcntl, re
            if any("gateway.process.worker" in one for one in __import__("sys").orig_argv):
                for number, kind, inode in held():
                    assert number < 3 or fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC, f"{number} can be inherited"
                    assert number < 3 or inode not in config["left"], f"{number} was left open"
            def request(request): pass
        """)
        )
        left_open = json.dumps({"left": [os.fstat(descriptor).st_ino for descriptor in left[:3]]})
        checked = (
            Script("confined", source), Script("inline", source.replace("test_", "no_test_"), execution="inline"),
            Script("worker", reports, left_open, execution="inline", is_tried=False),
        )  # fmt: skip
        framing.write(writer, Apply(Change(version="1", put=checked)))
        assert await messages.read_from_worker(reader) == Applied("1", ())
        inodes = {os.fstat(descriptor).st_ino for descriptor in left[:3]}
        (forkserver,) = children(worker.pid)
        await until(lambda: len(children(forkserver)) == 1)  # the one that tried the other has ended
        (cell,) = children(forkserver)

        if os.geteuid():
            return  # they keep themselves from everybody's looks but root's; what is seen from inside was asserted above
        held = opened(worker.pid)
        assert sum("memfd:fsm-shared" in what for what in held.values()) == 1
        for number, what in held.items():
            assert os.stat(f"/proc/{worker.pid}/fd/{number}").st_ino not in inodes, what
            flags = int(Path(f"/proc/{worker.pid}/fdinfo/{number}").read_text().split("flags:")[1].split()[0], 8)
            assert number < 3 or flags & os.O_CLOEXEC, f"{number} {what} can be inherited"
        assert _kinds(opened(forkserver)) == {"pipe": 2, "socket": 1}
        assert _kinds(opened(cell)) == {"socket": 3, "anon_inode": 1}
        assert {opened(cell)[number] for number in range(3)} == {"/dev/null"}
        for pid in (forkserver, cell):  # nor is there anything in what they were started with
            assert Path(f"/proc/{pid}/environ").read_bytes().split(b"=")[0] == b"PYTHONPATH"
            assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
            assert os.readlink(f"/proc/{pid}/cwd") == ("/" if pid == cell else os.getcwd())
    finally:
        writer.close()
        await until(lambda: worker.poll() is not None)
        for descriptor in (*left, memory):
            os.close(descriptor)
    await until(lambda: not is_running(forkserver) and not is_running(cell))


def _kinds(held: dict[int, str]) -> dict[str, int]:
    kinds = [what.partition(":")[0] for number, what in held.items() if number > 2]
    return {kind: kinds.count(kind) for kind in set(kinds)}


@caged
async def test_a_filter_finds_nothing_open(proxy: Proxy, server: Server) -> None:
    descriptor = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        await beside(proxy, server, LISTS + "def request(request):\n    return Response(200, held())")
        held = json.loads((await proxy.get("/bad"))[2])
    finally:
        os.close(descriptor)
    assert [kind for _, kind, _ in held if kind == 0o10] == []  # no file
    assert [number for number, *_ in held][:4] == [0, 1, 2, held[3][0]]
    assert len(held) == 7  # of those: /dev/null three times, the line, what wakes the loop, the loop's own


# --- system calls ---


@caged
async def test_every_system_call_and_every_command(proxy: Proxy, server: Server) -> None:
    """From inside a process, with libc's `syscall`: what is not in the table is refused, and nobody notices."""
    await beside(proxy, server, """
        from gateway.scripting.sandbox.syscalls import CALLS, OPENAT, In, Within
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        machine = os.uname().machine
        known = {getattr(one, machine): one for one in (*CALLS, OPENAT)}
        mine = os.dup(fd)
        def call(number, *arguments):
            ctypes.set_errno(0)
            result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments))
            return ctypes.get_errno() if result == -1 else 0
        def request(request):
            odd, tried = [], 0
            for number in [*range(600), *(number | 0x40000000 for number in known if number is not None)]:
                # 335 and 336 are those of probes, which no list sees: who calls them from elsewhere is killed.
                if number not in known and number not in (335, 336):
                    for arguments in ((0, 0, 0, 0, 0, 0), (mine, 1, 1, 1, 1, 1), (os.getppid(), 9, 0, 0, 0, 0)):
                        tried += 1
                        if call(number, *arguments) != 1:
                            odd.append((number, arguments))
            # Each argument that is looked at, with every small number and every bit; the descriptor is our own.
            for number, one in known.items():
                for way in one.ways[:1]:
                    for condition in way:
                        allowed = {value for other in one.ways for c in other if c.at == condition.at
                                   for value in (c.values if isinstance(c, In) else ())}
                        mask = 0
                        for other in one.ways:
                            for c in other:
                                if c.at == condition.at and isinstance(c, Within):
                                    mask |= c.mask
                        for value in {*range(0x600), *range(0x5400, 0x5500), *range(0x8900, 0x8a00), *(1 << bit for bit in range(32))}:
                            is_in = value in allowed if isinstance(condition, In) else not value & ~mask
                            if is_in:
                                continue
                            arguments = [mine, 0, 0, 0, 0, 0]
                            for c in way:
                                arguments[c.at] = c.values[0] if isinstance(c, In) else 0
                            arguments[condition.at] = value
                            tried += 1
                            if call(number, *arguments) != 1:
                                odd.append((one.name, arguments))
            return Response(200, {"tried": tried, "odd": odd[:20]})
    """, seconds=30.0)  # fmt: skip
    pid, forkserver = process(proxy).pid, proxy.runtime.programs.forkserver._process
    said = json.loads((await proxy.get("/bad"))[2])
    assert said["odd"] == []
    assert said["tried"] > 20_000
    assert process(proxy).pid == pid
    assert forkserver is not None
    assert forkserver.returncode is None
    assert (await proxy.get("/good"))[0] == 200


@caged
@pytest.mark.parametrize(
    "deed",
    [
        "fcntl.fcntl(fd, fcntl.F_SETOWN, config['worker'])",
        "fcntl.fcntl(fd, fcntl.F_SETSIG, 9)",
        "fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)",
        "fcntl.ioctl(fd, 0x8901, struct.pack('i', config['worker']))",
        "os.pipe()",
        "os.kill(config['worker'], 0)",
        "os.sched_setaffinity(config['worker'], {0})",
        "os.setpriority(os.PRIO_PROCESS, config['worker'], 19)",
        "socket.socketpair()",
        "socket.send_fds(socket.socket(fileno=os.dup(fd)), [b'x'], [0])",
        "socket.recv_fds(socket.socket(fileno=os.dup(fd)), 1, 1)",
        "socket.socket(fileno=os.dup(fd)).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 30)",
        "socket.socket(fileno=os.dup(fd)).send(b'x', socket.MSG_OOB)",
        "os.memfd_create('x')",
        "os.readlink('/proc/%d/exe' % config['worker'])",
        "os.open('/proc/%d/environ' % config['worker'], os.O_PATH)",
        "mmap.mmap(-1, 4096, prot=7)",
        "os.eventfd(0)",
        "os.open('/etc/passwd', os.O_RDONLY)",
        "__import__('resource').prlimit(config['worker'], 7, (0, 0))",
    ],
)
async def test_what_reaches_others_is_refused(proxy: Proxy, server: Server, deed: str) -> None:
    await beside(proxy, server, f"""
        import fcntl, mmap
        def request(request):
            try:
                {deed}
            except PermissionError:
                return Response(200, "refused")
            return Response(200, "it could")
    """, config=json.dumps({"worker": os.getpid()}))  # fmt: skip
    assert (await proxy.get("/bad"))[2] == b"refused"


@caged
async def test_large_messages_go_without_sendmsg(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, "def request(request):\n    return Response(200, b'x' * (3 << 20))")
    assert len((await proxy.get("/bad"))[2]) == 3 << 20


async def test_a_message_that_is_too_long_fails_its_call_and_nothing_else(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, """
        def request(request):
            return Response(200, b"x" * (5 << 20 if request.path == "/bad/long" else 1))
    """)  # fmt: skip
    pid = process(proxy).pid
    assert (await proxy.get("/bad/long"))[0] == 500
    assert "more than can be passed on at once; 4194304 are not" in proxy.runtime.programs.get("bad").last_failure
    assert (await proxy.get("/bad"))[0] == 200
    assert process(proxy).pid == pid


# --- what is no message ---

FORGED = [
    '{"type": "Loaded", "hooks": ["nothing"]}',
    '{"type": "Loaded", "hooks": ["start"]}',
    '{"type": "Loaded", "hooks": ["request"] * 9}',
    '{"type": "Loaded", "layers": ["all"]}',
    '{"type": "Loaded", "timers": -1}',
    '{"type": "Loaded", "fault": "x" * 5000}',
    '{"type": "Loaded"}',  # once more
    '{"type": "Loaded", "more": 1}',
    '{"type": "Load", "name": "x", "source": "", "config": "", "memory": 1}',
    '{"type": "Done", "number": -1}',
    '{"type": "Done", "number": 1 << 63}',
    '{"type": "Done", "number": 1.5}',
    '{"type": "Done", "number": 1, "status": 10**6}',
    '{"type": "Done", "number": 1, "failure": "x" * 5000}',
    '{"type": "Done", "number": 1, "choice": ["a"]}',
    '{"type": "Done", "number": 1, "response": [200, [[b"a", b"b"]] * 1001, None]}',
    '{"type": "Done", "number": 1, "response": [200, [[b"a"]], None]}',
    '{"type": "Done", "number": 1, "request": ["GET", "/", "a", [], None, "more"]}',
    '{"type": "Want", "number": 1, "exchange": 1, "of": "everything", "limit": 1}',
    '{"type": "Want", "number": 1, "exchange": 1, "of": "request", "limit": -1}',
    '{"type": "Ask", "number": 1, "what": ["Operation", "format", "k"]}',
    '{"type": "Ask", "number": 1, "what": ["Operation", "add", "k", math.nan]}',
    '{"type": "Ask", "number": 1, "what": ["Operation", "hold", "k", math.inf]}',
    '{"type": "Ask", "number": 1, "what": ["Operation", "take", "k", 1.0, 0.0, -1]}',
    '{"type": "Ask", "number": 1, "what": ["Operation", "get", "k" * 70000]}',
    '{"type": "Ask", "number": 1, "what": ["Call", "GET", "http://a/", [], b"", math.nan]}',
    '{"type": "Ask", "number": 1, "what": ["Call", "GET", "http://a/", [], b"", -1.0]}',
    '{"type": "Ask", "number": 1, "what": None}',
    '{"type": "Measure", "what": ["Measured", "counter", "a_total", [], 1.0]}',  # not one, but some
    '{"type": "Measure", "what": [["Measured", "counter", "fsm_requests_total", [], 1.0]]}',
    '{"type": "Measure", "what": [["Measured", "counter", "a_total\\n", [], 1.0]]}',
    '{"type": "Measure", "what": [["Measured", "counter", "a_total", [["filter", "other"]], 1.0]]}',
    '{"type": "Measure", "what": [["Measured", "counter", "a_total", [["le", "1"]], 1.0]]}',
    '{"type": "Measure", "what": [["Measured", "counter", "a_total", [["a", "1"], ["a", "2"]], 1.0]]}',
    '{"type": "Measure", "what": [["Measured", "counter", "a_total", [["b", "1"], ["a", "2"]], 1.0]]}',
    '{"type": "Measure", "what": [["Measured", "counter", "a_total", [["a", "x" * 201]], 1.0]]}',
    '{"type": "Measure", "what": [["Measured", "counter", "a_total", [["a{} 1", "x"]], 1.0]]}',
    '{"type": "Measure", "what": [["Measured", "counter", "a_total", [], -1.0]]}',
    '{"type": "Measure", "what": [["Measured", "counter", "a_total", [], math.nan]]}',
    '{"type": "Measure", "what": [["Measured", "histogram", "a_seconds", [], math.inf]]}',
    '{"type": "Measure", "what": [["Measured", "summary", "a", [], 1.0]]}',
    '{"type": "Measure", "what": [["Measured", "counter", "a_total", [], 1.0]] * 101}',
    '{"type": "Said", "level": -1, "text": "x"}',
    '{"type": "Said", "level": 20, "text": "x" * 5000}',
    '{"type": "Said", "level": "high", "text": "x"}',
    '{"type": "Pong", "more": [[[[]]]]}',
    '{"type": "Nobody"}',
    '{}',
    '[]',
    'None',
    'b""',
    'b"\\xc1"',
    'b"\\x91" * 100000',
    'b"\\x81\\xa1a" * 100000 + b"\\xc0"',
    'b"\\x83\\xa4type\\xa4Pong\\xa1a" + b"\\x91" * 100000',
    'b"\\x82\\xa4type\\xa7Measure\\xa4what\\xdd\\xff\\xff\\xff\\xff"',
    'msgspec.msgpack.encode({"type": "Pong"}) + b"x"',
    'os.urandom(4096)',
]  # fmt: skip


@pytest.mark.parametrize("forged", FORGED, ids=lambda value: value[:60].replace("\\", ""))
async def test_what_is_no_message_ends_the_process_and_nothing_else(
    proxy: Proxy, server: Server, forged: str, caplog: pytest.LogCaptureFixture
) -> None:
    await beside(proxy, server, f"""
        def request(request):
            if request.path == "/bad/now":
                say({forged})
                time.sleep(1)
            return Response(200, "fine")
    """, seconds=5.0)  # fmt: skip
    before = process(proxy)
    assert (await proxy.get("/bad/now"))[0] == 500
    assert "its process was ended: it sent what nobody understands" in proxy.runtime.programs.get("bad").last_failure
    assert (await proxy.get("/good"))[0] == 200
    said = [one.message for one in caplog.records if "another follows in" in one.message]
    assert len(said) == 1
    assert before.is_dead
    await until(lambda: not is_running(before.pid))
    await until(lambda: process(proxy) is not before)
    assert (await proxy.get("/bad"))[2] == b"fine"


@pytest.mark.parametrize(
    "forged", ['{"type": "Loaded", "hooks": ["nothing"]}', '{"type": "Loaded", "fault": "\\x1b[2J", "line": 10**9}', "b''"]
)
async def test_the_same_instead_of_being_loaded(proxy: Proxy, server: Server, forged: str) -> None:
    await beside(proxy, server, f"say({forged})\nwhile True: pass", failing=True)
    assert proxy.runtime.programs.get("bad").hooks is None
    assert (await proxy.get("/good"))[0] == 200
    assert (await proxy.get("/bad"))[0] == 500
    await beside(proxy, server, "def request(request):\n    return Response(200, 'mended')")
    assert (await proxy.get("/bad"))[2] == b"mended"


async def test_a_giant_is_not_waited_for(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, "def request(request):\n    raw((1 << 31).to_bytes(4, 'big') + b'x')\n    time.sleep(1)")
    assert (await proxy.get("/bad"))[0] == 500
    assert "a message of 2147483648 bytes" in proxy.runtime.programs.get("bad").last_failure


async def test_a_message_that_does_not_end(proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "ENDING", 0.3)
    await beside(proxy, server, """
        def request(request):
            raw((1 << 20).to_bytes(4, "big"))
            while True:
                raw(b"x")
                time.sleep(0.01)
    """, seconds=5.0)  # fmt: skip
    assert (await proxy.get("/bad"))[0] == 500
    assert "it began a message and did not end it" in proxy.runtime.programs.get("bad").last_failure


async def test_answers_that_nobody_asked_for(proxy: Proxy, server: Server) -> None:
    """For calls that were not made, for others' calls, twice: only the first to a call that is under way is heard."""
    await beside(proxy, server, """
        def request(request):
            number = max(cell._tasks)
            for other in (0, number + 1, number - 1, 1 << 62):
                say({"type": "Done", "number": other, "response": [200, [], b"another's"]})
            say({"type": "Done", "number": number, "response": [200, [], b"first"]})
            say({"type": "Done", "number": number, "response": [200, [], b"second"]})
            return Response(200, "third")
    """)  # fmt: skip
    for _ in range(3):
        assert (await proxy.get("/bad"))[2] == b"first"
        assert (await proxy.get("/good"))[2] == b"ok"


@pytest.mark.parametrize(
    "done",
    [
        '"response": [99, [], None]',
        '"response": [200, [[b"a b", b"c"]], None]',
        '"response": [200, [[b"a", b"c\\r\\nx: y"]], None]',
        '"request": ["GET\\r\\n", "/", "a", [], None]',
        '"request": ["GET", "nowhere", "a", [], None]',
        '"request": ["GET", "/", "a b", [], None]',
        '"choice": ["nobody", None]',
    ],
)
async def test_answers_that_mean_nothing_fail_their_call(proxy: Proxy, server: Server, done: str) -> None:
    await beside(proxy, server, f"""
        def request(request):
            if request.path == "/bad/now":
                say({{"type": "Done", "number": max(cell._tasks), {done}}})
                time.sleep(0.1)
    """)  # fmt: skip
    pid = process(proxy).pid
    assert (await proxy.get("/bad/now"))[0] == 500
    assert (await proxy.get("/bad"))[0] == 200
    assert process(proxy).pid == pid
    assert len(server.seen) == 1


# --- metrics ---


def page(proxy: Proxy) -> bytes:
    program = proxy.runtime.programs.get("bad")
    series = tuple((*key, tuple(values)) for key, values in program.measures.series.items())
    statistics = FilterStatistics("bad", 0, 0, 0, "", "", series, program.measures.dropped, program.measures.most)
    return exposition([Statistics(filters=(statistics,))])


@pytest.mark.parametrize(
    "measure",
    [
        'metrics.add("n%d_total" % i)',
        'metrics.add("n_total", path="/%d" % i)',
        'metrics.set("g%d" % i, i, a="é" * 300, b="\\\\" * 300, c="\\n" * 300)',
        'metrics.observe("o%d_seconds" % i, i)',
        'metrics.observe("o" * 90 + str(i), i, **{"l" * 60 + str(n): "\U0001f600" * 200 for n in range(16)})',
    ],
)
async def test_what_is_measured_is_bounded(proxy: Proxy, server: Server, measure: str) -> None:
    await beside(proxy, server, f"""
        def request(request):
            return Response(200, "fine")
        async def go():
            for i in range(20000):
                {measure}
                if not i % 500:
                    await asyncio.sleep(0.02)
        task = asyncio.get_event_loop().create_task(go())
    """)  # fmt: skip
    empty = len(exposition([Statistics()]))
    program = proxy.runtime.programs.get("bad")
    await until(lambda: program.measures.dropped + len(program.measures.series) >= 10_000 or process(proxy).is_dead, 20)
    assert program.measures.dropped > 0
    assert len(page(proxy)) - empty <= 64 << 10
    assert b'fsm_filter_measures_dropped_total{filter="bad"}' in page(proxy)
    assert len(page(proxy)) - empty > OCTETS / 4 or '"l" * 60' in measure  # and there is room for what is honest


# --- floods ---

FLOODS = {
    "pongs": 'say({"type": "Pong"})',
    "measures": 'say({"type": "Measure", "what": [["Measured", "counter", "a_total", [], 1.0]] * 100})',
    "new measures": 'say({"type": "Measure", "what": [["Measured", "gauge", "g%d" % (n * 100 + i), [], 1.0] for i in range(100)]})',
    "lines": 'say({"type": "Said", "level": 20, "text": "x" * 4000})',
    "wants": 'say({"type": "Want", "number": n, "exchange": 1, "of": "request", "limit": 1})',
    "asks": 'say({"type": "Ask", "number": n, "what": ["Operation", "set", "k%d" % n, 0.0, 0.0, 0, 0, b"x" * 1000, 1]})',
    "calls": 'say({"type": "Ask", "number": n, "what": ["Call", "GET", "http://nobody/", [], b"", 1.0]})',
    "answers": 'say({"type": "Done", "number": 1 << 60, "response": [200, [], b"x" * (1 << 20)]})',
    "pieces": 'raw(frame({"type": "Pong"})[n % 17 : n % 17 + 1])',
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends_its_process_and_others_are_served(
    proxy: Proxy, server: Server, flood: str, caplog: pytest.LogCaptureFixture
) -> None:
    await beside(proxy, server, f"""
        import threading
        async def go():
            await asyncio.sleep(0.2)
            n = 0
            while True:
                n += 1
                {FLOODS[flood]}
        task = asyncio.get_event_loop().create_task(go())
        def request(request):
            return None
    """)  # fmt: skip
    first = process(proxy)
    times = []
    async with asyncio.timeout(20):
        while not first.is_dead:
            began = time.perf_counter()
            assert (await proxy.get("/good"))[0] == 200
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)
    assert first.broke_rules
    assert sorted(times)[len(times) // 2] < 0.02
    words = "sent what nobody understands" if flood == "pieces" else "it says more than there is time to listen to"
    assert words in first.end
    await until(lambda: not is_running(first.pid))
    assert sum(one.name.startswith("fsm.filter.") for one in caplog.records) <= 700  # a hundred a second


async def test_who_breaks_rules_again_and_again_is_replaced_ever_later(
    proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "PUNISHED", (0.01, 0.02, 0.03))
    await beside(proxy, server, """
        async def go():
            say({"type": "Nobody"})
        task = asyncio.get_event_loop().create_task(go())
        def request(request):
            return None
    """)  # fmt: skip
    await until(lambda: sum("another follows" in one for one in caplog.messages) >= 5)
    assert [one.rpartition("in ")[2] for one in caplog.messages if "another follows" in one][:5] == [
        "0.01 s", "0.02 s", "0.03 s", "0.03 s", "0.03 s",
    ]  # fmt: skip


async def test_an_honest_burst_is_no_flood(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, """
        async def request(request):
            for number in range(200):
                metrics.add("n_total", kind=str(number % 7))
                log.info("line %d", number)
                await shared.add("k", 1)
    """, seconds=10.0)  # fmt: skip  # not about how fast this machine is
    pid = process(proxy).pid
    for _ in range(50):
        assert (await proxy.get("/bad"))[0] == 200
    assert process(proxy).pid == pid
    series = proxy.runtime.programs.get("bad").measures.series
    await until(lambda: sum(values[0] for values in series.values()) == 10_000)


async def test_who_does_not_read_is_cut_off(proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "ENDING", 0.3)
    await beside(proxy, server, """
        async def go():
            for n in range(100):
                say({"type": "Ask", "number": n, "what": ["Operation", "set", "k", 0.0, 0.0, 0, 0, b"x" * 100000, 1]})
                say({"type": "Ask", "number": n, "what": ["Operation", "get", "k"]})
            while True:
                time.sleep(1)
        def request(request):
            asyncio.get_event_loop().create_task(go())
    """)  # fmt: skip
    first = process(proxy)
    assert (await proxy.get("/bad"))[0] == 200
    await until(lambda: first.is_dead)
    assert "it does not read what it is sent" in first.end
    await until(lambda: not is_running(first.pid))


# --- ends ---

SPINS = """
def request(request): return None
async def spin():
    await asyncio.sleep(0.1)
    end = time.monotonic() + 60
    while time.monotonic() < end: pass
task = asyncio.get_event_loop().create_task(spin())
"""


async def test_a_process_that_was_replaced_ends_whatever_it_does(
    proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "ENDING", 0.5)
    pids = []
    for version in range(4):
        await beside(proxy, server, SPINS + f"VERSION = {version}")
        pids.append(process(proxy).pid)
        await asyncio.sleep(0.15)  # so that it spins
    await until(lambda: not any(map(is_running, pids[:-1])))
    assert is_running(pids[-1])
    await proxy.apply(Script("bad", "def request(request): return None", execution="inline"))
    await until(lambda: not is_running(pids[-1]))


async def test_a_process_that_closes_its_line_and_lives_on_is_killed(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, """
        def request(request):
            if request.path == "/bad/now":
                os.close(fd) if request.query_string else socket.socket(fileno=fd).shutdown(2)
                while True: pass
    """)  # fmt: skip
    for query in ("", "?close"):
        before = process(proxy)
        assert (await proxy.get("/bad/now" + query))[0] == 500
        await until(lambda: not is_running(before.pid))  # noqa: B023
        await until(lambda: process(proxy) is not before)  # noqa: B023
        assert (await proxy.get("/bad"))[0] == 200


async def test_a_process_that_dies_as_soon_as_it_is_loaded_is_replaced(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, """
        loop = asyncio.get_event_loop()
        loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(os._exit, 1)))
        def request(request): return None
    """, failing=True)  # fmt: skip
    first = proxy.runtime.programs.get("bad").hooks
    await until(lambda: proxy.runtime.programs.get("bad").hooks not in (None, first))


async def test_a_process_that_forks_and_stands_still_is_replaced(
    proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What wants a process meanwhile is told why it has none, and has one soon."""
    await beside(proxy, server, "def request(request): pass")
    forkserver = proxy.runtime.programs.forkserver._process
    assert forkserver is not None
    monkeypatch.setattr("gateway.scripting.sandbox.forkserver_client.STARTING", 0.2)
    os.kill(forkserver.pid, signal.SIGSTOP)
    other = Script("other", "from gateway.filters.api import Response\ndef request(request): return Response(200, 'other')")
    rule = make_rule("other", matches=(Match(PathMatch("PathPrefix", "/other")),), filters=(Scripted("other"),))
    (problem,) = await proxy.runtime.apply(Change(put=(other, rule)))
    assert problem.message == "other: there is no process for it: no answer"
    monkeypatch.undo()
    await until(lambda: proxy.runtime.programs.get("other").hooks is not None)
    assert (await proxy.get("/other"))[0] == 200
    assert (await proxy.get("/"))[0] == 200


async def test_processes_end_with_the_one_that_forked_them(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, SPINS)
    pid, forkserver = process(proxy).pid, proxy.runtime.programs.forkserver._process
    assert forkserver is not None
    forkserver.kill()
    await until(lambda: not is_running(pid))
    await until(lambda: process(proxy).pid != pid)
    assert (await proxy.get("/good"))[0] == 200


# --- words ---

COLOURFUL = "\x1b[31mred\x1b]0;title\x07\r\x08\u202eback\u2028line"
PLAIN = r"\x1b[31mred\x1b]0;title\x07\r\x08\u202eback\u2028line"


@pytest.mark.parametrize("execution", ["process", "inline"])
async def test_words_of_filters_are_plain(
    proxy: Proxy, server: Server, caplog: pytest.LogCaptureFixture, execution: str, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    source = f"""
        from gateway.filters.api import Refused
        def request(request):
            log.warning("%s", {COLOURFUL!r})
            try:
                raise KeyError({COLOURFUL!r})
            except KeyError:
                log.exception("and more")
            raise RuntimeError({COLOURFUL!r})
    """
    source = INSIDE + textwrap.dedent(source)
    await proxy.route(server, name="bad", filters=(Scripted("bad"),))
    await proxy.apply(Script("bad", source, execution=execution, is_tried=False))  # type: ignore[arg-type]
    assert (await proxy.get("/"))[0] == 500
    await until(lambda: len(caplog.records) >= 3)
    assert caplog.messages[0] == PLAIN
    assert PLAIN in proxy.runtime.programs.get("bad").last_failure
    (problem,) = await proxy.runtime.apply(Change(put=(Script("bad", f"raise ValueError({COLOURFUL!r})", is_tried=False),)))
    assert problem.message == "bad, line 1: ValueError: " + PLAIN
    for text in (caplog.text, problem.message, capfd.readouterr().err):
        assert all(one.isprintable() or one == "\n" for one in text), text


def test_a_worker_speaks_plainly(tmp_path: Path) -> None:
    code = f"from gateway.base import logs; logs.speak_plainly(); print({COLOURFUL!r}); import sys; sys.stderr.write('a\\n' + {COLOURFUL!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == PLAIN + "\n"
    assert done.stderr == "a\n" + PLAIN


async def test_failures_that_are_all_different_do_not_fill_the_log(
    proxy: Proxy, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    await beside(
        proxy,
        server,
        "import itertools\nn = itertools.count()\ndef request(request):\n    raise ValueError('x' * 3000 + str(next(n)))",
    )
    for _ in range(100):
        assert (await proxy.get("/bad"))[0] == 500
    said = [one for one in caplog.messages if "ValueError" in one]
    assert 1 <= len(said) <= 60
    assert max(map(len, said)) < 1200


async def test_no_exception_is_left_lying(proxy: Proxy, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever filters ask for and do not wait for, and whatever they ask for that cannot be done."""
    gc.collect()  # what other tests have left lying is not of this one
    caplog.clear()
    await beside(proxy, server, """
        async def request(request):
            http.get("http://nobody/").close()
            for what in (["Call", "GET", "http://nobody/", [], b"", 1.0], ["Call", "G T", "nowhere", [[b"a b", b""]], b"", 1.0],
                         ["Operation", "set", "k", 0.0, 0.0, 0, 0, b"x" * (2 << 20), 1], ["Operation", "hold", "k", 1e18],
                         ["Operation", "take", "k", -1e18, 0.0, 1 << 53, 1 << 53, b"", 1 << 53], ["Operation", "add", "k", 1e18, -1e9],
                         ["Operation", "release", "never held"]):
                say({"type": "Ask", "number": 9, "what": what})
            shared.set("k", b"x" * (2 << 20))
            asyncio.ensure_future(http.get("http://nobody/"))
            for of in ("request", "response"):
                say({"type": "Want", "number": 1, "exchange": 1, "of": of, "limit": 1 << 62})
                say({"type": "Want", "number": 1, "exchange": 10**9, "of": of, "limit": 0})
    """, seconds=30.0)  # fmt: skip  # it owes for 4 MB each time, and is not read meanwhile
    for _ in range(5):
        assert (await proxy.get("/bad"))[0] == 200
    gc.collect()
    await asyncio.sleep(0)
    assert not [one for one in caplog.messages if "never retrieved" in one or "Traceback" in one]
    assert not process(proxy).broke_rules


async def test_a_call_that_is_given_up_before_it_is_made(proxy: Proxy, server: Server) -> None:
    """Its process ends in the turn in which it asked: nothing that was begun is left (a coroutine never awaited is an error here)."""
    await beside(proxy, server, "def request(request): pass")
    hooks = process(proxy)
    hooks._take(
        memoryview(msgspec.msgpack.encode({"type": "Ask", "number": 9, "what": ["Call", "GET", "http://a/", [], b"", 1.0]}))
    )
    assert hooks._service_calls is not None
    (task,) = hooks._service_calls._working
    task.cancel()
    await asyncio.wait([task])
    del task
    gc.collect()


@caged
@pytest.mark.slow
async def test_attacks_of_every_kind(proxy: Proxy, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The attacker of `bench.filters fuzz`, another one each moment, for as many seconds as FSM_FUZZ_SECONDS says."""
    seed = first_seed()
    gc.collect()  # what other tests have left lying is not of this one
    caplog.clear()
    await beside(proxy, server, "def request(request): pass")
    for _ in range(200):
        await proxy.get("/good")
    before, empty = resident(os.getpid()), len(exposition([Statistics()]))
    until_then = time.monotonic() + float(os.environ.get("FSM_FUZZ_SECONDS", "25"))
    met = 0
    while time.monotonic() < until_then:
        source = FUZZER.format(seed=seed, harmless=False)
        for problem in await proxy.runtime.apply(Change(put=(Script("bad", source),))):
            assert re.fullmatch(
                r"bad: (its process (was )?ended.*|loading it and its tests took longer than 2 s)", problem.message
            )
        over = time.monotonic() + 0.3
        while time.monotonic() < over:
            assert (await proxy.get("/good"))[2] == b"ok", seed
            with contextlib.suppress(Exception):  # what comes of its own route is its own affair
                async with asyncio.timeout(0.1):
                    await proxy.get("/bad")
                    met += 1
        assert len(page(proxy)) - empty <= 64 << 10, seed
        seed += 1
    gc.collect()
    await asyncio.sleep(0.1)
    assert met > 0
    assert resident(os.getpid()) - before <= 32 << 10, seed  # of this process, which is client, backend and test as well
    assert not [one for one in caplog.messages if "never retrieved" in one], seed
    assert all(one.isprintable() or one == "\n" for one in caplog.text)
    await beside(proxy, server, "def request(request):\n    return Response(200, 'mended')")
    assert (await proxy.get("/bad"))[2] == b"mended"
