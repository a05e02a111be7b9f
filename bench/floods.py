"""The questions about hostile clients: what each attack does to those who ask beside it, and to the worker's memory.

python -m bench.floods [ATTACK …] [--quick] [--json FILE]

`fsm run` with one worker, a steady load on one route, every answer looked at, and an attack (`bench.attacks`) from a process
of its own, in turns with quiet. One row is of honest clients: calls of gRPC, none of which may be cut.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median

import grpc
import trustme
import uvloop
from rich.console import Console

from bench import rig
from bench.__main__ import as_json, table
from bench.attacks import ATTACKED, ATTACKS, LARGE
from bench.changes import GATEWAY, SERVICE, Running, quantiles, route, running, slice_of
from bench.filters import Load
from bench.rig import Row

MOST_GROWTH = 64 << 20  # octets of the worker's memory
BACK = 0.2  # of its memory before, within which it is again
WITHIN = 60.0  # seconds later
CALLS = 100_000
ROUTES = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: attacked}}
spec:
  parentRefs: [{{name: gw}}]
  hostnames: [{attacked}]
  rules: [{{backendRefs: [{{name: short, port: 80}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: large}}
spec:
  parentRefs: [{{name: gw}}]
  hostnames: [{large}]
  rules: [{{backendRefs: [{{name: large, port: 80}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: calls}}
spec:
  parentRefs: [{{name: gw}}]
  hostnames: [calls.bench.example]
  rules: [{{backendRefs: [{{name: calls, port: 80}}]}}]
"""
SECRET = """
---
apiVersion: v1
kind: Secret
metadata: {{name: tls}}
type: kubernetes.io/tls
data: {{tls.crt: {certificate}, tls.key: {key}}}
"""


@contextlib.asynccontextmanager
async def attackable() -> AsyncIterator[tuple[Running, int, int]]:
    """A gateway with something to attack, its TLS port, and its worker's process."""
    backends, printed = await rig.beside("bench.attacked")
    try:
        short_port, large_port, calls_port = map(int, (await printed.readline()).split())
        async with running(1) as gateway:
            issued = trustme.CA().issue_cert(ATTACKED)
            secret = SECRET.format(
                certificate=base64.b64encode(issued.cert_chain_pems[0].bytes()).decode(),
                key=base64.b64encode(issued.private_key_pem.bytes()).decode(),
            )
            tls = "{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: tls}]}}"
            names = ("a", "b", "short", "large", "calls")
            gateway.write(
                "gateway.yaml",
                GATEWAY.replace("protocol: HTTP}", "protocol: HTTP}, " + tls)
                + "".join(SERVICE.format(name=n) for n in names)
                + secret,
            )
            gateway.write("slice-large.yaml", slice_of("large", large_port, "127.0.0.1"))
            gateway.write("slice-short.yaml", slice_of("short", short_port, "127.0.0.1"))
            gateway.write("slice-calls.yaml", slice_of("calls", calls_port, "127.0.0.1"))
            gateway.write("routes.yaml", ROUTES.format(attacked=ATTACKED, large=LARGE))
            gateway.write("route-0.yaml", route(0))
            tls_port = gateway.port - 80 + 443
            async with asyncio.timeout(20):
                for host in ("h0.bench.example", ATTACKED, LARGE):
                    await _until_200(gateway, host)
                while True:
                    try:
                        (await asyncio.open_connection("127.0.0.1", tls_port))[1].close()
                        break
                    except OSError:
                        await asyncio.sleep(0.05)
            (worker,) = [pid for pid in rig.children(gateway.pid) if b"gateway.process.worker" in _command(pid)]
            with _a_core_for(worker, gateway.pid, backends.pid):
                yield gateway, tls_port, worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            backends.terminate()
        await backends.wait()


