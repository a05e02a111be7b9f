"""The feed as a boundary: who may follow what, what a data plane can say and cost, and what a controller can do to one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import uvloop
from aiohttp import web
from support.apiserver import ApiServer
from support.feed import GATEWAY, NAME, Plane, Side, authorise, until
from support.https_server import Serving
from support.stage import Stage

from controller.delivery import feed_server as feed_module
from controller.delivery.entrance import Entrance
from controller.delivery.feed_server import BACKLOG, FeedServer
from controller.kubernetes import feed_tls
from controller.kubernetes.api import Api
from controller.kubernetes.feed_tls import Authority
from gateway.admin import feed, kept
from gateway.admin.feed import MAX_MESSAGE_BYTES, Acknowledgement, FeedSource, Hello, Proof
from gateway.admin.kept import Kept
from gateway.snapshot import Backend, Certificate, Change, Endpoint, Listener, Problem, key

USER = "system:serviceaccount:default:main-fsm-gateway-cls"
CLASS = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "fsm-gateway-cls"},
         "spec": {"controllerName": "flomesh.io/gateway-controller"}}  # fmt: skip


def gateway(name: str, namespace: str = "default", class_name: str = "fsm-gateway-cls") -> dict[str, Any]:
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": name, "namespace": namespace},
            "spec": {"gatewayClassName": class_name, "listeners": listeners}}  # fmt: skip


def review(user: str, *audiences: str, authenticated: Any = True, **more: Any) -> dict[str, Any]:
    return {"authenticated": authenticated, "audiences": list(audiences), "user": {"username": user}, **more}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are looked at again very soon."""
    monkeypatch.setattr(feed_module, "REVIEW", 0.1)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage(None)
    made.server.put("gatewayclasses", CLASS)
    for name, namespace in (("main", "default"), ("other", "default"), ("main", "elsewhere")):
        made.server.put("gateways", gateway(name, namespace))
    made.server.put("gateways", gateway("foreign", class_name="somebody-elses"))
    async with made.running():
        await made.until(lambda: ("default", "main") in made.controller.reconciler.publications)
        yield made


class Follower:
    """A data plane by hand."""

    def __init__(self, session: aiohttp.ClientSession, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self.session = session
        self.websocket = websocket

    async def change(self) -> Change:
        async with asyncio.timeout(5):
            return msgspec.msgpack.decode(await self.websocket.receive_bytes(), type=Change)

    async def say(self, message: Any) -> None:
        await self.websocket.send_bytes(msgspec.msgpack.encode(message))

    async def closed(self) -> int | None:
        async with asyncio.timeout(10):
            while not self.websocket.closed:
                await self.websocket.receive()
        return self.websocket.close_code


@contextlib.asynccontextmanager
async def following(port: int, token: str, name: str = "default/main", **how: Any) -> AsyncIterator[Follower]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"https://127.0.0.1:{port}/feed/{name}"
        async with session.ws_connect(url, ssl=context, headers=headers, **how) as websocket:
            yield Follower(session, websocket)


async def status(port: int, token: str, name: str = "default/main") -> int:
    try:
        async with following(port, token, name):
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


# --- who may follow ---


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (review(USER, "fsm-feed"), 101),
        (review(USER, "fsm-feed", "https://kubernetes.default.svc"), 101),
        (review("system:serviceaccount:default:other-fsm-gateway-cls", "fsm-feed"), 403),  # another Gateway's
        (review("system:serviceaccount:elsewhere:main-fsm-gateway-cls", "fsm-feed"), 403),  # another namespace's
        (review("system:serviceaccount:default:default", "fsm-feed"), 403),  # a foreign ServiceAccount
        (review("system:serviceaccount:default:main-fsm-gateway-clsx", "fsm-feed"), 403),
        (review("system:admin", "fsm-feed"), 403),
        (review("", "fsm-feed"), 403),
        (review(USER, "https://kubernetes.default.svc"), 403),  # a token for the API server
        (review(USER), 403),  # an API server that has not looked at audiences
        ({"authenticated": True, "user": {"username": USER}}, 403),
        (review(USER, "fsm-feed", authenticated=False, error="token has expired"), 403),
        ({}, 403),
        (review(USER, "fsm-feed", authenticated="yes"), 503),  # not an answer
        ({"authenticated": True, "audiences": "fsm-feed", "user": {"username": USER}}, 503),
        ({"authenticated": True, "audiences": ["fsm-feed"], "user": [USER]}, 503),
    ],
)  # fmt: skip
async def test_whose_token_is_good(stage: Stage, monkeypatch: pytest.MonkeyPatch, answer: dict, code: int) -> None:
    monkeypatch.setattr(feed_module, "REFUSED", 0.01)
    monkeypatch.setattr(ApiServer, "_review", lambda self, body: {**body, "status": answer})
    assert await status(stage.port, "t") == code


