"""Making a connection to a backend, and all the ways in which that can fail."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

log = logging.getLogger("fsm.upstream")
CONNECT: Final = 2.0  # seconds to make a connection
ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)
Reason: TypeAlias = Literal["refused", "timeout", "name", "tls", "unreachable", "fault"]
# What a client is told: no address and no certificate of the inside.
WORDS: Final[dict[Reason, str]] = {
    "refused": "it refuses connections",
    "timeout": f"it takes no connection within {CONNECT:g} s",
    "name": "its name is not known",
    "tls": "TLS with it fails",
    "unreachable": "it cannot be reached",
    "fault": "the gateway fails at it",
}


class Securing(Protocol):
    """How a backend is spoken to over TLS, and whom it must prove to be."""

    @property
    def context(self) -> ssl.SSLContext: ...
    @property
    def server_name(self) -> str: ...

    def fault(self, transport: asyncio.BaseTransport) -> str:
        """What is wrong with the certificate that was shown; empty where nothing is."""


class DialError(Exception):
    """No connection could be made. `reason` is one of a closed set, as metrics have it; the words are for the operator."""

    def __init__(self, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.reason = reason


async def dial(
    protocol: Callable[[], ProtocolT], address: tuple[str, int], security: Securing | None, patience: float = CONNECT
) -> tuple[asyncio.Transport, ProtocolT]:
    """A connection to an address within so many seconds, over TLS where `security` says so, with a certificate that has been
    verified. Raises DialError."""
    try:
        async with asyncio.timeout(patience):
            transport, instance = await asyncio.get_running_loop().create_connection(
                protocol,
                *address,
                ssl=security.context if security else None,
                server_hostname=security.server_name if security else None,
            )
    except Exception as error:
        raise explained(error) from error
    fault = security.fault(transport) if security else ""
    if fault:
        transport.abort()
        raise DialError("tls", fault)
    return transport, instance


def explained(error: Exception) -> DialError:
    """What an attempt at a connection came to."""
    match error:
        case DialError():
            return error
        case TimeoutError():
            return DialError("timeout", f"no answer within {CONNECT:g} s")
        case ConnectionRefusedError():
            return DialError("refused", "it refuses connections")
        case ssl.SSLCertVerificationError():
            words = getattr(error, "verify_message", "") or error
            return DialError("tls", f"its certificate does not prove who it is: {words}")
        case ssl.SSLError():
            return DialError("tls", f"TLS: {getattr(error, 'reason', '') or error}")
        case ConnectionError():  # in the middle of the handshake
            return DialError("unreachable", error.strerror or str(error))
        case socket.gaierror():
            return DialError("name", error.strerror or str(error))
        case UnicodeError():  # labels that are empty or too long, for which the codec of IDNA raises this
            return DialError("name", f"it is none that DNS can be asked for: {error}")
        case OSError():
            return DialError("unreachable", error.strerror or str(error))
    log.error("a connection to a backend cannot be made", exc_info=error)
    return DialError("fault", f"{type(error).__name__}: {error}")
