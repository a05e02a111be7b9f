"""What is done to OpenSSL behind Python's back, and what is not where it is not where it should be."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from gateway.tls import openssl
from gateway.tls.contexts import Chooser


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another layout: what is read as a pointer is that of another context."""
    stray = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pointer = openssl._pointer(stray)
    openssl.is_reached.cache_clear()
    monkeypatch.setattr(openssl, "_pointer", lambda _: pointer)
    yield
    openssl.is_reached.cache_clear()


def test_it_is_reached() -> None:
    openssl.is_reached.cache_clear()
    assert openssl.is_reached()
    assert openssl.share_tickets(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), bytes(openssl.TICKET_KEY_BYTES))


@pytest.mark.usefixtures("elsewhere")
def test_another_layout_turns_the_features_off(caplog: pytest.LogCaptureFixture) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert not openssl.share_tickets(context, bytes(openssl.TICKET_KEY_BYTES))
    with pytest.raises(ValueError, match="AllowValidOnly can"):
        openssl.ask_for_any_certificate(context, asking=True)
    assert Chooser(b"secret", 443).front.verify_mode == ssl.CERT_NONE
    assert [record.message.partition(":")[0] for record in caplog.records] == ["OpenSSL is not where it is in other Pythons"]


@pytest.mark.parametrize("found", [0, 7, 1 << 60, 4096])
def test_what_cannot_be_a_pointer_is_not_followed(monkeypatch: pytest.MonkeyPatch, found: int) -> None:
    class Read:
        value = found

    monkeypatch.setattr(openssl.ctypes.c_void_p, "from_address", staticmethod(lambda _: Read), raising=False)
    assert openssl._pointer(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) == 0
