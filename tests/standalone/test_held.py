"""What is held open survives: a WebSocket and a 30-second download through 200 changes of the route."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.standalone import App, Running
from support.statistics import weights


@pytest.mark.slow
async def test_a_websocket_and_a_30_second_download_survive_200_changes(running: Running, apps: tuple[App, App]) -> None:
    await running.start()
    good = (running.folder / "httproute.yaml").read_text()
    url = f"http://127.0.0.1:{running.port}"
    headers = {"Host": "demo.example.com"}

    async def download() -> int:
        async with running.session.get(f"{url}/download?seconds=30", headers=headers) as answer:
            return len((await answer.read()).splitlines())

    downloading = asyncio.create_task(download())
    async with running.session.ws_connect(f"{url}/ws", headers=headers) as socket:
        for number in range(200):
            due = time.monotonic() + 30 / 200
            running.replace("httproute.yaml", weights(good, number % 101))
            await socket.send_str(f"message {number}")
            assert (await socket.receive(timeout=5)).data == f"MESSAGE {number}"
            assert (await running.get())[0] == 200
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    assert await downloading == 300
    assert running.said.count("rule default/argo-rollouts-http-route/0") >= 150  # some writes share a round
