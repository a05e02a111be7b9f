"""HTTPRouteFilter → filter specs, and the filters that cannot be honoured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from controller.objects.references import ObjectReference, ParametersRef
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
from controller.translate.backends import Resolved
from controller.translate.shared.conditions import Condition
from controller.translate.shared.names import FilterName, Needed
from gateway import snapshot
from gateway.http.http1 import fold

# Fields that frame a message or belong to one connection; a filter that edited them would break both. Nor may it write one
# that many backends take for such a field (`Content_Length`).
NOT_EDITABLE = frozenset(
    (
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
SUPPORTED = (
    "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS", "ExternalAuth",
    "ExtensionRef",
)  # fmt: skip


def translate(
    filters: tuple[HTTPFilter, ...],
    resolve: Callable[[BackendRef], Resolved],
    find: Callable[[ParametersRef], FilterName | Condition],
) -> tuple[tuple[snapshot.Filter, ...], list[Resolved], list[Needed]]:
    """The filters' specs; what their references resolved to; and the backends that they need."""
    specs: list[snapshot.Filter] = []
    resolved: list[Resolved] = []
    needed: list[Needed] = []
    for one in filters:
        match one.type:
            case "RequestHeaderModifier":
                specs.append(snapshot.RequestHeaders(*_headers(one.request_header_modifier or HeaderFilter())))
            case "ResponseHeaderModifier":
                specs.append(snapshot.ResponseHeaders(*_headers(one.response_header_modifier or HeaderFilter())))
            case "RequestRedirect" if one.request_redirect:
                r = one.request_redirect
                specs.append(snapshot.Redirect(r.scheme, r.hostname, _path(r.path), r.port, r.status_code))
            case "URLRewrite" if one.url_rewrite:
                specs.append(snapshot.Rewrite(one.url_rewrite.hostname, _path(one.url_rewrite.path)))
            case "RequestMirror" if one.request_mirror:
                found = resolve(_as_backend(one.request_mirror.backend_ref))
                resolved.append(found)
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
                found = resolve(_as_backend(one.external_auth.backend_ref))
                if found.backend is not None and one.external_auth.protocol == "GRPC":
                    found = Resolved(found.backend._replace(spoken="h2c"))
                resolved.append(found)
                specs.append(_authorisation(one.external_auth, found))
                needed += [found.backend] if found.backend is not None else []
            case "ExtensionRef" if one.extension_ref:
                led = find(one.extension_ref)
                if isinstance(led, Condition):
                    resolved.append(Resolved(None, led))
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
        for field, edit in (
            ("requestHeaderModifier", one.request_header_modifier),
            ("responseHeaderModifier", one.response_header_modifier),
        ):
            if edit is not None:
                for name in [h.name for h in (*edit.set, *edit.add)] + list(edit.remove):
                    if fold(name.lower().encode()).decode() in NOT_EDITABLE:
                        yield f'{where}[{index}].{field}: "{name}" frames the message and cannot be edited'
    types = {one.type for one in filters}
    if {"RequestRedirect", "URLRewrite"} <= types:
        yield f"{where}: RequestRedirect and URLRewrite exclude each other"


def faults_of_rule(rule: HTTPRule | GRPCRule) -> Iterator[str]:
    """The same for all filters of a rule, its own and those of its backendRefs."""
    yield from faults(rule.filters)
    for index, ref in enumerate(rule.backend_refs):
        yield from faults(ref.filters, f"backendRefs[{index}].filters")


def _headers(edit: HeaderFilter) -> tuple[tuple[snapshot.Pair, ...], tuple[snapshot.Pair, ...], tuple[str, ...]]:
    return tuple((h.name, h.value) for h in edit.set), tuple((h.name, h.value) for h in edit.add), edit.remove


def _path(path: PathModifier | None) -> snapshot.PathEdit | None:
    if path is None:
        return None
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


def _as_backend(ref: ObjectReference) -> BackendRef:
    return BackendRef(name=ref.name, group=ref.group, kind=ref.kind, namespace=ref.namespace, port=ref.port)
