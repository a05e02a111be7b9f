"""A proxy's connections without a network, whose turns can be taken one by one."""

from __future__ import annotations

from typing import Any

from gateway.downstream.http1 import DownstreamHttp1
from gateway.snapshot import Attachment, Match, Order, Rule, Target
from support.wire import Side, Wire


class Read(Wire):
    """A transport that is read, or not for now."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read = True

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"


def served(**options: Any) -> tuple[Side, DownstreamHttp1, Read]:
    """A client of one rule."""
    side = Side([Rule("r", Order(), (Attachment("l", ""),), (Match(),), (), (Target(1, "b"),), **options)])
    side.backend("b")
    client, _ = side.connect()
    wire = client._transport = Read()  # type: ignore[assignment]
    client.write = wire.write
    return side, client, wire