async def test_the_audience_is_asked_for_and_other_gateways_are_not_to_be_had(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "REFUSED", 0.01)
    stage.server.tokens = {"feed": review(USER, "fsm-feed"), "api": review(USER, "https://kubernetes.default.svc")}
    assert await status(stage.port, "feed") == 101
    assert await status(stage.port, "api") == 403
    assert all(asked["audiences"] == ["fsm-feed"] for asked in stage.server.reviews)
    asked = len(stage.server.reviews)
    for name in ("default/other", "elsewhere/main"):
        assert await status(stage.port, "feed", name) == 403
    for name in ("default/foreign", "default/missing", "fsm-system/main", "default/main%2f..%2fother"):
        assert await status(stage.port, "feed", name) in (403, 404)
    assert len(stage.server.reviews) == asked + 2, "of a Gateway that is not ours nobody is asked"


async def test_no_token_is_good_while_the_api_server_is_away(stage: Stage) -> None:
    stage.server.tokens = {"t": review(USER, "fsm-feed")}
    assert await status(stage.port, "t") == 101
    stage.server.down = True
    assert await status(stage.port, "t") == 503
    stage.server.down = False


async def test_an_api_server_that_stops_in_the_middle_of_an_answer() -> None:
    class Stopping(Serving):
        def __init__(self) -> None:
            super().__init__()
            self.app.router.add_route("*", "/{path:.*}", self._serve)

        async def _serve(self, request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(b'{"status":')
            request.transport.abort()
            return response

    from kubernetes_asyncio import client

    server = Stopping()
    api_client = client.ApiClient(configuration=client.Configuration(host=await server.start()))
    with pytest.raises(feed_tls.ApiError, match="does not answer"):
        await feed_tls.Reviewer(Api(api_client)).review("t")
    await api_client.close()
    await server.stop()


async def test_a_token_that_is_taken_away_ends_the_feed(often: None, stage: Stage, caplog: Any) -> None:
    caplog.set_level("INFO", "fsm.feed")
    ended = "its token is not good any more"
    stage.server.tokens = {"old": review(USER, "fsm-feed"), "new": review(USER, "fsm-feed")}
    async with following(stage.port, "old") as plane:
        await plane.change()
        stage.server.down = True
        await until(lambda: len([path for path in stage.server.missed if "tokenreviews" in path]) > 2)
        assert ended not in caplog.text, "whoever was good when that could be asked stays"
        stage.server.down = False
        await plane.say(Proof("new"))
        await until(lambda: stage.server.reviews[-1]["token"] == "new")
        del stage.server.tokens["old"]
        asked = len(stage.server.reviews)
        await until(lambda: len(stage.server.reviews) > asked + 3)
        assert ended not in caplog.text
        del stage.server.tokens["new"]
        assert await plane.closed() == 1008
        assert ended in caplog.text


async def test_a_data_plane_shows_its_new_token(
    often: None, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOOK_UP", 0.05)
    async with stage.data_plane(tmp_path, "default/main") as told:
        await until(lambda: told)
        stage.server.tokens["newer"] = stage.server.tokens["mine"]
        (tmp_path / "token").write_text("newer\n")
        await until(lambda: stage.server.reviews[-1]["token"] == "newer")
        del stage.server.tokens["mine"]
        (connection,) = stage.controller.feed.channel(("default", "main")).connections
        asked = len(stage.server.reviews)
        await until(lambda: len(stage.server.reviews) > asked + 3)
        assert stage.controller.feed.channel(("default", "main")).connections == {connection}


async def test_a_gateway_that_goes_ends_its_feed(stage: Stage) -> None:
    stage.server.tokens = {"t": review(USER, "fsm-feed")}
    async with following(stage.port, "t") as plane:
        await plane.change()
        stage.server.drop("gateway.networking.k8s.io", "gateways", "default", "main")
        assert await plane.closed() == 1008


async def test_a_pod_follows_once(stage: Stage) -> None:
    pods = [review(USER, "fsm-feed"), review(USER, "fsm-feed")]
    for index, pod in enumerate(pods):
        pod["user"]["extra"] = {feed_tls.POD: [f"pod-{index}"]}
    stage.server.tokens = {"one": pods[0], "two": pods[1]}
    channel = stage.controller.feed.channel(("default", "main"))
    async with following(stage.port, "one") as first, following(stage.port, "two") as second:
        await first.change()
        await second.change()
        assert len(channel.connections) == 2
        async with following(stage.port, "one") as third:
            await third.change()
            assert await first.closed() == 1008
            assert len(channel.connections) == 2
            assert {one.token for one in channel.connections} == {"one", "two"}


def test_the_authority_of_a_secret_that_is_damaged() -> None:
    good = Authority.new().secret("fsm-system")
    other = Authority.new().secret("fsm-system")
    for data in (None, {}, {"tls.key": "!"}, {**good["data"], "tls.key": other["data"]["tls.key"]}):
        with pytest.raises(ValueError, match=r"fsm-feed-ca.*delete the Secret") as caught:
            Authority.from_secret({"data": data})
        assert "PRIVATE" not in str(caught.value)


async def test_a_certificate_is_renewed_while_the_server_runs(tmp_path: Path) -> None:
    authority = Authority.new()
    context = authority.server_context(NAME)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cadata=authority.pem)

    async def shown() -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=NAME)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return found

    first = await shown()
    authority.prove(context, NAME)
    assert await shown() != first
    server.close()


