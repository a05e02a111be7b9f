"""Where data planes may be sent to by what people write: not to themselves."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from controller.state.view import View


def leads_home(view: View, host: str) -> bool:
    """Whether a host is the data plane itself, which only files on one's own machine may name."""
    return is_loopback(host) and not are_from_files(view)


def are_from_files(view: View) -> bool:
    """Whether objects come from files on one's own machine: what nobody writes there is not there."""
    return bool(view.noted("setting", "loopback backends"))


def looked_up(view: View, name: str) -> str:
    """A name of DNS as a data plane asks for it: absolute on a cluster, as Kubernetes' DNS takes an externalName.

    A pod looks for "db.other" in db.other.svc.cluster.local as well: another namespace's Service, without a ReferenceGrant.
    """
    return name if are_from_files(view) or name.endswith(".") or as_address(name) is not None else f"{name}."


def is_of_cluster(name: str) -> bool:
    """Whether a name is one of the cluster's own, behind which anything of any namespace may be (CVE-2021-25740)."""
    return _as_compared(name).endswith(".cluster.local")


# Names of /etc/hosts, as Kubernetes writes it into each container, and of a cloud's metadata (an address of IPv6 as well).
_HOME_NAMES: Final = frozenset({"localhost.localdomain", "ip6-localhost", "ip6-loopback", "metadata.google.internal"})
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,16}|[1-9][0-9]{0,9}")
_METADATA: Final = ip_address("fd00:ec2::254")


def is_loopback(host: str) -> bool:
    """Whether a name or an address is of the machine that asks."""
    address = as_address(host)
    if address is None:
        name = _as_compared(host)
        return name.endswith("localhost") or name in _HOME_NAMES
    return address.is_loopback or address.is_unspecified or address.is_link_local or address == _METADATA


def as_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host stands for without DNS: as it is written, or as inet_aton(3) reads it, which resolvers ask
    first: 127.1, 0x7f000001 and 2130706433 are 127.0.0.1. None for a name."""
    text = _as_asked(host.strip("[]")).rstrip(".")
    try:
        address = ip_address(text)
    except ValueError:
        return _by_numbers(text)
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _by_numbers(text: str) -> IPv4Address | None:
    """inet_aton(3): one to four numbers, of which the last stands for all bytes that are left; octal after 0, hexadecimal
    after 0x."""
    pieces = text.split(".")
    if len(pieces) > 4 or not all(_NUMBER.fullmatch(piece) for piece in pieces):
        return None
    *bytes_, rest = (int(piece, 16 if piece[:2] in ("0x", "0X") else 8 if piece.startswith("0") else 10) for piece in pieces)
    if any(byte > 255 for byte in bytes_) or rest >= 1 << 8 * (4 - len(bytes_)):
        return None
    return IPv4Address(int.from_bytes(bytes(bytes_), "big") << 8 * (4 - len(bytes_)) | rest)


def _as_compared(name: str) -> str:
    """A name of DNS in the one form of all that mean it."""
    return _as_asked(name).rstrip(".").lower()


def _as_asked(host: str) -> str:
    """A host as sockets ask for it: wide digits, letters in circles and ideographic full stops become plain ones (IDNA)."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return host