@contextlib.contextmanager
def _a_core_for(worker: int, *others: int) -> Iterator[None]:
    """The worker has one, and everybody else the others: what a slice of the scheduler's is long (3 ms) is not measured."""
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        os.sched_setaffinity(worker, {min(cores)})
        os.sched_setaffinity(0, cores - {min(cores)})  # and whoever is started from here
        for process in others:
            for thread in os.listdir(f"/proc/{process}/task"):
                os.sched_setaffinity(int(thread), cores - {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


async def _until_200(gateway: Running, host: str) -> None:
    while True:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            client = await gateway.client()
            status, _ = await client.get(host)
            client.close()
            if status == 200:
                return
        await asyncio.sleep(0.05)


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


class Memory:
    """The worker's, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.most = 0

    async def watch(self) -> None:
        while True:
            self.most = max(self.most, rig.resident(self._pid))
            await asyncio.sleep(0.1)


async def beside(name: str, seconds: float) -> Row:
    """An attack on one route, a steady load on another, in turns with quiet; then the worker's memory, until it is back."""
    async with attackable() as (gateway, tls_port, worker):
        load = Load(gateway, "h0.bench.example")
        await load.run(1.0)
        before = rig.resident(worker)
        memory = Memory(worker)
        watching = asyncio.create_task(memory.watch())
        quiet: list[float] = []  # p99 of each round, in milliseconds
        attacked: list[float] = []
        octets = connections = 0
        for _ in range(3):
            quiet.append(quantiles(await load.run(seconds / 3))[1])
            process, printed = await rig.beside("bench.attacks", name, str(gateway.port), str(tls_port))
            await printed.readline()  # it has begun
            # The end of an attack, when all that it holds goes at once, is a part of it.
            asyncio.get_running_loop().call_later(seconds / 3 * 0.9, process.terminate)
            attacked.append(quantiles(await load.run(seconds / 3))[1])
            made, sent = map(int, (await printed.readline()).split())
            await process.wait()
            connections, octets = connections + made, octets + sent
        watching.cancel()
        until = time.perf_counter() + WITHIN
        while (after := rig.resident(worker)) > before * (1 + BACK) and time.perf_counter() < until:
            await asyncio.sleep(0.5)
        back = WITHIN - (until - time.perf_counter())
        is_same = worker in rig.children(gateway.pid)
    calm, troubled = median(quiet), median(attacked)  # of the rounds: a machine's own hiccups are no attack
    odd, grown = load.tally.odd, memory.most - before
    is_back = after <= before * (1 + BACK)
    return Row(
        name, "none lost, p99 ≤ 3 ×, ≤ +64 MB, back within a minute",
        f"{len(odd)} of {load.tally.answers:,} lost; p99 {calm} → {troubled} ms ({troubled / calm:.1f} ×); +{grown / 1e6:.0f} MB,"
        f" {'back' if is_back else 'not back'} after {back:.0f} s; {connections:,} connections, {octets / 1e6:.1f} MB sent",
        not odd and troubled <= 3 * calm and grown <= MOST_GROWTH and is_back and is_same,
        {
            "calm_ms": quiet, "troubled_ms": attacked, "odd": odd[:10], "before": before, "most": memory.most, "after": after,
            "back_seconds": back, "connections": connections, "octets": octets, "same_worker": is_same,
        },
    )  # fmt: skip


async def honest(calls: int) -> Row:
    """Small calls of gRPC on one connection, beside floods of PINGs and of resets."""
    async with attackable() as (gateway, tls_port, _):
        attackers = [
            await rig.beside("bench.attacks", name, str(gateway.port), str(tls_port)) for name in ("PING", "rapid reset")
        ]
        options = (
            ("grpc.default_authority", "calls.bench.example"), ("grpc.keepalive_time_ms", 1000),
            ("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0),
        )  # fmt: skip
        failed: list[str] = []
        began = time.perf_counter()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=options) as channel:
            call = channel.unary_unary("/bench.Calls/Echo", bytes, bytes)
            await call(b"first", wait_for_ready=True, timeout=10)
            left = iter(range(calls))

            async def some() -> None:
                for n in left:
                    try:
                        if n % 50 == 0:  # a caller that loses interest
                            asked = call(b"x" * 16)
                            await asyncio.sleep(0)
                            asked.cancel()
                        elif await call(b"x" * 16, timeout=20) != b"x" * 16:
                            failed.append("another answer")
                    except grpc.RpcError as error:
                        failed.append(f"{error.code()}: {error.details()}")

            await asyncio.gather(*(some() for _ in range(32)))
        took = time.perf_counter() - began
        for process, _ in attackers:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
    return Row(
        f"{calls:,} honest calls of gRPC on one connection, one in fifty cancelled, beside floods", "none cut",
        f"{len(failed)} failed in {took:.0f} s", not failed, {"failed": failed[:10], "seconds": took, "odd": failed[:10]},
    )  # fmt: skip


async def all_of(names: list[str], quick: bool) -> list[Row]:
    """A row for each attack, and one for honest clients."""
    console = Console(stderr=True)
    rows = []
    for name in names or [*ATTACKS, "honest"]:
        console.print(f"{name} …", style="dim")
        rows.append(
            await honest(CALLS // 20 if quick else CALLS) if name == "honest" else await beside(name, 3 if quick else 9)
        )
        console.print(f"  {rows[-1].found}", style="green" if rows[-1].reached else "red")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=", ".join([*ATTACKS, "honest"]))
    parser.add_argument("--quick", action="store_true", help="shorter")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.attacks) - {*ATTACKS, "honest"}:
        parser.error(f"no such attack: {', '.join(sorted(unknown))}")
    rows = uvloop.run(all_of(arguments.attacks, arguments.quick))
    Console(width=None if os.isatty(1) else 170).print(table(rows, "hostile clients"))
    rig.write(arguments.json, as_json(rows))
    if any(row.details.get("odd") or row.details.get("same_worker") is False for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
