"""`fsm run`: files followed by events, broken files survived, connections held."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from support.standalone import Running
from support.statistics import weights

from controller.cli.printer import Printer
from controller.objects.documents import DocumentFault
from gateway.snapshot import Change, Problem, Script


async def follow(running: Running) -> list[float]:
    """When changes came into force; grows as they do."""
    times: list[float] = []
    listening = asyncio.Event()

    async def read() -> None:
        async for event in running.events(listening):
            times.append(event["at"])

    running.background.append(asyncio.create_task(read()))
    await listening.wait()
    return times


async def test_a_file_of_rubbish_is_named_and_changes_nothing(running: Running) -> None:
    await running.start()
    good = (running.folder / "httproute.yaml").read_text()
    assert await running.get() == (200, "v1")
    running.replace("httproute.yaml", "kind: HTTPRoute\n  rubbish: [\n")
    await running.until(lambda: "httproute.yaml:2: not YAML" in running.said)
    for _ in range(20):
        assert await running.get() == (200, "v1")
    times = await follow(running)
    renamed = time.time()
    running.replace("httproute.yaml", weights(good, 100))
    await running.until(lambda: times)
    assert await running.get() == (200, "v2")
    print(f"repaired: in force {1000 * (times[0] - renamed):.1f} ms after the rename")
    assert times[0] - renamed < 0.5  # a bound against breakage; the figure is reported
    assert "all files are good again" in running.said


async def test_one_broken_object_keeps_its_last_good_state(running: Running) -> None:
    await running.start()
    good = (running.folder / "httproute.yaml").read_text()
    running.replace("httproute.yaml", good.replace("port: 80", "port: 0"))
    await running.until(lambda: "spec.rules[0].backendRefs[0].port: 0 is less than the minimum of 1" in running.said)
    assert await running.get() == (200, "v1")
    running.replace("httproute.yaml", weights(good, 100).replace("demo.example.com", "other.example.com"))

    async def has_moved() -> bool:
        return (await running.get())[0] == 404

    await running.until(has_moved)
    assert await running.get(host="other.example.com") == (200, "v2")


@pytest.mark.parametrize("how", ["rename", "in place", "truncated, then written", "delete and create"])
async def test_every_way_of_writing_a_file(running: Running, how: str) -> None:
    await running.start()
    path = running.folder / "httproute.yaml"
    text = weights(path.read_text(), 100)
    if how == "rename":
        running.replace("httproute.yaml", text)
    elif how == "in place":
        path.write_text(text)
    elif how == "truncated, then written":
        with path.open("w") as file:
            file.flush()
            assert await running.get() == (200, "v1"), "an emptied file is a file about to be written"
            file.write(text)
    else:
        path.unlink()
        path.write_text(text)

    async def is_v2() -> bool:
        return await running.get() == (200, "v2")

    await running.until(is_v2)


@pytest.mark.parametrize("how", ["remove and make", "move away and back", "empty and fill", "with the folder above"])
async def test_a_folder_that_is_taken_away_and_made_again(running: Running, tmp_path: Path, how: str) -> None:
    """As a render, a checkout or a volume that is mounted anew does it: what was there last stays in force meanwhile."""
    folder, kept = tmp_path / "site" / "routes", tmp_path / "kept"
    for copy in (folder, kept):
        shutil.copytree(running.folder, copy, ignore=lambda _, names: [name for name in names if not name.endswith(".yaml")])
    running.folder = folder
    route = (kept / "httproute.yaml").read_text()
    await running.start()
    for weight, version in ((100, "v2"), (0, "v1"), (100, "v2")):
        before = await running.get()
        told = running.said.count("what was there last stays in force")
        if how == "move away and back":
            folder.rename(tmp_path / "elsewhere")
        elif how == "empty and fill":
            for path in folder.iterdir():
                path.unlink()
        else:
            shutil.rmtree(folder if how == "remove and make" else folder.parent)
        await running.until(lambda told=told: running.said.count("what was there last stays in force") > told)
        for _ in range(5):
            assert await running.get() == before
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        (kept / "httproute.yaml").write_text(weights(route, weight))
        shutil.copytree(kept, folder, dirs_exist_ok=True)

        async def has_version(version: str = version) -> bool:
            return await running.get() == (200, version)

        await running.until(has_version)
    assert "all files are good again" in running.said


async def test_what_is_no_file_is_not_read(running: Running) -> None:
    await running.start()
    os.mkfifo(running.folder / "pipe.yaml")
    (running.folder / "zero.yaml").symlink_to("/dev/zero")
    (running.folder / "folder.yaml").mkdir()
    await running.until(lambda: "zero.yaml: is no file" in running.said and "pipe.yaml: is no file" in running.said)
    path = running.folder / "httproute.yaml"
    path.write_text(weights(path.read_text(), 100))

    async def is_v2() -> bool:
        return await running.get() == (200, "v2")

    await running.until(is_v2)
    assert "folder.yaml" not in running.said


async def test_editors_files_are_passed_over(running: Running) -> None:
    await running.start()
    for name in (".httproute.yaml.swp", "httproute.yaml~", "#httproute.yaml#", ".#httproute.yaml", "4913", "notes.txt"):
        (running.folder / name).write_text("not: [yaml")
    assert await running.get() == (200, "v1")
    assert "not YAML" not in running.said


async def test_a_mounted_configmap(running: Running, tmp_path: Path) -> None:
    """Kubernetes swaps a link to a folder; the files are links through it."""
    mount = tmp_path / "mount"
    for number in (1, 2):
        folder = mount / f"..2024_{number}"
        folder.mkdir(parents=True)
        for path in tmp_path.glob("*.yaml"):
            shutil.copy(path, folder / path.name)
    route = mount / "..2024_2" / "httproute.yaml"
    route.write_text(weights(route.read_text(), 100))
    (mount / "..data").symlink_to("..2024_1")
    for name in ("gateway.yaml", "services.yaml", "httproute.yaml", "endpoints.yaml"):
        (mount / name).symlink_to(Path("..data") / name)
    await running.start(path=mount)
    assert await running.get() == (200, "v1")
    (mount / "..data_tmp").symlink_to("..2024_2")
    os.replace(mount / "..data_tmp", mount / "..data")

    async def is_v2() -> bool:
        return await running.get() == (200, "v2")

    await running.until(is_v2)


async def test_a_single_file(running: Running, tmp_path: Path) -> None:
    whole = tmp_path / "all" / "everything.yaml"
    whole.parent.mkdir()
    whole.write_text("---\n".join(path.read_text() for path in sorted(tmp_path.glob("*.yaml"))))
    await running.start(path=whole)
    assert await running.get() == (200, "v1")


async def test_a_low_port_without_the_right_to_it(running: Running) -> None:
    if not shutil.which("setpriv") or os.geteuid():
        prefix: tuple[str, ...] = ()
        if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
            pytest.skip("everybody may use low ports here")
    else:
        prefix = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service")
    running.port = 81
    await running.start(prefix=prefix, ready=False)
    async with asyncio.timeout(60):
        assert await running.process.wait() == 1
        await running._reading
    assert "port 81 needs the right to bind ports below 1024" in running.said
    assert "--port-offset 8000" in running.said


async def test_a_port_in_use(running: Running, apps) -> None:
    running.port = apps[0].port
    await running.start(ready=False)
    async with asyncio.timeout(60):
        assert await running.process.wait() == 1
        await running._reading
    assert f"TCP port {apps[0].port} is in use by process {os.getpid()} (" in running.said
    assert "another --port-offset avoids it" in running.said
    assert "in force after" not in running.said


async def test_statuses_are_shown(running: Running) -> None:
    await running.start()
    async with running.session.get(f"{running.admin}/status") as answer:
        found = {entry["object"]: {c["type"]: c["status"] for c in entry["conditions"]} for entry in await answer.json()}
    assert found["Gateway default/simple-fsm-gateway"] == {"Accepted": "True", "Programmed": "True"}
    assert found["HTTPRoute default/argo-rollouts-http-route on simple-fsm-gateway"]["ResolvedRefs"] == "True"
    done = subprocess.run(
        [sys.executable, "-m", "controller", "status", str(running.folder), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {entry["object"] for entry in json.loads(done.stdout)} == set(found)


async def test_two_gateways_cannot_have_the_same_port_and_hostname(running: Running) -> None:
    second = (running.folder / "gateway.yaml").read_text().replace("simple-fsm-gateway", "z-second")
    (running.folder / "second.yaml").write_text(second.partition("---\n")[2])
    await running.start()

    async def listener_conditions() -> dict[str, str]:
        async with running.session.get(f"{running.admin}/status") as answer:
            for entry in await answer.json():
                if entry["object"].startswith("Gateway default/z-second listener"):
                    return {c["type"]: c["message"] for c in entry["conditions"] if not c["healthy"]}
        return {}

    assert "taken by listener default/simple-fsm-gateway/http" in (await listener_conditions())["Programmed"]
    assert await running.get() == (200, "v1")
    # The first one goes, and the second one comes in.
    (running.folder / "gateway.yaml").unlink()

    async def has_moved() -> bool:
        return not await listener_conditions()

    await running.until(has_moved)
    assert (await running.get())[0] == 404  # the route names the first Gateway


async def test_a_default_gateway_comes_and_goes(running: Running) -> None:
    """A route that names none (GEP-3793) is served while a Gateway takes it, and its status has an entry as long."""
    named = (running.folder / "gateway.yaml").read_text()
    by_default = named + "  defaultScope: All\n"
    route = (running.folder / "httproute.yaml").read_text()
    asking = route.replace("  parentRefs:\n    - name: simple-fsm-gateway\n", "  useDefaultGateways: All\n")
    assert asking != route
    running.replace("httproute.yaml", asking)
    running.replace("gateway.yaml", by_default)
    await running.start()
    assert await running.get() == (200, "v1")

    async def entries() -> set[str]:
        async with running.session.get(f"{running.admin}/status") as answer:
            found = [one for one in await answer.json() if one["object"].startswith("HTTPRoute")]
            return {one["object"] for one in found if one["conditions"]}  # remarks aside

    async def is_served() -> bool:
        return (await running.get(), await entries()) == ((200, "v1"), {entry})

    async def is_not_served() -> bool:
        return ((await running.get())[0], await entries()) == (404, set())

    entry = "HTTPRoute default/argo-rollouts-http-route on simple-fsm-gateway"
    assert await entries() == {entry}
    for text, arrives in ((named, is_not_served), (by_default, is_served), (named, is_not_served)):
        running.replace("gateway.yaml", text)
        await running.until(arrives)
    # Another Gateway arrives in its place, and goes.
    entry = "HTTPRoute default/argo-rollouts-http-route on second"
    running.replace("gateway.yaml", by_default.replace("simple-fsm-gateway", "second"))
    await running.until(is_served)
    (running.folder / "gateway.yaml").unlink()

    async def is_nowhere() -> bool:
        return await entries() == set()

    await running.until(is_nowhere)


async def test_explain_asks_the_running_gateway(running: Running) -> None:
    await running.start()
    done = subprocess.run(
        [sys.executable, "-m", "controller", "explain", "http://demo.example.com/x", "--admin", running.admin, "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["choices"][0]["backend"] == "default/argo-rollouts-stable-service:80"


async def test_metrics_count(running: Running) -> None:
    await running.start()
    for _ in range(5):
        await running.get()
    await running.get(host="nobody.example")
    async with running.session.get(f"{running.admin}/metrics") as answer:
        text = await answer.text()
    stable = 'backend="default/argo-rollouts-stable-service:80"'
    assert f'fsm_requests_total{{{stable},code="2xx",rule="default/argo-rollouts-http-route/0"}} 5.0' in _sorted(text)
    # Series of targets that have had no request yet exist, at 0: an analysis must not trip over a gap.
    assert 'backend="default/argo-rollouts-canary-service:80",code="5xx"' in _sorted(text)
    assert "fsm_requests_unmatched_total 1.0" in text


def _sorted(text: str) -> str:
    """Label order is prometheus_client's own affair."""
    lines = []
    for line in text.splitlines():
        name, brace, rest = line.partition("{")
        labels, close, value = rest.partition("}")
        lines.append(name + brace + ",".join(sorted(labels.split(","))) + close + value)
    return "\n".join(lines)


