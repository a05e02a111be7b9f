"""End-to-end tests on a real cluster: `make e2e`, or any cluster by KUBECONFIG.

FSM_IMAGE names the image under test. Pods' and LoadBalancers' addresses must be reachable from here.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from controller.kubernetes.api import Api, connect

MANIFESTS = Path(__file__).parent / "manifests"


def kubectl(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def fsm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "controller", *arguments], capture_output=True, text=True, check=False)


def get(*arguments: str) -> dict:
    return json.loads(kubectl("get", *arguments, "-o", "json"))


async def eventually(check, *, seconds: float = 60.0):
    """The first true value of `check`, which is asked until then; its last exception or value says why not."""
    last: object = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    last = await check() if asyncio.iscoroutinefunction(check) else check()
                except (AssertionError, aiohttp.ClientError, OSError, KeyError, IndexError) as error:
                    last = error
                else:
                    if last:
                        return last
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {last!r}") from None


def image() -> str:
    return os.environ.get("FSM_IMAGE", "localhost/fsm-gateway:dev")


@pytest.fixture(scope="session")
def installed() -> None:
    """FSM, installed as a user installs it."""
    done = fsm("install", "--set", "fsm.fsmGateway.enabled=true", "--set", f"fsm.image={image()}", "--timeout", "2m")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "FSM installed successfully in namespace [fsm-system] with mesh name [fsm]" in done.stdout


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with connect() as found:
        yield found


async def gateway_address(namespace: str = "default") -> str:
    """The address, by the very command that the documentation gives."""
    return str(
        await eventually(
            lambda: kubectl(
                "get", "svc", "-n", namespace, "-l", "app=fsm-gateway",
                "-o", "jsonpath={.items[0].status.loadBalancer.ingress[0].ip}",
            )
        )
    )  # fmt: skip
