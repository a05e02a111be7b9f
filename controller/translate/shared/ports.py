"""Which ports a Gateway opens, by its own listeners and by the ListenerSets that it takes, and what is spoken there.

Only what is written counts here, not what became of it: policies ask whether there is anything that they could be for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from controller.objects.base import GATEWAY_GROUP, Ref
from controller.objects.core import Namespace
from controller.objects.gateways import ClientValidation, Gateway, GatewayListener, ListenerSet, RouteNamespaces
from controller.state.view import View

TERMINATE: Final = "Terminate"
PASSTHROUGH: Final = "Passthrough"


class Opened(NamedTuple):
    """What is spoken at a port."""

    number: int
    spoken: str

    @property
    def has_requests(self) -> bool:
        """Whether HTTP is spoken there."""
        return self.spoken in ("HTTP", "HTTPS")

    @property
    def is_terminated(self) -> bool:
        """Whether TLS ends there, so that clients can show certificates."""
        return self.spoken in ("HTTPS", "TLS")


def of(view: View, namespace: str, name: str) -> tuple[Opened, ...]:
    """Every port of a Gateway, once for each thing that is spoken there."""
    found = view.get(Gateway, namespace, name)
    if found is None:
        return ()
    every = (*found.spec.listeners, *(one for taken in sets(view, found) for one in taken.spec.listeners))
    return tuple(dict.fromkeys(Opened(one.port, spoken(one)) for one in every))


def hostnames(view: View, namespace: str, name: str) -> tuple[str, ...]:
    """The hostnames of a Gateway's listeners; "" for all."""
    found = view.get(Gateway, namespace, name)
    if found is None:
        return ()
    every = (*found.spec.listeners, *(one for taken in sets(view, found) for one in taken.spec.listeners))
    return tuple(dict.fromkeys(one.hostname.lower() for one in every))


def spoken(one: GatewayListener) -> str:
    """A listener's protocol; TLS that is passed on is told apart from TLS that ends here."""
    return "TLS, passed on" if is_passthrough(one) else one.protocol


def is_passthrough(one: GatewayListener) -> bool:
    """Whether TLS ends elsewhere."""
    return one.protocol == "TLS" and one.tls is not None and one.tls.mode == PASSTHROUGH


def sets(view: View, found: Gateway) -> tuple[ListenerSet, ...]:
    """The ListenerSets that a Gateway takes, the oldest first (GEP-1713)."""
    allowed = found.spec.allowed_listeners.namespaces
    named = [one for one in _named(view, found) if is_allowed(view, allowed, found.metadata.namespace, one.metadata.namespace)]
    return tuple(sorted(named, key=lambda one: (one.metadata.creation_timestamp, one.metadata.namespace, one.metadata.name)))


def _named(view: View, found: Gateway) -> Iterator[ListenerSet]:
    for ref in view.index("listener sets of", found.metadata.namespace, found.metadata.name):
        one = view.get(ListenerSet, ref.namespace, ref.name)
        if one is not None and names_gateway(one):
            yield one


def names_gateway(one: ListenerSet) -> bool:
    """Whether a ListenerSet's parent is a Gateway."""
    return (one.spec.parent_ref.group, one.spec.parent_ref.kind) == (GATEWAY_GROUP, "Gateway")


def is_allowed(view: View, allowed: RouteNamespaces, home: str, namespace: str) -> bool:
    """Whether a namespace is one of those allowed, seen from the namespace `home`."""
    match allowed.from_:
        case "All":
            return True
        case "Same":
            return namespace == home
        case "Selector" if allowed.selector is not None:
            found = view.get(Namespace, "", namespace)
            return found is not None and allowed.selector.matches(found.metadata.labels)
        case _:
            return False


def validation(gateway: Gateway, port: int) -> ClientValidation | None:
    """How clients prove who they are on a port: what is said of the port, or else the default (GEP-91)."""
    frontend = gateway.spec.tls.frontend
    return next((one.tls for one in frontend.per_port if one.port == port), frontend.default).validation


def validation_at(view: View, gateway: Ref, port: int) -> ClientValidation | None:
    """The same, of a Gateway by its name."""
    found = view.get(Gateway, gateway.namespace, gateway.name)
    return validation(found, port) if found is not None else None
