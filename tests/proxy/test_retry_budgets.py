"""Retry budgets over real sockets (GEP-3388): a retry that is one too many is answered 503, whatever route it came by."""

from __future__ import annotations

import asyncio

import pytest
from support.http2_peers import client
from support.proxy import OK, Proxy, Server, parsed
from support.translated import gateway, http_route, serve, service

from controller.ports import free_ports
from gateway.runtime.runtime import Runtime
from gateway.scripting.shared_state.memory import create
from gateway.snapshot import Attachment, Backend, Change, Endpoint, Listener, Order, Retry, RetryBudget, Rule, Target

BAD = b"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\nbad"
USED_UP = b"the retry budget of the backend is used up"
RETRYING = "[{retry: {codes: [500], attempts: 1, backoff: 1ms}, backendRefs: [{name: a, port: 80}]}]"


def policy(percent: int, count: int, *, interval: str = "1h", target: str = 'group: "", kind: Service, name: a') -> str:
    return f"""
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {{name: p, namespace: default}}
spec:
  targetRefs: [{{{target}}}]
  retryConstraint: {{budget: {{percent: {percent}, interval: {interval}}}, minRetryRate: {{count: {count}, interval: 1h}}}}
"""


async def test_a_retry_too_many_is_503_and_what_failed_is_not_passed_on(proxy: Proxy, server: Server) -> None:
    server.default = BAD
    await serve(proxy, gateway(), service("a", server.port), http_route(RETRYING), policy(0, 2))
    for _ in range(2):  # the minimum
        status, _, body = await proxy.get()
        assert (status, body) == (500, b"bad")
    assert len(server.seen) == 4
    for _ in range(3):
        status, _, body = await proxy.get()
        assert status == 503
        assert USED_UP in body
        assert b"bad" not in body
    assert len(server.seen) == 4 + 3
    assert proxy.runtime.backends.refused_retries() == (("Service/default/a", 3),)
    server.default = OK  # what need not be retried is as it was
    assert (await proxy.get())[0] == 200


async def test_without_a_budget_every_request_has_its_retries(proxy: Proxy, server: Server) -> None:
    server.default = BAD
    scene = (gateway(), service("a", server.port), http_route(RETRYING))
    await serve(proxy, *scene, policy(0, 1))
    assert [(await proxy.get())[0] for _ in range(3)] == [500, 503, 503]
    await serve(proxy, *scene)  # the policy is gone
    assert [(await proxy.get())[0] for _ in range(3)] == [500, 500, 500]
    assert proxy.runtime.backends.refused_retries() == ()


async def test_all_routes_to_a_backend_share_it(proxy: Proxy, server: Server, other: Server) -> None:
    server.default = BAD
    other.default = BAD
    more = RETRYING.replace("[{retry", "[{matches: [{path: {value: /more}}], retry")
    elsewhere = more.replace("/more", "/b").replace("name: a", "name: b")
    await serve(
        proxy, gateway(), service("a", server.port), service("b", other.port), http_route(RETRYING),
        http_route(more, "more"), http_route(elsewhere, "elsewhere"), policy(0, 2),
    )  # fmt: skip
    assert [(await proxy.get(path))[0] for path in ("/", "/more", "/", "/more")] == [500, 500, 503, 503]
    assert [(await proxy.get("/b"))[0] for _ in range(3)] == [500] * 3  # that backend has none


async def granted(proxy: Proxy, server: Server, ask: int) -> int:
    """How many of so many failing requests are retried: those that are answered with what the backend said."""
    server.default = BAD
    answers = [(await proxy.get())[0] for _ in range(ask)]
    server.default = OK
    assert set(answers) <= {500, 503}
    return answers.count(500)


