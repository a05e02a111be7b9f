"""Where what a policy says changes nothing, in words: it speaks of what its target does not have.

What protects must not be idle in silence: whoever wrote it believes that it holds.
"""

from __future__ import annotations

from controller.objects.base import Ref
from controller.objects.core import Service
from controller.objects.policies.statement import Scope
from controller.objects.routes import GRPCRoute, HTTPRoute
from controller.state.view import View
from controller.translate.policies.targets import TARGETS, WORDS, match_of
from controller.translate.shared import hostnames, matches, ports


def whole(view: View, kind: str, target: Ref, scope: Scope) -> str:
    """Why a scope changes nothing at a target, in words that follow its field; empty where it does."""
    if scope.word not in WORDS[target.kind]:
        return f": a {target.kind} has none."
    if target.kind != "Gateway" and scope.bps and scope.config is None:
        return f".bps: a {target.kind} has no bytes of its own; a Gateway has."
    if target.kind == "Gateway" and scope.word in ("", "ports"):
        return _no_port(view, kind, target, scope)
    if target.kind == "Service" and scope.word == "ports":
        service = view.get(Service, target.namespace, target.name)
        numbers = [port.port for port in service.spec.ports] if service is not None else []
        if scope.of not in numbers and service is not None and service.spec.type != "ExternalName":
            return f'.port: Service "{target.name}" has no port {scope.of}; it has {", ".join(map(str, numbers)) or "none"}.'
    if scope.word in ("http", "grpc") and not _is_of(view, target, scope):
        return f".match: {target.kind} has no rule with this match."
    return _no_host(view, kind, target, scope) if scope.word == "hostnames" else ""


def _no_host(view: View, kind: str, target: Ref, scope: Scope) -> str:
    """The same for hostnames."""
    if target.kind == "Gateway":
        opened = ports.of(view, target.namespace, target.name)
        if kind == "RateLimitPolicy" and opened and not any(port.has_requests for port in opened):
            listed = ", ".join(f"{port.number} ({port.spoken})" for port in opened)
            return f": there are no requests to limit ({listed}); bps limits bytes."
        names = ports.hostnames(view, target.namespace, target.name)
    else:
        route = view.get(TARGETS[target.kind], target.namespace, target.name)
        names = tuple(name.lower() for name in route.spec.hostnames) if route is not None else ()
    if not names or any(hostnames.overlap(str(scope.of).lower(), name) for name in names):
        return ""
    return f'.hostname: "{scope.of}" is none of those of {target.kind} "{target.name}": {", ".join(names)}.'


def _no_port(view: View, kind: str, gateway: Ref, scope: Scope) -> str:
    """The same for the ports of a Gateway: what protects must be told where it cannot."""
    opened = ports.of(view, gateway.namespace, gateway.name)
    here = [port for port in opened if scope.word == "" or port.number == scope.of]
    listed = ", ".join(f"{port.number} ({port.spoken})" for port in opened) or "none"
    if not here:
        if not scope.word:
            return ""  # listeners may come
        return f'.port: Gateway "{gateway.name}" has no listener at {scope.of}; it has {listed}.'
    if kind == "GatewayTLSPolicy" and (scope.config is None or scope.config.mtls):
        if not any(port.is_terminated for port in here):
            numbers = ", ".join(str(port.number) for port in here)
            return f": TLS is not terminated at its port {numbers} ({listed}), so nobody shows a certificate there."
        if all(ports.validation_at(view, gateway, port.number) for port in here):
            return ": the Gateway's own spec.tls.frontend says how clients prove who they are, and goes before."
    if kind == "RateLimitPolicy" and scope.config is not None and not scope.bps and not any(port.has_requests for port in here):
        return (
            f": there are no requests to limit at {', '.join(str(port.number) for port in here)} ({listed}); bps limits bytes."
        )
    return ""


def partial(view: View, kind: str, gateway: Ref, scope: Scope) -> str:
    """Where a scope that protects does not reach, though it does something elsewhere."""
    if gateway.kind != "Gateway" or scope.word not in ("", "ports") or scope.config is None:
        return ""
    here = [port for port in ports.of(view, gateway.namespace, gateway.name) if not scope.word or port.number == scope.of]
    if kind == "RateLimitPolicy":
        listed = ", ".join(f"{port.number} ({port.spoken})" for port in here if not port.has_requests)
        return f"{scope.field}: there are no requests to limit at {listed}; bps limits bytes." if listed else ""
    if kind == "GatewayTLSPolicy" and scope.config.mtls:
        listed = ", ".join(f"{port.number} ({port.spoken})" for port in here if not port.is_terminated)
        return f"{scope.field}: TLS is not terminated at {listed}, so nobody shows a certificate there." if listed else ""
    return ""


def _is_of(view: View, target: Ref, scope: Scope) -> bool:
    """Whether a route has a rule with the match that an entry names."""
    route = view.get(TARGETS[target.kind], target.namespace, target.name)
    if isinstance(route, GRPCRoute) and scope.word == "grpc":
        return any(match_of(scope) in matches.grpc_matches(rule) for rule in route.spec.rules)
    if isinstance(route, HTTPRoute) and scope.word == "http":
        return any(match_of(scope) in matches.http_matches(rule) for rule in route.spec.rules)
    return False
