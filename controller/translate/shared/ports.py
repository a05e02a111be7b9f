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
    gateway = view.get(Gateway, namespace, name)
    if gateway is None:
        return ()
    every = (*gateway.spec.listeners, *(listener for taken in sets(view, gateway) for listener in taken.spec.listeners))
    return tuple(dict.fromkeys(Opened(listener.port, spoken(listener)) for listener in every))


def hostnames(view: View, namespace: str, name: str) -> tuple[str, ...]:
    """The hostnames of a Gateway's listeners; "" for all."""
    gateway = view.get(Gateway, namespace, name)
    if gateway is None:
        return ()
    every = (*gateway.spec.listeners, *(listener for taken in sets(view, gateway) for listener in taken.spec.listeners))
    return tuple(dict.fromkeys(listener.hostname.lower() for listener in every))


def spoken(listener: GatewayListener) -> str:
    """A listener's protocol; TLS that is passed on is told apart from TLS that ends here."""
    return "TLS, passed on" if is_passthrough(listener) else listener.protocol


def is_passthrough(listener: GatewayListener) -> bool:
    """Whether TLS ends elsewhere."""
    return listener.protocol == "TLS" and listener.tls is not None and listener.tls.mode == PASSTHROUGH


def sets(view: View, gateway: Gateway) -> tuple[ListenerSet, ...]:
    """The ListenerSets that a Gateway takes, the oldest first (GEP-1713)."""
    allowed = gateway.spec.allowed_listeners.namespaces
    named = [
        listener_set
        for listener_set in _named(view, gateway)
        if is_allowed(view, allowed, gateway.metadata.namespace, listener_set.metadata.namespace)
    ]
    return tuple(sorted(named, key=lambda taken: taken.metadata.age))


def _named(view: View, gateway: Gateway) -> Iterator[ListenerSet]:
    for ref in view.index("listener sets of", gateway.metadata.namespace, gateway.metadata.name):
        listener_set = view.get(ListenerSet, ref.namespace, ref.name)
        if listener_set is not None and names_gateway(listener_set):
            yield listener_set


def names_gateway(listener_set: ListenerSet) -> bool:
    """Whether a ListenerSet's parent is a Gateway."""
    return (listener_set.spec.parent_ref.group, listener_set.spec.parent_ref.kind) == (GATEWAY_GROUP, "Gateway")


def is_allowed(view: View, allowed: RouteNamespaces, home: str, namespace: str) -> bool:
    """Whether a namespace is one of those allowed, seen from the namespace `home`."""
    match allowed.from_:
        case "All":
            return True
        case "Same":
            return namespace == home
        case "Selector" if allowed.selector is not None:
            resource = view.get(Namespace, "", namespace)
            return resource is not None and allowed.selector.matches(resource.metadata.labels)
        case _:
            return False


def validation(gateway: Gateway, port: int) -> ClientValidation | None:
    """How clients prove who they are on a port: what is said of the port, or else the default (GEP-91)."""
    frontend = gateway.spec.tls.frontend
    return next((entry.tls for entry in frontend.per_port if entry.port == port), frontend.default).validation


def validation_at(view: View, gateway: Ref, port: int) -> ClientValidation | None:
    """The same, of a Gateway by its name."""
    resource = view.get(Gateway, gateway.namespace, gateway.name)
    return validation(resource, port) if resource is not None else None
