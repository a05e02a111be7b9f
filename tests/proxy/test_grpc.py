"""gRPC with grpcio at both ends: the cases of the public interoperability list, over h2c and over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
import trustme
from support.certificates import certificate
from support.grpc_service import LARGE, RESPONSE, Service, raw
from support.proxy import Proxy, make_rule

from gateway.snapshot import Attachment, Backend, Endpoint, Listener, Match, Order, PathMatch, Rule, Target

SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"


class Stage:
    """A gateway between a channel and a service."""

    def __init__(self, proxy: Proxy, service: Service, channel: grpc.aio.Channel, authority: trustme.CA | None) -> None:
        self.proxy = proxy
        self.service = service
        self.channel = channel
        self.authority = authority

    def unary(self, name: str) -> Any:
        return self.channel.unary_unary(f"/test.Test/{name}", raw, raw)


Staged = Callable[..., Awaitable[Stage]]


@pytest.fixture(params=["h2c", "tls"])
async def stage(proxy: Proxy, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    service = Service()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    backend = Backend("g", (Endpoint("127.0.0.1", port),), "h2c")
    where = f"127.0.0.1:{proxy.port}"
    authority = None
    if request.param == "tls":
        authority = trustme.CA()
        await proxy.apply(certificate(authority, "c", "g.example"), Listener("l", 80, "HTTPS", "", ("c",)), backend)
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        options = (("grpc.ssl_target_name_override", "g.example"), ("grpc.default_authority", "g.example"))
        channel = grpc.aio.secure_channel(where, credentials, options)
    else:
        await proxy.apply(Listener("l", 80), backend)
        channel = grpc.aio.insecure_channel(where)
    await proxy.apply(make_rule("r", targets=(Target(1, "g"),), matches=(Match(PathMatch("PathPrefix", "/test.Test")),)))
    async with channel:
        yield Stage(proxy, service, channel, authority)
    await server.stop(0)


async def test_empty_unary(stage: Stage) -> None:
    assert await stage.unary("Empty")(b"") == b""


async def test_large_unary(stage: Stage) -> None:
    assert await stage.unary("Unary")(b"x" * LARGE) == b"y" * RESPONSE


async def test_compressed_unary(stage: Stage) -> None:
    call = stage.unary("Unary")(b"x" * LARGE, compression=grpc.Compression.Gzip)
    assert await call == b"y" * RESPONSE


async def test_client_streaming(stage: Stage) -> None:
    call = stage.channel.stream_unary("/test.Test/Collect", raw, raw)()
    for size in (27182, 8, 1828, 45904):
        await call.write(b"x" * size)
    await call.done_writing()
    assert await call == b"74922"


async def test_server_streaming(stage: Stage) -> None:
    call = stage.channel.unary_stream("/test.Test/Spread", raw, raw)(b"")
    assert [len(one) async for one in call] == [31415, 9, 2653, 58979]


async def test_ping_pong(stage: Stage) -> None:
    call = stage.channel.stream_stream("/test.Test/PingPong", raw, raw)()
    for word in (b"one", b"two" * 10_000, b"three"):
        await call.write(word)
        assert await call.read() == word[::-1]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_empty_stream(stage: Stage) -> None:
    call = stage.channel.stream_stream("/test.Test/PingPong", raw, raw)()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_cancel_after_begin(stage: Stage) -> None:
    call = stage.channel.stream_unary("/test.Test/Collect", raw, raw)()
    await call.write(b"x")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_cancel_after_the_first_response(stage: Stage) -> None:
    call = stage.channel.stream_stream("/test.Test/PingPong", raw, raw)()
    await call.write(b"one")
    assert await call.read() == b"eno"
    call.cancel()
    assert await call.code() == grpc.StatusCode.CANCELLED
    assert await stage.unary("Empty")(b"") == b""  # the connection goes on


async def test_timeout_on_sleeping_server(stage: Stage) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.unary("Sleep")(b"", timeout=0.1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("message", ["test status message", SPECIAL])
async def test_status_code_and_message(stage: Stage, message: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.unary("Fail")(message.encode())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNKNOWN, message)


async def test_unimplemented_method(stage: Stage) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.unary("Unknown")(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_unimplemented_service_is_the_gateway_s_to_say(stage: Stage) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.channel.unary_unary("/other.Service/Method", raw, raw)(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "no rule matches" in (caught.value.details() or "")


async def test_custom_metadata(stage: Stage) -> None:
    call = stage.unary("Unary")(b"x", metadata=(("x-initial", "value"), ("x-trailing-bin", b"\xab\xab\xab")))
    assert await call == b"x"
    assert dict(await call.initial_metadata())["x-initial"] == "value"
    assert dict(await call.trailing_metadata())["x-trailing-bin"] == b"\xab\xab\xab"


async def test_nobody_there_is_unavailable(stage: Stage) -> None:
    await stage.proxy.apply(Backend("g", (), "h2c"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.unary("Empty")(b"")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_an_invalid_reference_is_unavailable_for_its_share(stage: Stage) -> None:
    broken = Target(1, "", (), 500, 'Service "default/none" does not exist.')
    rule = make_rule("r", targets=(Target(1, "g"), broken), matches=(Match(PathMatch("PathPrefix", "/test.Test")),))
    await stage.proxy.apply(rule)
    codes = []
    for _ in range(10):
        try:
            await stage.unary("Empty")(b"")
            codes.append("OK")
        except grpc.aio.AioRpcError as error:
            codes.append(error.code().name)
    assert sorted(codes) == ["OK"] * 5 + ["UNAVAILABLE"] * 5


async def test_weights_are_of_calls_on_one_connection(stage: Stage) -> None:
    other = Service()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((other,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    rule = make_rule("r", targets=(Target(3, "g"), Target(1, "h")), matches=(Match(PathMatch("PathPrefix", "/test.Test")),))
    await stage.proxy.apply(Backend("h", (Endpoint("127.0.0.1", port),), "h2c"), rule)
    before = len(stage.service.seen)
    for _ in range(40):
        await stage.unary("Empty")(b"")
    assert (len(stage.service.seen) - before, len(other.seen)) == (30, 10)
    await server.stop(0)


async def test_a_stream_holds_through_200_changes(stage: Stage) -> None:
    call = stage.channel.stream_stream("/test.Test/PingPong", raw, raw)()
    backend = stage.proxy.runtime.parts["backend", "g"]
    assert isinstance(backend, Backend)
    for n in range(200):
        match n % 3:
            case 0:
                await stage.proxy.apply(make_rule(f"other-{n}", hostname=f"h{n}.example", targets=(Target(1, "g"),)))
            case 1:
                more = (*backend.endpoints, Endpoint("127.0.0.9", 1000 + n))
                await stage.proxy.apply(Backend("g", more, "h2c"))
            case 2 if stage.authority is not None and n % 20 == 2:
                await stage.proxy.apply(certificate(stage.authority, "c", "g.example"))
        await call.write(b"%d" % n)
        assert await call.read() == (b"%d" % n)[::-1]
    await stage.proxy.apply(backend)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


METHODS = (
    ("exact", PathMatch("Exact", "/test.Test/Empty")),
    ("service", PathMatch("PathPrefix", "/test.Test")),
    ("method", PathMatch("Method", "Empty")),
    ("regex", PathMatch("RegularExpression", "/(?:te.*)/(?:Sp.*)")),
    ("any", PathMatch()),
)


@pytest.mark.parametrize(
    ("path", "winner"),
    [
        ("/test.Test/Empty", "exact"), ("/test.Test/Unary", "service"), ("/test.Test/Spread", "regex"),
        ("/other.Test/Empty", "method"), ("/other.Test/Unary", "any"), ("/test.Tester/Unary", "any"),
    ],
)  # fmt: skip
def test_precedence(path: str, winner: str) -> None:
    from gateway.http.http1 import Request
    from gateway.routing.table import HostRules, RouteMatch

    rules = HostRules(
        [RouteMatch(Match(match), Order(route=name), Rule(name, Order(), (Attachment("l", ""),))) for name, match in METHODS]
    )  # fmt: skip
    found = rules.find(Request(b"POST", path.encode(), None, False, []))
    assert found is not None
    assert found.route.name == winner
