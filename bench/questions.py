"""The questions about requests, one function each: what is asked, against whom, and the bar."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench import holders, rig
from bench.rig import PORTS, Rig, Row, Run, Side, against, interleave, many_files, ours, ratio, wrk
from gateway.snapshot import (
    Attachment,
    Backend,
    Endpoint,
    Listener,
    Match,
    Mirror,
    Order,
    Part,
    PathEdit,
    PathMatch,
    Relay,
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
    Target,
    ValueMatch,
)


@dataclass
class Effort:
    """How long to measure."""

    rounds: int = 7
    seconds: float = 2.0

    @property
    def is_smoke(self) -> bool:
        """Only to see that everything runs."""
        return self.rounds < 3


async def small(effort: Effort) -> list[Row]:
    """Small requests from 64 clients, each on its own connection with its own head, against every peer."""
    peers = {"nginx": 1.0, "haproxy": 1.0, "envoy": 1.5, "caddy": 4.0, "aiohttp": 8.0}
    with Rig() as r:
        sides = [r.start(name) for name in peers]
        async with ours() as us:
            runs = await interleave([us, *sides], effort.rounds, lambda side, n: _clients(side, effort, n))
    return against("small requests, HTTP/1.1, 64 clients", runs, peers)


async def _clients(side: Side, effort: Effort, seed: int, *more: str) -> Run:
    return await wrk(side, seed, *more, script="clients.lua", threads=64, seconds=effort.seconds)


async def hard(effort: Effort) -> list[Row]:
    """Nothing repeats: Host, six fields, the response's ETag and Set-Cookie."""
    hosts = [f"h{number}.bench.example" for number in range(2000)]
    servers = "\n".join(
        f"  server {{ listen 127.0.0.1:{PORTS['nginx']}; server_name {host}; location / {{ proxy_pass http://backend; }} }}"
        for host in hosts
    )
    rules = [rig.rule(f"default/{host}/0", host) for host in hosts]
    with Rig() as r:
        nginx = r.start("nginx", servers=servers)
        async with ours(rig.parts(*rules)) as us:
            runs = await interleave(
                [us, nginx], effort.rounds, lambda side, n: wrk(side, n, script="hard.lua", seconds=effort.seconds)
            )
    return against("hard mix: Host, 6 fields, ETag and Set-Cookie new each time", runs, {"nginx": 0.8})


async def _against_plain(question: str, bar: float, given: tuple[Part, ...], effort: Effort, *more: str) -> list[Row]:
    with Rig():
        async with ours() as plain, ours(given, port=PORTS["other"]) as special:
            sides = [Side("plain", plain.port, plain.pid), special]
            runs = await interleave(sides, effort.rounds, lambda side, n: _clients(side, effort, n, *more))
    return against(question, runs, {"plain": bar})


async def matching(effort: Effort) -> list[Row]:
    """Twenty candidates for each request, told apart by headers, query and method."""
    rules = [
        rig.rule(
            f"default/r{n}/0",
            matches=(Match(
                PathMatch("PathPrefix", "/p"), "GET" if n % 2 else "",
                (ValueMatch("x-tenant", f"t{n}"), ValueMatch("accept-language", "fr.*", regex=True)), (ValueMatch("v", str(n)),),
            ),),
        )
        for n in range(19)
    ]  # fmt: skip
    return await _against_plain(
        "header, query and method matches, 20 candidates",
        0.9,
        rig.parts(*rules, rig.rule()),
        effort,
        "/p/",
        "\r\nX-Tenant: t99",
    )


async def filters(effort: Effort) -> list[Row]:
    """Two header modifiers, a rewrite, a mirror of 5 %, weights over three backends."""
    made = (
        RequestHeaders((("X-Gateway", "fsm"),), (("X-Trace", "on"),), ("dnt",)),
        ResponseHeaders((("X-Served-By", "fsm"),), (), ("server",)),
        Rewrite("", PathEdit("ReplacePrefixMatch", "/inner")),
        Mirror("mirror", 5, 100),
    )
    endpoint = (Endpoint("127.0.0.1", PORTS["backend"]),)
    targets = (Target(70, "b1"), Target(20, "b2"), Target(10, "b3"))
    given = (
        Listener("l", 80), *(Backend(name, endpoint) for name in ("b1", "b2", "b3", "mirror")),
        rig.rule(matches=(Match(PathMatch("PathPrefix", "/p")),), filters=made, targets=targets),
    )  # fmt: skip
    return await _against_plain("2 header modifiers, rewrite, 5 % mirror, 3 weighted backends", 0.8, given, effort)


