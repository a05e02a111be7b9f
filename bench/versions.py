"""Two versions of the gateway side by side under the same load: what a change costs, or saves, a request.

python -m bench.versions REVISION [QUESTION …] [--rounds 15] [--seconds 1] [--json FILE]

REVISION, from git, is the version before; what stands in this checkout is the one after. Both run at the same time, one
worker each on core 0, and are asked in turn. Two runs of `make bench`, one a version, can't tell 15 % from a machine
that others share: the order of rounds is reversed each time, and the median of the pairs counts, not one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console

from bench import rig
from bench.__main__ import as_json, table
from bench.rig import HERE, PORTS, Rig, Row, Run, Side, interleave, ratio, wrk

Load = Callable[[Side, int, float], Awaitable[Run]]

# Run in either version, with what that version's own harness calls its parts: names here must be those of both.
SERVE = """
import asyncio, sys
from pathlib import Path
from bench import rig
from gateway.snapshot import *

async def serve(port, folder, hard):
    chain, key = (Path(folder, name).read_text() for name in ("cert.pem", "key.pem"))
    rules = [rig.rule(f"default/h{n}/0", f"h{n}.bench.example") for n in range(2000 if hard else 0)]
    both = Rule("default/demo/0", Order(), (Attachment("l", ""), Attachment("t", "")), targets=(Target(1, "b"),))
    parts = (
        *rig.parts(*rules, both), Certificate("c", chain, key), Listener("t", 81, "HTTPS", "", ("c",)),
        Listener("s", 82, "TCP"), Relay("s", Order(), (Attachment("s"),), (Target(1, "s"),)),
        Backend("s", (Endpoint("127.0.0.1", rig.PORTS["backend"]),), "tcp"),
    )
    async with rig.ours(parts, port=port) as side:
        print(side.pid, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3] == "hard"))
"""


@dataclass(frozen=True)
class Question:
    """What is asked: `offset` is the listener (0 in the clear, 1 TLS, 2 TCP) after the version's first port."""

    words: str
    offset: int
    load: Load


def _paced(scheme: str, *arguments: str, each: int) -> Load:
    return lambda side, _, seconds: rig.paced(side, scheme, *arguments, each=each, seconds=seconds)


def _wrk(*arguments: object, script: str, **options: int) -> Load:
    async def load(side: Side, index: int, seconds: float) -> Run:
        return await wrk(side, *(arguments or (index,)), script=script, seconds=seconds, **options)

    return load


QUESTIONS = {
    "small": Question("small requests, HTTP/1.1, 64 clients", 0, _wrk(script="clients.lua", threads=64)),
    "hard": Question("hard mix: nothing repeats", 0, _wrk(script="hard.lua")),
    "h2c": Question("HTTP/2 (h2c), 10 × 10 streams", 0, _paced("http", "-c", "10", "-m", "10", each=20_000)),
    "h2": Question("HTTP/2 over TLS, 10 × 10 streams", 1, _paced("https", "-c", "10", "-m", "10", each=20_000)),
    "tls": Question("HTTP/1.1 over TLS, 64 clients", 1, _paced("https", "--h1", "-c", "64", each=15_000)),
    "handshakes": Question("TLS handshakes, a request each", 1, lambda side, _, seconds: rig.handshakes(side, seconds)),
    "connections": Question(
        "a new connection for each request", 0, _wrk("GET", "/p/1", 0, "Accept: */*", "Connection: close", script="target.lua")
    ),
    "10k": Question("10 KB responses", 0, _wrk("GET", "/files/10k", script="target.lua")),
    "1m": Question("1 MB responses", 0, _wrk("GET", "/files/1m", script="target.lua", connections=16)),
    "uploads": Question("1 MB uploads", 0, _wrk("POST", "/upload", 1 << 20, script="target.lua", connections=16)),
    "tcp": Question("TCPRoute, 1 MB responses", 2, _wrk("GET", "/files/1m", script="target.lua", connections=16)),
}


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """The tree of a revision in a folder of its own, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="fsm-version-") as folder:
        tree = subprocess.run(["git", "archive", revision], cwd=HERE.parent, check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=tree, check=True)
        yield Path(folder)


@contextlib.asynccontextmanager
async def serving(name: str, tree: Path, port: int, rig_: Rig, kind: str) -> AsyncIterator[Side]:
    """One worker of the version in `tree`; this process's own libraries serve both."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(port), str(rig_.folder), kind, cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pid = await process.stdout.readline()
        if not pid:
            raise SystemExit(f"the version {name} did not start")
        yield Side(name, port, int(pid))
    finally:
        process.stdin.close()
        await process.wait()


async def compared(asked: str, before: Path, rounds: int, seconds: float) -> Row:
    """One question to both versions, and what a request costs before over what it costs after: more than 1 is a gain."""
    question = QUESTIONS[asked]
    ports = {"before": PORTS["fsm"], "after": PORTS["fsm"] + 100}
    with Rig() as r:
        async with contextlib.AsyncExitStack() as stack:
            sides = []
            for name, tree in (("before", before), ("after", HERE.parent)):
                side = await stack.enter_async_context(serving(name, tree, ports[name], r, asked))
                sides.append(Side(name, side.port + question.offset, side.pid))
            runs = await interleave(sides, rounds, lambda side, index: question.load(side, index, seconds))
    cpu = ratio([run.cpu for run in runs["before"]], [run.cpu for run in runs["after"]])
    rate = ratio([run.rate for run in runs["after"]], [run.rate for run in runs["before"]])
    medians = " → ".join(f"{rig.median(runs[name], 'cpu'):.1f}" for name in ports)
    words = f"CPU {cpu} ({medians} µs), requests/s {rate}"
    failed = sum(run.errors for of in runs.values() for run in of)
    if failed:
        words += f"; {failed} failed"
    details = {"cpu": cpu.__dict__, "rate": rate.__dict__, "runs": rig.figures(runs)}
    return Row(question.words, "≥ 0.97 × before", words, cpu.median >= 0.97 and not failed, details)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="the version before, as git names it")
    parser.add_argument("questions", nargs="*", choices=[*QUESTIONS, []], metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=1, help="whole ones: wrk takes no others")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rig.need("nginx", "wrk", "h2load", "taskset")
    console = Console(width=None if os.isatty(1) else 150)
    rows: list[Row] = []
    with checked_out(arguments.revision) as before:
        for asked in arguments.questions or QUESTIONS:
            with console.status(asked):
                rows.append(uvloop.run(compared(asked, before, arguments.rounds, arguments.seconds)))
            console.print(f"{rows[-1].question}: {rows[-1].found}", highlight=False)
    console.print(
        table(rows, f"{arguments.revision} and this checkout, {arguments.rounds} rounds of {arguments.seconds:g} s each")
    )
    rig.write(arguments.json, as_json(rows))


if __name__ == "__main__":
    main()
