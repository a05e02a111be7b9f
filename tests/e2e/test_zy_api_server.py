"""The API server dies and comes back. Late in the order: what it takes along with it must not trouble other tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from clusters import eventually, kubectl
from stages import change_takes_effect, second_version, under_load

PIDS = Path(os.environ.get("STATE", "/nowhere")) / "pids"


@pytest.mark.skipif(not (PIDS / "kube-apiserver").exists(), reason="only the test cluster's API server may be killed")
async def test_the_api_server_dies_and_comes_back(stage) -> None:
    rollout, address = stage
    await second_version(rollout)
    async with under_load(address) as load:
        await change_takes_effect(rollout, load, 30)
        os.kill(int((PIDS / "kube-apiserver").read_text()), signal.SIGKILL)  # the node starts it again
        await eventually(lambda: kubectl("get", "--raw", "/readyz") == "ok", seconds=60)
        await change_takes_effect(rollout, load, 60)
        assert not load.total.failures, load.total.failures[:5]
