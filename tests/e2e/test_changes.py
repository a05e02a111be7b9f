"""Many routes through the API server: what their statuses cost, and what one more change costs among them."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter

import aiohttp
from clusters import MANIFESTS, eventually, get, kubectl
from stages import data_plane

from controller.kubernetes.api import Api, path

ROUTES = 1000
NAME = "many"


def route(number: int, version: int = 0) -> dict:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": f"{NAME}-{number}", "labels": {"set": NAME}},
        "spec": {
            "parentRefs": [{"name": "simple-fsm-gateway"}], "hostnames": [f"h{number}.bench.example"],
            "rules": [
                {"backendRefs": [{"name": "nowhere", "port": 80}], "filters": [{
                    "type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "X-Version", "value": str(version)}]},
                }]},
                {"matches": [{"path": {"type": "PathPrefix", "value": "/other"}}], "backendRefs": [{"name": "nowhere", "port": 80}]},
            ],
        },
    }  # fmt: skip


class Watch:
    """Counts how often each object is modified, as the API server tells it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.modified: Counter[str] = Counter()
        self.latest: dict[str, str] = {}  # resourceVersion, by name

    async def follow(self) -> None:
        process = await asyncio.create_subprocess_exec(
            "kubectl", "get", self._kind, "-n", "default", "--watch-only", "--output-watch-events", "-o",
            'jsonpath={.type} {.object.metadata.name} {.object.metadata.resourceVersion}{"\\n"}', stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                kind, name, version = line.decode().split()
                self.latest[name] = version
                if kind == "MODIFIED":
                    self.modified[name] += 1
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def together(calls: list) -> None:
    """Thirty at a time."""
    gate = asyncio.Semaphore(30)

    async def one(call) -> None:
        async with gate:
            await call

    await asyncio.gather(*(one(call) for call in calls))


def attached() -> int:
    return int(get("gateway", "simple-fsm-gateway")["status"]["listeners"][0]["attachedRoutes"])


def version_of_the_gateway() -> str:
    return str(get("gateway", "simple-fsm-gateway")["metadata"]["resourceVersion"])


async def test_1000_routes(installed: None, api: Api) -> None:
    where = path("gateway.networking.k8s.io/v1", "httproutes", "default")
    await together([api.create(where, route(number)) for number in range(ROUTES)])
    routes, gateways = Watch("httproutes"), Watch("gateways")
    watching = [asyncio.create_task(watch.follow()) for watch in (routes, gateways)]
    await asyncio.sleep(1)
    try:
        began = time.monotonic()
        kubectl("apply", "-f", str(MANIFESTS / "gateway.yaml"))
        await eventually(lambda: attached() == ROUTES, seconds=120)
        await eventually(lambda: len(routes.modified) == ROUTES, seconds=60)
        took = time.monotonic() - began
        await eventually(lambda: conditions_true("gateway", "simple-fsm-gateway", "Programmed"), seconds=60)
        # What the API server has, the watch may hear of a moment later.
        await eventually(lambda: gateways.latest.get("simple-fsm-gateway") == version_of_the_gateway(), seconds=30)
        most = routes.modified.most_common(1)[0]
        assert most[1] <= 2, f"route {most[0]} was written {most[1]} times"
        print(f"\n{ROUTES} routes attached and said so after {took:.1f} s; at most {most[1]} writes a route, "
              f"{gateways.modified['simple-fsm-gateway']} to the Gateway (which waited for its pod and its address)")  # fmt: skip
        # Nothing changed: nothing is written.
        seen = routes.modified.total(), gateways.modified.total()
        await asyncio.sleep(10)
        assert (routes.modified.total(), gateways.modified.total()) == seen
        await one_more_change(api, where)
        await added_one_by_one(api, where)
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        kubectl("delete", "httproute", "-l", f"set={NAME}", "--wait=false")
        kubectl("delete", "-f", str(MANIFESTS / "gateway.yaml"))
    await eventually(lambda: not get("deployment,service", "-n", "default", "-l", "app=fsm-gateway")["items"])


def conditions_true(kind: str, name: str, type_: str) -> bool:
    return any(c["type"] == type_ and c["status"] == "True" for c in get(kind, name)["status"]["conditions"])


async def one_more_change(api: Api, where: str) -> None:
    """One route rewritten among a thousand: the API server's share, and ours until the data plane has it."""
    admin = await eventually(data_plane, seconds=60)
    servers, ours = [], []
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{admin}/events") as answer:
        await answer.content.readline()
        for version in range(1, 101):
            began = time.time()
            await api.merge(f"{where}/{NAME}-5", {"spec": route(5, version)["spec"]})
            written = time.time()
            async for line in answer.content:
                if line.startswith(b"data: ") and f"rule default/{NAME}-5/".encode() in line:
                    applied = json.loads(line[6:])["at"]
                    break
            servers.append(written - began)
            ours.append(applied - written)
    print(
        f"one route among {ROUTES}, 100 changes: the API server answers after p50 {1000 * statistics.median(servers):.1f} ms; in force "
        f"p50 {1000 * statistics.median(ours):.1f} ms, p99 {1000 * statistics.quantiles(ours, n=100)[98]:.1f} ms after that"
    )
    assert statistics.median(ours) < 0.5  # a bound against breakage; the figure itself is reported


async def added_one_by_one(api: Api, where: str) -> None:
    """New routes, each polled at the data plane from its creation on: 404, then what its rule says, and nothing else."""
    pod = (await data_plane()).removesuffix(":9091")
    servers, ours = [], []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        for number in range(ROUTES, ROUTES + 200):
            began = time.monotonic()
            await api.create(where, route(number))
            written = time.monotonic()
            while True:
                async with session.get(f"{pod}/", headers={"Host": f"h{number}.bench.example"}) as answer:
                    if answer.status != 404:
                        break
            assert answer.status == 500, "its backend does not exist"
            servers.append(written - began)
            ours.append(time.monotonic() - written)
    print(
        f"200 routes added to {ROUTES}: the API server answers after p50 {1000 * statistics.median(servers):.1f} ms; served "
        f"p50 {1000 * statistics.median(ours):.1f} ms, p99 {1000 * statistics.quantiles(ours, n=100)[98]:.1f} ms after that"
    )
