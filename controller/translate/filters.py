"""HTTPRouteFilter → filter specs, and the filters that cannot be honoured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from controller.objects.references import ParametersRef
from controller.objects.routes import (
    BackendRef,
    ExternalAuthFilter,
    GRPCRule,
    HeaderFilter,
    HTTPFilter,
    HTTPRule,
    MirrorFilter,
    PathModifier,
)
from controller.translate import sessions
from controller.translate.backends import Resolved, as_backend
from controller.translate.shared.conditions import Condition
from controller.translate.shared.names import FilterName, Needed
from controller.translate.shared.written_text import fault, field_faults, name_faults
from gateway import snapshot
from gateway.filters.redirect import PORT_OF
from gateway.http import grammar

SUPPORTED = (
    "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS", "ExternalAuth",
    "ExtensionRef",
)  # fmt: skip


class Resolve(Protocol):
    """Where a reference leads."""

    def __call__(self, ref: BackendRef, *, grpc: bool = False) -> Resolved:
        """`grpc`: calls are sent there."""


def translate(
    filters: tuple[HTTPFilter, ...],
    resolve: Resolve,
    find: Callable[[ParametersRef], FilterName | Condition],
) -> tuple[tuple[snapshot.Filter, ...], list[Resolved], list[Needed]]:
    """The filters' specs; what their references resolved to; and the backends that they need."""
    specs: list[snapshot.Filter] = []
    resolved: list[Resolved] = []
    needed: list[Needed] = []
    for index, one in enumerate(filters):
        match one.type:
            case "RequestHeaderModifier":
                specs.append(snapshot.RequestHeaders(*_headers(one.request_header_modifier or HeaderFilter())))
            case "ResponseHeaderModifier":
                specs.append(snapshot.ResponseHeaders(*_headers(one.response_header_modifier or HeaderFilter())))
            case "RequestRedirect" if one.request_redirect:
                r = one.request_redirect
                specs.append(snapshot.Redirect(r.scheme, r.hostname, _path(r.path) if r.path else None, r.port, r.status_code))
            case "URLRewrite" if one.url_rewrite:
                path = one.url_rewrite.path
                specs.append(snapshot.Rewrite(one.url_rewrite.hostname, _path(path) if path else None))
            case "RequestMirror" if one.request_mirror:
                found = resolve(as_backend(one.request_mirror.backend_ref))
                resolved.append(found.within("filters", index, "requestMirror", "backendRef"))
                if found.backend is not None:  # a mirror that leads nowhere must not hurt the request itself
                    needed.append(found.backend)
                    specs.append(snapshot.Mirror(str(found.backend), *_share(one.request_mirror)))
            case "CORS" if one.cors:
                c = one.cors
                specs.append(
                    snapshot.Cors(
                        c.allow_origins, c.allow_credentials, c.allow_methods, c.allow_headers, c.expose_headers, c.max_age
                    )
                )
            case "ExternalAuth" if one.external_auth:
                found = resolve(as_backend(one.external_auth.backend_ref), grpc=one.external_auth.protocol == "GRPC")
                resolved.append(found.within("filters", index, "externalAuth", "backendRef"))
                specs.append(_authorisation(one.external_auth, found))
                needed += [found.backend] if found.backend is not None else []
            case "ExtensionRef" if one.extension_ref:
                led = find(one.extension_ref)
                if isinstance(led, Condition):
                    resolved.append(Resolved(None, led).within("filters", index, "extensionRef"))
                    specs.append(snapshot.Fault(500, "a filter of this rule cannot be resolved"))
                else:
                    needed.append(led)
                    specs.append(snapshot.Scripted(str(led)))
            case other:
                # The API: a filter that cannot be resolved must never be skipped.
                specs.append(snapshot.Fault(500, f"filter {other} is not supported"))
    return tuple(specs), resolved, needed