async def test_two_workers_share_the_port_and_follow_together(running: Running) -> None:
    await running.start("--workers", "2")
    assert len(_children(running.process.pid)) == 2
    running.replace("httproute.yaml", weights((running.folder / "httproute.yaml").read_text(), 30))
    await running.until(lambda: running.said.count("rule default/argo-rollouts-http-route/0") >= 2)
    counts = {"v1": 0, "v2": 0}
    for _ in range(200):  # of a connection each, so that both workers get their part
        async with aiohttp.request("GET", f"http://127.0.0.1:{running.port}/", headers={"Host": "demo.example.com"}) as answer:
            counts[await answer.text()] += 1
    assert abs(counts["v2"] - 60) <= 10


async def test_a_worker_that_dies_is_replaced(running: Running) -> None:
    await running.start()
    (worker,) = _children(running.process.pid)
    os.kill(worker, signal.SIGKILL)

    async def serves_again() -> bool:
        try:
            return await running.get() == (200, "v1")
        except aiohttp.ClientError:
            return False

    await running.until(serves_again)
    assert _children(running.process.pid) != [worker]
    running.replace("httproute.yaml", weights((running.folder / "httproute.yaml").read_text(), 100))

    async def is_v2() -> bool:
        return await running.get() == (200, "v2")

    await running.until(is_v2)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_nothing_is_left_behind(running: Running) -> None:
    await running.start()
    children = _children(running.process.pid)
    running.process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        assert await running.process.wait() == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