# --- what a data plane can say ---


async def test_what_a_data_plane_says_of_others_is_not_heard(stage: Stage) -> None:
    stage.server.tokens = {"t": review(USER, "fsm-feed")}
    world = stage.controller.world

    def said() -> Any:
        return world.read(("report", "default", "main"))

    async with following(stage.port, "t") as plane:
        version = (await plane.change()).version
        await plane.say(Hello("a\r\nERROR fsm: forged\x1b[31m" + "x" * 5000))
        await plane.say(Acknowledgement("0" * 32))
        await plane.say(Acknowledgement("never sent" * 1000, (Problem("default/main/http", "of another version"),)))
        await until(lambda: said() and said().problems)
        assert not said().programmed, "a version that was never published is no acknowledgement"
        (connection,) = stage.controller.feed.channel(("default", "main")).connections
        assert connection.instance.isprintable()
        assert len(connection.instance) < 260
        listener = next(
            name for kind, name in stage.controller.reconciler.publications["default", "main"].parts if kind == "listener"
        )
        odd = "odd \r\n\x00\x1b]0;x\x07 \u202etxet \u2028 " + "y" * 100_000
        foreign = (Problem("default/other/http", "forged"), Problem("elsewhere/secret-filter", "forged"), Problem("", "forged"))
        await plane.say(Acknowledgement(version, (*foreign, Problem(listener, odd))))
        await until(lambda: said().programmed)
        await until(lambda: "odd" in str(said().problems))
        ((part, message),) = said().problems
        assert part == listener
        assert message.isprintable()
        assert len(message) < 600
        assert not (world.read(("report", "default", "other")))
        await until(lambda: "odd" in json.dumps(stage.server.find("gateways", "default", "main")))
        assert "odd" not in json.dumps(stage.server.find("gateways", "default", "other"))


