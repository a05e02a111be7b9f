"""Where data planes may be sent to by what people write: not to themselves."""

from __future__ import annotations

from ipaddress import ip_address

from controller.state.view import View


def leads_home(view: View, host: str) -> bool:
    """Whether a host is the data plane itself, which only files on one's own machine may name."""
    return is_loopback(host) and not are_from_files(view)


def are_from_files(view: View) -> bool:
    """Whether objects come from files on one's own machine: what nobody writes there is not there."""
    return bool(view.noted("setting", "loopback backends"))


def is_loopback(host: str) -> bool:
    """Whether a name or an address is of the machine that asks."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host.rstrip(".").lower().endswith("localhost")
    return address.is_loopback or address.is_unspecified or address.is_link_local
