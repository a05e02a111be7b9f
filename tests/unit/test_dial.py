"""Every way in which a connection to a backend can fail has a reason of a closed set, and words for the operator."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl

import pytest

from gateway.transport.dial import WORDS, DialError, dial, explained
from gateway.upstream.backend import Backend


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "timeout"),
        (ConnectionRefusedError(111, "Connection refused"), "refused"),
        (ConnectionResetError(104, "Connection reset by peer"), "unreachable"),
        (OSError(113, "No route to host"), "unreachable"),
        (socket.gaierror(-2, "Name or service not known"), "name"),
        (UnicodeError("label too long"), "name"),
        (ssl.SSLCertVerificationError("hostname mismatch"), "tls"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), "tls"),
        (DialError("tls", "none of the names"), "tls"),
        (ValueError("embedded null byte"), "fault"),
        (OverflowError("port must be 0-65535."), "fault"),
    ],
)
def test_reasons(error: Exception, reason: str) -> None:
    found = explained(error)
    assert found.reason == reason
    assert str(found)
    assert WORDS[found.reason]


@pytest.mark.parametrize("host", ["a" * 64 + ".example.com", "a..b", ".", "\0", "x" * 300, "no-such-host.invalid"])
async def test_names_that_cannot_be(host: str) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(DialError) as raised:
            await dial(asyncio.Protocol, (host, 80), None)
    assert raised.value.reason in ("name", "fault", "unreachable")


async def test_a_reason_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    class One:
        name = "10.0.0.1:80"
        where = ("10.0.0.1", 80)

    backend = Backend("default/a:80")
    with caplog.at_level(logging.WARNING):
        for reason in ("refused", "refused", "tls", "refused"):
            backend.failed(One(), DialError(reason, f"words of {reason}"))  # type: ignore[arg-type]
    assert [record.getMessage() for record in caplog.records] == [
        "backend default/a:80, endpoint 10.0.0.1:80: words of refused", "backend default/a:80, endpoint 10.0.0.1:80: words of tls",
    ]  # fmt: skip
    assert backend.failures == {"refused": 3, "tls": 1}
