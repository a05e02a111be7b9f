"""The questions about changes: how soon one is in force, what it costs, and whether any request notices.

python -m bench.changes [QUESTION …] [--quick] [--json FILE]

Everything runs as users run it: `fsm run` on a directory, files renamed into place, requests through sockets. What a
change has done is seen in answers, not taken from the gateway's word.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from rich.console import Console

from bench import rig
from bench.__main__ import as_json, table
from bench.rig import Row
from controller.demo.canary import python, wait_until_answers
from controller.ports import free_ports
from gateway.process.supervisor import Workers
from gateway.snapshot import Change, Match, PathMatch, Rule

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: fsm-gateway-cls, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: 80}}]}}
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{endpoints}]
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: gw}}]
  hostnames: ["{host}"]
  rules:
  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: X-Version, value: "{version}"}}]}}}}]
    backendRefs: [{{name: {backend}, port: 80}}]
  - matches: [{{path: {{type: PathPrefix, value: /missing}}}}]
    backendRefs: [{{name: {second}, port: 80}}]
"""


def route(number: int, *, version: object = 0, backend: str = "a", second: str = "b") -> str:
    """One route of its own hostname, with two rules."""
    return ROUTE.format(name=f"r{number}", host=f"h{number}.bench.example", version=version, backend=backend, second=second)


@dataclass
class Running:
    """`fsm run` on a directory."""

    folder: Path
    port: int
    backend: int
    pid: int = 0
    started: float = 0.0  # seconds until it was ready
    admin: int = 0  # the port

    def write(self, name: str, text: str) -> float:
        """Put a file into place as a careful editor does; when that was done."""
        fresh = self.folder / f".{name}.new"
        fresh.write_text(text)
        now = time.perf_counter()
        fresh.rename(self.folder / name)
        return now

    async def client(self) -> Client:
        """A connection to it."""
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))


class Client:
    """One kept connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def get(self, host: str, path: str = "/") -> tuple[int, str]:
        """The status and X-Version."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = int(rig.found(r"(?i)content-length: (\d+)", head))
        await self._reader.readexactly(length)
        version = head.partition("X-Version: ")[2].partition("\r\n")[0]
        return int(head[9:12]), version

    def close(self) -> None:
        self._writer.close()


