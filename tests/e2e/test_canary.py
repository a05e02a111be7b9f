"""What a user does, on a real cluster: install, look, apply, curl, and the whole canary of Argo Rollouts under load."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time

from clusters import eventually, fsm, get, kubectl
from stages import Events, assert_share, curl, data_plane, observe, under_load

from controller.kubernetes.api import Api


async def test_what_a_user_sees_first(stage, api: Api) -> None:
    _, address = stage
    classes = kubectl("get", "gatewayclass", "fsm-gateway-cls", "--no-headers").split()
    assert classes[1:3] == ["flomesh.io/gateway-controller", "True"]
    programmed = "jsonpath={.status.conditions[?(@.type=='Programmed')].status}"
    assert kubectl("get", "gateway", "simple-fsm-gateway", "-o", programmed) == "True"
    answer = subprocess.run(curl(address), capture_output=True, text=True, check=True).stdout
    assert answer == "<div class='pod' style='background:#44B3C2'> ver: 1.0\n </div>"
    # Infrastructure labels and annotations are carried; nobody runs as root nor may write.
    pod = get("pods", "-n", "default", "-l", "app=fsm-gateway,team=demo")["items"][0]
    assert pod["metadata"]["annotations"]["example.com/purpose"] == "canary"
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["automountServiceAccountToken"] is False
    # fsm says the same, and explains live.
    status = fsm("gateway", "status", "--json")
    assert '"programmed": "True"' in status.stdout, status.stderr
    explained = fsm("explain", "http://demo.example.com/callme", "--admin", await data_plane())
    assert "answered by default/argo-rollouts-stable-service:80" in " ".join(explained.stdout.split())


async def test_the_whole_canary_under_load(stage) -> None:
    rollout, address = stage
    events = Events(await data_plane())
    following = asyncio.create_task(events.follow())
    await asyncio.sleep(0.5)
    await rollout.begin()
    await rollout.create("h2", "2.0", 0)
    propagation: list[float] = []
    async with under_load(address) as load:
        for weight, replicas in ((30, 1), (60, 2), (100, 2)):
            seen = len(events.rules)
            await rollout.step(weight, replicas)
            written = time.time()
            await events.after(seen)
            propagation.append(events.rules[seen] - written)
            assert_share(await observe(load), weight)
        await rollout.promote()
        promoted = await observe(load)
        await rollout.scale("h1", 0)
        settled = await observe(load)
        total = load.total
    following.cancel()
    # After 100 % nobody sees the old version again, whatever the endpoints do meanwhile.
    for tally in (promoted, settled):
        assert not tally.failures
        assert set(tally.versions) == {"2.0"}, tally.versions
    assert not total.failures, total.failures[:5]
    elapsed = time.monotonic() - total.began
    assert total.requests / elapsed >= 300, f"{total.requests / elapsed:.0f} requests a second"
    print(f"\n{total.requests} requests, 0 failed; weights in force after {[f'{1000 * p:.0f} ms' for p in propagation]}")


async def test_the_canary_with_the_controller_killed_in_the_middle(stage) -> None:
    rollout, address = stage
    await rollout.begin()
    await rollout.create("h2", "2.0", 0)
    async with under_load(address) as load:
        await rollout.step(30, 1)
        await eventually(lambda: load.tally.versions.get("2.0"), seconds=10)
        assert_share(await observe(load), 30)
        kubectl("delete", "pod", "-n", "fsm-system", "-l", "app=fsm-controller", "--force", "--grace-period=0", "--wait=false")
        # Nobody is there to tell, and traffic goes on as it was.
        assert_share(await observe(load, 2.0), 30)
        await rollout.set_weight(60)
        await eventually(lambda: get("deployment", "fsm-controller", "-n", "fsm-system")["status"].get("readyReplicas"))
        events = Events(await data_plane())
        following = asyncio.create_task(events.follow())

        async def share_is_60() -> bool:
            return abs((await observe(load, 1.0)).share("2.0") - 60) <= 1

        await eventually(share_is_60, seconds=30)
        # After its return, changes flow as before.
        seen = len(events.rules)
        await rollout.step(100, 2)
        await events.after(seen)
        assert_share(await observe(load), 100)
        await rollout.promote()
        promoted = await observe(load)
        total = load.total
    following.cancel()
    assert set(promoted.versions) == {"2.0"}
    assert not total.failures, total.failures[:5]
    # The new controller leads after the old one's Lease has run out, and then says so in the statuses.
    generation = get("httproute", "argo-rollouts-http-route")["metadata"]["generation"]

    def observed() -> bool:
        parents = get("httproute", "argo-rollouts-http-route")["status"]["parents"]
        return all(c["observedGeneration"] == generation for p in parents for c in p["conditions"])

    await eventually(observed, seconds=30)


async def test_propagation_and_no_failed_request_over_500_changes(stage) -> None:
    rollout, address = stage
    await rollout.begin()
    await rollout.create("h2", "2.0", 1)
    await rollout.select("argo-rollouts-canary-service", "h2")
    await asyncio.sleep(1)
    events = Events(await data_plane())
    following = asyncio.create_task(events.follow())
    await asyncio.sleep(0.5)
    times: list[float] = []
    async with under_load(address) as load:
        for change in range(500):
            seen = len(events.rules)
            written = time.time()
            await rollout.set_weight(10 + change % 80)
            async with asyncio.timeout(5):
                while len(events.rules) <= seen:
                    await asyncio.sleep(0.001)
            times.append(events.rules[seen] - written)
        total = load.total
    following.cancel()
    assert not total.failures, total.failures[:5]
    quantiles = statistics.quantiles(times, n=100)
    print(
        f"\n500 changes: from the write's start to the data plane p50 {1000 * quantiles[49]:.1f} ms, p99 {1000 * quantiles[98]:.1f} ms"
    )
    assert quantiles[49] < 0.5  # a bound against breakage; the figure itself is reported
