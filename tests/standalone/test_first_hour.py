"""What a user hears of `fsm run` in the first hour: what is wrong, where, once; when it is over; what is served, and where."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.standalone import Running

from controller.ports import free_ports

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: simple-fsm-gateway}}]
  rules:
    - backendRefs: [{{name: {service}, port: 80}}]
"""
GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: late}}
spec:
  gatewayClassName: fsm-gateway-cls
  listeners:
    - name: http
      protocol: HTTP
      port: {port}
"""
HELD = "import socket; s = socket.create_server(('127.0.0.1', {port})); print(flush=True); input()"


async def test_what_is_wrong_is_told_once_and_so_is_its_end(running: Running) -> None:
    await running.start()
    path = running.folder / "httproute.yaml"
    good = path.read_text()
    line = good.splitlines().index("          port: 80") + 1
    wrong = (
        f"{path}:{line}: HTTPRoute default/argo-rollouts-http-route on simple-fsm-gateway: spec.rules[0].backendRefs[0].port: "
    )
    words = 'ResolvedRefs=False, BackendNotFound: Service "default/argo-rollouts-stable-service" has no port 8000; it has 80'
    bad = good.replace("port: 80", "port: 8000", 1)
    running.replace("httproute.yaml", bad)
    await running.until(lambda: wrong + words in running.said)
    for number in range(2):  # other changes are no reason to say it again
        changes = running.said.count("in force after")
        running.replace("other.yaml", ROUTE.format(name=f"other-{number}", service="argo-rollouts-stable-service"))
        await running.until(lambda changes=changes: running.said.count("in force after") > changes)
    running.replace("httproute.yaml", good)
    over = "no longer: HTTPRoute default/argo-rollouts-http-route on simple-fsm-gateway: spec.rules[0].backendRefs[0].port"
    await running.until(lambda: over in running.said)
    assert running.said.count("has no port 8000") == 1
    assert running.said.count("no longer") == 1


async def test_a_quiet_run_ends_in_what_is_served_and_where(running: Running) -> None:
    await running.start()
    served = f"1 route on 1 listener at http://127.0.0.1:{running.port}\n"
    await running.until(lambda: running.said.endswith(served))
    assert "\x1b" not in running.said, "nobody looks at a pipe"
    running.replace("other.yaml", ROUTE.format(name="other", service="argo-rollouts-stable-service"))
    await running.until(lambda: running.said.endswith(served.replace("1 route ", "2 routes ")))
    assert running.said.count(" on 1 listener at ") == 2


async def test_many_of_a_kind_are_told_as_one(running: Running) -> None:
    await running.start()
    await running.until(lambda: " on 1 listener at " in running.said)
    before = running.said
    running.replace("many.yaml", "---\n".join(ROUTE.format(name=f"r{number}", service="nowhere") for number in range(1000)))
    await running.until(lambda: "1001 routes on" in running.said, seconds=60)
    told = running.said.removeprefix(before)
    assert 'Service "default/nowhere" does not exist. (and 999 more of this kind)' in told
    assert "many.yaml:7: HTTPRoute default/r0 on simple-fsm-gateway: spec.rules[0].backendRefs[0].name: " in told
    assert f"fsm validate {running.folder} tells all of them" in told
    assert told.count("\n") < 10
    (running.folder / "many.yaml").unlink()
    await running.until(lambda: "no longer: HTTPRoute default/r0" in running.said, seconds=60)
    assert running.said.count("no longer") == 1


async def _ends_at_once(second: Running) -> None:
    try:
        await second.start(ready=False)
        async with asyncio.timeout(60):
            assert await second.process.wait() == 1
            await second._reading
    finally:
        await second.stop()


async def test_ports_of_another_run_are_not_shared_in_silence(running: Running) -> None:
    await running.start()
    second = Running(running.folder)
    second.port = running.port
    await _ends_at_once(second)
    who = f"process {running.process.pid} (fsm run)"
    assert f"default/simple-fsm-gateway/http: TCP port {running.port} is in use by {who}; another --port-offset" in second.said
    assert "in force after" not in second.said
    for _ in range(20):  # no connection has gone to the other
        assert await running.get() == (200, "v1")


async def test_the_admin_port_of_another_run(running: Running) -> None:
    await running.start()
    second = Running(running.folder)
    second.admin = running.admin
    await _ends_at_once(second)
    port = int(running.admin.rpartition(":")[2])
    assert (
        f"127.0.0.1:{port}: it is in use by process {running.process.pid} (fsm run); --admin 127.0.0.1:{port + 1}"
        in second.said
    )


async def test_a_port_that_is_free_once_its_holder_is_gone(running: Running) -> None:
    """A listener that is added to a running gateway, on a port that another program has."""
    running.port, port = sorted(free_ports(2))
    await running.start()
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HELD.format(port=port), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        await holder.stdout.readline()
        running.replace("late.yaml", GATEWAY.format(port=port - (running.port - 80)))
        found = "late.yaml:9: Gateway default/late listener http: spec.listeners[0].port: Accepted=False, PortUnavailable: "
        await running.until(lambda: found in running.said)
        assert f"TCP port {port} is in use by process {holder.pid} (" in running.said
        async with running.session.get(f"{running.admin}/status") as answer:
            said = {one["object"]: {c["type"]: c["status"] for c in one["conditions"]} for one in await answer.json()}
        assert said["Gateway default/late listener http (0 routes)"]["Programmed"] == "False"
    finally:
        holder.kill()
        await holder.wait()
    await running.until(lambda: f"at http://127.0.0.1:{port}, http://127.0.0.1:{running.port}\n" in running.said)
    assert (
        "no longer: Gateway default/late listener http: spec.listeners[0].port: Accepted=False, PortUnavailable" in running.said
    )


async def test_a_listener_that_another_gateway_is_in_the_way_of(running: Running) -> None:
    await running.start()
    running.replace("late.yaml", GATEWAY.format(port=80).replace("protocol: HTTP", "protocol: TCP"))
    await running.until(lambda: "late.yaml:9: Gateway default/late listener http: spec.listeners[0].port: " in running.said)
    assert "port 80 is taken by listener default/simple-fsm-gateway/http, which speaks HTTP there and not TCP" in running.said
    assert await running.get() == (200, "v1")
    (running.folder / "late.yaml").unlink()
    await running.until(lambda: "no longer: Gateway default/late listener http" in running.said)


async def test_a_service_without_endpoints_is_told(running: Running) -> None:
    """On a cluster somebody else makes them."""
    await running.start()
    (running.folder / "endpoints.yaml").rename(running.folder / "endpoints.txt")
    await running.until(
        lambda: "Service default/argo-rollouts-stable-service: has no endpoints, and its requests" in running.said
    )
    (running.folder / "endpoints.txt").rename(running.folder / "endpoints.yaml")
    await running.until(lambda: "no longer: Service default/argo-rollouts-stable-service: has no endpoints" in running.said)


async def test_explain_knows_where_a_gateway_is_served(running: Running) -> None:
    await running.start()
    url = f"http://demo.example.com:{running.port}/callme"
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controller", "explain", url, "--admin", running.admin, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        said, _ = await done.communicate()
    assert "answered by default/argo-rollouts-stable-service:80" in said.decode()
    assert done.returncode == 0


@pytest.mark.parametrize("plain", [False, True])
def test_a_terminal_has_colours_unless_it_wants_none(tmp_path: Path, plain: bool) -> None:
    (tmp_path / "bad.yaml").write_text("kind: HTTPRoute\napiVersion: gateway.networking.k8s.io/v1\nmetadata: {name: 1}\n")
    (port,) = free_ports(1)
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    environment |= {"NO_COLOR": "1"} if plain else {}
    with subprocess.Popen(
        [sys.executable, "-m", "controller", "run", str(tmp_path), "--workers", "1", "--admin", f"127.0.0.1:{port}"],
        stderr=theirs, stdout=theirs, env=environment,
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b""
        try:
            while b"nothing is served" not in said:
                said += os.read(ours, 65536)  # raises where the process has ended
        finally:
            process.terminate()
            os.close(ours)
    assert b"metadata.name: found 1; text is needed: quote it" in said
    assert (b"\x1b[31m" in said) is not plain


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--admin", "nonsense"), "--admin: found 'nonsense'; HOST:PORT is needed"),
        (("--admin", "127.0.0.1:99999"), "--admin: found '127.0.0.1:99999'"),
        (("--bind", "nonsense"), "--bind: found 'nonsense'"),
        (("--bind", "192.0.2.1"), "--bind: found '192.0.2.1'"),
        (("--port-offset", "70000"), "--port-offset"),
        (("--workers", "0"), "--workers"),
        (("--drain", "-1"), "--drain"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_starts(
    tmp_path: Path, options: tuple[str, str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "controller", "run", str(tmp_path), *options], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_offset_beyond_all_ports(running: Running) -> None:
    running.port = 65580
    await running.start(ready=False)
    async with asyncio.timeout(60):
        assert await running.process.wait() == 1
        await running._reading
    words = (
        "port 80 with --port-offset 65500 would be 65580, and there is none above 65535; --port-offset 65455 is the most for it"
    )
    assert f"default/simple-fsm-gateway/http: {words}" in running.said
    assert "in force after" not in running.said


async def test_every_address_of_a_machine(running: Running) -> None:
    """A port that somebody has on one address is not to be had on all."""
    with socket.create_server(("127.0.0.1", running.port)):
        await running.start("--bind", "0.0.0.0", ready=False)
        async with asyncio.timeout(60):
            assert await running.process.wait() == 1
            await running._reading
    assert f"TCP port {running.port} is in use by process {os.getpid()} (" in running.said
