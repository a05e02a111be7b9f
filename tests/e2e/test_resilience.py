"""What fails around the gateway, and what traffic sees of it: nothing."""

from __future__ import annotations

import asyncio

from clusters import eventually, fsm, get, image, kubectl
from stages import Events, change_takes_effect, data_plane, second_version, under_load


async def test_two_controllers_one_writes_and_both_serve(stage) -> None:
    rollout, address = stage
    await second_version(rollout)
    done = fsm("install", "--set", f"fsm.image={image()}", "--set", "fsm.replicas=2", "--timeout", "2m")
    assert done.returncode == 0, done.stderr

    def holder() -> str:
        return get("lease", "fsm-controller", "-n", "fsm-system")["spec"]["holderIdentity"]

    def pods() -> set[str]:
        items = get("pods", "-n", "fsm-system", "-l", "app=fsm-controller")["items"]
        return {pod["metadata"]["name"] for pod in items if "deletionTimestamp" not in pod["metadata"]}

    try:
        await eventually(lambda: len(pods()) == 2 and holder() in pods(), seconds=60)
        # The data plane finds the second replica when it looks for replicas next.
        await asyncio.sleep(12)
        events = Events(await data_plane())
        following = asyncio.create_task(events.follow())
        async with under_load(address) as load:
            await change_takes_effect(rollout, load, 30)
            leader = holder()
            kubectl("delete", "pod", leader, "-n", "fsm-system", "--force", "--grace-period=0", "--wait=false")
            # The other one serves: a change does not wait for the Lease.
            seen = len(events.rules)
            await rollout.set_weight(60)
            async with asyncio.timeout(5):
                await events.after(seen)
            await change_takes_effect(rollout, load, 61)
            assert not load.total.failures, load.total.failures[:5]
        following.cancel()
        await eventually(lambda: holder() != leader, seconds=40)
        generation = get("httproute", "argo-rollouts-http-route")["metadata"]["generation"]

        def observed() -> bool:
            parents = get("httproute", "argo-rollouts-http-route")["status"]["parents"]
            return all(c["observedGeneration"] == generation for p in parents for c in p["conditions"])

        await eventually(observed, seconds=30)
    finally:
        fsm("install", "--set", f"fsm.image={image()}", "--set", "fsm.replicas=1", "--timeout", "2m")


async def test_what_is_removed_by_hand_is_made_again(stage) -> None:
    (deployment,) = get("deployment", "-n", "default", "-l", "app=fsm-gateway")["items"]
    kubectl("delete", "deployment", deployment["metadata"]["name"])
    await eventually(lambda: get("deployment", deployment["metadata"]["name"])["status"].get("readyReplicas"))


async def test_a_data_plane_that_leaves_drains(stage) -> None:
    """A rollout of the data plane itself, under load: connections are handed over without an error."""
    _, address = stage
    (deployment,) = get("deployment", "-n", "default", "-l", "app=fsm-gateway")["items"]
    name = deployment["metadata"]["name"]
    async with under_load(address) as load:
        await asyncio.sleep(1)
        kubectl("rollout", "restart", f"deployment/{name}")
        kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")
        await asyncio.sleep(10)
        assert not load.total.failures, load.total.failures[:5]


async def test_pods_come_and_go_under_load(stage) -> None:
    """The app stops at SIGTERM, with no preStop hook: what was on its way there goes to another pod."""
    rollout, address = stage
    await rollout.begin()
    async with under_load(address) as load:
        for replicas in (4, 1, 3, 1):
            await rollout.scale("h1", replicas)
            await rollout.wait_available("h1", replicas)
            await asyncio.sleep(3)
        assert not load.total.failures, load.total.failures[:5]
        assert load.total.requests > 2000
