"""What the measurements share: peers as child processes pinned to cores, load by wrk, CPU time from /proc.

The proxy under test runs alone on core 0; load and backend share core 1. Absolute figures mean little on a
shared machine: everything is measured in short interleaved rounds and reported as medians of pairwise ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.snapshot import Attachment, Backend, Change, Endpoint, Listener, Order, Part, Rule, Target
from gateway.workers import Workers

HERE = Path(__file__).parent
BACKEND_PORT, NGINX_PORT, OUR_PORT = 19001, 19003, 19004
TICK = os.sysconf("SC_CLK_TCK")

BACKEND = """
worker_processes 1; daemon off; pid {folder}/backend.pid; error_log {folder}/backend.err;
events {{ worker_connections 8192; }}
http {{ access_log off; client_body_temp_path {folder}/b1; proxy_temp_path {folder}/b2; fastcgi_temp_path {folder}/b3;
  uwsgi_temp_path {folder}/b4; scgi_temp_path {folder}/b5; keepalive_requests 1000000000; keepalive_timeout 600s;
  server {{ listen 127.0.0.1:{backend} backlog=4096; location / {{ default_type text/plain; return 200 "hello from the backend\\n"; }} }} }}
"""
NGINX = """
worker_processes 1; daemon off; pid {folder}/proxy.pid; error_log {folder}/proxy.err;
events {{ worker_connections 8192; }}
http {{ access_log off; client_body_temp_path {folder}/p1; proxy_temp_path {folder}/p2; fastcgi_temp_path {folder}/p3;
  uwsgi_temp_path {folder}/p4; scgi_temp_path {folder}/p5; keepalive_requests 1000000000; keepalive_timeout 600s;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{nginx} backlog=4096; server_name demo.example.com;
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host; }} }} }}
"""


def need(*programs: str) -> None:
    """Stop with a clear word where a program is missing."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}; on Debian: apt-get install nginx-light wrk util-linux")


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


@contextlib.contextmanager
def nginx() -> Iterator[tuple[int, int]]:
    """Backend on core 1 and proxy on core 0; yields the proxy's pid and the backend's."""
    folder = Path(tempfile.mkdtemp(prefix="fsm-bench-"))
    started = []
    try:
        for name, text, core in (("backend", BACKEND, 1), ("proxy", NGINX, 0)):
            path = folder / f"{name}.conf"
            path.write_text(text.format(folder=folder, backend=BACKEND_PORT, nginx=NGINX_PORT))
            command = ["taskset", "-c", str(core), "nginx", "-c", str(path), "-p", str(folder)]
            started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        time.sleep(0.5)
        yield started[1].pid, started[0].pid
    finally:
        for process in started:
            process.terminate()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def parts(port: int = BACKEND_PORT) -> tuple[Part, ...]:
    """One listener, one route to the backend."""
    rule = Rule("default/demo/0", Order(), (Attachment("l", "demo.example.com"),), targets=(Target(1, "b"),))
    return Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", port),)), rule


@contextlib.asynccontextmanager
async def ours(count: int = 1) -> AsyncIterator[Workers]:
    """Our workers, each pinned to a core of its own from 0 on."""
    workers = Workers(count, bind="127.0.0.1", port_offset=OUR_PORT - 80)
    await workers.start()
    for core, pid in enumerate(workers.pids()):
        os.sched_setaffinity(pid, {core})
    await workers.apply(Change("1", parts()))
    try:
        yield workers
    finally:
        await workers.stop(grace=1)


@dataclass
class Run:
    """One round against one proxy."""

    rate: float  # requests a second
    user: float  # µs of CPU a request
    system: float
    errors: int
    latency: dict[str, float] = field(default_factory=dict)  # ms

    @property
    def cpu(self) -> float:
        """µs of CPU a request."""
        return self.user + self.system


async def wrk(port: int, pid: int, *, seconds: float, connections: int = 64, script: str = "browser.lua", seed: int = 1) -> Run:
    """Load from core 1, for a bounded time."""
    before = cpu_seconds(pid)
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(HERE / script),
        f"http://127.0.0.1:{port}/", "--", str(seed), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output = (await process.communicate())[0].decode()
    after = cpu_seconds(pid)
    requests = int(re.search(r"(\d+) requests in", output).group(1))
    rate = float(re.search(r"Requests/sec: +([\d.]+)", output).group(1))
    problems = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", output)))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    micro = 1e6 / max(requests, 1)
    return Run(
        rate, (after[0] - before[0]) * micro, (after[1] - before[1]) * micro, problems + (int(bad.group(1)) if bad else 0)
    )


@dataclass
class Comparison:
    """Interleaved rounds of us and a peer."""

    name: str
    us: list[Run] = field(default_factory=list)
    peer: list[Run] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        """Medians and spread of pairwise ratios; more than 1 is better for us."""
        rates = [a.rate / b.rate for a, b in zip(self.us, self.peer, strict=True)]
        cpu = [b.cpu / a.cpu for a, b in zip(self.us, self.peer, strict=True)]
        return {
            "peer": self.name,
            "requests_per_second": {
                "ours": round(statistics.median(r.rate for r in self.us)),
                "peer": round(statistics.median(r.rate for r in self.peer)),
            },
            "cpu_us_per_request": {
                "ours": [round(statistics.median(getattr(r, k) for r in self.us), 2) for k in ("user", "system")],
                "peer": [round(statistics.median(getattr(r, k) for r in self.peer), 2) for k in ("user", "system")],
            },
            "rate_ratio": {
                "median": round(statistics.median(rates), 3),
                "min": round(min(rates), 3),
                "max": round(max(rates), 3),
            },
            "cpu_ratio": {"median": round(statistics.median(cpu), 3), "min": round(min(cpu), 3), "max": round(max(cpu), 3)},
            "errors": {"ours": sum(r.errors for r in self.us), "peer": sum(r.errors for r in self.peer)},
        }


def write(path: Path | None, value: object) -> None:
    """JSON, where asked for."""
    if path is not None:
        path.write_text(json.dumps(value, indent=2) + "\n")