async def latency(effort: Effort) -> list[Row]:
    """The 99th percentile at half of nginx's maximum rate, sent at fixed times (h2load)."""
    rig.need("h2load")
    with Rig() as r:
        nginx = r.start("nginx")
        async with ours() as us:
            top = (await _clients(nginx, effort, 1)).rate
            found: dict[str, list[float]] = {"fsm": [], "nginx": []}
            for index in range(effort.rounds):
                for side in (us, nginx) if index % 2 else (nginx, us):
                    found[side.name].append(await _p99(side, top / 2, effort.seconds, r.folder))
    # Less is better: the ratio is theirs over ours, and the bar of 1.3 × theirs is 1 / 1.3 of it.
    best = ratio(found["fsm"], found["nginx"])
    details = {"rate": round(top / 2), "p99_us": found}
    return [Row("p99 at half of nginx's maximum rate", "≤ 1.3 × nginx", f"p99 {best}", best.median <= 1.3, details)]


async def _p99(side: Side, rate: float, seconds: float, folder: Path) -> float:
    log = folder / f"latency-{side.name}.log"
    log.unlink(missing_ok=True)
    each = max(round(rate / 64), 1)
    await rig.run(
        "taskset", "-c", "1", "h2load", "--h1", "-c", "64", "-t", "1", "--rps", str(each), "-n", str(int(each * 64 * seconds)),
        f"--log-file={log}", "-H", f"Host: {rig.HOST}", f"http://127.0.0.1:{side.port}/p/1", at_most=seconds * 3 + 10,
    )  # fmt: skip
    times = sorted(int(line.split()[2]) for line in log.read_text().splitlines())
    return float(times[int(len(times) * 0.99)])


async def _of(peers: dict[str, float], effort: Effort, question: str, scheme: str, *arguments: str, each: float) -> list[Row]:
    """h2load with these arguments against ours and peers; `each` is how many requests a second to expect of the slowest."""
    suffix = "_tls" if scheme == "https" else "_h2c"
    with Rig() as r:
        # A peer's second port belongs to the process that serves its first.
        sides = [Side(name, PORTS[name + suffix], r.start(name).pid) for name in peers]
        async with ours(rig.tls_parts(r.certificate)) as us:
            if scheme == "https":
                us = Side(us.name, PORTS["fsm_tls"], us.pid)
            for side in (us, *sides):
                rig.wait_for_port(side.port)

            runs = await interleave(
                [us, *sides], effort.rounds,
                lambda side, _: rig.paced(side, scheme, *arguments, each=each, seconds=effort.seconds),
            )  # fmt: skip
    return against(question, runs, peers)


async def http2(effort: Effort) -> list[Row]:
    """HTTP/2, prior knowledge and over TLS: 10 connections with 10 streams each."""
    load = ("-c", "10", "-m", "10")
    peers = {"envoy": 1.0, "nginx": 0.8}
    rows = await _of(peers, effort, "HTTP/2 (h2c), 10 × 10 streams", "http", *load, each=20000)
    return rows + await _of(peers, effort, "HTTP/2 over TLS, 10 × 10 streams", "https", *load, each=20000)


async def tls(effort: Effort) -> list[Row]:
    """HTTP/1.1 over TLS on connections that are kept, and a handshake for each request."""
    rows = await _of({"nginx": 0.8}, effort, "HTTP/1.1 over TLS, 64 clients", "https", "--h1", "-c", "64", each=15000)
    with Rig() as r:
        nginx = Side("nginx", PORTS["nginx_tls"], r.start("nginx").pid)
        async with ours(rig.tls_parts(r.certificate)) as us:
            us = Side(us.name, PORTS["fsm_tls"], us.pid)
            runs = await interleave([us, nginx], effort.rounds, lambda side, _: rig.handshakes(side, effort.seconds))
    return rows + against("TLS handshakes (1.3, ECDSA P-256), a request each", runs, {"nginx": 0.9})


