"""What a TLS layer has read ahead of a connection that is gone, while nobody wanted it."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

import pytest
import trustme

from gateway.l4.splice import splice
from gateway.tls.contexts import unread


class Transport:
    """With a TLS layer, or without."""

    def __init__(self, layer: ssl.SSLObject | None = None) -> None:
        self._layer = layer
        self.sent = b""
        self.protocol: Any = None
        self.is_open = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._layer if name == "ssl_object" else default

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def resume_reading(self) -> None: ...

    def write(self, data: bytes) -> None:
        assert self.is_open
        self.sent += data

    def is_closing(self) -> bool:
        return not self.is_open

    def close(self) -> None:
        self.is_open = False


def heard(*said: bytes, ends: bool, spoilt: bool = False) -> ssl.SSLObject:
    """The layer of a client to which a server has said this."""
    authority = trustme.CA()
    front, back = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(front)
    authority.issue_cert("b").configure_cert(back)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = front.wrap_bio(to_client, to_server, server_hostname="b")
    server = back.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    for piece in said:
        server.write(piece)
    if spoilt:
        to_client.write(b"\x17\x03\x03\x00\x20" + b"?" * 32)
    if ends:
        with contextlib.suppress(ssl.SSLWantReadError):
            server.unwrap()
    return client


@pytest.mark.parametrize(("ends", "spoilt"), [(True, False), (False, False), (False, True)])
def test_all_that_can_be_read_is_read(ends: bool, spoilt: bool) -> None:
    layer = heard(b"x" * 40_000, b"y" * 10, ends=ends, spoilt=spoilt)
    assert unread(Transport(layer)) == b"x" * 40_000 + b"y" * 10  # type: ignore[arg-type]
    assert not unread(Transport(layer))  # type: ignore[arg-type]


def test_there_is_nothing_where_there_is_no_tls() -> None:
    assert not unread(Transport())  # type: ignore[arg-type]


def test_a_tunnel_passes_it_on() -> None:
    done: list[bool] = []
    one, other = Transport(heard(b"the rest", ends=True)), Transport()
    splice(one, other, lambda: done.append(True))  # type: ignore[arg-type]
    one.close()
    one.protocol.connection_lost(None)
    assert other.sent == b"the rest"
    assert not other.is_open
