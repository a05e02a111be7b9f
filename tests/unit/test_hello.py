"""The server name in a ClientHello, as real clients send it, cut anywhere."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tls.client_hello import NotTLS, server_name


def hello(name: str | None, *, long: bool = False) -> bytes:
    """What Python's own client sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if long:
        context.set_alpn_protocols([f"protocol-{n:0200}" for n in range(60)])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """The same message in records of another size."""
    message = b""
    while data:
        length = int.from_bytes(data[3:5], "big")
        message, data = message + data[5 : 5 + length], data[5 + length :]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


PLAIN, LONG, NAMELESS = hello("a.example.com"), hello("a.example.com", long=True), hello(None)


def test_names() -> None:
    assert server_name(PLAIN) == "a.example.com"
    assert server_name(hello("UPPER.Example")) == "upper.example"
    assert server_name(NAMELESS) == ""
    assert len(LONG) > 12000
    assert server_name(LONG) == "a.example.com"


@given(st.integers(0, len(PLAIN) - 1), st.integers(1, 600))
def test_more_must_come(cut: int, size: int) -> None:
    assert server_name(PLAIN[:cut]) is None
    cut_up = in_records(PLAIN, size)
    assert server_name(cut_up[:-1]) is None
    assert server_name(cut_up) == "a.example.com"


@given(st.binary(min_size=1, max_size=200))
def test_anything_else_is_refused_or_waits(data: bytes) -> None:
    try:
        assert server_name(data) in (None, "")
    except NotTLS:
        pass


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\x16\x02", b"\x16\x03\x01\0\0", b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\0\4\x02\0\0\0"]
)
def test_not_tls(data: bytes) -> None:
    with pytest.raises(NotTLS):
        server_name(data)


@given(st.integers(9, len(PLAIN) - 1), st.integers(0, 255))
def test_a_changed_byte_breaks_nothing_but_itself(at: int, value: int) -> None:
    changed = PLAIN[:at] + bytes((value,)) + PLAIN[at + 1 :]
    try:
        server_name(changed)
    except NotTLS:
        pass
