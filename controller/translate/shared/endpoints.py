"""EndpointSlices → endpoints: the ready ones; without any, those that still serve while terminating."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from controller.objects.base import Ref
from controller.objects.core import EndpointSlice
from controller.state.view import View
from controller.translate.shared.addresses import is_of_cluster, leads_home, looked_up
from gateway import snapshot

PortOf: TypeAlias = Callable[[EndpointSlice], int | None]  # the port that a slice has for a backend


def of_slices(view: View, slices: Iterable[Ref], port_of: PortOf) -> tuple[snapshot.Endpoint, ...]:
    """The endpoints of a backend, in the order of their addresses."""
    ready: set[snapshot.Endpoint] = set()
    leaving: set[snapshot.Endpoint] = set()
    for ref in slices:
        found = view.get(EndpointSlice, ref.namespace, ref.name)
        number = port_of(found) if found is not None else None
        if found is not None and number is not None:
            _sort(view, found, number, ready, leaving)
    return tuple(sorted(ready or leaving, key=lambda e: (e.address, e.port)))


def _sort(
    view: View, found: EndpointSlice, number: int, ready: set[snapshot.Endpoint], leaving: set[snapshot.Endpoint]
) -> None:
    is_named = found.address_type == "FQDN"
    for endpoint in found.endpoints or ():
        state = endpoint.conditions
        # Unknown means yes for ready, and the same as ready for serving (EndpointConditions).
        is_ready = state.ready is not False
        is_serving = state.serving if state.serving is not None else is_ready
        pod = endpoint.target_ref.name if endpoint.target_ref and endpoint.target_ref.kind == "Pod" else ""
        for address in endpoint.addresses[:1]:  # all addresses of an endpoint are fungible
            # The API server takes no such addresses, but names (addressType FQDN) it does not look at.
            if not address or leads_home(view, address) or (is_named and is_of_cluster(address)):
                continue
            asked = looked_up(view, address) if is_named else address
            if is_ready:
                ready.add(snapshot.Endpoint(asked, number, pod))
            elif is_serving and state.terminating:
                leaving.add(snapshot.Endpoint(asked, number, pod))
