"""Limits that all replicas share, in a real Redis; and what happens while it is gone."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.rate_limits import hammer, parts

from controller.ports import free_ports
from gateway.process.supervisor import Workers
from gateway.snapshot import Change, Store

PROGRAMS = ("valkey-server", "redis-server")
PASSWORD = "of-the-test"


class Server:
    """A Redis or Valkey of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = next(path for name in PROGRAMS if (path := shutil.which(name)))
        self.process = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD],
            cwd=self.folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.02)
        raise AssertionError("the store does not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def store(self) -> Store:
        return Store("127.0.0.1", self.port, password=PASSWORD)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.stop()


class Replicas:
    """Several data planes."""

    def __init__(self, planes: list[Workers], ports: list[int]) -> None:
        self.planes, self.ports = planes, ports
        self._version = 0

    async def apply(self, store: Store, **spec: object) -> None:
        self._version += 1
        for plane in self.planes:
            assert not await plane.apply(Change(str(self._version), parts(store, **spec), reset=True))


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    ports = free_ports(3)
    planes = [Workers(1, bind="127.0.0.1", port_offset=port - 80) for port in ports]
    await asyncio.gather(*(plane.start() for plane in planes))
    yield Replicas(planes, ports)
    await asyncio.gather(*(plane.stop(grace=1) for plane in planes))


async def test_a_limit_is_one_for_three_replicas(server: Server, replicas: Replicas) -> None:
    await replicas.apply(server.store, requests=1, interval="1h", burst=500, backlog=0)
    assert (await hammer(replicas.ports, 1.5))[0] == 500
    await replicas.apply(server.store, requests=400, interval="1s", burst=20, backlog=0)
    server.stop()
    server.start()  # empty again
    await hammer(replicas.ports, 2.0)
    admitted, took = await hammer(replicas.ports, 3.0)
    print(f"3 replicas: {admitted} of {400 * took:.0f} in {took:.2f} s")
    assert admitted == pytest.approx(400 * took, rel=0.01)


async def test_more_at_a_time_than_there_are_connections(server: Server, replicas: Replicas) -> None:
    store = replace(server.store, seconds=2.0)
    await replicas.apply(store, requests=1, interval="1h", burst=500, backlog=0, failurePolicy="Open")
    answers = await asyncio.gather(*(one(replicas.ports[0]) for _ in range(700)))
    assert sum(status == b"200" for status, _ in answers) == 500


async def one(port: int) -> tuple[bytes, float]:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer[9:12], time.monotonic() - began


@pytest.mark.parametrize(("failure", "status"), [("Open", b"200"), ("Closed", b"429")])
async def test_a_store_that_is_gone_is_no_reason_to_wait(
    server: Server, replicas: Replicas, failure: str, status: bytes
) -> None:
    spec = {"requests": 100, "interval": "1s", "burst": 100, "backlog": 0, "failurePolicy": failure}
    await replicas.apply(server.store, **spec)
    assert (await one(replicas.ports[0]))[0] == b"200"
    server.stop()
    for _ in range(20):
        found, took = await one(replicas.ports[0])
        assert found == status
        assert took < 0.5
    (worker,) = await replicas.planes[0].statistics()
    counted = {name: values for _, name, _, values in worker.filters[0].measures}
    assert counted["rate_limit_store_failures_total"] == (20,)
    server.start()
    async with asyncio.timeout(10):
        while (await one(replicas.ports[0]))[0] != b"200":
            await asyncio.sleep(0.05)


async def test_a_store_that_does_not_answer(server: Server, replicas: Replicas) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    await replicas.apply(Store("127.0.0.1", port, seconds=0.1), requests=100, failurePolicy="Closed")
    answers = await asyncio.gather(*(one(replicas.ports[0]) for _ in range(20)))
    assert {status for status, _ in answers} == {b"429"}
    assert max(took for _, took in answers) < 1
    silent.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


async def test_a_password_that_is_wrong_is_a_store_that_is_gone(server: Server, replicas: Replicas) -> None:
    store = Store("127.0.0.1", server.port, password="wrong")
    await replicas.apply(store, requests=100, failurePolicy="Closed")
    assert (await one(replicas.ports[0]))[0] == b"429"
