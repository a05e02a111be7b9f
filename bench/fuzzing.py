"""A filter that attacks its worker from inside its process, in another way each time that it is edited.

It knows the whole program: it speaks the line's own language, as it is and damaged, floods, forges answers, calls the system
with whatever arguments, spins, stops reading, closes its line and lives on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

from bench import rig
from bench.changes import Running

EVERY = 0.4  # seconds between two edits
STEP = int(os.environ.get("FSM_STEP", "1"))  # from one seed to the next

FUZZER = """
import asyncio, ctypes, gc, math, os, random, socket, struct, sys, time
import msgspec
from gateway.filters.api import Request, Response, metrics, shared, log, http
from gateway.scripting.sandbox.syscalls import CALLS, OPENAT

SEED = {seed}
chance = random.Random(SEED)
cell = next((one for one in gc.get_objects() if type(one).__name__ == "FilterRunner"), None)
fd = cell._writer.get_extra_info("socket").fileno()
encode = msgspec.msgpack.encode
libc = ctypes.CDLL(None, use_errno=True)


def raw(data):
    line = socket.socket(fileno=os.dup(fd))
    line.setblocking(True)
    try:
        line.sendall(data)
    finally:
        line.close()


def frame(data):
    return len(data).to_bytes(4, "big") + data


def number():
    return chance.choice([0, 1, 2, 3, chance.randrange(1000), 1 << 31, 1 << 53, 1 << 62, *list(cell._tasks)[-3:]])


def odd():
    return chance.choice([
        None, True, -1, 0, 1 << 63, 1 << 64, math.nan, math.inf, -math.inf, 1e308, "", "x" * chance.choice([1, 5000, 1 << 20]), b"\\xff" * 9,
        [], [[]], {{}}, {{"type": "Done"}}, "\\x1b[2J", "request", "fsm_requests_total", ["a"] * 2000, [["a", "b"]] * 2000,
    ])


def pairs():
    return [[chance.choice([b"a", b"content-length", b"a b", b"", b"x" * 70000]), chance.choice([b"b", b"1\\r\\nx: y", b"\\x00", b"9" * 70000])]
            for _ in range(chance.choice([0, 1, 3, 900]))]


def message():
    kind = chance.choice(["Loaded", "Want", "Ask", "Ask", "Measure", "Measure", "Said", "Done", "Done", "Pong"])
    made = {{"type": kind}}
    if kind == "Loaded":
        made.update(hooks=chance.sample(["request", "log", "start", "nothing"], 2), tests=number(), timers=number())
    elif kind == "Want":
        made.update(number=number(), exchange=number(), of=chance.choice(["request", "response"]), limit=number())
    elif kind == "Ask" and chance.random() < 0.3:
        url = chance.choice(["http://127.0.0.1:1/", "http://a/", "", "http://[::1]:99999/", "x" * 9000])
        made.update(number=number(), what=["Call", chance.choice(["GET", "CONNECT", ""]), url, pairs(), b"x" * chance.choice([0, 9, 1 << 20]), 1.0])
    elif kind == "Ask":
        doing = chance.choice(["add", "count", "take", "hold", "release", "get", "set", "drop"])
        made.update(number=number(), what=[doing and "Operation", doing, "k%d" % chance.randrange(100), chance.choice([0.0, -1.0, 1e18, 1e-9]),
                    chance.choice([0.0, 1.0, 1e9]), number() % (1 << 53), 1, b"x" * chance.choice([0, 9, 1 << 20]), 1])
    elif kind == "Measure":
        made["what"] = [["Measured", chance.choice(["counter", "gauge", "histogram"]), "m%d_total" % chance.randrange(10**6),
                         [["l", "v%d" % chance.randrange(10**6)]], chance.choice([0.0, 1.0, 1e18])] for _ in range(chance.choice([1, 50, 500]))]
    elif kind == "Said":
        made.update(level=chance.choice([0, 20, 50]), text=chance.choice(["x", "\\x1b[2J", "\\n" * 4000, "\\u202e" * 4000]))
    elif kind == "Done":
        made.update(number=number(), request=chance.choice([None, ["GET", "/", "a", pairs(), None]]),
                    response=chance.choice([None, [chance.choice([200, 0, 204, 999]), pairs(), chance.choice([None, b"x" * (3 << 20)])]]),
                    choice=chance.choice([None, ["a", None], ["b", "k"]]), answer=chance.choice([None, b"x" * 70000]),
                    status=chance.choice([0, 0, 400, 999]), failure=chance.choice(["", "\\x1b[2J" * 500]))
    return made


