"""Sockets on a port of this machine: one that workers share, or one that nobody else has."""

from __future__ import annotations

import socket


def bound(bind: str, port: int, kind: socket.SocketKind, *, is_shared: bool) -> socket.socket:
    """A socket on a port of an address; "" is every address, by IPv6 and IPv4 alike. Raises OSError.

    A shared one (SO_REUSEPORT) finds a place beside others that are; one that is not, only where there is no other.
    """
    everywhere = not bind and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if everywhere or ":" in bind else socket.AF_INET
    made = socket.socket(family, kind)
    try:
        # With it datagrams would have two takers; connections that linger keep nobody from listening again.
        if is_shared or kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and not bind:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((bind, port))
        made.setblocking(False)
    except (OSError, OverflowError):
        made.close()
        raise
    return made
