"""The Python part of a request alone: real protocols on fake transports, in one process. Nanoseconds, least of 12.

python -m bench.inprocess [--varying N | --hard | --once | --chunked SIZE]

Steady to about 3 % on a noisy machine, because nothing but this process's own work is timed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import time

from bench import rig
from controller.inspect.filter_benchmark import Transport
from gateway.downstream.http1 import DownstreamHttp1
from gateway.runtime.runtime import Runtime
from gateway.snapshot import Change
from gateway.upstream.http1 import Http1UpstreamConnection

CONNECTIONS, EACH, ROUNDS = 64, 300, 12
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 11:22:33 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 23\r\nConnection: keep-alive\r\n\r\nhello from the backend\n"
)


class Kept(Transport):
    """No request here ends its connection."""

    def abort(self) -> None:
        raise RuntimeError("a connection was aborted")

    close = abort


def request(varying: int) -> bytes:
    """A browser's head with this many values that nobody has sent before."""
    fresh = [f"X-Varying-{n}: {random.getrandbits(64):016x}" for n in range(1, varying)]
    lines = [
        f"GET /p/{random.randint(1, 500)} HTTP/1.1", "Host: demo.example.com",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36",
        "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "Accept-Language: en-US,en;q=0.5",
        "Accept-Encoding: gzip, deflate, br", "Cache-Control: no-cache", "Referer: https://demo.example.com/", *fresh,
        f"X-Request-Id: {random.getrandbits(64):016x}", "Cookie: session=abcdef0123456789; theme=dark",
        "Sec-Fetch-Mode: navigate", "DNT: 1", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


def hard_request() -> bytes:
    """Nothing repeats: Host drawn from 2,000, six more values."""
    fresh = "\r\n".join(f"X-Varying-{n}: {random.getrandbits(64):016x}" for n in range(6))
    return (
        f"GET /hard/{random.randint(1, 500)} HTTP/1.1\r\nHost: h{random.randint(0, 1999)}.bench.example\r\nAccept: text/html\r\n"
        f"Accept-Encoding: gzip, deflate, br\r\nCache-Control: no-cache\r\nDNT: 1\r\n{fresh}\r\n\r\n"
    ).encode()


def hard_response() -> bytes:
    """As the backend of the hard mix answers."""
    fresh = f"{random.getrandbits(128):032x}"
    return RESPONSE.replace(
        b"\r\n\r\n", f'\r\nETag: "{fresh}"\r\nSet-Cookie: session={fresh}; Path=/; HttpOnly\r\n\r\n'.encode()
    )


async def measure(varying: int, *, hard: bool = False) -> float:
    """Nanoseconds a request."""
    runtime = Runtime(bind="127.0.0.1", port_offset=rig.PORTS["fsm"] - 80)
    rules = [rig.rule(f"default/h{n}/0", f"h{n}.bench.example") for n in range(2000)] if hard else []
    await runtime.apply(Change(put=rig.parts(*rules)))
    listener_port = runtime.ports.tcp[80].listener_port
    pool = next(iter(runtime.backends.get("b").endpoints))
    clients: list[DownstreamHttp1] = []
    for _ in range(CONNECTIONS):
        client = DownstreamHttp1(listener_port)
        client.connection_made(Kept())
        clients.append(client)
        upstream = Http1UpstreamConnection(pool)
        upstream.connection_made(Kept())
        pool.idle.append(upstream)
    heads = [hard_request() if hard else request(varying) for _ in range(CONNECTIONS * EACH)]
    answers = [hard_response() for _ in heads] if hard else [RESPONSE] * len(heads)
    gc.collect()
    gc.freeze()
    least = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        at = 0
        for client in clients:
            for _ in range(EACH):
                client.data_received(heads[at])
                (client.peer or client._exchange.peer).data_received(answers[at])
                at += 1
        least = min(least, (time.perf_counter() - started) / at)
    runtime.ports.tcp[80].server.close()
    return least * 1e9


async def measure_once() -> float:
    """Nanoseconds a request, a new connection for each."""
    runtime = Runtime(bind="127.0.0.1", port_offset=rig.PORTS["fsm"] - 80)
    await runtime.apply(Change(put=rig.parts()))
    listener_port = runtime.ports.tcp[80].listener_port
    pool = next(iter(runtime.backends.get("b").endpoints))
    upstream = Http1UpstreamConnection(pool)
    upstream.connection_made(Kept())
    pool.idle.append(upstream)
    heads = [request(1).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") for _ in range(CONNECTIONS * EACH)]
    gc.collect()
    gc.freeze()
    least = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for head in heads:
            client = DownstreamHttp1(listener_port)
            client.connection_made(Transport())
            client.data_received(head)
            (client.peer or client._exchange.peer).data_received(RESPONSE)
            client.connection_lost(None)
        least = min(least, (time.perf_counter() - started) / len(heads))
    runtime.ports.tcp[80].server.close()
    return least * 1e9


async def measure_chunked(size: int) -> tuple[float, float]:
    """Nanoseconds for a body of 1 MB (less for tiny chunks) in chunks of this size, up and down, in reads of 64 KB."""
    runtime = Runtime(bind="127.0.0.1", port_offset=rig.PORTS["fsm"] - 80)
    await runtime.apply(Change(put=rig.parts()))
    listener_port = runtime.ports.tcp[80].listener_port
    pool = next(iter(runtime.backends.get("b").endpoints))
    total = 1 << 20 if size >= 64 else 1 << 16
    body = b"%x\r\n%b\r\n" % (size, b"x" * size) * (total // size) + b"0\r\n\r\n"
    coded = b"Transfer-Encoding: chunked\r\n\r\n"
    up = _in_reads(b"POST /p/1 HTTP/1.1\r\nHost: demo.example.com\r\n" + coded + body)
    down = _in_reads(b"HTTP/1.1 200 OK\r\n" + coded + body)
    least = [float("inf"), float("inf")]
    for _ in range(ROUNDS * 2):
        client, upstream = DownstreamHttp1(listener_port), Http1UpstreamConnection(pool)
        client.connection_made(Kept())
        upstream.connection_made(Kept())
        pool.idle.append(upstream)
        for way, (end, reads) in enumerate(((client, up), (upstream, down))):
            started = time.perf_counter()
            for data in reads:
                end.data_received(data)
                while client._postponed or (upstream._buffer and end is upstream):
                    end._read_on()  # what the loop does when others have had their turn
            least[way] = min(least[way], time.perf_counter() - started)
        pool.idle.clear()
        listener_port.leave(client)
    runtime.ports.tcp[80].server.close()
    return least[0] * 1e9, least[1] * 1e9


def _in_reads(data: bytes) -> list[bytes]:
    return [data[at : at + (1 << 16)] for at in range(0, len(data), 1 << 16)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--varying", type=int, default=1, help="values in each head that nobody has sent before")
    parser.add_argument(
        "--hard", action="store_true", help="the hard mix: nothing repeats, neither in requests nor in responses"
    )
    parser.add_argument("--once", action="store_true", help="a new connection for each request")
    parser.add_argument("--chunked", type=int, metavar="SIZE", help="a body of 1 MB in chunks of this size, up and down")
    arguments = parser.parse_args()
    if arguments.chunked:
        up, down = asyncio.run(measure_chunked(arguments.chunked))
        print(f"{up:.0f} ns up, {down:.0f} ns down (chunks of {arguments.chunked})")
        return
    if arguments.once:
        print(f"{asyncio.run(measure_once()):.0f} ns a request (a connection each)")
        return
    what = "hard mix" if arguments.hard else f"{arguments.varying} varying"
    print(f"{asyncio.run(measure(arguments.varying, hard=arguments.hard)):.0f} ns a request ({what})")


if __name__ == "__main__":
    main()
