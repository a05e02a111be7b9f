"""Where data planes may be sent to by what people write: not to themselves."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from controller.state.view import View


def leads_home(view: View, host: str) -> bool:
    """Whether a host is the data plane itself, which only files on one's own machine may name."""
    return is_loopback(host) and not are_from_files(view)


def are_from_files(view: View) -> bool:
    """Whether objects come from files on one's own machine: what nobody writes there is not there."""
    return bool(view.note("setting", "loopback backends"))


# Names of /etc/hosts, as Kubernetes writes it into each container, and of a cloud's metadata (an address of IPv6 as well).
_HOME_NAMES: Final = frozenset({"localhost.localdomain", "ip6-localhost", "ip6-loopback", "metadata.google.internal"})
_METADATA: Final = ip_address("fd00:ec2::254")


def is_loopback(host: str) -> bool:
    """Whether a name or an address is of the machine that asks."""
    address = as_address(host)
    if address is None:
        name = _as_asked(host).rstrip(".").lower()
        return name.endswith("localhost") or name in _HOME_NAMES
    return address.is_loopback or address.is_unspecified or address.is_link_local or address == _METADATA


def as_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host stands for without DNS: as it is written, or as inet_aton(3) reads it, which resolvers ask
    first: 127.1, 0x7f000001 and 2130706433 are 127.0.0.1. None for a name."""
    text = _as_asked(host.strip("[]")).rstrip(".")
    try:
        address = ip_address(text)
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(text))
        except (OSError, ValueError):  # NUL, and what is not ASCII, is a ValueError
            return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _as_asked(host: str) -> str:
    """A host as sockets ask for it: wide digits, letters in circles and ideographic full stops become plain ones (IDNA)."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return host
