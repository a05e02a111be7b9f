"""Text of objects that goes onto the wire: what could become another field, line or request is refused by name, where an object
is translated, and once more where it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.objects import gateway, obj, route, service, slice_, world
from support.refusals import said_of

from controller.objects.base import Ref
from controller.objects.policies import POLICIES
from controller.translate import translate
from gateway import snapshot
from gateway.filters import cors, header_modifier, path_modifier, redirect, rewrite
from gateway.http import grammar
from gateway.snapshot import Cors, Health, PathEdit, Persistence, Redirect, RequestHeaders, ResponseHeaders, Rewrite
from gateway.upstream.health_checks import Checks
from gateway.upstream.load_balancing import EndpointPicker
from gateway.upstream.session_persistence import Sessions

CUT = "x\r\nInjected: 1"
CONTROLS = {*range(32), 127} - {9}


def path(type_: str, value: str) -> dict[str, Any]:
    return {"type": type_, type_[:1].lower() + type_[1:]: value}


def headers(kind: str, **edit: Any) -> dict[str, Any]:
    return {"type": kind, kind[:1].lower() + kind[1:]: edit}


# What a rule says, and how its fault begins.
RULES: list[tuple[dict[str, Any], str]] = [
    ({"filters": [{"type": "URLRewrite", "urlRewrite": {"path": path(kind, text)}}]}, f"filters[0].urlRewrite.path.{field}: ")
    for kind, field in (("ReplaceFullPath", "replaceFullPath"), ("ReplacePrefixMatch", "replacePrefixMatch"))
    for text in (f"/{CUT}", "/a b", "/a?b=c", "/a#b", "/ä", "/%zz", "/a\\b", "/a\n", "/\x00")
]
RULES += [
    ({"filters": [{"type": "RequestRedirect", "requestRedirect": {"path": path("ReplaceFullPath", f"/{CUT}")}}]},
     "filters[0].requestRedirect.path.replaceFullPath: "),
    ({"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": CUT}}]}, "filters[0].requestRedirect.hostname: "),
    ({"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "ftp"}}]}, "filters[0].requestRedirect.scheme: "),
    ({"filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": CUT}}]}, "filters[0].urlRewrite.hostname: "),
    ({"filters": [{"type": "CORS", "cors": {"allowMethods": [CUT]}}]}, "filters[0].cors.allowMethods[0]: "),
    ({"filters": [{"type": "CORS", "cors": {"allowHeaders": ["*", CUT]}}]}, "filters[0].cors.allowHeaders[1]: "),
    ({"filters": [{"type": "CORS", "cors": {"exposeHeaders": [CUT]}}]}, "filters[0].cors.exposeHeaders[0]: "),
    ({"filters": [{"type": "ExternalAuth", "externalAuth": {
        "protocol": "HTTP", "backendRef": {"name": "a", "port": 80}, "http": {"path": f"/{CUT}"}}}]},
     "filters[0].externalAuth.http.path: "),
    ({"sessionPersistence": {"type": "Cookie", "cookie": {"name": CUT}}}, "sessionPersistence.cookie.name: "),
    ({"sessionPersistence": {"type": "Cookie", "cookie": {"path": f"/{CUT}"}}}, "sessionPersistence.cookie.path: "),
    ({"sessionPersistence": {"type": "Cookie", "cookie": {"path": "/; Domain=example.com"}}}, "sessionPersistence.cookie.path: "),
    ({"sessionPersistence": {"type": "Header", "header": {"name": CUT}}}, "sessionPersistence.header.name: "),
    ({"sessionPersistence": {"type": "Header", "header": {"name": "Content-Length"}}}, "sessionPersistence.header.name: "),
]  # fmt: skip
for kind in ("RequestHeaderModifier", "ResponseHeaderModifier"):
    where = f"filters[0].{kind[:1].lower() + kind[1:]}"
    RULES += [
        ({"filters": [headers(kind, set=[{"name": CUT, "value": "1"}])]}, f"{where}: "),
        ({"filters": [headers(kind, add=[{"name": "a:b", "value": "1"}])]}, f"{where}: "),
        ({"filters": [headers(kind, remove=["a b"])]}, f"{where}: "),
        ({"filters": [headers(kind, set=[{"name": "X-A", "value": CUT}])]}, f'{where}["X-A"]: '),
        ({"filters": [headers(kind, add=[{"name": "X-A", "value": "a\x00b"}])]}, f'{where}["X-A"]: '),
        ({"filters": [headers(kind, add=[{"name": "X-A", "value": "a\n"}])]}, f'{where}["X-A"]: '),
    ]
CASES = [(*case, False) for case in RULES] + [(*case, True) for case in RULES if "filters" in case[0]]


@pytest.mark.parametrize(("said", "begin", "at_backend"), CASES)
def test_a_rule(said: dict[str, Any], begin: str, at_backend: bool) -> None:
    """Not accepted, in words that name the field; the rule answers 500, and none of the text is in what data planes get."""
    if at_backend:
        found = route("r", {"name": "a", "port": 80, "filters": said["filters"]})
        begin = f"backendRefs[0].{begin}"
    else:
        found = route("r", "a", **said)
    made = translate(world(gateway(), service("a"), slice_("a", "10.0.0.1"), found))
    said_of_it = said_of(made, Ref("HTTPRoute", "default", "r"))
    accepted = next(one for one in said_of_it if one.type == "Accepted")
    assert (accepted.status, accepted.reason) == ("False", "UnsupportedValue")
    assert accepted.message.startswith(f"rules[0].{begin}"), accepted.message
    assert "\n" not in accepted.message
    assert "Injected" not in repr(made.parts)


WRITERS: list[tuple[str, Callable[[str], object]]] = [
    ("full path", lambda text: path_modifier.build(PathEdit("ReplaceFullPath", f"/{text}"))),
    ("prefix", lambda text: path_modifier.build(PathEdit("ReplacePrefixMatch", f"/{text}"))),
    ("host", lambda text: rewrite.build(Rewrite(hostname=text))),
    ("host of a redirect", lambda text: redirect.build(Redirect(hostname=text))),
    ("scheme of a redirect", lambda text: redirect.build(Redirect(scheme=text))),
    ("name set", lambda text: header_modifier.build(RequestHeaders(set=((text, ""),)))),
    ("name added", lambda text: header_modifier.build(ResponseHeaders(add=((text, ""),)))),
    ("value set", lambda text: header_modifier.build(RequestHeaders(set=(("x", text),)))),
    ("value added", lambda text: header_modifier.build(ResponseHeaders(add=(("x", text),)))),
    ("methods", lambda text: cors.build(Cors(allow_methods=(text,)))),
    ("headers", lambda text: cors.build(Cors(allow_headers=(text,)))),
    ("exposed", lambda text: cors.build(Cors(expose_headers=(text,)))),
    ("header of a session", lambda text: Sessions("r", Persistence(header=text), ())),
    ("cookie", lambda text: Sessions("r", Persistence(cookie=text), ())),
    ("path of a cookie", lambda text: Sessions("r", Persistence(cookie="c", path=f"/{text}"), ())),
    ("domain of a cookie", lambda text: Sessions("r", Persistence(cookie="c", domain=f"a{text}"), ())),
    ("SameSite of a cookie", lambda text: Sessions("r", Persistence(cookie="c", same_site=f"Lax{text}"), ())),
    ("health check", lambda text: Checks(Health(path=f"/{text}"), EndpointPicker())),
]


@pytest.mark.parametrize("write", [write for _, write in WRITERS], ids=[name for name, _ in WRITERS])
@pytest.mark.parametrize("text", [CUT, "a\n", "a\rb", "a\x00b", "a\x7fb"])
def test_it_is_not_written_either(write: Callable[[str], object], text: str) -> None:
    """Whatever came by: a controller of another version, a snapshot kept in a file."""
    with pytest.raises(ValueError, match=r"^[ -~]+$"):
        write(text)


@given(st.text())
def test_what_may_be_a_value_stays_one(text: str) -> None:
    fields = (grammar.field_name, grammar.field_value, grammar.cookie_path, grammar.cookie_domain)
    for check in (*fields, grammar.path, grammar.host, grammar.target):
        try:
            octets = check(text)
        except ValueError as error:
            assert not {*map(ord, str(error))} & CONTROLS
        else:
            assert not {*octets} & CONTROLS


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("HealthCheckPolicy", {"path": "/healthz\n"}),
        ("SessionStickyPolicy", {"cookieName": "_srv_id\n"}),
        ("SessionStickyPolicy", {"domain": "example.com\n"}),
        ("SessionStickyPolicy", {"domain": "example.com; HttpOnly"}),
        ("SessionStickyPolicy", {"sameSite": "Lax\n"}),
        ("BackendLBPolicy", {"sessionPersistence": {"sessionName": "a\n"}}),
        ("RateLimitPolicy", {"requests": 1, "statTimeWindow": 1, "responseHeadersToAdd": [{"name": "X-A", "value": CUT}]}),
        (
            "RateLimitPolicy",
            {"requests": 1, "statTimeWindow": 1, "responseHeadersToAdd": [{"name": "Content-Length", "value": "9"}]},
        ),
    ],
)
def test_a_policy_that_was_stored_under_an_older_schema(kind: str, config: dict[str, Any]) -> None:
    with pytest.raises((msgspec.ValidationError, ValueError)):
        msgspec.convert(config, POLICIES[kind].config)


GROUP = "extension.gateway.flomesh.io"


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("RequestTermination", {"response": {"headers": {"X-A": CUT}}}),
        ("RateLimit", {"requests": 1, "interval": "1s", "response": {"headers": {"X-A": CUT}}}),
        ("HTTPLog", {"target": "http://log.example/", "headers": {"X-A": CUT}}),
    ],
)
def test_fields_in_the_configuration_of_a_filter_that_comes_with_the_gateway(kind: str, spec: dict[str, Any]) -> None:
    config = obj(kind, "c", spec=spec)
    filter_ = obj("Filter", "f", spec={"type": kind, "configRef": {"name": "c", "kind": kind, "group": GROUP}})
    using = {"type": "ExtensionRef", "extensionRef": {"group": GROUP, "kind": "Filter", "name": "f"}}
    backend = (service("a"), slice_("a", "10.0.0.1"))
    made = translate(world(gateway(), *backend, config, filter_, route("r", "a", filters=[using])))
    said = " ".join(one.message for one in said_of(made, Ref("Filter", "default", "f")))
    assert 'headers["X-A"]: "x\\r\\nInjected: 1" holds "\\r"' in said
    assert not [part for parts in made.parts.values() for part in parts.values() if isinstance(part, snapshot.Script)]