async def test_a_worker_is_small_and_imports_little(running: Running) -> None:
    await running.start()
    (worker,) = _children(running.process.pid)
    pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") < 40e6
    if os.geteuid() != 0:
        return  # a worker keeps its memory to itself
    maps = Path(f"/proc/{worker}/maps").read_text()
    assert "aiohttp" not in maps
    assert "yaml" not in maps


def test_a_terminal_gets_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """Of names, problems and faults, which quote files and filters."""
    printer = Printer()
    hostile = "\x1b[2J\x1b]0;title\x07[red]\u202e"
    printer.applied(Change("1", (Script(hostile, ""),)), 0.1, (Problem(hostile, hostile),))
    printer.problems((Problem(hostile, hostile),))
    printer.faults([DocumentFault(f"{hostile}.yaml", 1, hostile)])
    words = capsys.readouterr().err
    assert r"\x1b[2J\x1b]0;title\x07[red]\u202e" in words
    assert all(one.isprintable() or one == "\n" for one in words)


async def test_what_is_refused_or_has_no_effect_is_told(running: Running) -> None:
    """Valid files, of which nothing would be heard but by who asks for statuses."""
    (running.folder / "policies.yaml").write_text("""\
apiVersion: gateway.flomesh.io/v1alpha1
kind: AccessControlPolicy
metadata: {name: theirs, namespace: elsewhere}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: argo-rollouts-http-route, namespace: default}
  config: {blacklist: [127.0.0.1]}
""")
    await running.start()
    await running.until(lambda: "AccessControlPolicy elsewhere/theirs: Accepted=False, Invalid: spec.targetRef" in running.said)
    assert await running.get() == (200, "v1")
    gateway = (running.folder / "gateway.yaml").read_text()
    limits = '  annotations: {gateway.flomesh.io/limits: "{underscores: drop}"}\n'
    running.replace("gateway.yaml", gateway.replace("metadata:\n  name: simple", f"metadata:\n{limits}  name: simple"))
    await running.until(lambda: "underscores: 'drop' was found; one of Allow" in running.said)
    # An edit that changed nothing is not what the next one is measured from.
    route = (running.folder / "httproute.yaml").read_text()
    times, began = running.said.count("in force after"), time.monotonic()
    running.replace("httproute.yaml", weights(route, 100))
    await running.until(lambda: running.said.count("in force after") > times)
    assert float(running.said.rpartition("in force after ")[2].partition(" ms")[0]) <= (time.monotonic() - began) * 1000
    (running.folder / "policies.yaml").write_text("""\
apiVersion: gateway.flomesh.io/v1alpha1
kind: RateLimitPolicy
metadata: {name: never-good}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: argo-rollouts-http-route}
  config: {requests: 5}
""")
    await running.until(
        lambda: "FailingClosed=True, Invalid: Until it is valid, requests are answered with 500" in running.said
    )


async def test_what_a_confined_filter_prints_is_heard(running: Running) -> None:
    (running.folder / "hello.py").write_text("def request(request):\n    print('printed by it')\n")
    route = (running.folder / "httproute.yaml").read_text()
    filters = (
        "- filters: [{type: ExtensionRef, extensionRef: {group: extension.gateway.flomesh.io, kind: Filter, name: hello}}]\n"
    )
    (running.folder / "httproute.yaml").write_text(route.replace("- matches:\n", f"{filters}      matches:\n"))
    await running.start()
    assert await running.get() == (200, "v1")
    await running.until(lambda: "INFO fsm.filter.default/hello printed by it" in running.said)


def test_without_what_the_control_plane_needs_the_command_says_what_to_install(tmp_path: Path) -> None:
    """`pip install` of the package alone brings what a data plane needs."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('not installed', name='typer')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "controller", "version"], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr == "fsm needs typer, which a data plane does without: pip install 'fsm-gateway[controller]'\n"
