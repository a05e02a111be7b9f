"""TLSRoutes, TCPRoutes and UDPRoutes → relays: where connections and flows go (GEP-2643, GEP-2644, GEP-2645)."""

from __future__ import annotations

from controller.memo import View
from controller.objects import TCPRoute, TLSRoute, UDPRoute
from controller.translate.backends import Needed, resolve
from controller.translate.conditions import Condition
from controller.translate.rules import Rules, order, resolution
from gateway import snapshot


def relays(view: View, found: TLSRoute | TCPRoute | UDPRoute) -> Rules:
    """The rule of such a route; the API allows one."""
    made: list[snapshot.Relay] = []
    backends: dict[Needed, None] = {}
    faults: list[Condition] = []
    kind, meta = found.ref.kind, found.metadata
    for index, rule in enumerate(found.spec.rules):
        targets = []
        for ref in rule.backend_refs:
            one = resolve(view, kind, meta.namespace, ref)
            if one.backend is not None:
                backends[one.backend] = None
                targets.append(snapshot.Target(ref.weight, str(one.backend)))
            else:
                # An invalid reference refuses its share of the connections.
                reason = one.fault.message if one.fault else ""
                targets.append(snapshot.Target(ref.weight, "", (), 500, reason))
                faults += [one.fault] if one.fault is not None else []
        name = f"{kind}/{meta.namespace}/{meta.name}/{index}"
        made.append(snapshot.Relay(name, order(found, index), (), tuple(targets)))
    return Rules(tuple(made), tuple(backends), resolution(faults), None, None)