@pytest.mark.parametrize("way", ["fast path", "one by one", "HTTP/2", "session", "hashed", "least load"])
async def test_a_share_is_of_all_requests_whatever_way_they_took(proxy: Proxy, server: Server, way: str) -> None:
    rules = (
        RETRYING.replace("[{retry", "[{sessionPersistence: {type: Header, header: {name: X-S}}, retry")
        if way == "session"
        else RETRYING
    )
    balancer = """
apiVersion: gateway.flomesh.io/v1alpha2
kind: LoadBalancerPolicy
metadata: {name: hashing, namespace: default}
spec: {targetRef: {group: "", kind: Service, name: a}, type: HashingLoadBalancer}
"""
    least = balancer.replace("Hashing", "LeastConnection")
    more = {"hashed": (balancer,), "least load": (least,)}.get(way, ())
    await serve(proxy, gateway(), service("a", server.port), http_route(rules), policy(20, 1), *more)
    session: dict[str, str] = {}
    if way == "fast path":
        reader, writer = await proxy.connect()
        for number in range(40):
            writer.write(b"GET /%d HTTP/1.1\r\nHost: example.com\r\nX-Number: %d\r\n\r\n" % (number, number))
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                assert parsed(head + await reader.readexactly(2))[2] == b"ok"
        writer.close()
    elif way == "HTTP/2":
        me = await client(proxy.port)
        for _ in range(40):
            assert (await me.get()).body == b"ok"
    else:
        for _ in range(40):
            status, got, _ = await proxy.get(**session)
            assert status == 200
            session = {"X-S": got["x-s"]} if "x-s" in got else session
    assert len(server.seen) == 40
    # n failing requests with r retries: r is at most a fifth of 40 + n + r.
    assert await granted(proxy, server, 20) == 15


async def test_a_request_that_is_sent_again_after_a_loss_counts_as_well(proxy: Proxy, server: Server) -> None:
    """Without a word of its rule: a backend that falls over is not asked twice by everybody."""

    async def falls_over(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.transport.abort()

    rules = "[{backendRefs: [{name: a, port: 80}]}]"
    await serve(proxy, gateway(), service("a", server.port), http_route(rules), policy(0, 1))
    reader, writer = await proxy.connect()  # a connection that is kept, so that the backend's is as well
    for failing, status in ((0, 200), (1, 200), (1, 503)):
        server.replies = [falls_over] * failing
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(parsed(head)[1]["content-length"]))
        assert parsed(head)[0] == status
        assert (USED_UP in body) == (status == 503)
    writer.close()


async def test_another_endpoint_in_place_of_one_that_refuses_is_no_retry(proxy: Proxy, server: Server) -> None:
    """Nobody has seen the request."""
    (closed,) = free_ports(1)
    budget = RetryBudget("b", percent=0, count=1, seconds=3600.0)
    await proxy.apply(
        Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", closed), Endpoint("127.0.0.1", server.port)), budget=budget),
        Rule("r", Order(), (Attachment("l"),), targets=(Target(1, "b"),)),
    )  # fmt: skip
    assert [(await proxy.get())[0] for _ in range(6)] == [200] * 6
    assert proxy.runtime.backends.refused_retries() == (("b", 0),)


async def test_workers_share_what_may_be_retried_in_any_case(server: Server) -> None:
    server.default = BAD
    memory = create()
    (port,) = free_ports(1)
    budget = RetryBudget("b", percent=0, count=4, seconds=3600.0)
    answers = []
    for index in range(2):
        runtime = Runtime(bind="127.0.0.1", port_offset=port - 80, index=index, count=2, memory=memory)
        worker = Proxy(runtime, port - 80)
        await worker.apply(
            Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", server.port),), budget=budget),
            Rule("r", Order(), (Attachment("l"),), targets=(Target(1, "b"),), retry=Retry((500,), 1, 0.001)),
        )  # fmt: skip
        answers += [(await worker.get())[0] for _ in range(3)]
        await runtime.apply(Change(reset=True))
        runtime.close()
        await runtime.wait_idle()
    assert answers == [500, 500, 500, 500, 503, 503]


async def test_an_edit_of_the_budget_is_in_force_at_once(proxy: Proxy, server: Server) -> None:
    server.default = BAD
    scene = (gateway(), service("a", server.port), http_route(RETRYING))
    await serve(proxy, *scene, policy(0, 1))
    assert [(await proxy.get())[0] for _ in range(2)] == [500, 503]
    await serve(proxy, *scene, policy(100, 1))
    assert [(await proxy.get())[0] for _ in range(3)] == [500] * 3
    await serve(proxy, *scene, policy(0, 1))
    assert (await proxy.get())[0] == 503
