"""The questions about filters in Python: what an edit costs others, and what a hostile one does to its neighbours.

python -m bench.filters [edits|hostile|fuzz|kinds …] [--quick] [--json FILE]

`fsm run` on a directory, as in `bench.changes`; a steady load on one route, every answer looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvloop
from rich.console import Console

from bench import rig
from bench.__main__ import as_json, table
from bench.changes import Client, Running, Tally, quantiles, route, running
from bench.fuzzing import Attack, Watched, first_seed
from bench.rig import Row
from controller.inspect.filter_benchmark import inline_cost, rule_cost
from gateway.snapshot import Persistence, Retry, Script, Target

RATE, CONNECTIONS = 1000, 16
FILTERED = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: filtered}
spec:
  parentRefs: [{name: gw}]
  hostnames: [filtered.bench.example]
  rules:
  - filters: [{type: ExtensionRef, extensionRef: {group: extension.gateway.flomesh.io, kind: Filter, name: probe}}]
    backendRefs: [{name: a, port: 80}]
"""
VERSIONED = """
VERSION = "{version}"
def response(request, response):
    response.headers["X-Version"] = VERSION
def test_version():
    assert VERSION
"""
DEEDS = {
    "endless loop": "while True: pass",
    "memory without end": "x = []\n        while True: x.append(bytearray(1 << 20))",
    "fork": "import os\n        while True: os.fork()",
    "os._exit": "import os; os._exit(1)",
    "exception": "raise RuntimeError",
    "blocking sleep": "import time; time.sleep(60)",
    "monkey-patching": "import asyncio, gateway.http.http1\n        gateway.http.http1.parse_request = asyncio.sleep = None",
}
HOSTILE = """
def request(request):
    if request.path == "/now":
        {deed}
"""


