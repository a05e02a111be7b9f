"""Every example is served by `fsm run`, as its README says."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest

from controller.ports import free_ports

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()))
async def test_an_example_runs(name: str) -> None:
    first, admin = free_ports(2)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controller", "run", str(EXAMPLES / name), "--admin", f"127.0.0.1:{admin}", "--port-offset",
        str(first - 80), "--inline-filters", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{admin}/readyz") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientConnectionError:
                    pass
                assert process.returncode is None, await process.stderr.read()  # type: ignore[union-attr]
                await asyncio.sleep(0.05)
            async with session.get(f"http://127.0.0.1:{admin}/faults") as answer:
                faults = (
                    await answer.json()
                )  # that nobody stands behind a Service is said too: an example need not bring backends
                assert [fault for fault in faults if "has no endpoints" not in fault["message"]] == []
            async with session.get(f"http://127.0.0.1:{admin}/statistics") as answer:
                filters = [one for worker in await answer.json() for one in worker["filters"]]
            assert all(one[5] for one in filters), filters  # each runs somewhere
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