async def streams(effort: Effort) -> list[Row]:
    """TCPRoute and UDPRoute against nginx's stream module: 1 MB responses, and datagrams of 125 bytes back and forth."""
    ports = {name: PORTS[f"fsm_{name}"] - PORTS["fsm"] + 80 for name in ("tcp", "udp")}
    given: tuple[Part, ...] = (
        Listener("t", ports["tcp"], "TCP"), Backend("t", (Endpoint("127.0.0.1", PORTS["backend"]),), "tcp"),
        Relay("t", Order(), (Attachment("t"),), (Target(1, "t"),)), Listener("u", ports["udp"], "UDP"),
        Backend("u", (Endpoint("127.0.0.1", PORTS["udp_echo"]),), "udp"),
        Relay("u", Order(), (Attachment("u"),), (Target(1, "u"),)),
    )  # fmt: skip
    with Rig() as r:
        nginx = r.start("nginx")
        r.run("udp_echo", ["taskset", "-c", "1", sys.executable, "-m", "bench.holders", "udp", str(PORTS["udp_echo"])])
        async with ours(given) as us:
            sides = [Side(side.name, PORTS[f"{side.name}_tcp"], side.pid) for side in (us, nginx)]
            runs = await interleave(
                sides, effort.rounds,
                lambda side, _: wrk(side, "GET", "/files/1m", script="target.lua", connections=16, seconds=effort.seconds),
            )  # fmt: skip
            rows = against("TCPRoute, 1 MB each way of 16 connections", runs, {"nginx": 0.9}, by_rate=True)
            sides = [Side(side.name, PORTS[f"{side.name}_udp"], side.pid) for side in (us, nginx)]
            runs = await interleave(sides, effort.rounds, lambda side, _: holders.datagrams(side, effort.seconds))
            return rows + against("UDPRoute, datagrams of 64 flows", runs, {"nginx": 0.9}, by_rate=True)


async def bodies(effort: Effort) -> list[Row]:
    """10 KB and 1 MB responses, 1 MB uploads: bytes a second."""
    rows = []
    with Rig() as r:
        nginx = r.start("nginx")
        async with ours() as us:
            for question, arguments, connections in (
                ("10 KB responses", ("GET", "/files/10k"), 64),
                ("1 MB responses", ("GET", "/files/1m"), 16),
                ("1 MB uploads", ("POST", "/upload", 1 << 20), 16),
            ):
                runs = await interleave(
                    [us, nginx], effort.rounds,
                    lambda side, _, a=arguments, c=connections: wrk(side, *a, script="target.lua", connections=c, seconds=effort.seconds),
                )  # fmt: skip
                rows += against(question, runs, {"nginx": 0.9}, by_rate=True)
    return rows


async def memory_of_bodies(effort: Effort) -> list[Row]:
    """A 1 GB response and a 1 GB upload, streamed: how much the worker grows."""
    size = (64 << 20) if effort.is_smoke else (1 << 30)
    with Rig() as r:
        big = r.folder / "files" / "big"
        with big.open("wb") as file:
            file.truncate(size)
        async with ours() as us:
            await holders.download(us.port, "/files/10k")
            before = rig.resident(us.pid)
            most = 0
            for transfer in (holders.download(us.port, "/files/big"), holders.upload(us.port, "/upload", size)):
                task = asyncio.ensure_future(transfer)
                while not task.done():
                    most = max(most, rig.resident(us.pid))
                    await asyncio.sleep(0.02)
                assert await task == size if transfer.__name__ == "download" else await task
    growth = (most - before) / 1e6
    question = f"{size >> 20} MB streamed down and up: growth of the worker"
    return [Row(question, "≤ 10 MB", f"{growth:.1f} MB", growth <= 10, {"growth_mb": round(growth, 2)})]


async def connections(effort: Effort) -> list[Row]:
    """A new connection for each request."""
    with Rig() as r:
        nginx = r.start("nginx")
        async with ours() as us:
            runs = await interleave(
                [us, nginx], effort.rounds,
                lambda side, n: wrk(side, "GET", "/p/1", 0, "Accept: */*", "Connection: close", script="target.lua", seconds=effort.seconds),
            )  # fmt: skip
    return against("a new connection for each request", runs, {"nginx": 0.8})


async def routes(effort: Effort) -> list[Row]:
    """10,000 routes over 2,000 hostnames against one, with the traffic of one."""
    many = [
        rig.rule(f"default/r{n}/0", f"h{n // 5}.bench.example", matches=(Match(PathMatch("PathPrefix", f"/r{n % 5}")),))
        for n in range(10_000)
    ]
    return await _against_plain("10,000 routes over 2,000 hostnames against 1", 1 / 1.05, rig.parts(*many, rig.rule()), effort)


async def workers(effort: Effort) -> list[Row]:
    """Two workers against one: CPU a request of both together."""
    with Rig():
        async with ours() as one, ours(port=PORTS["other"], count=2) as two:
            sides = [Side("one", one.port, one.pid), two]
            runs = await interleave(sides, effort.rounds, lambda side, n: _both(side, effort, n))
    cpu = ratio([run.cpu for run in runs["one"]], [run.cpu for run in runs["fsm"]])
    return [
        Row("2 workers against 1, CPU a request", "equal within 10 %", str(cpu), cpu.median >= 0.9, {"runs": rig.figures(runs)})
    ]