class Load:
    """Requests at a rate; how long each took."""

    def __init__(self, gateway: Running, host: str) -> None:
        self._gateway, self._host = gateway, host
        self.tally = Tally()
        self.times: list[float] = []
        self.stopped = False

    async def run(self, seconds: float) -> list[float]:
        """For so long; the times."""
        self.times = []
        await asyncio.gather(*(self._send(index, seconds) for index in range(CONNECTIONS)))
        return self.times

    async def _send(self, index: int, seconds: float) -> None:
        interval = CONNECTIONS / RATE
        client = await self._gateway.client()
        due = time.perf_counter() + interval * index / CONNECTIONS
        until = due + seconds
        while due < until and not self.stopped:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            began = time.perf_counter()
            try:
                async with asyncio.timeout(5):
                    status, _ = await client.get(self._host)
            except (ConnectionError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.tally.odd.append(repr(error))
                client.close()
                client = await self._gateway.client()
            else:
                self.tally.answers += 1
                if status != 200:
                    self.tally.odd.append(str(status))
            self.times.append(time.perf_counter() - began)
            due += interval
        client.close()


async def editing(count: int) -> Row:
    """A filter edited again and again, while its route is used."""
    async with running(1) as gateway:
        gateway.write("probe.py", VERSIONED.format(version="v0"))
        gateway.write("filtered.yaml", FILTERED)
        probe = await gateway.client()
        await _until(probe, "v0")
        load = Load(gateway, "filtered.bench.example")
        working = asyncio.create_task(load.run(10_000))
        times = []
        for number in range(1, count + 1):
            began = gateway.write("probe.py", VERSIONED.format(version=f"v{number}"))
            await _until(probe, f"v{number}")
            times.append(time.perf_counter() - began)
        load.stopped = True
        await working
        probe.close()
    p50, p99 = quantiles(times)
    odd = load.tally.odd
    return Row(
        f"a filter edited {count:,} times at {RATE:,} requests/s through it: save to first answer", "0 failed, p50 ≤ 50 ms",
        f"{len(odd)} of {load.tally.answers:,} failed; p50 {p50} ms, p99 {p99} ms", not odd and p50 <= 50,
        {"p50_ms": p50, "p99_ms": p99, "answers": load.tally.answers, "odd": odd[:10]},
    )  # fmt: skip


async def _until(client: Client, version: str) -> None:
    async with asyncio.timeout(10):
        while (await client.get("filtered.bench.example"))[1] != version:
            await asyncio.sleep(0.001)


async def beside(deed: str, source: str, seconds: float) -> Row:
    """A hostile filter on one route, a steady load on another; with and without in turns."""
    async with running(1) as gateway:
        gateway.write("route-0.yaml", route(0))
        gateway.write("probe.py", HOSTILE.format(deed=source))
        gateway.write("filtered.yaml", FILTERED)
        client = await gateway.client()
        async with asyncio.timeout(10):
            while (await client.get("filtered.bench.example"))[0] != 200:
                await asyncio.sleep(0.01)
        client.close()
        load = Load(gateway, "h0.bench.example")
        await load.run(0.5)
        calm: list[float] = []
        troubled: list[float] = []
        met = 0
        for _ in range(3):
            calm += await load.run(seconds / 3)
            async with _provoked(gateway.port) as answered:
                troubled += await load.run(seconds / 3)
            met += answered[0]
    before, after = quantiles(calm)[1], quantiles(troubled)[1]
    odd = load.tally.odd
    return Row(
        f"{deed} in a filter beside {RATE:,} requests/s: p99 of the others", "none lost, ≤ 2 ×",
        f"{len(odd)} of {load.tally.answers:,} lost; {before} → {after} ms ({after / before:.2f} ×), {met} met it",
        not odd and after <= 2 * before and met > 0, {"calm_ms": before, "troubled_ms": after, "odd": odd[:10], "met": met},
    )  # fmt: skip


@contextlib.asynccontextmanager
async def _provoked(port: int) -> AsyncIterator[list[int]]:
    """A process of its own asks for the deed, so that who measures is not kept busy by it; how often it was answered.

    Once at a time, some 180 times a second: what many more requests through a process cost their neighbours on two cores
    is felt as well where the filter does nothing, and is another question.
    """
    answered: list[int] = []
    process, printed = await rig.beside("bench.filters", "--provoke", str(port))
    try:
        await printed.readline()  # it has begun
        yield answered
        process.terminate()
        answered.append(int(await printed.readline()))
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()


async def _provoke_here(port: int) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("begun", flush=True)
    print(await _ask_for_it(port, stop), flush=True)


async def _ask_for_it(port: int, stop: asyncio.Event) -> int:
    """Ask for the deed again and again; how often that was answered."""
    met = 0

    async def connected() -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", port))

    client = await connected()
    while not stop.is_set():
        try:
            async with asyncio.timeout(5):
                await client.get("filtered.bench.example", "/now")
            met += 1
        except (Exception, SystemExit):  # also for an answer that is none
            client.close()
            client = await connected()
        await asyncio.sleep(0.005)
    client.close()
    return met


async def edits(quick: bool) -> list[Row]:
    """A filter edited again and again, while its route is used."""
    return [await editing(100 if quick else 1000)]


async def hostile(quick: bool) -> list[Row]:
    """What each deed does to the route beside."""
    return [await beside(deed, source, 3 if quick else 15) for deed, source in DEEDS.items()]


async def fuzz(quick: bool) -> list[Row]:
    """A filter that attacks its worker in every way that it can, another one each moment, for ten minutes.

    It is compared with a filter that does nothing, edited and asked for as often: what that costs is another question.
    """
    seconds, seed = (24.0 if quick else 600.0), first_seed()
    async with running(1) as gateway:
        gateway.write("route-0.yaml", route(0))
        gateway.write("probe.py", HOSTILE.format(deed="pass"))
        gateway.write("filtered.yaml", FILTERED)
        await asyncio.sleep(2)
        load, attack = Load(gateway, "h0.bench.example"), Attack(gateway, seed)
        await load.run(3)
        quiet = Watched(gateway.pid, gateway.admin)
        quiet.look()
        calm: list[float] = []
        troubled: list[float] = []
        for _ in range(max(int(seconds / 20), 2)):
            async with _provoked(gateway.port), attack(harmless=True):
                calm += await load.run(5)
            async with _provoked(gateway.port), attack():
                troubled += await load.run(min(20.0, seconds / 2))
        gateway.write("probe.py", HOSTILE.format(deed="pass"))
        await asyncio.sleep(5)
        after = Watched(gateway.pid, gateway.admin)
        after.look()
    workers, memory, of_parent, page = ([*column] for column in zip(*attack.looks, strict=True))
    alive = {*workers, after.pid} == {quiet.pid}
    (calm_50, calm_99), (troubled_50, troubled_99) = quantiles(calm), quantiles(troubled)
    grown, longer = (max(memory) - quiet.most) / 1024, (max(page) - quiet.page) / 1024
    odd = load.tally.odd
    good = not odd and alive and troubled_99 <= 2 * calm_99 and grown <= 16 and longer <= 64
    return [
        Row(
            f"a filter that attacks its worker in {attack.ways:,} ways for {seconds:g} s, beside {RATE:,} requests/s of another route",
            "worker alive, none lost, p99 ≤ 2 ×, ≤ +16 MB, /metrics ≤ +64 KB",
            f"{'alive' if alive else 'DEAD'}, {len(odd)} of {load.tally.answers:,} lost; p50 {calm_50} → {troubled_50} ms, p99 {calm_99} → "
            f"{troubled_99} ms ({troubled_99 / calm_99:.2f} ×); {quiet.most / 1024:.0f} MB, at most {grown:+.1f}, afterwards "
            f"{(after.most - quiet.most) / 1024:+.1f}; parent {(max(of_parent) - quiet.of_parent) / 1024:+.1f} MB; /metrics {longer:+.1f} KB",
            good, {"seed": seed, "odd": odd[:10], "calm": [calm_50, calm_99], "troubled": [troubled_50, troubled_99], "grown_mb": grown},
        )
    ]  # fmt: skip


# What each kind is configured with, so that it lets every request pass.
PASSING: dict[str, dict[str, object]] = {
    "FaultInjection": {"abort": {"percentage": 0}},
    "RateLimit": {"requests": 1_000_000, "interval": "1s", "burst": 1_000_000},
    "CircuitBreaker": {},
    "IPRestriction": {"forbidden": ["203.0.113.0/24"]},
    "ConcurrencyLimit": {"maxConnections": 1_000_000},
    "HTTPLog": {"target": "http://127.0.0.1:1/", "batch": {"interval": "1h"}, "bufferLimit": 1 << 30},
    "Metrics": {},
    "Zipkin": {},
    "ProxyTag": {},
    "ByteRate": {"bps": 10**12},
}
# What policies of Services come to, on rules of their own.
SAID: dict[str, tuple[Target, dict[str, object]]] = {
    "RetryPolicy": (Target(1, "b"), {"retry": Retry((503,), 2, 0.01)}),
    "SessionStickyPolicy": (Target(1, "b"), {"persistence": Persistence("", "s", "/", 3600.0, True)}),
    "BackendLBPolicy with a header": (Target(1, "b"), {"persistence": Persistence("x-session")}),
    "LoadBalancerPolicy, hashing": (Target(1, "b", hashed=True), {}),
}


async def kinds(quick: bool) -> list[Row]:
    """What each kind of filter that comes with the gateway adds to a request that it lets pass, and what policies of Services add."""
    rows = []
    for kind, spec in PASSING.items():
        script = Script(kind, "", json.dumps(spec), "inline", built_in=kind, seconds=60.0, passes=True)
        found = await inline_cost(script)
        rows.append(Row(f"{kind}: CPU of a request that it lets pass", "—", f"{found:+.1f} µs", True, {"us": found}))
    for kind, (target, rule) in SAID.items():
        found = await rule_cost(target, **rule)
        rows.append(Row(f"{kind}: CPU of a request", "—", f"{found:+.1f} µs", True, {"us": found}))
    return rows


QUESTIONS: dict[str, Callable[[bool], Awaitable[list[Row]]]] = {
    function.__name__: function for function in (edits, hostile, fuzz, kinds)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", choices=[*QUESTIONS, []], metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--quick", action="store_true", help="fewer of everything")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--provoke", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.provoke:
        uvloop.run(_provoke_here(arguments.provoke))
        return
    rows: list[Row] = []
    rig.measure_in_time()
    for name in arguments.questions or (name for name in QUESTIONS if name != "fuzz"):  # which takes a quarter of an hour
        rows += uvloop.run(QUESTIONS[name](arguments.quick))
    Console(width=None if os.isatty(1) else 170).print(table(rows, "filters"))
    rig.write(arguments.json, as_json(rows))
    if any(row.details.get("odd") for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