@contextlib.asynccontextmanager
async def running(routes: int) -> AsyncIterator[Running]:
    """A gateway with this many routes to a backend on several addresses; everything is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fsm-bench-"))
    backend = await asyncio.start_server(_answer, "127.0.0.1", 0)
    backend_port = backend.sockets[0].getsockname()[1]
    others = [await asyncio.start_server(_answer, address, backend_port) for address in ("127.0.0.2", "127.0.0.3")]
    ports = free_ports(2)
    made = Running(folder, ports[0], backend_port, admin=ports[1])
    made.write("gateway.yaml", GATEWAY + "".join(SERVICE.format(name=name) for name in ("a", "b")))
    for name in ("a", "b"):
        made.write(f"slice-{name}.yaml", slice_of(name, backend_port, "127.0.0.1", "127.0.0.2"))
    for number in range(routes):
        made.write(f"route-{number}.yaml", route(number))
    began = time.perf_counter()
    child = await python(
        "controller",
        "run",
        str(folder),
        "--port-offset",
        str(ports[0] - 80),
        "--workers",
        "1",
        "--admin",
        f"127.0.0.1:{ports[1]}",
    )
    try:
        await wait_until_answers([child], [(ports[1], "/readyz")])
        made.started = time.perf_counter() - began
        made.pid = child.pid
        yield made
    finally:
        child.terminate()
        await child.wait()
        for server in (backend, *others):
            server.close()
        shutil.rmtree(folder, ignore_errors=True)


def slice_of(name: str, port: int, *addresses: str) -> str:
    return SLICE.format(name=name, port=port, endpoints=", ".join(f"{{addresses: [{address}]}}" for address in addresses))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    writer.close()


def quantiles(times: list[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    found = statistics.quantiles(times, n=100, method="inclusive")
    return round(found[49] * 1000, 2), round(found[98] * 1000, 2)


# --- the questions ---


async def edit(quick: bool) -> list[Row]:
    """One route changed, with few and many others present: from the rename to the first answer that shows it."""
    rows = []
    medians = {}
    for present in (10, 1000) if quick else (10, 1000, 5000):
        async with running(present) as gateway:
            client = await gateway.client()
            times = []
            for version in range(1, (60 if quick else 300) + 1):
                began = gateway.write("route-5.yaml", route(5, version=version))
                while (await client.get("h5.bench.example"))[1] != str(version):
                    pass
                times.append(time.perf_counter() - began)
                await asyncio.sleep(0.005)  # changes one by one
            client.close()
        p50, p99 = quantiles(times)
        medians[present] = p50
        rows.append(
            Row(
                f"one route changed among {present:,}: rename to first answer", "p50 ≤ 10 ms, p99 ≤ 30 ms", f"p50 {p50} ms, p99 {p99} ms",
                p50 <= 10 and p99 <= 30, {"p50_ms": p50, "p99_ms": p99, "changes": len(times), "loaded_s": round(gateway.started, 2)},
            )
        )  # fmt: skip
    flat = max(medians.values()) / min(medians.values())
    rows.append(Row("the same, most over least p50", "≤ 1.5 ×", f"{flat:.2f} ×", flat <= 1.5, {"p50_ms": medians}))
    return rows


def as_documents(routes: list[str]) -> str:
    return "---".join(routes)


def as_list(routes: list[str]) -> str:
    """As `kubectl get -o yaml` writes them."""
    items = "".join("- " + textwrap.indent(one.strip(), "  ").lstrip() + "\n" for one in routes)
    return f"apiVersion: v1\nitems:\n{items}kind: List\nmetadata:\n  resourceVersion: ''\n"


async def together(quick: bool) -> list[Row]:
    """One route changed in a file that has all of them: what is written as it was is not read again."""
    count, rows = 1000, []
    for name, written in (("one document of a file with", as_documents), ("one item of a List of", as_list)):
        async with running(0) as gateway:
            client = await gateway.client()
            routes = [route(number) for number in range(count)]
            gateway.write("routes.yaml", written(routes))
            while (await client.get(f"h{count - 1}.bench.example"))[0] != 200:
                await asyncio.sleep(0.05)
            times = []
            for version in range(1, (20 if quick else 100) + 1):
                routes[5] = route(5, version=version)
                began = gateway.write("routes.yaml", written(routes))
                while (await client.get("h5.bench.example"))[1] != str(version):
                    pass
                times.append(time.perf_counter() - began)
                await asyncio.sleep(0.005)
            client.close()
        p50, p99 = quantiles(times)
        question = f"{name} {count:,} routes changed: rename to first answer"
        rows.append(
            Row(
                question,
                "p50 ≤ 50 ms, p99 ≤ 100 ms",
                f"p50 {p50} ms, p99 {p99} ms",
                p50 <= 50 and p99 <= 100,
                {"p50_ms": p50, "p99_ms": p99},
            )
        )
    return rows


async def add(quick: bool) -> list[Row]:
    """Routes added one by one, each polled from its creation on: first 404, then 200, and nothing else ever."""
    count = 200 if quick else 3000
    odd: list[int] = []
    times = []
    async with running(0) as gateway:
        client = await gateway.client()
        for number in range(count):
            began = gateway.write(f"route-{number}.yaml", route(number, second="nowhere"))
            while (status := (await client.get(f"h{number}.bench.example"))[0]) != 200:
                if status != 404:
                    odd.append(status)
                if time.perf_counter() - began > 5:
                    raise SystemExit(f"route {number} is not there after 5 s")
            times.append(time.perf_counter() - began)
            if (await client.get(f"h{number}.bench.example", "/missing"))[0] != 500:
                odd.append(-1)
        client.close()
    p50, p99 = quantiles(times)
    found = f"{len(odd)} other answers; p50 {p50} ms, p99 {p99} ms"
    details = {"odd": odd[:10], "p50_ms": p50, "p99_ms": p99}
    return [
        Row(
            f"{count:,} routes added one by one, polled from creation",
            "only 404 then 200; p99 ≤ 50 ms",
            found,
            not odd and p99 <= 50,
            details,
        )
    ]


@dataclass
class Tally:
    """Answers to clients that never pause."""

    answers: int = 0
    odd: list[str] = field(default_factory=list)


async def _hammer(gateway: Running, tally: Tally, stop: asyncio.Event) -> None:
    client = await gateway.client()
    while not stop.is_set():
        try:
            status, _ = await client.get("h0.bench.example")
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            tally.odd.append(repr(error))
            client = await gateway.client()
            continue
        tally.answers += 1
        if status != 200:
            tally.odd.append(str(status))
    client.close()


async def rewriting(count: int, *, churn: bool) -> Row:
    """One route rewritten every 20 ms, backend and filters alternating, under 64 clients that never pause."""
    tally, stop = Tally(), asyncio.Event()
    async with running(10) as gateway:
        hammers = [asyncio.create_task(_hammer(gateway, tally, stop)) for _ in range(64)]
        sets = [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.3"), ("127.0.0.3",), ("127.0.0.1", "127.0.0.3")]
        loop = asyncio.get_running_loop()
        due = loop.time()
        for number in range(count):
            gateway.write("route-0.yaml", route(0, version=number, backend="ab"[number % 2], second="ba"[number % 2]))
            if churn:
                name = "ab"[number // 2 % 2]
                gateway.write(f"slice-{name}.yaml", slice_of(name, gateway.backend, *sets[number % len(sets)]))
            due += 0.02
            await asyncio.sleep(max(due - loop.time(), 0))
        client = await gateway.client()
        async with asyncio.timeout(5):  # the last change arrives too
            while (await client.get("h0.bench.example"))[1] != str(count - 1):
                await asyncio.sleep(0.001)
        client.close()
        stop.set()
        await asyncio.gather(*hammers)
    beside = " with endpoints churning at 50 a second" if churn else ""
    found = f"{len(tally.odd)} of {tally.answers:,} answers were not 200"
    return Row(
        f"one route rewritten every 20 ms{beside}, {count:,} changes, 64 clients", "0 non-200", found, not tally.odd,
        {"answers": tally.answers, "odd": tally.odd[:10]},
    )  # fmt: skip


async def rewrite(quick: bool) -> list[Row]:
    """One route rewritten every 20 ms, backend and filters alternating, under clients that never pause."""
    return [await rewriting(500 if quick else 10_000, churn=False)]


async def churn(quick: bool) -> list[Row]:
    """The same with endpoints coming and going beside it."""
    return [await rewriting(500 if quick else 10_000, churn=True)]


def snapshot_of(count: int) -> tuple[rig.Part, ...]:
    """Routes of two rules, each of its own hostname."""
    rules: list[Rule] = []
    for number in range(count):
        host = f"h{number}.bench.example"
        rules.append(rig.rule(f"default/r{number}/0", host))
        rules.append(rig.rule(f"default/r{number}/1", host, matches=(Match(PathMatch("PathPrefix", "/missing")),)))
    return rig.parts(*rules, rig.rule())


async def load(quick: bool) -> list[Row]:
    """5,000 routes at once into a worker that serves: time until the swap, and how long any request waited meanwhile."""
    count = 1000 if quick else 5000
    waits: list[float] = []
    with rig.Rig():
        async with _workers() as workers:
            await workers.apply(Change("0", rig.parts()))
            port = rig.PORTS["fsm"]
            asking = asyncio.Event()
            probe = asyncio.create_task(_probe(port, waits, asking))
            await asking.wait()
            big = Change("1", snapshot_of(count))
            began = time.perf_counter()
            await workers.apply(big)
            took = time.perf_counter() - began
            await asyncio.sleep(0.1)
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)
    worst = max(waits) * 1000
    return [
        Row(f"{count:,} routes of 2 rules at once: until the swap", "≤ 1 s", f"{took * 1000:.0f} ms", took <= 1, {"s": round(took, 3)}),
        Row("the same: longest wait of a request meanwhile", "≤ 20 ms", f"{worst:.1f} ms", worst <= 20, {"ms": round(worst, 2), "probes": len(waits)}),
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def _workers() -> AsyncIterator[Workers]:
    workers = Workers(1, bind="127.0.0.1", port_offset=rig.PORTS["fsm"] - 80)
    await workers.start()
    try:
        yield workers
    finally:
        await workers.stop(grace=1)


async def _probe(port: int, waits: list[float], asking: asyncio.Event) -> None:
    """A process of its own asks every 2 ms; how long each answer took. `asking` once it has begun."""
    process, printed = await rig.beside("bench.changes", "--probe", str(port))
    try:
        async for line in printed:
            waits.append(float(line))
            asking.set()
    finally:
        process.kill()
        await process.wait()


async def _probe_here(port: int) -> None:
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    while True:
        began = time.perf_counter()
        await client.get(rig.HOST)
        print(time.perf_counter() - began, flush=True)
        await asyncio.sleep(0.002)


async def memory(quick: bool) -> list[Row]:
    """Memory for each route (two rules): in a worker, and in the control plane; and what 100 full reloads leave behind."""
    count, reloads = (1000, 20) if quick else (5000, 100)
    parts = snapshot_of(count)
    async with _workers() as workers:
        pid = workers.pids()[0]
        await workers.apply(Change("0", rig.parts()))
        before = rig.resident(pid)
        await workers.apply(Change("1", parts))
        await asyncio.sleep(0.2)
        each = (rig.resident(pid) - before) / count / 1024
        await _reload(workers, parts, reloads // 2)  # until memory that was freed in between is used again
        settled = rig.resident(pid)
        await _reload(workers, parts, reloads)
        leaked = (rig.resident(pid) - settled) / 1e6
    control = await _control_plane_memory(count)
    return [
        Row("memory of a route of 2 rules in a worker", "≤ 4 KB", f"{each:.2f} KB", each <= 4, {"kb": round(each, 2)}),
        Row(f"growth of the worker over {reloads} full reloads", "none (≤ 2 MB)", f"{leaked:.1f} MB", leaked <= 2, {"mb": round(leaked, 2)}),
        Row("memory of a route of 2 rules in the control plane", "≤ 12 KB", f"{control:.2f} KB", control <= 12, {"kb": round(control, 2)}),
    ]  # fmt: skip


async def _reload(workers: Workers, parts: tuple[rig.Part, ...], times: int) -> None:
    for number in range(times):
        # Every rule differs from the one before, so that all is built anew.
        other = tuple(
            rig.rule(part.name, part.at[0].hostname, matches=(Match(PathMatch("PathPrefix", f"/v{number % 2}")),))
            if isinstance(part, Rule)
            else part
            for part in parts
        )
        await workers.apply(Change(f"reload-{number}", other, reset=True))


async def _control_plane_memory(count: int) -> float:
    output = await rig.run(sys.executable, "-m", "bench.changes", "--control-plane", str(count), at_most=120)
    return float(output)


def _control_plane_here(count: int) -> float:
    import yaml

    from controller.delivery.reconcile import Publication
    from controller.files.validate import Valid, validate
    from controller.objects.documents import Document
    from controller.state.world import World
    from controller.translate import Translator

    def put(world: World, text: str) -> None:
        for value in yaml.safe_load_all(text):
            result = validate(Document("", value))
            assert isinstance(result, Valid), result
            world.put(result.object)

    world = World()
    put(world, GATEWAY + "".join(SERVICE.format(name=name) for name in ("a", "b")))
    put(world, "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: fsm-gateway-cls}\n"
        "spec: {controllerName: flomesh.io/gateway-controller}")  # fmt: skip
    translator, publication = Translator(world), Publication()

    def bring_forward() -> None:
        for changes in translator.update().parts.values():
            publication.advance(changes)

    put(world, route(0))
    bring_forward()
    before = rig.resident(os.getpid())
    for number in range(1, count + 1):
        put(world, route(number))
    bring_forward()
    return (rig.resident(os.getpid()) - before) / count / 1024


QUESTIONS: dict[str, Callable[[bool], Awaitable[list[Row]]]] = {
    function.__name__: function for function in (edit, together, add, rewrite, churn, load, memory)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", choices=[*QUESTIONS, []], metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--quick", action="store_true", help="fewer of everything: a minute in place of ten")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--probe", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--control-plane", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        uvloop.run(_probe_here(arguments.probe))
    if arguments.control_plane:
        print(_control_plane_here(arguments.control_plane))
        return
    console = Console(width=None if os.isatty(1) else 150)
    rows: list[Row] = []
    for name in arguments.questions or QUESTIONS:
        with console.status(name):
            found = uvloop.run(QUESTIONS[name](arguments.quick))
        for row in found:
            console.print(f"{row.question}: {row.found} ({row.bar})", highlight=False)
        rows += found
    console.print(table(rows, "changes"))
    rig.write(arguments.json, as_json(rows))
    if any("non-200" in row.bar and not row.reached for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
