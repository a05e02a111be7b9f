"""The stage of the end-to-end tests: the article's Gateway, Services and route, load on them, and what is seen."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time

import aiohttp
import pytest
from clusters import MANIFESTS, eventually, gateway_address, get, image, kubectl
from rollout import CANARY, Rollout

from controller.demo.load import DemoLoad, DemoTally
from controller.kubernetes.api import Api

RATE = 320
WINDOW = 4.0  # seconds of load at each weight


@pytest.fixture
async def stage(installed: None, api: Api):
    """Gateway, Services and route, as in the article, with the first version running."""
    rollout = Rollout(api, image())
    kubectl("apply", "-f", str(MANIFESTS / "gateway.yaml"))
    address = await gateway_address()
    await rollout.create("h1", "1.0", 2)
    kubectl("apply", "-f", str(MANIFESTS / "services.yaml"), "-f", str(MANIFESTS / "httproute.yaml"))
    await eventually(lambda: subprocess.run(curl(address), capture_output=True, text=True).stdout.count("ver: 1.0"))
    yield rollout, address
    kubectl("delete", "-f", str(MANIFESTS / "httproute.yaml"), "-f", str(MANIFESTS / "services.yaml"))
    kubectl("delete", "deployment", "-l", "app=rollouts-demo", "--ignore-not-found")
    kubectl("delete", "deployment", "rollouts-demo-h1", "rollouts-demo-h2", "--ignore-not-found")
    kubectl("delete", "-f", str(MANIFESTS / "gateway.yaml"))
    # What ran for the Gateway goes with it.
    await eventually(lambda: not get("deployment,service,serviceaccount", "-n", "default", "-l", "app=fsm-gateway")["items"])


def curl(address: str) -> list[str]:
    return ["curl", "-s", "-m", "2", "-H", "Host: demo.example.com", f"http://{address}/callme"]


async def data_plane() -> str:
    """The admin address of the data plane's pod."""
    pods = get("pods", "-n", "default", "-l", "app=fsm-gateway", "--field-selector=status.phase=Running")["items"]
    staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return f"http://{staying[0]['status']['podIP']}:9091"


class Events:
    """When changes of the route came into force, by the data plane's own word."""

    def __init__(self, admin: str) -> None:
        self._admin = admin
        self.rules: list[float] = []

    async def follow(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{self._admin}/events") as answer:
            async for line in answer.content:
                if line.startswith(b"data: ") and b"rule default/argo" in line:
                    self.rules.append(time.time())

    async def after(self, count: int) -> None:
        await eventually(lambda: len(self.rules) > count, seconds=10)


@contextlib.asynccontextmanager
async def under_load(address: str):
    load = DemoLoad(address, 80, "demo.example.com", rate=RATE)
    sending = asyncio.create_task(load.run())
    yield load
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def observe(load: DemoLoad, seconds: float = WINDOW) -> DemoTally:
    load.tally = tally = DemoTally()
    await asyncio.sleep(seconds)
    load.tally = DemoTally()
    await asyncio.sleep(0.2)  # the last answers of the window arrive
    return tally


def assert_share(tally: DemoTally, canary: int) -> None:
    assert not tally.failures, tally.failures
    assert abs(tally.share("2.0") - canary) <= 1.0, (canary, tally.versions)


async def change_takes_effect(rollout, load, weight: int) -> None:
    await rollout.set_weight(weight)

    async def is_seen() -> bool:
        return abs((await observe(load, 1.0)).share("2.0") - weight) <= 1

    await eventually(is_seen, seconds=30)


async def second_version(rollout) -> None:
    await rollout.begin()
    await rollout.create("h2", "2.0", 1)
    await rollout.select(CANARY, "h2")
