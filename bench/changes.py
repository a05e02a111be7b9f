"""Route changes under load, standalone: from the rename of a file to the change being in force; failed requests.

python -m bench.changes [--changes 500] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path

import uvloop

from bench import rig
from controller.demo.canary import Events, started
from controller.demo.load import Tally


async def run(changes: int, output: Path | None) -> None:
    async with started(rate=1000, port_offset=0) as canary:
        path = canary.folder / "httproute.yaml"
        text = path.read_text()
        times: list[float] = []
        async with Events(canary.admin) as events:
            sending = asyncio.create_task(canary.load.run())
            await asyncio.sleep(0.5)
            for number in range(changes):
                weight = number % 100
                fresh = path.with_name(".new")
                fresh.write_text(
                    text.replace("weight: 100", f"weight: {100 - weight}").replace("weight: 0\n", f"weight: {weight}\n")
                )
                renamed = time.time()
                fresh.replace(path)
                if number:  # the first writes what stands
                    times.append(await events.next() - renamed)
                await asyncio.sleep(0.01)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        total: Tally = canary.load.total
    quantiles = statistics.quantiles(times, n=100)
    summary = {
        "changes": len(times),
        "requests": total.requests,
        "failed": len(total.failures),
        "propagation_ms": {
            "p50": round(1000 * quantiles[49], 2),
            "p99": round(1000 * quantiles[98], 2),
            "max": round(1000 * max(times), 2),
        },
    }
    rig.write(output, summary)
    found = summary["propagation_ms"]
    print(
        f"{len(times)} changes under {total.requests / (time.monotonic() - total.began):.0f} requests/s: in force after "
        f"p50 {found['p50']} ms, p99 {found['p99']} ms, at most {found['max']} ms; {len(total.failures)} failed requests"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    uvloop.run(run(arguments.changes, arguments.json))


if __name__ == "__main__":
    main()
