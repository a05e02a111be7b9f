"""The content of a request between client and backend: what waits, what is kept to be sent again, and who frames it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.http.http1 import Field, parse_request
from gateway.proxy.request_body import RequestBody, RequestFraming

CHUNKED = parse_request(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked")
FIXED = parse_request(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4")


class Peer:
    """A backend's connection that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def open(self, head: bytes) -> None:
        self.told.append(("open", head))

    def content(self, data: bytes) -> None:
        self.told.append(("content", data))

    def finish(self, trailers: list[Field] | None = None) -> None:
        self.told.append("finish")


@pytest.mark.parametrize(
    ("request_", "is_framed", "framing", "told"),
    [
        (FIXED, True, "KEPT", [b"HEADab", b"cd"]),
        (CHUNKED, True, "KEPT", [b"HEADab", b"cd"]),
        (FIXED, False, "KEPT", [b"HEADab", b"cd"]),
        (CHUNKED, False, "BARE", [("open", b"HEAD"), ("content", b"ab"), ("content", b"cd"), "finish"]),
    ],
)
def test_who_frames_it(request_: Any, is_framed: bool, framing: str, told: list[Any]) -> None:
    body, peer = RequestBody(request_, is_framed=is_framed), Peer()
    assert body.framing.name == framing
    body.wait()
    body.add(b"ab", None, 100)
    body.open(peer, b"HEAD", is_whole=False)  # type: ignore[arg-type]
    body.add(b"cd", peer, 100)  # type: ignore[arg-type]
    body.end(peer)  # type: ignore[arg-type]
    assert peer.told == told


@pytest.mark.parametrize(("most", "can_resend"), [(4, True), (3, False)])
def test_it_is_kept_while_it_is_little(most: int, can_resend: bool) -> None:
    body, first, second = RequestBody(FIXED, is_framed=True), Peer(), Peer()
    body.open(first, b"HEAD", is_whole=False)  # type: ignore[arg-type]
    body.add(b"ab", first, most)  # type: ignore[arg-type]
    body.add(b"cd", first, most)  # type: ignore[arg-type]
    assert body.can_resend == can_resend
    if can_resend:
        body.rewind()
        body.open(second, b"HEAD", is_whole=True)  # type: ignore[arg-type]
        assert second.told == [b"HEADabcd"]


def test_what_waited_while_it_became_grpc_is_sent_again_as_grpc() -> None:
    body, first, second = RequestBody(FIXED, is_framed=True), Peer(), Peer()
    body.wait()
    body.add(b"web", None, 100)
    body.translate(lambda data: data.upper(), is_framed=True)
    assert body.framing is RequestFraming.TAKEN_OFF
    for peer in (first, second):
        body.open(peer, b"HEAD", is_whole=True)  # type: ignore[arg-type]
        body.rewind()
    assert first.told == second.told == [("open", b"HEAD"), ("content", b"WEB"), "finish"]