def faults(filters: tuple[HTTPFilter, ...], where: str = "filters") -> Iterator[str]:
    """What is wrong with filters, in words that name the field."""
    for index, one in enumerate(filters):
        if one.type not in SUPPORTED:
            yield f'{where}[{index}].type: "{one.type}" is not supported; {", ".join(SUPPORTED)} are'
        yield from _text_faults(f"{where}[{index}]", one)
    types = {one.type for one in filters}
    if {"RequestRedirect", "URLRewrite"} <= types:
        yield f"{where}: RequestRedirect and URLRewrite exclude each other"


def _text_faults(where: str, one: HTTPFilter) -> Iterator[str]:
    """What may not be written of what a filter says: it would end a field, a line or a URL."""
    for field, edit in (
        ("requestHeaderModifier", one.request_header_modifier),
        ("responseHeaderModifier", one.response_header_modifier),
    ):
        if edit is not None:
            yield from field_faults(f"{where}.{field}", ((h.name, h.value) for h in (*edit.set, *edit.add)))
            for name in edit.remove:
                yield from name_faults(f"{where}.{field}", name)
    for field, changed in (("requestRedirect", one.request_redirect), ("urlRewrite", one.url_rewrite)):
        if changed is None:
            continue
        if changed.hostname:
            yield from fault(f"{where}.{field}.hostname", grammar.host, changed.hostname)
        if changed.path is not None:
            replaced = changed.path.type[:1].lower() + changed.path.type[1:]
            yield from fault(f"{where}.{field}.path.{replaced}", grammar.path, _path(changed.path).value)
    if one.request_redirect is not None and one.request_redirect.scheme not in ("", *PORT_OF):
        scheme = grammar.shown(one.request_redirect.scheme)
        yield f"{where}.requestRedirect.scheme: {scheme} is not supported; {' and '.join(PORT_OF)} are"
    if one.cors is not None:
        for field, names in (
            ("allowMethods", one.cors.allow_methods),
            ("allowHeaders", one.cors.allow_headers),
            ("exposeHeaders", one.cors.expose_headers),
        ):
            for at, name in enumerate(names):
                yield from fault(f"{where}.cors.{field}[{at}]", grammar.field_name, name)
    if one.external_auth is not None:
        yield from fault(f"{where}.externalAuth.http.path", grammar.path, one.external_auth.http.path)


def faults_of_rule(rule: HTTPRule | GRPCRule) -> Iterator[str]:
    """The same for all filters of a rule, its own and those of its backendRefs, and for its sessions."""
    yield from faults(rule.filters)
    if rule.session_persistence is not None:
        yield from sessions.faults(rule.session_persistence)
    for index, ref in enumerate(rule.backend_refs):
        yield from faults(ref.filters, f"backendRefs[{index}].filters")


def _headers(edit: HeaderFilter) -> tuple[tuple[snapshot.Pair, ...], tuple[snapshot.Pair, ...], tuple[str, ...]]:
    return tuple((h.name, h.value) for h in edit.set), tuple((h.name, h.value) for h in edit.add), edit.remove


def _path(path: PathModifier) -> snapshot.PathEdit:
    if path.type == "ReplaceFullPath":
        return snapshot.PathEdit("ReplaceFullPath", path.replace_full_path or "")
    return snapshot.PathEdit("ReplacePrefixMatch", path.replace_prefix_match or "")


def _share(mirror: MirrorFilter) -> tuple[int, int]:
    if mirror.fraction is not None:
        return mirror.fraction.numerator, mirror.fraction.denominator
    return (100 if mirror.percent is None else mirror.percent), 100


def _authorisation(auth: ExternalAuthFilter, found: Resolved) -> snapshot.Filter:
    """Whom to ask. Where nobody can be asked, nothing may pass."""
    if found.backend is None:
        return snapshot.Fault(500, "the authorization server of this rule cannot be resolved")
    body = auth.forward_body.max_size if auth.forward_body is not None else 0
    if auth.protocol == "GRPC":
        return snapshot.ExternalAuth(str(found.backend), "GRPC", "", auth.grpc.allowed_headers, (), body)
    http = auth.http
    return snapshot.ExternalAuth(
        str(found.backend), "HTTP", http.path, http.allowed_headers, http.allowed_response_headers, body
    )
