"""Heads of a change of protocols."""

from __future__ import annotations

WEBSOCKET = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