async def test_words_that_change_all_the_time_are_few_writes(stage: Stage) -> None:
    stage.server.tokens = {"t": review(USER, "fsm-feed")}
    async with following(stage.port, "t") as plane:
        version = (await plane.change()).version
        listener = next(
            name for kind, name in stage.controller.reconciler.publications["default", "main"].parts if kind == "listener"
        )
        noted = set()
        before = stage.controller.world.note

        def note(name: Any, value: Any) -> bool:
            noted.add(getattr(value, "problems", ()))
            return before(name, value)

        stage.controller.world.note = note
        for index in range(300):
            await plane.say(Acknowledgement(version, (Problem(listener, f"words {index}"),)))
        await until(lambda: "words 299" in str(stage.controller.world.read(("report", "default", "main"))), 10)
        assert len(noted) < 40


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (lambda ws: ws.send_bytes(b"\xc1nonsense"), 1002),
        (lambda ws: ws.send_bytes(msgspec.msgpack.encode({"type": "Change", "version": "x"})), 1002),
        (lambda ws: ws.send_bytes(msgspec.msgpack.encode({"type": "Applied", "version": 5})), 1002),
        (lambda ws: ws.send_bytes(b"\x91" * 100_000), 1002),  # nested
        (lambda ws: ws.send_str("text"), 1003),
        (lambda ws: ws.send_bytes(b"\0" * (MAX_MESSAGE_BYTES + 1)), 1006),  # 1009, of which a reset gets ahead
    ],
)
async def test_what_is_no_message_ends_the_connection(send: Callable[[Any], Any], code: int) -> None:
    side = await Side().start(Authority.new())
    async with following(side.port, "good", "default/gw", max_msg_size=0) as plane:
        await plane.change()
        await send(plane.websocket)
        assert await plane.closed() in (code, 1009 if code == 1006 else code)
    await until(lambda: not side.server.channel(GATEWAY).connections)
    await side.server.stop()


async def test_nothing_is_compressed() -> None:
    side = await Side().start(Authority.new())
    async with following(side.port, "good", "default/gw", compress=15) as plane:
        assert not plane.websocket.compress
    await side.server.stop()


async def test_a_flood_is_read_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "SAVED", 20.0)
    side = await Side().start(Authority.new())
    told: list[object] = []
    side.server.on_acknowledged = told.append
    async with following(side.port, "good", "default/gw") as plane:
        await plane.change()

        async def flood() -> None:
            while True:
                await plane.websocket.ping()
                await plane.say(Acknowledgement("x"))

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(1.0)
        assert len(told) < 20 + feed_module.MESSAGES * 1.5
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
    await side.server.stop()


async def test_who_does_not_read_costs_a_snapshot_at_most() -> None:
    side = await Side().start(Authority.new())
    async with following(side.port, "good", "default/gw") as plane:
        await plane.change()
        (connection,) = side.server.channel(GATEWAY).connections
        pieces, has_lost = 400, False
        for index in range(pieces):  # 40 MB that nobody takes
            side.publish(Certificate("c", f"{index:06}" + "x" * 100_000, "key"))
            assert connection.behind <= BACKLOG + 200_000
            assert sum(map(len, connection.backlog)) <= BACKLOG + 200_000
            has_lost |= connection.wants_all  # until the snapshot is on its way, which may be before the last piece
            await asyncio.sleep(0)
        assert has_lost
        last = None
        while last is None or last.put[0].chain[:6] != f"{pieces - 1:06}":
            last = await plane.change()
        assert last.reset, "what was missed came as one snapshot"
    await side.server.stop()