async def _both(side: Side, effort: Effort, seed: int) -> Run:
    """All workers of a side: siblings are children of this very process."""
    siblings = [pid for pid in rig.children(os.getpid()) if _is_worker_on(pid, side.port)]
    before = [rig.cpu_seconds(pid) for pid in siblings]
    run = await _clients(side, effort, seed)
    after = [rig.cpu_seconds(pid) for pid in siblings]
    requests = run.rate * effort.seconds
    spent = [sum(a[k] - b[k] for a, b in zip(after, before, strict=True)) * 1e6 / requests for k in (0, 1)]
    return Run(run.rate, spent[0], spent[1], run.errors)


def _is_worker_on(pid: int, port: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"gateway.process.worker" in command and str(port - 80).encode() in command


async def tunnel(effort: Effort) -> list[Row]:
    """WebSocket frames of 125 bytes, back and forth on 64 connections: frames a second and CPU a frame."""
    given = rig.parts(port=PORTS["echo"])
    with Rig() as r:
        r.run("echo", ["taskset", "-c", "1", sys.executable, "-m", "bench.holders", "echo", str(PORTS["echo"])])
        nginx = r.start("nginx")
        async with ours(given) as us:
            runs = await interleave([us, nginx], effort.rounds, lambda side, _: holders.frames(side, effort.seconds))
    return against("WebSocket frames through a tunnel", runs, {"nginx": 0.9})


async def idle(effort: Effort) -> list[Row]:
    """Memory of an idle kept connection, each after three requests of a client of its own."""
    count = 1000 if effort.is_smoke else 10_000
    with Rig(), many_files():
        async with ours() as us:
            warm = await holders.hold(us.port, 200)
            before = rig.resident(us.pid)
            held = await holders.hold(us.port, count)
            await asyncio.sleep(8)  # what an idle connection lets go of, it does within some seconds
            after = rig.resident(us.pid)
            for writer in (*held, *warm):
                writer.close()
    each = (after - before) / count / 1024
    return [Row(f"{count:,} idle kept connections, memory each", "≤ 4 KB", f"{each:.2f} KB", each <= 4, {"kb": round(each, 2)})]


async def start(effort: Effort) -> list[Row]:
    """From the start of a worker process with 1,000 routes to the first answer."""
    rules = [rig.rule(f"default/r{n}/0", f"h{n}.bench.example") for n in range(999)]
    given = rig.parts(*rules, rig.rule())
    times = []
    with Rig():
        for _ in range(effort.rounds):
            began = time.perf_counter()
            async with ours(given) as us:
                await holders.download(us.port, "/p/1")
                times.append(time.perf_counter() - began)
    middle = sorted(times)[len(times) // 2] * 1000
    return [Row("start with 1,000 routes to the first answer", "≤ 400 ms", f"{middle:.0f} ms", middle <= 400, {"ms": times})]


async def slow(effort: Effort) -> list[Row]:
    """5,000 idle connections and 200 that send one byte a second, beside normal load: what its p99 becomes."""
    rig.need("h2load")
    idlers, tricklers = (500, 20) if effort.is_smoke else (5000, 200)
    with Rig() as r, many_files():
        async with ours() as us:
            rate = 5000.0
            alone = [await _p99(us, rate, effort.seconds, r.folder) for _ in range(effort.rounds)]
            held = await holders.hold(us.port, idlers)
            trickling = asyncio.ensure_future(holders.trickle(us.port, tricklers, at_most=45 if not effort.is_smoke else 14))
            beside = [await _p99(us, rate, effort.seconds, r.folder) for _ in range(effort.rounds)]
            closed = await trickling
            for writer in held:
                writer.close()
    change = ratio(beside, alone)
    found = f"p99 {change}; {closed} of {tricklers} slow ones closed at their limits"
    reached = change.median <= 1.5 and closed == tricklers
    details = {"alone_us": alone, "beside_us": beside, "closed": closed}
    return [
        Row(f"{idlers:,} idle and {tricklers} trickling connections beside normal load", "p99 ≤ 1.5 ×", found, reached, details)
    ]


QUESTIONS = {
    function.__name__.replace("_", "-"): function
    for function in (
        small, hard, matching, filters, latency, http2, tls, streams, bodies, memory_of_bodies, connections, routes, workers, tunnel, idle, start, slow,
    )
}  # fmt: skip
