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
    for index, http_filter in enumerate(filters):
        match http_filter.type:
            case "RequestHeaderModifier":
                specs.append(snapshot.RequestHeaders(*_headers(http_filter.request_header_modifier or HeaderFilter())))
            case "ResponseHeaderModifier":
                specs.append(snapshot.ResponseHeaders(*_headers(http_filter.response_header_modifier or HeaderFilter())))
            case "RequestRedirect" if http_filter.request_redirect:
                r = http_filter.request_redirect
                specs.append(snapshot.Redirect(r.scheme, r.hostname, _path(r.path) if r.path else None, r.port, r.status_code))
            case "URLRewrite" if http_filter.url_rewrite:
                path = http_filter.url_rewrite.path
                specs.append(snapshot.Rewrite(http_filter.url_rewrite.hostname, _path(path) if path else None))
            case "RequestMirror" if http_filter.request_mirror:
                reference = resolve(as_backend(http_filter.request_mirror.backend_ref))
                resolved.append(reference.within("filters", index, "requestMirror", "backendRef"))
                if reference.backend is not None:  # a mirror that leads nowhere must not hurt the request itself
                    needed.append(reference.backend)
                    specs.append(snapshot.Mirror(str(reference.backend), *_share(http_filter.request_mirror)))
            case "CORS" if http_filter.cors:
                c = http_filter.cors
                specs.append(
                    snapshot.Cors(
                        c.allow_origins, c.allow_credentials, c.allow_methods, c.allow_headers, c.expose_headers, c.max_age
                    )
                )
            case "ExternalAuth" if http_filter.external_auth:
                reference = resolve(
                    as_backend(http_filter.external_auth.backend_ref), grpc=http_filter.external_auth.protocol == "GRPC"
                )
                resolved.append(reference.within("filters", index, "externalAuth", "backendRef"))
                specs.append(_authorisation(http_filter.external_auth, reference))
                needed += [reference.backend] if reference.backend is not None else []
            case "ExtensionRef" if http_filter.extension_ref:
                led = find(http_filter.extension_ref)
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


def faults(filters: tuple[HTTPFilter, ...], field_path: str = "filters") -> Iterator[str]:
    """What is wrong with filters, in words that name the field."""
    for index, http_filter in enumerate(filters):
        if http_filter.type not in SUPPORTED:
            yield f'{field_path}[{index}].type: "{http_filter.type}" is not supported; {", ".join(SUPPORTED)} are'
        yield from _text_faults(f"{field_path}[{index}]", http_filter)
    types = {http_filter.type for http_filter in filters}
    if {"RequestRedirect", "URLRewrite"} <= types:
        yield f"{field_path}: RequestRedirect and URLRewrite exclude each other"


def _text_faults(field_path: str, http_filter: HTTPFilter) -> Iterator[str]:
    """What may not be written of what a filter says: it would end a field, a line or a URL."""
    for field, edit in (
        ("requestHeaderModifier", http_filter.request_header_modifier),
        ("responseHeaderModifier", http_filter.response_header_modifier),
    ):
        if edit is not None:
            yield from field_faults(f"{field_path}.{field}", ((h.name, h.value) for h in (*edit.set, *edit.add)))
            for name in edit.remove:
                yield from name_faults(f"{field_path}.{field}", name)
    for field, changed in (("requestRedirect", http_filter.request_redirect), ("urlRewrite", http_filter.url_rewrite)):
        if changed is None:
            continue
        if changed.hostname:
            yield from fault(f"{field_path}.{field}.hostname", grammar.host, changed.hostname)
        if changed.path is not None:
            replaced = changed.path.type[:1].lower() + changed.path.type[1:]
            yield from fault(f"{field_path}.{field}.path.{replaced}", grammar.path, _path(changed.path).value)
    if http_filter.request_redirect is not None and http_filter.request_redirect.scheme not in ("", *PORT_OF):
        scheme = grammar.shown(http_filter.request_redirect.scheme)
        yield f"{field_path}.requestRedirect.scheme: {scheme} is not supported; {' and '.join(PORT_OF)} are"
    if http_filter.cors is not None:
        for field, names in (
            ("allowMethods", http_filter.cors.allow_methods),
            ("allowHeaders", http_filter.cors.allow_headers),
            ("exposeHeaders", http_filter.cors.expose_headers),
        ):
            for at, name in enumerate(names):
                yield from fault(f"{field_path}.cors.{field}[{at}]", grammar.field_name, name)
    if http_filter.external_auth is not None:
        yield from fault(f"{field_path}.externalAuth.http.path", grammar.path, http_filter.external_auth.http.path)


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


def _authorisation(auth: ExternalAuthFilter, reference: Resolved) -> snapshot.Filter:
    """Whom to ask. Where nobody can be asked, nothing may pass."""
    if reference.backend is None:
        return snapshot.Fault(500, "the authorization server of this rule cannot be resolved")
    body = auth.forward_body.max_size if auth.forward_body is not None else 0
    if auth.protocol == "GRPC":
        return snapshot.ExternalAuth(str(reference.backend), "GRPC", "", auth.grpc.allowed_headers, (), body)
    http = auth.http
    return snapshot.ExternalAuth(
        str(reference.backend), "HTTP", http.path, http.allowed_headers, http.allowed_response_headers, body
    )