async def test_who_takes_nothing_for_long_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "STALL", 0.3)
    side = await Side().start(Authority.new())
    side.publish(Certificate("c", "x" * 20_000_000, "key"))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", side.port, ssl=context, limit=1024)
    writer.write(
        b"GET /feed/default/gw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await until(lambda: side.server.channel(GATEWAY).connections)
    for _ in range(3):
        side.publish(Certificate("d", "x" * 900_000, "key"))
        await asyncio.sleep(0.01)
    await until(lambda: not side.server.channel(GATEWAY).connections, 4)  # its heart stops after 7.5 s
    writer.close()
    await side.server.stop()


async def test_an_acknowledgement_that_came_before_its_version_counts() -> None:
    """Another replica published it first; a data plane says so once."""
    one, two = Side(), Side()
    await one.start(Authority.new())
    change = two.publications[GATEWAY].advance({("listener", "l"): Listener("l", 80)})
    async with following(one.port, "good", "default/gw") as plane:
        await plane.change()
        await plane.say(Acknowledgement(change.version))
        await until(lambda: all(c.version == change.version for c in one.server.channel(GATEWAY).connections))
        one.publish(Listener("l", 80))
        assert one.server.channel(GATEWAY).is_programmed()
    await one.server.stop()


# --- strangers at the door ---


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def hung_up(reader: asyncio.StreamReader, seconds: float = 5) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await reader.read()
            return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("secure", [False, True])
async def test_strangers_hold_few_places_and_not_for_long(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.delivery.entrance.HANDSHAKE", 0.5)
    context = Authority.new().server_context(NAME) if secure else None
    entrance = Entrance(Echo, context, strangers=20, of_one_address=8, seconds=0.5)
    port = await entrance.start("127.0.0.1", 0)
    half = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
    for _, writer in half:
        writer.write(b"\x16\x03\x01" if secure else b"G")
    await until(lambda: entrance.refused == 4)
    assert entrance.strangers() == 8
    others = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)) for _ in range(8)]
    await until(lambda: entrance.strangers() == 16)
    third = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.3", 0)) for _ in range(8)]
    await until(lambda: entrance.refused == 8)
    assert entrance.strangers() == 20
    assert all(await asyncio.gather(*(hung_up(reader) for reader, _ in (*half, *others, *third)))), "all within seconds"
    assert entrance.strangers() == 0
    assert not entrance.guests
    for _, writer in (*half, *others, *third):
        writer.close()
    await entrance.stop()


async def test_who_talks_on_and_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.delivery.entrance.STALL", 0.5)
    ended: list[Exception | None] = []

    class Giver(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(b"x" * 50_000_000)

        def connection_lost(self, error: Exception | None) -> None:
            ended.append(error)

    entrance = Entrance(Giver)
    port = await entrance.start("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port)) as taker:
        async with asyncio.timeout(5):
            while not ended:
                with contextlib.suppress(ConnectionError):
                    taker.send(b"x")
                await asyncio.sleep(0.02)
    assert isinstance(ended[0], TimeoutError)
    await entrance.stop()


async def test_who_is_known_stays_and_leaves_its_place() -> None:
    entrance = Entrance(Echo, strangers=1, seconds=0.2)
    port = await entrance.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await until(lambda: entrance.guests)
    (guest,) = entrance.guests.values()
    entrance.known(guest.transport)
    assert entrance.strangers() == 0
    await asyncio.sleep(0.3)
    writer.write(b"still here")
    assert await reader.read(100) == b"still here"
    writer.close()
    await until(lambda: not entrance.guests)
    await entrance.stop()


async def test_a_head_that_never_ends_is_cut_and_others_are_served() -> None:
    side = Side()
    side.server = FeedServer(side.publications, authorise)
    await side.start(Authority.new())
    side.server._entrance._seconds = 0.5
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port, ssl=context)
    writer.write(b"GET /feed/default/gw HTTP/1.1\r\nX: ")

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    assert await status(side.port, "good", "default/gw") == 101
    assert await hung_up(reader)
    dripping.cancel()
    await asyncio.gather(dripping, return_exceptions=True)
    writer.close()
    await side.server.stop()


@pytest.mark.parametrize(
    "request_",
    [b"\x16\x03\x01\x00\x00", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nA b: c\r\n\r\n",
     b"GET /feed/default/gw HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
     b"POST /feed/default/gw HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: nonsense\r\n\r\n",
     b"HEAD /feed/default/gw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n\r\n",
     b"GET /feed/default/gw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n\r\n",
     b"GET /feed/default/gw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nUpgrade: websocket\r\n\r\n"],
)  # fmt: skip
async def test_a_stranger_writes_nothing_into_the_log(request_: bytes, caplog: Any) -> None:
    side = await Side().start(Authority.new())
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port, ssl=context)
    caplog.clear()
    writer.write(request_)
    answer = await asyncio.wait_for(reader.read(1000), 5)
    assert b" 500 " not in answer.split(b"\r\n")[0]
    writer.close()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")], caplog.text
    await side.server.stop()


