"""What no status says of objects that are valid, and a person should hear: they lead nowhere.

The Gateway API leaves an object alone that no Gateway of ours is concerned by, and has nothing to say of Services and
EndpointSlices. Whoever wrote them by hand wonders why nothing comes of it. Worked out where files are read
(the note `("setting", "remarks")`), not on a cluster, where other controllers' objects are no matter of ours. What leads
to something that is written and refused (the note `("refused",)`, of objects in words) is left out: that is said of the other.
"""

from __future__ import annotations

import difflib
from typing import Any, Final, NamedTuple, TypeAlias

from controller.objects.base import CONTROLLER, GATEWAY_CLASS, GATEWAY_GROUP
from controller.objects.core import XBACKEND_NAME, EndpointSlice, Service
from controller.objects.documents import Path
from controller.objects.gateways import ALL, Gateway, GatewayClass, ListenerSet
from controller.objects.naming import limited
from controller.objects.references import ParentRef
from controller.objects.routes import ROUTES
from controller.state.view import View, guarded
from controller.translate.shared.ancestors import is_ours

SLICE_LABEL: Final = "kubernetes.io/service-name"
NAMED: Final = 10  # names that a message lists
COMPARED: Final = 200  # names among which one is looked for that was nearly written


class Remark(NamedTuple):
    """What is to be said of an object: of which field, in words."""

    path: Path
    message: str
    here: bool = False  # only so where there is no cluster


Remarks: TypeAlias = tuple[Remark, ...]


@guarded(lambda *_: ())
def of_gateway(view: View, namespace: str, name: str) -> Remarks:
    """A Gateway of a class that is not ours: of another controller's, which serves it on a cluster, or of none at all."""
    found = view.get(Gateway, namespace, name)
    if found is None or view.call(is_ours, found.spec.gateway_class_name):
        return ()
    class_name = found.spec.gateway_class_name
    is_others = view.get(GatewayClass, "", class_name) is not None
    return (Remark(("spec", "gatewayClassName"), _class(view, class_name), here=is_others),)


def _class(view: View, name: str) -> str:
    other = view.get(GatewayClass, "", name)
    ours = [ref.name for ref in view.index("kind", "GatewayClass") if view.call(is_ours, ref.name)] or [GATEWAY_CLASS]
    works = f"{' or '.join(ours[:NAMED])} would be served here"
    if other is not None:
        return f'found "{name}", a GatewayClass of the controller {other.spec.controller_name}, not of {CONTROLLER}; {works}.'
    return f'found "{name}"; there is no GatewayClass of this name; {works}.'


@guarded(lambda *_: ())
def of_listener_set(view: View, namespace: str, name: str) -> Remarks:
    """A ListenerSet whose Gateway there is not."""
    found = view.get(ListenerSet, namespace, name)
    if found is None:
        return ()
    to, gateway = found.spec.parent_ref.namespace or namespace, found.spec.parent_ref.name
    if (found.spec.parent_ref.group, found.spec.parent_ref.kind) != (GATEWAY_GROUP, "Gateway"):
        return ()
    words = "" if view.get(Gateway, to, gateway) is not None else _missing(view, "Gateway", to, gateway)
    return (Remark(("spec", "parentRef", "name"), words),) if words else ()


@guarded(lambda *_: ())
def of_route(view: View, kind: str, namespace: str, name: str) -> Remarks:
    """A route with parents that there are not, or none of which is ours."""
    found = view.get(ROUTES[kind], namespace, name)
    if found is None:
        return ()
    parents, scope = found.spec.parent_refs, found.spec.use_default_gateways
    if scope == ALL and not view.index("default gateways"):
        words = f'found "{ALL}", and no Gateway has defaultScope: {ALL}; {_known(view, "Gateway", namespace)}'
        return (Remark(("spec", "useDefaultGateways"), words),)
    if scope != ALL and not any(parent.group in (None, GATEWAY_GROUP) for parent in parents):
        return (Remark(("spec", "parentRefs"), f"names no Gateway; {_known(view, 'Gateway', namespace)}"),)
    return tuple(
        Remark(("spec", "parentRefs", index, "name"), words)
        for index, parent in enumerate(parents)
        if (words := _nowhere(view, namespace, parent))
    )