def damaged():
    made = message()
    if len(made) > 1:
        key = chance.choice([*made][1:])
        made[key] = odd()
    else:
        made["more"] = odd()
    return made


async def valid():
    only = chance.choice([None, "Want", "Ask", "Measure", "Said", "Done", "Pong"])
    while True:
        made = message()
        if made["type"] != "Loaded" and only in (None, made["type"]):
            raw(frame(encode(made)))
        if chance.random() < 0.01:
            await asyncio.sleep(0)


async def wrong():
    raw(frame(encode(damaged())))


async def bits():
    data = bytearray(frame(encode(message())))
    for _ in range(chance.choice([1, 3, 30])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    raw(bytes(data))


async def noise():
    raw(os.urandom(chance.choice([1, 4, 100, 100000])))


async def deep():
    raw(frame(chance.choice([b"\\x91", b"\\x81\\xa1a", b"\\xdd\\xff\\xff\\xff\\xff", b"\\x82\\xa4type\\xa4Pong\\xa1a\\x91"]) * 200000))


async def partial():
    raw(chance.choice([4 << 20, 1 << 20, 9, (4 << 20) + 1, 1 << 31]).to_bytes(4, "big") + b"x" * chance.choice([0, 8, 1 << 20]))
    while True:
        raw(b"x")
        await asyncio.sleep(0.001)


async def large():
    while True:
        raw(frame(encode({{"type": "Done", "number": number(), "data": b"x" * ((4 << 20) - 100)}})))


async def api():
    for n in range(10**9):
        chance.choice([
            lambda: metrics.add("n%d_total" % n), lambda: metrics.observe("o_seconds", n, path=str(n)), lambda: print("\\x1b[31m", n),
            lambda: log.error("%s", "x" * 5000), lambda: shared.add("k%d" % n), lambda: shared.set("v%d" % n, b"x" * 100000),
            lambda: asyncio.ensure_future(http.get("http://127.0.0.1:1/")), lambda: shared.get("v%d" % (n - 1)),
        ])()
        if not n % 50:
            await asyncio.sleep(0)


async def forged():
    while True:
        for one in list(cell._tasks):
            raw(frame(encode({{**message(), "type": "Done", "number": one}} if chance.random() < 0.2 else {{
                "type": "Done", "number": one, "response": [chance.choice([200, 99, 204]), pairs()[:3], b"x" * chance.choice([1, 1 << 20])]}})))
        await asyncio.sleep(0.002)


async def calls():
    numbers = [getattr(one, os.uname().machine) for one in CALLS if one.name not in ("exit", "exit_group")]
    while True:
        for _ in range(200):
            which = chance.choice([chance.randrange(470), *chance.choices(numbers, k=3)])
            if which in (335, 336) or which in (60, 231, 93, 94):
                continue
            libc.syscall(ctypes.c_long(which), *(ctypes.c_ulong(chance.choice([0, 1, fd, 8, 9, 10, 0x5452, 0x8901, os.getppid(), 1 << 32, chance.getrandbits(16)]))
                                                for _ in range(6)))
        await asyncio.sleep(0)


async def spins():
    while True:
        pass


async def deaf():
    for n in range(1000):
        raw(frame(encode({{"type": "Ask", "number": n, "what": ["Operation", "set", "k", 0.0, 0.0, 0, 0, b"x" * 100000, 1]}})))
        raw(frame(encode({{"type": "Ask", "number": n, "what": ["Operation", "get", "k"]}})))
    time.sleep(60)


async def hangs_up():
    socket.socket(fileno=os.dup(fd)).shutdown(chance.choice([0, 1, 2]))
    while True:
        pass


async def heaps():
    tasks = [asyncio.ensure_future(asyncio.sleep(3600)) for _ in range(100000)]
    await asyncio.gather(*tasks)


async def nothing():  # to compare with
    pass


async def dies():
    os._exit(1)


WAYS = [valid, valid, valid, wrong, wrong, wrong, bits, bits, noise, deep, partial, large, api, api, forged, calls, spins, deaf, hangs_up, heaps, dies]
way = nothing if {harmless} else WAYS[SEED % len(WAYS)]


async def attack():
    await asyncio.sleep(chance.choice([0, 0, 0.05]))
    await way()


task = asyncio.get_event_loop().create_task(attack())


def request(request):
    return None


def response(request, response):
    response.headers["X-Version"] = "{seed}"
"""


class Watched:
    """What becomes of a gateway's worker meanwhile: its number, its memory, and the page of metrics."""

    def __init__(self, parent: int, admin: int) -> None:
        self._parent = parent
        self._url = f"http://127.0.0.1:{admin}/metrics"
        self.pid = self._worker()
        self.most = 0  # kB of memory
        self.of_parent = 0
        self.page = 0  # bytes of the page, at most

    def _worker(self) -> int:
        """The one child of the gateway's that is a worker."""
        for pid in rig.children(self._parent):
            if b"gateway.process.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise RuntimeError("there is no worker")

    def look(self) -> None:
        """Note what is now."""
        self.most = max(self.most, resident(self.pid))
        self.of_parent = max(self.of_parent, resident(self._parent))
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            self.page = max(self.page, len(answer.read()))


def resident(pid: int) -> int:
    """Memory of a process in kB, without what workers share: that is there once, and bounded."""
    words = Path(f"/proc/{pid}/status").read_text()
    return sum(int(found) for found in re.findall(r"(?:RssAnon|RssFile):\s+(\d+)", words))


class Attack:
    """The filter, edited again and again, by a process of its own: who measures is not kept busy by it."""

    def __init__(self, gateway: Running, seed: int) -> None:
        self._gateway = gateway
        self._next = seed
        self.ways = 0
        self.looks: list[list[int]] = []  # worker, memory of the worker and of its parent in kB, bytes of the page

    @contextlib.asynccontextmanager
    async def __call__(self, *, harmless: bool = False) -> AsyncIterator[None]:
        """For as long as this lasts; or the same with one that does nothing, to compare with."""
        arguments = (self._gateway.folder, self._gateway.pid, self._gateway.admin, self._next, harmless)
        process, printed = await rig.beside("bench.fuzzing", *map(str, arguments))
        try:
            await printed.readline()  # it has begun
            yield
            process.terminate()
            ways, *look = json.loads(await printed.readline())
            if not harmless:
                self.ways += ways
                self._next += ways * STEP
                self.looks.append(look)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()


def main() -> None:
    """Until SIGTERM."""
    folder, parent, admin, seed, harmless = sys.argv[1:]
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    watched, ways = Watched(int(parent), int(admin)), 0
    gateway = Running(Path(folder), 0, 0)
    print("begun", flush=True)
    while not stop:
        gateway.write("probe.py", FUZZER.format(seed=int(seed) + ways * STEP, harmless=harmless))
        ways += 1
        time.sleep(EVERY)
        watched.look()
    print(json.dumps([ways, watched.pid, watched.most, watched.of_parent, watched.page]), flush=True)


def first_seed() -> int:
    """Of a run; said in its result, so that it can be run again."""
    return int(os.environ.get("FSM_SEED", "0")) or int.from_bytes(os.urandom(3), "big")


if __name__ == "__main__":
    main()
