"""Small requests, HTTP/1.1, one worker, 64 connections: ours against nginx in the same run.

python -m bench.plain [--rounds 7] [--seconds 2] [--json FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench import rig


async def run(rounds: int, seconds: float, output: Path | None) -> None:
    rig.need("nginx", "wrk", "taskset")
    comparison = rig.Comparison("nginx")
    with rig.nginx() as (nginx_pid, _):
        async with rig.ours() as workers:
            our_pid = workers.pids()[0]
            idle = rig.resident(our_pid)
            for index in range(rounds):
                # The order is reversed each round, so that a slow moment of the machine hits both alike.
                sides = [(rig.OUR_PORT, our_pid, comparison.us), (rig.NGINX_PORT, nginx_pid, comparison.peer)]
                for port, pid, into in sides if index % 2 else reversed(sides):
                    into.append(await rig.wrk(port, pid, seconds=seconds, seed=index))
            loaded = rig.resident(our_pid)
    summary = comparison.summary() | {"resident_mb": {"idle": round(idle / 1e6, 1), "after_load": round(loaded / 1e6, 1)}}
    rig.write(output, summary)
    table = Table("", "requests/s", "µs user", "µs system", "errors", title=f"{rounds} interleaved rounds of {seconds:g} s")
    for who, name in (("ours", "fsm"), ("peer", "nginx")):
        user, system = summary["cpu_us_per_request"][who]
        table.add_row(name, f"{summary['requests_per_second'][who]:,}", f"{user}", f"{system}", str(summary["errors"][who]))
    console = Console()
    console.print(table)
    for key, words in (("rate_ratio", "requests/s"), ("cpu_ratio", "CPU per request")):
        ratio = summary[key]
        console.print(f"{words}: {ratio['median']} × nginx [{ratio['min']} … {ratio['max']}]")
    console.print(f"worker: {idle / 1e6:.1f} MB idle, {loaded / 1e6:.1f} MB after the load")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    uvloop.run(run(arguments.rounds, arguments.seconds, arguments.json))


if __name__ == "__main__":
    main()
