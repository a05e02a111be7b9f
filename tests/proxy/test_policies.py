"""Kinds of filters that come with the gateway, through real sockets."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import dns.message
import pytest
from support.http2_peers import until
from support.proxy import Proxy, Server, make_rule
from support.streams import Datagram, datagrams

from gateway.filters.builtin import BUILT_IN
from gateway.snapshot import Attachment, Backend, Endpoint, Listener, Order, Relay, Script, Scripted, Target

__all__ = ["datagrams"]


def built_in(kind: str, **spec: Any) -> Script:
    return Script(
        "p", "", json.dumps(spec), "inline", built_in=kind, seconds=3600.0, passes=BUILT_IN[kind].passes, network=("*",)
    )


async def policy(proxy: Proxy, server: Server, kind: str, **spec: Any) -> None:
    """A rule with one of them."""
    script = built_in(kind, **spec)
    await proxy.apply(
        Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", server.port),)), script,
        make_rule("r", targets=(Target(1, "b"),), filters=(Scripted("p"),)),
    )  # fmt: skip


async def test_request_termination(proxy: Proxy, server: Server) -> None:
    await policy(
        proxy, server, "RequestTermination", response={"status": 503, "headers": {"Retry-After": "60"}, "body": "closed"}
    )
    status, fields, body = await proxy.get()
    assert (status, fields["retry-after"], body) == (503, "60", b"closed")
    await policy(proxy, server, "RequestTermination")
    assert (await proxy.get())[::2] == (500, b"")
    assert not server.seen


async def test_fault_injection_aborts_its_share(proxy: Proxy, server: Server) -> None:
    await policy(proxy, server, "FaultInjection", abort={"percentage": 100, "response": {"status": 502, "body": "injected"}})
    assert (await proxy.get())[::2] == (502, b"injected")
    await policy(proxy, server, "FaultInjection", abort={"percentage": 0})
    assert (await proxy.get())[::2] == (200, b"ok")
    await policy(proxy, server, "FaultInjection", abort={"percentage": 50})
    found = [(await proxy.get())[0] for _ in range(400)]
    assert 120 < found.count(500) < 280  # eight standard deviations
    assert found.count(500) + found.count(200) == 400


@pytest.mark.parametrize(
    ("delay", "least"), [({"min": "60ms"}, 0.06), ({"min": "60ms", "max": "80ms"}, 0.06)], ids=["min", "range"]
)
async def test_fault_injection_delays_in_the_units_that_it_says(
    proxy: Proxy, server: Server, delay: dict, least: float
) -> None:
    await policy(proxy, server, "FaultInjection", delay={"percentage": 100, **delay}, abort={"percentage": 100})
    began = time.monotonic()
    answers = await asyncio.gather(*(proxy.get() for _ in range(5)))
    took = time.monotonic() - began
    assert [status for status, _, _ in answers] == [500] * 5
    assert least <= took < 2
    assert not server.seen


# --- limits ---


async def statuses(proxy: Proxy, count: int, **headers: str) -> list[int]:
    return [(await proxy.get(**headers))[0] for _ in range(count)]


async def test_rate_limit_refuses_what_is_over_it(proxy: Proxy, server: Server) -> None:
    await policy(proxy, server, "RateLimit", requests=1, interval="1h", burst=3, backlog=0, response={"body": "slow down"})
    assert await statuses(proxy, 3) == [200, 200, 200]
    status, fields, body = await proxy.get()
    assert (status, fields["retry-after"], body) == (429, "3600", b"slow down")


async def test_rate_limit_lets_the_backlog_wait(proxy: Proxy, server: Server) -> None:
    await policy(proxy, server, "RateLimit", requests=20, interval="1s", burst=1, backlog=4)
    began = time.monotonic()
    answers = await asyncio.gather(*(proxy.get() for _ in range(8)))
    took = time.monotonic() - began
    assert sorted(status for status, _, _ in answers) == [200] * 5 + [429] * 3
    assert 0.19 < took < 2


async def test_rate_limit_that_blocks_refuses_nobody(proxy: Proxy, server: Server) -> None:
    await policy(proxy, server, "RateLimit", requests=50, interval="1s", burst=1, backlog=0, blocking=True)
    answers = await asyncio.gather(*(proxy.get() for _ in range(8)))
    assert [status for status, _, _ in answers] == [200] * 8


async def test_rate_limit_by_header_and_by_address(proxy: Proxy, server: Server) -> None:
    key = {"type": "Header", "header": "X-Key"}
    await policy(proxy, server, "RateLimit", requests=1, interval="1h", burst=2, backlog=0, keyBy=key)
    assert await statuses(proxy, 3, x_key="a") == [200, 200, 429]
    assert await statuses(proxy, 3, x_key="b") == [200, 200, 429]
    await policy(proxy, server, "RateLimit", requests=1, interval="1h", burst=1, backlog=0, keyBy={"type": "ClientAddress"})
    assert await statuses(proxy, 2) == [200, 429]


async def test_a_rate_limit_goes_on_through_an_edit(proxy: Proxy, server: Server) -> None:
    await policy(proxy, server, "RateLimit", requests=1, interval="1h", burst=2, backlog=0)
    assert await statuses(proxy, 2) == [200, 200]
    await policy(proxy, server, "RateLimit", requests=1, interval="1h", burst=2, backlog=0, response={"status": 503})
    assert await statuses(proxy, 1) == [503]


async def test_external_rate_limit_asks_a_service(proxy: Proxy, server: Server, other: Server) -> None:
    spec = {"throttleHost": f"127.0.0.1:{other.port}", "passHeaders": ["X-Key"]}
    await policy(proxy, server, "ExternalRateLimit", **spec)
    assert (await proxy.get("/p?q", x_key="k", x_other="o"))[0] == 200
    assert other.seen[0].startswith(b"GET /p?q HTTP/1.1\r\n")
    assert b"x-key: k" in other.seen[0]
    assert b"x-other" not in other.seen[0].lower()
    other.default = b"HTTP/1.1 429 No\r\nContent-Length: 4\r\nRetry-After: 7\r\n\r\nwait"
    status, fields, body = await proxy.get()
    assert (status, fields["retry-after"], body) == (429, "7", b"wait")
    assert len(server.seen) == 1


@pytest.mark.parametrize(("failure", "status"), [("Closed", 503), ("Open", 200)])
async def test_external_rate_limit_without_an_answer(
    proxy: Proxy, server: Server, other: Server, failure: str, status: int
) -> None:
    async def silence(*_: object) -> None:
        await asyncio.sleep(10)

    other.default = silence
    spec = {"throttleHost": f"127.0.0.1:{other.port}", "timeout": "50ms", "failurePolicy": failure}
    await policy(proxy, server, "ExternalRateLimit", **spec)
    assert (await proxy.get())[0] == status
    assert ("counter", "external_rate_limit_failures_total", ()) in proxy.runtime.programs.get("p").measures.series


async def test_circuit_breaker_leaves_a_failing_backend_alone(proxy: Proxy, server: Server) -> None:
    await policy(proxy, server, "CircuitBreaker", errorCountThreshold=3, errorRatioThreshold="0.5", breakInterval="100ms")
    assert await statuses(proxy, 4) == [200] * 4
    server.default = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    assert await statuses(proxy, 5) == [500] * 4 + [429]  # the fourth of eight: three were not half
    assert (await proxy.get())[2] == b"Circuit breaker triggered"
    assert len(server.seen) == 8
    server.default = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with asyncio.timeout(5):
        while (await proxy.get())[0] != 200:
            await asyncio.sleep(0.01)


async def test_circuit_breaker_counts_slow_answers_in_the_units_that_it_says(proxy: Proxy, server: Server) -> None:
    async def slow(_: object, writer: asyncio.StreamWriter, __: object) -> None:
        await asyncio.sleep(0.06)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server.default = slow
    await policy(proxy, server, "CircuitBreaker", latencyThreshold="10s", errorCountThreshold=2)
    assert await statuses(proxy, 3) == [200] * 3
    await policy(proxy, server, "CircuitBreaker", latencyThreshold="50ms", errorCountThreshold=2, errorRatioThreshold="0.1")
    assert await statuses(proxy, 3) == [200, 200, 429]


async def test_circuit_breaker_with_either_of_several_limits(proxy: Proxy, server: Server) -> None:
    either = {"errors": [0, 0.5], "slow": [2, 0]}
    await policy(proxy, server, "CircuitBreaker", minRequests=4, anyOf=either, latencyThreshold="0ms")
    server.replies = [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"] * 3
    assert await statuses(proxy, 4) == [500, 500, 500, 200]  # enough errors, but not enough requests
    server.replies = [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]
    assert await statuses(proxy, 2) == [500, 429]


async def test_circuit_breaker_limits_what_is_under_way(proxy: Proxy, server: Server) -> None:
    go = asyncio.Event()

    async def held(_: object, writer: asyncio.StreamWriter, __: object) -> None:
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server.default = held
    await policy(proxy, server, "CircuitBreaker", concurrencyThreshold=2)
    first = [asyncio.create_task(proxy.get()) for _ in range(2)]
    await until(lambda: len(server.seen) == 2)
    assert (await proxy.get())[0] == 429
    go.set()
    assert [(await one)[0] for one in first] == [200, 200]
    assert (await proxy.get())[0] == 200


# --- who may ---


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"forbidden": ["127.0.0.0/8"]}, 403),
        ({"forbidden": ["127.0.0.2"]}, 200),
        ({"allowed": ["127.0.0.1"]}, 200),
        ({"allowed": ["10.0.0.0/8", "fd00::/8"]}, 403),
        ({"allowed": ["127.0.0.1"], "forbidden": ["127.0.0.1"]}, 403),
        ({"forbidden": ["127.0.0.1"], "response": {"status": 404}}, 404),
        ({"allowed": ["10.0.0.7"], "enableXFF": True}, 200),
    ],
)
async def test_ip_restriction_of_requests(proxy: Proxy, server: Server, spec: dict, status: int) -> None:
    await policy(proxy, server, "IPRestriction", **spec)
    assert (await proxy.get(x_forwarded_for="10.0.0.9, 10.0.0.7"))[0] == status


async def at_the_door(proxy: Proxy, server: Server, kind: str, **spec: Any) -> None:
    await proxy.apply(
        built_in(kind, **spec), Listener("l", 80, filters=(Scripted("p"),)),
        Backend("b", (Endpoint("127.0.0.1", server.port),)), make_rule("r", targets=(Target(1, "b"),)),
    )  # fmt: skip


async def test_ip_restriction_of_connections(proxy: Proxy, server: Server) -> None:
    await at_the_door(proxy, server, "IPRestriction", allowed=[str(ipaddress.ip_address("127.0.0.1"))])
    assert (await proxy.get())[0] == 200
    await at_the_door(proxy, server, "IPRestriction", forbidden=["127.0.0.1"])
    try:
        assert await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", half_close=False) == b""
    except ConnectionError:
        pass
    assert len(server.seen) == 1


async def test_concurrency_limit_of_connections(proxy: Proxy, server: Server) -> None:
    await at_the_door(proxy, server, "ConcurrencyLimit", maxConnections=2)
    held = [await proxy.connect() for _ in range(2)]
    for reader, writer in held:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
    try:
        assert await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", half_close=False) == b""
    except ConnectionError:
        pass
    for _, writer in held:
        writer.close()
    await until(lambda: not proxy.runtime.ports.tcp[80].listener_port.connections)
    assert (await proxy.get())[0] == 200


async def test_proxy_tag(proxy: Proxy, server: Server) -> None:
    await proxy.apply(
        built_in("ProxyTag"), Listener("l", 80, filters=(Scripted("p"),)),
        Backend("b", (Endpoint("127.0.0.1", server.port),)), make_rule("r", "inner.example", targets=(Target(1, "b"),)),
    )  # fmt: skip
    assert (await proxy.get(proxy_tag="inner.example"))[0] == 200
    assert b"host: inner.example" in server.seen[0].lower()
    assert b"orig-host: example.com" in server.seen[0]
    assert (await proxy.get())[0] == 404


# --- who watches ---


async def test_http_log_sends_batches(proxy: Proxy, server: Server, other: Server) -> None:
    batch = {"size": 3, "interval": "50ms", "prefix": "[", "postfix": "]", "separator": ","}
    await policy(
        proxy, server, "HTTPLog", target=f"http://127.0.0.1:{other.port}/log?x", headers={"X-From": "gateway"}, batch=batch
    )
    for number in range(4):
        await proxy.get(f"/{number}", authorization="secret")
    await until(lambda: sum(len(json.loads(sent.partition(b"\r\n\r\n")[2])) for sent in other.seen) == 4)
    assert other.seen[0].startswith(b"POST /log?x HTTP/1.1\r\n")
    assert b"X-From: gateway" in other.seen[0]
    records = [record for sent in other.seen for record in json.loads(sent.partition(b"\r\n\r\n")[2])]
    assert [record["req"]["path"] for record in records] == ["/0", "/1", "/2", "/3"]
    assert records[0]["res"] == {"status": 200, "resSize": 2}
    assert records[0]["backend"] == "b"
    assert "secret" not in str(other.seen)


async def test_http_log_does_not_lose_what_is_left_at_the_end(proxy: Proxy, server: Server, other: Server) -> None:
    await policy(proxy, server, "HTTPLog", target=f"http://127.0.0.1:{other.port}/", batch={"interval": "1h"})
    await proxy.get()
    await policy(proxy, server, "RequestTermination")
    await until(lambda: other.seen)


async def test_http_log_without_anybody_who_takes_it(proxy: Proxy, server: Server) -> None:
    await policy(proxy, server, "HTTPLog", target="http://127.0.0.1:1/", bufferLimit=600, batch={"interval": "20ms"})
    assert await statuses(proxy, 6) == [200] * 6
    series = proxy.runtime.programs.get("p").measures.series
    await until(lambda: ("counter", "http_log_dropped_total", ()) in series)


async def test_metrics(proxy: Proxy, server: Server) -> None:
    await policy(proxy, server, "Metrics")
    await statuses(proxy, 3)
    series = proxy.runtime.programs.get("p").measures.series
    assert series["counter", "fgw_http_request_total", (("route", "r"),)] == [3]
    (status,) = (values for (_, name, _), values in series.items() if name == "fgw_http_status_total")
    assert status == [3]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {}),
        ({"x_b3_traceid": "1" * 32, "x_b3_spanid": "2" * 16, "x_b3_sampled": "0"},
         {"x-b3-traceid": "1" * 32, "x-b3-parentspanid": "2" * 16, "x-b3-sampled": "0"}),
        ({"b3": "1" * 32 + "-" + "2" * 16 + "-d"},
         {"x-b3-traceid": "1" * 32, "x-b3-parentspanid": "2" * 16, "x-b3-sampled": "1"}),
        ({"x_b3_traceid": "nonsense", "x_b3_spanid": "2" * 16}, {}),
    ],
    ids=["new", "continued", "in one field", "nonsense"],
)  # fmt: skip
async def test_zipkin(proxy: Proxy, server: Server, given: dict[str, str], kept: dict[str, str]) -> None:
    await policy(proxy, server, "Zipkin", samplePercentage=100)
    await proxy.get(**given)
    lines = dict(line.lower().split(": ", 1) for line in server.seen[0].decode().split("\r\n")[1:] if line)
    assert len(lines["x-b3-spanid"]) == 16
    assert len(lines["x-b3-traceid"]) == 32
    assert {name: lines.get(name) for name in kept} == kept
    assert kept or (lines["x-b3-sampled"] == "1" and "x-b3-parentspanid" not in lines)


async def test_zipkin_sends_its_own_spans(proxy: Proxy, server: Server, other: Server) -> None:
    await policy(proxy, server, "Zipkin", samplePercentage=100, target=f"http://127.0.0.1:{other.port}/api/v2/spans")
    for number in range(6):  # also on the fast path
        server.replies = [b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"] if number == 5 else []
        await proxy.get("/p?q", x_b3_traceid="1" * 32, x_b3_spanid="2" * 16, x_b3_sampled="1" if number else "0")
    await until(lambda: len(other.seen) == 1)
    head, _, body = other.seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v2/spans HTTP/1.1\r\n")
    found = json.loads(body)
    assert len(found) == 5, "one was not sampled"
    sent = [dict(line.lower().split(": ", 1) for line in one.decode().split("\r\n")[1:] if line) for one in server.seen]
    assert [span["id"] for span in found] == [fields["x-b3-spanid"] for fields in sent[1:]]
    assert {(span["traceId"], span["parentId"], span["kind"], span["name"]) for span in found} == {
        ("1" * 32, "2" * 16, "SERVER", "r")
    }
    assert [span["tags"]["http.status_code"] for span in found] == ["200"] * 4 + ["503"]
    assert ["error" in span["tags"] for span in found] == [False] * 4 + [True]
    assert all(abs(span["timestamp"] / 1e6 - time.time()) < 30 and span["duration"] > 0 for span in found)
    assert found[0]["localEndpoint"] == {"serviceName": "fsm-gateway"}
    assert found[0]["remoteEndpoint"] == {"ipv4": "127.0.0.1"}


async def test_zipkin_loses_what_nobody_takes(proxy: Proxy, server: Server) -> None:
    await policy(proxy, server, "Zipkin", samplePercentage=100, target="http://127.0.0.1:1/api/v2/spans")
    await proxy.get()
    series = proxy.runtime.programs.get("p").measures.series
    await until(lambda: ("counter", "zipkin_dropped_total", ()) in series)
    assert (await proxy.get())[0] == 200


async def test_dns_modifier(proxy: Proxy, datagrams: Callable[..., Awaitable[Datagram]]) -> None:
    behind = await datagrams(b"behind ")
    zones = {"example": {"domains": [
        {"name": "app.example", "answer": [{"type": "A", "rdata": "10.0.0.1"}, {"type": "AAAA", "rdata": "fd00::1"}]},
        {"name": "*.example", "answer": [{"type": "A", "rdata": "10.0.0.2"}, {"type": "A", "rdata": "10.0.0.3"}]},
    ]}}  # fmt: skip
    await proxy.apply(
        built_in("DNSModifier", zones=zones), Listener("l", 80, "UDP"),
        Backend("b", (Endpoint("127.0.0.1", behind.port),), "udp"),
        Relay("t", Order("", "t"), (Attachment("l"),), (Target(1, "b"),), (Scripted("p"),)),
    )  # fmt: skip
    asking = await datagrams(to=proxy.port)

    async def addresses(name: str, kind: str = "A") -> list[str]:
        query = dns.message.make_query(name, kind)
        response = dns.message.from_wire(await asking.ask(query.to_wire()))
        assert response.id == query.id
        return sorted(str(item) for answer in response.answer for item in answer)

    assert await addresses("APP.example.") == ["10.0.0.1"]
    assert await addresses("app.example.", "AAAA") == ["fd00::1"]
    assert await addresses("app.example.", "MX") == []
    assert await addresses("deep.er.example.") == ["10.0.0.2", "10.0.0.3"]
    other = dns.message.make_query("elsewhere.test.", "A").to_wire()
    assert await asking.ask(other) == b"behind " + other
    assert await asking.ask(b"no question") == b"behind no question"


# --- bytes a second ---

SIZE = 300_000
RATE = 1_000_000  # of which a tenth is saved: 300 kB take 0.2 s


@pytest.mark.parametrize("way", ["down", "up", "both at once"])
async def test_bytes_a_second_of_bodies(proxy: Proxy, server: Server, way: str) -> None:
    await policy(proxy, server, "ByteRate", bps=RATE)
    if way != "up":
        server.default = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + bytes(SIZE)
    body = b"" if way == "down" else bytes(SIZE)
    request = b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
    began = time.monotonic()
    answers = await asyncio.gather(*(proxy.talk(request, half_close=False) for _ in range(2 if way == "both at once" else 1)))
    took = time.monotonic() - began
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert all(len(answer) > SIZE for answer in answers) or way == "up"
    expected = (SIZE * (4 if way == "both at once" else 1) - RATE / 10) / RATE
    assert expected * 0.99 < took < expected + 2


async def test_bytes_a_second_of_a_connection_and_small_ones_do_not_wait(proxy: Proxy) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    behind = await asyncio.start_server(echo, "127.0.0.1", 0)
    await proxy.apply(
        built_in("ByteRate", bps=RATE), Listener("l", 80, "TCP"),
        Backend("b", (Endpoint("127.0.0.1", behind.sockets[0].getsockname()[1]),), "tcp"),
        Relay("t", Order("", "t"), (Attachment("l"),), (Target(1, "b"),), (Scripted("p"),)),
    )  # fmt: skip
    began = time.monotonic()
    assert await proxy.talk(b"small") == b"small"
    assert time.monotonic() - began < 0.15
    began = time.monotonic()
    assert await proxy.talk(bytes(SIZE)) == bytes(SIZE)
    took = time.monotonic() - began
    assert (2 * SIZE - RATE / 10) / RATE * 0.9 < took < 2.5, "the way there and the way back"
    behind.close()


async def test_datagrams_wait_a_second_at_most(proxy: Proxy, datagrams: Callable[..., Awaitable[Datagram]]) -> None:
    behind = await datagrams(b">")
    await proxy.apply(
        built_in("ByteRate", bps=10_000), Listener("l", 80, "UDP"), Backend("b", (Endpoint("127.0.0.1", behind.port),), "udp"),
        Relay("t", Order("", "t"), (Attachment("l"),), (Target(1, "b"),), (Scripted("p"),)),
    )  # fmt: skip
    asking = await datagrams(to=proxy.port)
    began = time.monotonic()
    assert await asking.ask(bytes(1000)) == b">" + bytes(1000)
    assert 0.08 < time.monotonic() - began < 1, "a thousand each way, of which one is saved"
    program = proxy.runtime.programs.get("p")
    before = program.calls
    for _ in range(100):
        asking.transport.sendto(bytes(1000))  # type: ignore[attr-defined]
    await until(lambda: program.calls >= before + 100)
    await until(lambda: behind.heard.qsize() >= 10)
    assert behind.heard.qsize() <= 12, "a second's worth, and no more"
    assert program.failures == 0
