"""Ports that a process has to itself before its workers share them, and who has those that it does not get."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from controller.ports import free_ports, holder, sign
from controller.standalone.ports import OwnPorts, wanted
from gateway.base.sockets import bound
from gateway.snapshot import Listener

HOLD = """
import socket, sys
kind = getattr(socket, sys.argv[1])
one = socket.socket(socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET, kind)
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
one.bind((sys.argv[2], int(sys.argv[3])))
if kind == socket.SOCK_STREAM:
    one.listen()
print(flush=True)
input()
"""


def hold(transport: str, address: str, port: int) -> subprocess.Popen[bytes]:
    kind = "SOCK_STREAM" if transport == "TCP" else "SOCK_DGRAM"
    command = [sys.executable, "-c", HOLD, kind, address, str(port)]
    made = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert made.stdout is not None
    assert made.stdout.readline() == b"\n"
    return made


@pytest.mark.parametrize("transport", ["TCP", "UDP"])
@pytest.mark.parametrize(
    ("theirs", "ours"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", ""), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::1", "")]
)
async def test_a_port_that_would_be_shared_is_not_taken(transport: str, theirs: str, ours: str) -> None:
    """Another process with SO_REUSEPORT, which the kernel would let us share with."""
    (port,) = free_ports(1)
    free = asyncio.Event()
    ports = OwnPorts(ours, 0, free.set)
    with hold(transport, theirs, port) as process:
        refused = ports.take((transport, port))
        assert refused is not None
        assert refused.words.startswith(f"{transport} port {port} is in use by process {process.pid} (")
        assert not free.is_set()
        process.kill()
        async with asyncio.timeout(10):
            await free.wait()
        assert ports.take((transport, port)) is None
    ports.close()


@pytest.mark.parametrize("ours", ["127.0.0.1", "", "::1"])
async def test_workers_share_what_was_taken_and_nobody_else_does(ours: str) -> None:
    (port,) = free_ports(1)
    ports, others = OwnPorts(ours, 10, print), OwnPorts(ours, 10, print)
    assert ports.take(("TCP", port - 10)) is None
    assert ports.take(("TCP", port - 10)) is None
    refused = others.take(("TCP", port - 10))
    assert refused is not None
    assert "admin page" in refused.words  # whose else could it be, in this process
    workers = [bound(ours, port, socket.SOCK_STREAM, is_shared=True) for _ in range(2)]
    for worker in workers:
        worker.listen()
    with socket.create_connection((ours or "127.0.0.1", port), timeout=5) as client:
        client.setblocking(False)
    assert others.take(("TCP", port - 10)) is not None
    for worker in workers:
        worker.close()
    ports.keep([("TCP", port - 9)])
    assert others.take(("TCP", port - 10)) is None
    others.close()


async def test_a_sign_says_whose_a_port_is_where_proc_does_not() -> None:
    (port,) = free_ports(1)
    assert str(holder("TCP", port)) == "another program"
    with sign("TCP", port):
        assert str(holder("TCP", port)) == f"process {os.getpid()} (fsm run)"
        assert str(holder("UDP", port)) == "another program"
    assert holder("TCP", port).pid == 0


async def test_ports_that_there_are_not() -> None:
    refused = OwnPorts("127.0.0.1", 60000, print).take(("TCP", 8443))
    assert refused is not None
    assert refused.words == (
        "port 8443 with --port-offset 60000 would be 68443, and there is none above 65535; --port-offset 57092 is the most for it"
    )


def test_what_a_listener_listens_on() -> None:
    assert [wanted(Listener("l", 53, protocol)) for protocol in ("UDP", "TCP", "HTTPS")] == [
        ("UDP", 53),
        ("TCP", 53),
        ("TCP", 53),
    ]
