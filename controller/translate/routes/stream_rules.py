"""TLSRoutes, TCPRoutes and UDPRoutes → relays: where connections and flows go (GEP-2643, GEP-2644, GEP-2645)."""

from __future__ import annotations

from controller.objects.routes import TCPRoute, TLSRoute, UDPRoute
from controller.state.view import View
from controller.translate.policies import guarding
from controller.translate.routes.http_rules import Rules, faults_of, forwarding, order, resolution
from controller.translate.shared.conditions import Condition
from controller.translate.shared.names import Needed
from gateway import snapshot


def relays(view: View, route: TLSRoute | TCPRoute | UDPRoute) -> Rules:
    """The rule of such a route; the API allows one."""
    snapshot_relays: list[snapshot.Relay] = []
    backends: dict[Needed, None] = {}
    faults: list[Condition] = []
    kind, meta = route.ref.kind, route.metadata
    for index, rule in enumerate(route.spec.rules):
        # An invalid reference refuses its share of the connections.
        _, targets, needed, resolved = forwarding(view, route.ref, (), rule.backend_refs)
        backends.update(dict.fromkeys(needed))
        faults += faults_of(resolved, index)
        name = f"{kind}/{meta.namespace}/{meta.name}/{index}"
        given = guarding.rule_filters(view, route.ref, rule.name)
        backends.update(dict.fromkeys(given))
        scripted = tuple(snapshot.Scripted(str(filter_name)) for filter_name in given)
        snapshot_relays.append(snapshot.Relay(name, order(route, index), (), targets, scripted))
    return Rules(tuple(snapshot_relays), tuple(backends), resolution(faults), None, None)