def _nowhere(view: View, namespace: str, parent: ParentRef) -> str:
    """Why a parentRef leads nowhere; "" where it does lead somewhere, or that is no matter of ours."""
    to = parent.namespace or namespace
    if parent.group not in (None, GATEWAY_GROUP):
        return ""
    kind: type[Any] = {"Gateway": Gateway, "ListenerSet": ListenerSet}.get(parent.kind or "Gateway", Gateway)
    if parent.kind not in (None, kind.__name__) or view.get(kind, to, parent.name) is not None:
        return ""
    return _missing(view, kind.__name__, to, parent.name)


def _missing(view: View, kind: str, namespace: str, name: str) -> str:
    if f"{kind} {namespace}/{name}" in view.noted("refused"):
        return ""
    return f'there is no {kind} "{namespace}/{name}"; {_known(view, kind, namespace, name)}'


def _known(view: View, kind: str, namespace: str, wanted: str = "") -> str:
    """What would work, in words: an object with nearly the wanted name, or those that there are."""
    refs = view.index("kind", kind)
    elsewhere = next((ref for ref in refs if ref.name == wanted), None)
    if elsewhere is not None:
        return f"there is one in namespace {elsewhere.namespace}"
    known = [ref.name if ref.namespace == namespace else f"{ref.namespace}/{ref.name}" for ref in refs]
    near = difflib.get_close_matches(wanted, known, 1) if wanted and len(known) <= COMPARED else []
    if near:
        return f'did you mean "{near[0]}"?'
    more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
    return f"{kind}s here: {', '.join(known[:NAMED]) or 'none'}{more}"


@guarded(lambda *_: ())
def of_slice(view: View, namespace: str, name: str) -> Remarks:
    """An EndpointSlice that is no Service's nor XBackend's, or whose ports are called otherwise than the Service's."""
    found = view.get(EndpointSlice, namespace, name)
    if found is None:
        return ()
    xbackend = found.metadata.labels.get(XBACKEND_NAME)
    if xbackend is not None and not found.service:
        if any(one.namespace == namespace and limited(one.name) == xbackend for one in view.index("kind", "XBackend")):
            return ()
        return (Remark(("metadata", "labels", XBACKEND_NAME), _missing(view, "XBackend", namespace, xbackend)),)
    label: Path = ("metadata", "labels", SLICE_LABEL)
    if not found.service:
        return (Remark(label, "is missing; it names the Service whose endpoints these are."),)
    service = view.get(Service, namespace, found.service)
    if service is None:
        words = _missing(view, "Service", namespace, found.service)
        return (Remark(label, words),) if words else ()
    wanted = [port.name for port in service.spec.ports]
    written = [port.name or "" for port in found.ports or ()]
    without = [name for name in wanted if name not in written]
    if not without:
        return ()
    words = " and ".join(f'"{name}"' if name else "no name" for name in without)
    return tuple(
        Remark(
            ("ports", index, "name"),
            (f'found "{name}"' if name else "found no name") + f'; Service "{namespace}/{found.service}" has a port with'
            f" {'the name ' if without != [''] else ''}{words}, which has no endpoint by this: the names must be the same.",
        )
        for index, name in enumerate(written)
        if name not in wanted
    )


@guarded(lambda *_: ())
def of_service(view: View, namespace: str, name: str) -> Remarks:
    """A Service that routes lead to and that has no EndpointSlice: no cluster makes one here."""
    found = view.get(Service, namespace, name)
    if found is None or found.spec.type == "ExternalName" or not view.noted("gateways of service", namespace, name):
        return ()
    if view.index("slices", namespace, name):
        return ()
    if any(one.startswith(f"EndpointSlice {namespace}/") for one in view.noted("refused")):
        return ()  # it may be this one's
    words = (
        "has no endpoints, and its requests are answered with 503: no cluster makes them here; an EndpointSlice with the label"
        f" {SLICE_LABEL}: {name} would have them."
    )
    return (Remark((), words, here=True),)