# --- what a controller, or somebody in its place, can do to a data plane ---


class Impostor:
    """Answers for a controller, as it likes."""

    def __init__(self, answer: Callable[[web.Request], Any], context: ssl.SSLContext | None) -> None:
        self.answer = answer
        self.context = context
        self.tokens: list[str] = []
        self.port = 0
        self._runner: web.AppRunner

    async def __aenter__(self) -> Impostor:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.context).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization", ""))
        return await self.answer(request)


async def snapshot(request: web.Request, *changes: bytes) -> web.StreamResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    for change in changes:
        await websocket.send_bytes(change)
    async for _ in websocket:
        pass
    return websocket


def change(*parts: Any, version: str = "1") -> bytes:
    return msgspec.msgpack.encode(Change(version, parts, reset=True))


@pytest.mark.parametrize("who", ["another authority", "another name", "no TLS", "expired"])
async def test_who_cannot_prove_to_be_the_controller_gets_no_token(
    who: str, tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    caplog.set_level("INFO", "fsm.feed")
    authority = Authority.new()
    context = {
        "another authority": lambda: Authority.new().server_context(NAME),
        "another name": lambda: authority.server_context("fsm-controller.elsewhere.svc"),
        "no TLS": lambda: None,
        "expired": lambda: expired(authority, monkeypatch),
    }[who]()
    async with Impostor(lambda request: snapshot(request, change(Listener("l", 80))), context) as impostor:
        side = Side()
        side.port = impostor.port
        plane = Plane(side, authority, tmp_path)
        await until(lambda: caplog.text.count("controller 127.0.0.1: ") > 1)  # attempts that failed
        assert not plane.told
        assert not impostor.tokens
        await plane.stop()


def expired(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    original = feed_tls._builder
    monkeypatch.setattr(feed_tls, "_builder", lambda *names, days: original(*names, days=0))
    context = authority.server_context(NAME)
    monkeypatch.undo()
    return context


async def test_nobody_sends_a_data_plane_elsewhere(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO", "fsm.feed")
    authority = Authority.new()
    async with Impostor(lambda request: snapshot(request, change(Listener("l", 80))), None) as elsewhere:

        async def redirect(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{elsewhere.port}{request.path}"})

        async with Impostor(redirect, authority.server_context(NAME)) as impostor:
            side = Side()
            side.port = impostor.port
            plane = Plane(side, authority, tmp_path)
            await until(lambda: "the feed answers 307, a redirect" in caplog.text)
            assert impostor.tokens
            assert not elsewhere.tokens
            assert not plane.told
            await plane.stop()


async def test_proxies_of_the_environment_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.new()
    side = await Side().start(authority)
    side.publish(Listener("l", 80))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "WSS_PROXY", "wss_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    plane = Plane(side, authority, tmp_path)
    await until(lambda: plane.told)
    await plane.stop()
    await side.server.stop()


def test_a_token_is_not_sent_in_the_clear(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not sent in the clear"):
        FeedSource("http://localhost:1", "default/gw", token=tmp_path / "token")
    assert FeedSource("http://localhost:1", "default/gw").token() == ""


@pytest.mark.parametrize(
    "messages",
    [
        (b"\xc1",),
        (b"\x91" * 100_000,),
        (msgspec.msgpack.encode({"version": "1", "put": [{"type": "listener"}]}),),
        (msgspec.msgpack.encode({"version": "1", "put": [{"type": "unheard-of", "name": "x"}]}),),
        (msgspec.msgpack.encode({"version": "1", "drop": [["nothing", "at all"]]}), b"\0"),
    ],
)
async def test_a_controller_that_talks_nonsense_ends_no_data_plane(tmp_path: Path, messages: tuple[bytes, ...]) -> None:
    authority = Authority.new()
    async with Impostor(lambda request: snapshot(request, *messages), authority.server_context(NAME)) as impostor:
        side = Side()
        side.port = impostor.port
        plane = Plane(side, authority, tmp_path)
        await until(lambda: len(impostor.tokens) > 1, 10)
        assert not plane.task.done()
        await plane.stop()


@pytest.mark.parametrize("token", [b"", b"a\r\nX-Injected: b", b"\xff\xfe", b"x\x00y"])
async def test_a_token_that_is_none_ends_no_data_plane(tmp_path: Path, token: bytes, caplog: Any) -> None:
    caplog.set_level("INFO", "fsm.feed")
    authority = Authority.new()
    side = await Side().start(authority)
    side.publish(Listener("l", 80))
    plane = Plane(side, authority, tmp_path)
    (tmp_path / "token").write_bytes(token)
    await until(lambda: caplog.text.count("controller 127.0.0.1: ") > 1)  # attempts that failed
    assert not plane.task.done()
    (tmp_path / "token").write_text("good")
    await until(lambda: plane.told, 10)
    await plane.stop()
    await side.server.stop()


async def test_what_the_workers_cannot_take_is_tried_again_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "RETRY", 0.05)
    authority = Authority.new()
    side = await Side().start(authority)
    side.publish(Listener("l", 80), Backend("gone"))
    plane = Plane(side, authority, tmp_path)
    await until(lambda: plane.told)
    before, failing = plane.feed._put, [True]

    async def put(change: Change) -> tuple[Problem, ...]:
        if failing:
            failing.pop()
            raise RuntimeError("a bug")
        return await before(change)

    plane.feed._put = put
    told = len(plane.told)
    side.publish(Backend("b", (Endpoint("10.0.0.1", 80),)))
    await until(lambda: len(plane.told) > told)
    assert plane.told[-1].reset
    assert {key(part) for part in plane.told[-1].put} == {("listener", "l"), ("backend", "gone"), ("backend", "b")}
    assert not plane.task.done()
    await plane.stop()
    await side.server.stop()


# --- what is kept on disk ---

WHOLE = Change("1", (Listener("l", 80), Certificate("c", "chain", "secret key")), reset=True)


def damaged(path: Path, how: str, tmp_path: Path) -> None:
    data = path.read_bytes()
    match how:
        case "empty":
            path.write_bytes(b"")
        case "cut short":
            path.write_bytes(data[:-3])
        case "changed":
            path.write_bytes(data.replace(b"secret", b"forged"))
        case "nonsense":
            path.write_bytes(os.urandom(1000))
        case "without its digest":
            path.write_bytes(msgspec.msgpack.encode(WHOLE))
        case "readable by others":
            path.chmod(0o644)
        case "a link":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        case "a directory":
            path.unlink()
            path.mkdir()
        case "a pipe":
            path.unlink()
            os.mkfifo(path, 0o600)
        case "huge":
            with path.open("r+b") as file:
                file.truncate(kept.MAX_KEPT_BYTES + 1)
        case "of another schema":
            content = msgspec.msgpack.encode({"version": "1", "put": [{"type": "unheard-of"}]})
            path.write_bytes(kept._MAGIC + kept._digest(content) + content)


@pytest.mark.parametrize(
    "how",
    [
        "empty", "cut short", "changed", "nonsense", "without its digest", "readable by others", "a link", "a directory", "a pipe",
        "huge", "of another schema",
    ],
)  # fmt: skip
async def test_a_kept_snapshot_that_is_not_ours_is_left_alone(how: str, tmp_path: Path, caplog: Any) -> None:
    authority = Authority.new()
    path = tmp_path / "snapshot"
    Kept(path).write(WHOLE)
    assert Kept(path).read() == WHOLE
    damaged(path, how, tmp_path)
    assert Kept(path).read() is None
    assert f"the kept snapshot {path} is of no use" in caplog.text
    side = await Side().start(authority)
    side.publish(Listener("m", 80))
    plane = Plane(side, authority, tmp_path)
    await until(lambda: plane.told)
    assert [part.name for part in plane.told[0].put] == ["m"], "it goes on by the feed"
    await plane.stop()
    await side.server.stop()


async def test_a_kept_snapshot_that_the_workers_cannot_take_ends_nothing(tmp_path: Path) -> None:
    Kept(tmp_path / "snapshot").write(WHOLE)
    side = await Side().start(authority := Authority.new())

    class Failing(Plane):
        async def put(self, change: Change) -> tuple[Problem, ...]:
            if any(part.name == "c" for part in change.put):
                raise RuntimeError("a bug")
            return await super().put(change)

    side.publish(Listener("m", 80))
    plane = Failing(side, authority, tmp_path)
    await until(lambda: plane.told)
    await plane.stop()
    await side.server.stop()


def test_what_is_kept_is_for_nobody_else(tmp_path: Path) -> None:
    path, fresh, elsewhere = tmp_path / "snapshot", tmp_path / "snapshot.new", tmp_path / "elsewhere"
    elsewhere.write_text("untouched")
    for before in (lambda: None, lambda: fresh.symlink_to(elsewhere), lambda: (fresh.touch(), fresh.chmod(0o666))):
        before()
        old = os.umask(0)
        try:
            Kept(path).write(WHOLE)
        finally:
            os.umask(old)
        assert path.stat().st_mode & 0o777 == 0o600
        assert not path.is_symlink()
        assert not fresh.exists()
    assert elsewhere.read_text() == "untouched"


def test_what_is_too_large_to_keep_is_not_kept_and_nothing_old_comes_back(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "snapshot"
    Kept(path).write(WHOLE)
    monkeypatch.setattr(kept, "MAX_KEPT_BYTES", 10)
    Kept(path).write(WHOLE)
    assert not path.exists()


async def test_a_disk_that_is_full_for_a_moment_is_written_to_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "snapshot"
    Kept(path).write(WHOLE)  # there is no such folder
    path.parent.mkdir()
    Kept(path).write(WHOLE)
    assert Kept(path).read() == WHOLE


@pytest.mark.parametrize("secure", [False, True])
def test_the_door_is_the_same_on_the_loop_that_the_controller_runs_on(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop.run(test_strangers_hold_few_places_and_not_for_long(secure, monkeypatch))
    uvloop.run(test_who_is_known_stays_and_leaves_its_place())


def test_the_feed_is_the_same_on_that_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.new()

    async def all_of_it() -> None:
        side = await Side().start(authority)
        side.publish(Listener("l", 80))
        plane = Plane(side, authority, tmp_path)
        await until(lambda: plane.told)
        await until(side.server.channel(GATEWAY).is_programmed)
        side.server.dismiss(GATEWAY)
        await plane.stop()
        await side.server.stop()
        await test_who_does_not_read_costs_a_snapshot_at_most()
        await test_who_takes_nothing_for_long_is_let_go(monkeypatch)
        await test_a_head_that_never_ends_is_cut_and_others_are_served()

    uvloop.run(all_of_it())
