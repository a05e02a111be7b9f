"""The server name in a TLS ClientHello, read without touching it (RFC 8446 §4.1.2, RFC 6066 §3)."""

from __future__ import annotations

from typing import Final

MAX_CLIENT_HELLO_BYTES: Final = 1 << 16  # octets of a ClientHello
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0


class NotTLS(Exception):
    """What came is no ClientHello."""


class _Reader:
    """Takes octets off the front; raises NotTLS where there are too few."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise NotTLS("a length that is too large")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Reader:
        return _Reader(self.take(self.number(size)))

    @property
    def is_done(self) -> bool:
        return self._at == len(self._data)


def server_name(data: bytes) -> str | None:
    """The name that a client asks for, in lower case; "" where it asks for none; None while more must come.

    Raises NotTLS. The message may be spread over any number of records, and these over any number of reads.
    """
    message = _message(data)
    if message is None:
        return None
    hello = _Reader(message)
    hello.take(2 + 32)  # legacy_version, random
    hello.vector(1)  # legacy_session_id
    hello.vector(2)  # cipher_suites
    hello.vector(1)  # legacy_compression_methods
    if hello.is_done:
        return ""
    extensions = hello.vector(2)
    while not extensions.is_done:
        kind, extension = extensions.number(2), extensions.vector(2)
        if kind != _SERVER_NAME:
            continue
        names = extension.vector(2)
        while not names.is_done:
            kind, name = names.number(1), names.take(names.number(2))
            if kind == 0:
                return name.decode("ascii", "replace").lower().rstrip(".")
    return ""


def _message(data: bytes) -> bytes | None:
    """The ClientHello's body, put together from records; None while it is not whole."""
    message = b""
    at = 0
    while True:
        header = data[at : at + 5]
        if (header and header[0] != _HANDSHAKE) or (len(header) > 1 and header[1] != 3):
            raise NotTLS("not a TLS handshake record")
        if len(header) < 5:
            break
        size = int.from_bytes(header[3:5], "big")
        if not 0 < size <= 16384 + 256:
            raise NotTLS("a record of an impossible size")
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if message and message[0] != _CLIENT_HELLO:
            raise NotTLS("the first message is not a ClientHello")
        if len(message) >= 4:
            length = int.from_bytes(message[1:4], "big")
            if length > MAX_CLIENT_HELLO_BYTES:
                raise NotTLS("the ClientHello is too long")
            if len(message) >= 4 + length:
                return message[4 : 4 + length]
        if at >= len(data):
            break
    if len(data) > 2 * MAX_CLIENT_HELLO_BYTES:
        raise NotTLS("the ClientHello is too long")
    return None
