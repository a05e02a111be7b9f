"""GatewayClasses and Gateways: which are ours, what they open, and what to say of them."""

from __future__ import annotations

from typing import NamedTuple

from controller.memo import View
from controller.objects import CONTROLLER, Gateway, GatewayAddress, GatewayClass, Service
from controller.translate import conditions, limits
from controller.translate.conditions import Condition
from controller.translate.listeners import ListenerInfo, listeners
from controller.translate.status import ClassStatus, GatewayStatus, ListenerStatus
from controller.world import Report

BUNDLE = "v1.7.0"
# Features of the Gateway API v1.7.0 that work, sorted (GatewayClassStatus.supportedFeatures).
FEATURES = (
    "Gateway",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
)


class GatewayInfo(NamedTuple):
    """A Gateway of ours, as routes see it."""

    namespace: str
    name: str
    listeners: tuple[ListenerInfo, ...]
    refused: Condition | None  # why nothing of it is served


def is_ours(view: View, class_name: str) -> bool:
    """Whether a GatewayClass names our controller."""
    found = view.get(GatewayClass, "", class_name)
    return found is not None and found.spec.controller_name == CONTROLLER


def gateway(view: View, namespace: str, name: str) -> GatewayInfo | None:
    """A Gateway, if it exists and is ours."""
    found = view.get(Gateway, namespace, name)
    if found is None or not view.call(is_ours, found.spec.gateway_class_name):
        return None
    refused = None
    parameters = found.spec.infrastructure.parameters_ref
    if parameters is not None:
        refused = conditions.gateway_parameters(
            f'spec.infrastructure.parametersRef: {parameters.kind} "{parameters.name}" is not understood; remove it.'
        )
    for address in found.spec.addresses:
        if address.type != "IPAddress":
            refused = conditions.unsupported_address(address.type)
    return GatewayInfo(namespace, name, listeners(view, found), refused)


def class_status(view: View, name: str) -> ClassStatus | None:
    """What to say of a GatewayClass of ours."""
    found = view.get(GatewayClass, "", name)
    if found is None or found.spec.controller_name != CONTROLLER:
        return None
    accepted = conditions.class_accepted(name)
    if found.spec.parameters_ref is not None:
        accepted = conditions.class_parameters(name)
    installed = view.note("setting", "bundle version") or BUNDLE
    version = conditions.supported_version(BUNDLE)
    if installed.rpartition(".")[0] != BUNDLE.rpartition(".")[0]:
        version = conditions.unsupported_version(installed, BUNDLE)
    return ClassStatus(found.metadata.generation, (accepted, version), FEATURES)


def gateway_status(view: View, namespace: str, name: str) -> GatewayStatus | None:
    """What to say of a Gateway of ours."""
    info = view.call(gateway, namespace, name)
    found = view.get(Gateway, namespace, name)
    if info is None or found is None:
        return None
    report = view.note("report", namespace, name) or Report()
    attached = view.note("attached", namespace, name) or {}
    problems = dict(report.problems)
    addresses = _addresses(view, found)
    said = tuple(
        _listener_status(one, attached.get(one.key, 0), problems.get(one.key), report, info.refused is not None)
        for one in info.listeners
    )
    accepted = info.refused or _accepted(info)
    fault = limits.of(found).fault
    if fault and accepted.is_true:
        accepted = conditions.with_warning(accepted, fault)
    return GatewayStatus(
        found.metadata.generation, addresses, (accepted, _programmed(accepted, report, addresses, problems)), said
    )


def _accepted(info: GatewayInfo) -> Condition:
    # Accepted and Conflicted decide; a certificate that is missing leaves the listener accepted.
    bad = [one.name for one in info.listeners if not one.conditions[0].is_true]
    if not bad:
        return conditions.gateway_accepted()
    return conditions.some_listeners_not_valid(bad, all_of_them=len(bad) == len(info.listeners))


def _programmed(
    accepted: Condition, report: Report, addresses: tuple[GatewayAddress, ...], problems: dict[str, str]
) -> Condition:
    if not accepted.is_true:
        return conditions.not_programmed("Invalid", "The Gateway is not accepted.")
    if not addresses:
        return conditions.not_programmed("AddressNotAssigned", "No address has been assigned to the Gateway's Service yet.")
    if not report.programmed:
        return conditions.not_programmed("Pending", report.message or "No data plane has acknowledged the Gateway yet.")
    return conditions.programmed(report.message or "The data planes serve the Gateway.")


def _listener_status(one: ListenerInfo, attached: int, problem: str | None, report: Report, refused: bool) -> ListenerStatus:
    said = list(one.conditions)
    if not one.is_valid or refused:
        said.append(conditions.not_programmed("Invalid", "The listener is not valid."))
    elif problem:
        said[0] = conditions.port_unavailable(f"The data plane cannot serve it: {problem}.")
        said.append(conditions.not_programmed("Invalid", f"The data plane cannot serve it: {problem}."))
    elif report.programmed:
        said.append(conditions.programmed("Listener is programmed."))
    else:
        said.append(conditions.not_programmed("Pending", "No data plane has acknowledged it yet."))
    return ListenerStatus(one.name, one.kinds, attached, tuple(said))


def _addresses(view: View, found: Gateway) -> tuple[GatewayAddress, ...]:
    """Those of the Gateway's Service; standalone, where we listen."""
    fixed: tuple[str, ...] = view.note("setting", "addresses")
    if fixed:
        return tuple(GatewayAddress("IPAddress", address) for address in fixed)
    result = []
    for ref in view.index("services of gateway", found.metadata.namespace, found.metadata.name):
        service = view.get(Service, ref.namespace, ref.name)
        for ingress in service.status.load_balancer.ingress if service else ():
            if ingress.ip:
                result.append(GatewayAddress("IPAddress", ingress.ip))
            elif ingress.hostname:
                result.append(GatewayAddress("Hostname", ingress.hostname))
    return tuple(result)
