"""The canary itself: files, a gateway on them, apps, load, and the steps; what it learns goes to whoever watches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from statistics import quantiles
from typing import Any

import aiohttp
import msgspec

from controller.demo.load import DemoLoad, DemoTally
from controller.ports import free_ports

HOST = "demo.example.com"
STABLE, CANARY = "1.0", "2.0"
STEPS = (0, 30, 60, 100)  # percent of the canary
TOLERANCE = 1.0  # percentage points


@dataclass
class Step:
    """One weight: what was asked for, and what was seen."""

    desired: int
    tally: DemoTally | None = None
    propagation_ms: float | None = None

    @property
    def observed(self) -> float | None:
        """Percent of answers from the canary."""
        return self.tally.share(CANARY) if self.tally and self.tally.requests else None


@dataclass
class Canary:
    """State of the demo, for the table, the page and the summary."""

    port: int
    admin: str
    folder: Path
    load: DemoLoad
    steps: list[Step] = field(default_factory=lambda: [Step(desired) for desired in STEPS])
    current: int = 0
    on_change: Callable[[], None] = lambda: None

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return len(self.load.total.failures)

    def summary(self) -> dict[str, Any]:
        """What was asked for and what came of it."""
        times = [step.propagation_ms for step in self.steps if step.propagation_ms is not None]
        return {
            "steps": [
                {
                    "desired": step.desired,
                    "observed": round(step.observed, 2) if step.observed is not None else None,
                    "requests": step.tally.requests if step.tally else 0,
                    "propagation_ms": round(step.propagation_ms, 2) if step.propagation_ms is not None else None,
                }
                for step in self.steps
            ],
            "requests": self.load.total.requests,
            "failed": self.failed,
            "latency_ms": {
                "p50": round(self.load.total.quantile(0.5), 2),
                "p99": round(self.load.total.quantile(0.99), 2),
            },
            "propagation_ms": {"p50": round(_quantile(times, 50), 2), "p99": round(_quantile(times, 99), 2)},
        }

    def faults(self) -> list[str]:
        """Why the demo has failed; empty when it has not."""
        faults = [f"{self.failed} requests failed: {', '.join(sorted(set(self.load.total.failures)))}"] if self.failed else []
        for step in self.steps:
            if step.observed is None:
                faults.append(f"the step to {step.desired} % was not reached")
            elif abs(step.observed - step.desired) > (TOLERANCE if 0 < step.desired < 100 else 0):
                faults.append(f"{step.desired} % was asked for, {step.observed:.1f} % was seen")
        return faults

    async def run(self, pause: float) -> None:
        """All steps. The first weight stands already."""
        events = CanaryEvents(self.admin)
        async with events, asyncio.TaskGroup() as group:
            sending = group.create_task(self.load.run())
            for index, step in enumerate(self.steps):
                if index:
                    self.load.tally = DemoTally()  # of requests that are sent while the change takes effect: of neither step
                    step.propagation_ms = await self._move(step.desired, events)
                # Requests that were sent before the change count for the step before.
                step.tally = self.load.tally = DemoTally()
                self.current = index
                self.on_change()
                await asyncio.sleep(pause)
            sending.cancel()

    async def _move(self, weight: int, events: CanaryEvents) -> float:
        """Rewrite the route's file as a careful editor does, and wait until the gateway says it is in force."""
        path = self.folder / "httproute.yaml"
        text = path.read_text()
        before = self.steps[self.current].desired
        text = text.replace(f"weight: {100 - before}\n", f"weight: {100 - weight}\n", 1)
        head, _, tail = text.rpartition(f"weight: {before}")
        fresh = path.with_name(".httproute.yaml.new")
        fresh.write_text(f"{head}weight: {weight}{tail}")
        renamed = time.time()
        os.replace(fresh, path)
        async with asyncio.timeout(10):
            return (await events.next() - renamed) * 1000


def _quantile(values: list[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return quantiles(values, n=100, method="inclusive")[percent - 1]


class CanaryEvents:
    """The stream of changes in force, as the admin server tells it."""

    def __init__(self, admin: str) -> None:
        self._admin = admin
        self._stack = contextlib.AsyncExitStack()
        self._response: aiohttp.ClientResponse

    async def __aenter__(self) -> CanaryEvents:
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._stack as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
            self._response = await stack.enter_async_context(session.get(f"{self._admin}/events"))
            await self._response.content.readline()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._response.close()
        await self._stack.aclose()

    async def next(self) -> float:
        """When the next change came into force, in seconds since 1970."""
        while True:
            line = await self._response.content.readline()
            if line.startswith(b"data: "):
                return float(msgspec.json.decode(line[6:])["at"])


@contextlib.asynccontextmanager
async def started(*, rate: int, port_offset: int) -> AsyncIterator[Canary]:
    """Apps and gateway, running; everything is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fsm-demo-"))
    ports = free_ports(3)
    offset = port_offset or free_ports(1)[0] - 80
    children: list[asyncio.subprocess.Process] = []
    try:
        _write_files(folder, stable=ports[0], canary=ports[1])
        for version, colour, port in ((STABLE, "#44B3C2", ports[0]), (CANARY, "#F1A94E", ports[1])):
            children.append(await python("controller.demo.app", "--version", version, "--colour", colour, "--port", str(port)))
        admin = f"127.0.0.1:{ports[2]}"
        children.append(
            await python("controller", "run", str(folder), "--port-offset", str(offset), "--workers", "1", "--admin", admin)
        )
        await wait_until_answers(children, [(ports[0], "/callme"), (ports[1], "/callme"), (ports[2], "/readyz")])
        yield Canary(80 + offset, f"http://{admin}", folder, DemoLoad("127.0.0.1", 80 + offset, HOST, rate=rate))
    finally:
        for child in reversed(children):
            if child.returncode is None:
                child.terminate()
        await asyncio.gather(*(child.wait() for child in children))
        shutil.rmtree(folder, ignore_errors=True)


def _write_files(folder: Path, *, stable: int, canary: int) -> None:
    for name in ("gateway.yaml", "services.yaml", "httproute.yaml", "endpoints.yaml"):
        text = (files("controller") / "data" / "canary" / name).read_text()
        (folder / name).write_text(text.replace("port: 8081", f"port: {stable}").replace("port: 8082", f"port: {canary}"))


async def python(*arguments: str) -> asyncio.subprocess.Process:
    """A module of ours in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # A session of its own: a Ctrl-C in the terminal is for the demo, which ends its children in order.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, env=environment, start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


async def wait_until_answers(
    children: list[asyncio.subprocess.Process], pages: list[tuple[int, str]], *, at_most: float = 60.0
) -> None:
    """Until each page (port, path) answers 200. Raises RuntimeError when a child ends before that."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(at_most):
        for port, path in pages:
            while True:
                if any(child.returncode is not None for child in children):
                    raise RuntimeError("a part of the demo ended before it was ready")
                try:
                    async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)
