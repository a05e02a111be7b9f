"""Policies of gateway.flomesh.io/v1alpha1, attached to Gateways, routes and Services: which one is in force where.

Of several that fit, the most specific is: a rule's match before a hostname, before a whole route, before a Gateway's port,
before a whole Gateway; a Service's port before the Service. Of those that are equally specific the oldest is. Each of its
scopes is one program of a data plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from controller.memo import View
from controller.objects import (
    AccessControlPolicy,
    BackendLBPolicy,
    CircuitBreakingPolicy,
    CookiePersistence,
    FaultInjectionPolicy,
    Gateway,
    GatewayTLSPolicy,
    GRPCMatch,
    GRPCRoute,
    HeaderPersistence,
    HealthCheckPolicy,
    HTTPMatch,
    HTTPRoute,
    LoadBalancerPolicy,
    Policy,
    RateLimitPolicy,
    Ref,
    RetryPolicy,
    SecretKey,
    SecretRef,
    Service,
    SessionPersistence,
    SessionStickyPolicy,
    UpstreamTLSPolicy,
)
from controller.translate import ancestors, certificates, conditions, extensions, grpc, matches, sessions
from controller.translate.conditions import Condition
from controller.translate.extensions import FilterName
from controller.translate.listeners import covers
from controller.translate.status import ExtensionStatus
from gateway import snapshot
from gateway.durations import seconds
from gateway.policies import BUILT_IN

if TYPE_CHECKING:
    from controller.translate.backends import BackendName

Config: TypeAlias = dict[str, Any]
Scope: TypeAlias = tuple[str, int, Config]  # which list ("" for the whole), which of it, the entry
Fits: TypeAlias = Callable[[Scope], bool]
TARGETS: Final[dict[str, Any]] = {"Gateway": Gateway, "HTTPRoute": HTTPRoute, "GRPCRoute": GRPCRoute, "Service": Service}


class Place(NamedTuple):
    """Where a rule is served."""

    gateway: tuple[str, str]
    port: int
    hostname: str


# --- what each kind comes to ---


def _rate_limit(config: Config) -> Config:
    headers = {one["name"]: one["value"] for one in config.get("responseHeadersToAdd", ())}
    return {
        "requests": config["requests"],
        "burst": config.get("burst", config["requests"]),
        "interval": f"{config['statTimeWindow']}s",
        "backlog": config.get("backlog", 10),
        "response": {"status": config.get("responseStatusCode", 429), "headers": headers},
    }


def _access_control(config: Config) -> Config:
    lists = {"allowed": config["whitelist"]} if config.get("whitelist") else {"forbidden": config.get("blacklist", [])}
    response = {"status": config.get("statusCode", 403), "body": config.get("message", "")}
    return {**lists, "enableXFF": config.get("enableXFF", False), "response": response}


def _fault_injection(config: Config) -> Config:
    made: Config = {}
    if "delay" in config:
        delay = config["delay"]
        least, most = delay.get("fixed"), delay.get("fixed")
        if "range" in delay:
            least, most = delay["range"]["min"], delay["range"]["max"]
        unit, times = delay.get("unit", "s"), 1
        if unit == "d":
            unit, times = "h", 24
        made["delay"] = {
            "percentage": delay["percent"], "min": f"{(least or 0) * times}{unit}", "max": f"{(most or 0) * times}{unit}",
        }  # fmt: skip
    if "abort" in config:
        abort = config["abort"]
        response = {"status": abort.get("statusCode", 503), "body": abort.get("message", "")}
        made["abort"] = {"percentage": abort["percent"], "response": response}
    return made


def _circuit_breaking(config: Config) -> Config:
    def either(word: str) -> list[float]:
        return [config.get(f"{word}AmountThreshold", 0), float(config.get(f"{word}RatioThreshold", 0))]

    response = {"status": config.get("degradedStatusCode", 503), "body": config.get("degradedResponseContent", "")}
    return {
        "latencyThreshold": f"{round(float(config.get('slowTimeThreshold', 0)) * 1000)}ms",
        "minRequests": config["minRequestAmount"],
        "anyOf": {"errors": either("error"), "slow": either("slow")},
        "checkInterval": f"{config['statTimeWindow']}s",
        "breakInterval": f"{config['degradedTimeWindow']}s",
        "response": response,
    }


class Meaning(NamedTuple):
    """What a kind of policy may be attached to, and the filter that it comes to (none for what is a rule's own)."""

    type: type[Policy]
    targets: tuple[str, ...]
    built_in: str = ""
    config: Callable[[Config], Config] = dict


ON_ROUTES: Final = ("Gateway", "HTTPRoute", "GRPCRoute")
# Those of routes in the order in which they look at a request.
POLICIES: Final = {
    "AccessControlPolicy": Meaning(AccessControlPolicy, ON_ROUTES, "IPRestriction", _access_control),
    "RateLimitPolicy": Meaning(RateLimitPolicy, ON_ROUTES, "RateLimit", _rate_limit),
    "FaultInjectionPolicy": Meaning(FaultInjectionPolicy, ON_ROUTES[1:], "FaultInjection", _fault_injection),
    "CircuitBreakingPolicy": Meaning(CircuitBreakingPolicy, ("Service",), "CircuitBreaker", _circuit_breaking),
    "RetryPolicy": Meaning(RetryPolicy, ("Service",)),
    "SessionStickyPolicy": Meaning(SessionStickyPolicy, ("Service",)),
    "LoadBalancerPolicy": Meaning(LoadBalancerPolicy, ("Service",)),
    "BackendLBPolicy": Meaning(BackendLBPolicy, ("Service",)),
    "HealthCheckPolicy": Meaning(HealthCheckPolicy, ("Service",)),
    "UpstreamTLSPolicy": Meaning(UpstreamTLSPolicy, ("Service",)),
    "GatewayTLSPolicy": Meaning(GatewayTLSPolicy, ("Gateway",)),
}


LOOKING: Final = [kind for kind, one in POLICIES.items() if one.built_in and one.targets != ("Service",)]  # at requests

# --- which is in force ---


def apart(view: View, route: Ref, rule: snapshot.Rule | snapshot.Relay) -> list[snapshot.Rule | snapshot.Relay]:
    """A rule by those of its matches of which policies say the same: most often it stays whole."""
    if not isinstance(rule, snapshot.Rule) or len(rule.matches) < 2:
        return [rule]
    said = [
        ((kind, policy.metadata.name, scope[0], scope[1]), _meant(scope))
        for kind in LOOKING for policy in _of(view, kind, route) for scope in scopes(policy) if _is_match(scope, rule)
    ]  # fmt: skip
    if not said:
        return [rule]
    groups: dict[tuple[tuple[str, str, str, int], ...], list[int]] = {}
    for index, match in enumerate(rule.matches):
        groups.setdefault(tuple(name for name, meant in said if meant == match), []).append(index)
    return [
        msgspec.structs.replace(
            rule, name=f"{rule.name}#{group[0]}" if group[0] else rule.name, matches=tuple(rule.matches[at] for at in group)
        )
        for group in groups.values()
    ]


def filters(view: View, route: Ref, rule: snapshot.Rule | snapshot.Relay, place: Place) -> tuple[FilterName, ...]:
    """The programs of policies for a rule at one of its places."""
    found = [_in_force(view, kind, route, rule, place) for kind in LOOKING] if isinstance(rule, snapshot.Rule) else []
    return tuple(name for name in (*found, _byte_rate(view, place)) if name is not None)


def _byte_rate(view: View, place: Place) -> FilterName | None:
    """How many bytes may pass at a port; each port has its own, also where one number is given for all of a Gateway's."""
    for policy in _of(view, "RateLimitPolicy", Ref("Gateway", *place.gateway)):
        if _bps(policy, place.port):
            return FilterName(policy.metadata.namespace, f"{policy.metadata.name}#bps{place.port}", "RateLimitPolicy")
    return None


def _bps(policy: Policy, port: int) -> int:
    """Bytes a second, by an entry for the port or for the whole; 0 for any number."""
    own = next((one["bps"] for one in policy.spec.get("ports", ()) if one["port"] == port and "bps" in one), 0)
    return int(own or policy.spec.get("bps", 0))


def _in_force(view: View, kind: str, route: Ref, rule: snapshot.Rule, place: Place) -> FilterName | None:
    gateway = Ref("Gateway", *place.gateway)
    of_route, of_gateway = _of(view, kind, route), _of(view, kind, gateway)
    fits: Fits = lambda scope: _is_match(scope, rule)  # noqa: E731
    named: Fits = lambda scope: scope[0] == "hostnames" and _means(scope[2]["hostname"], place.hostname)  # noqa: E731
    at_port: Fits = lambda scope: scope[0] == "ports" and scope[2]["port"] == place.port  # noqa: E731
    whole: Fits = lambda scope: not scope[0]  # noqa: E731
    for policies, is_meant in (
        (of_route, fits), (of_route, named), (of_route, whole), (of_gateway, named), (of_gateway, at_port), (of_gateway, whole),
    ):  # fmt: skip
        for policy in policies:
            for scope in scopes(policy):
                name = _name(kind, policy, scope)
                if is_meant(scope) and not isinstance(view.call(script, *name), str):
                    return name
    return None


def of_service(view: View, kind: str, backend: tuple[str, str, int]) -> Config | None:
    """What the policy of a kind says that is in force at a Service's port: (namespace, name, port)."""
    namespace, name, port = backend
    found = _at_port(view, kind, Ref("Service", namespace, name), port)
    return config_of(found[0], found[1][2]) if found is not None else None


def _at_port(view: View, kind: str, target: Ref, port: int) -> tuple[Policy, Scope] | None:
    """What is in force at a port of a target: an entry for it, or else for all of its ports."""
    policies = _of(view, kind, target)
    for word in ("ports", ""):
        for policy in policies:
            for scope in scopes(policy):
                if scope[0] == word and (not word or scope[2]["port"] == port):
                    return policy, scope
    return None


def _name(kind: str, policy: Policy, scope: Scope) -> FilterName:
    """Names the program of one scope of a policy."""
    return FilterName(policy.metadata.namespace, f"{policy.metadata.name}#{scope[0]}{scope[1]}", kind)


def breaker(view: View, backend: BackendName) -> FilterName | None:
    """The circuit breaker of a backend."""
    if backend.kind != "Service":
        return None
    kind = "CircuitBreakingPolicy"
    found = _at_port(view, kind, Ref("Service", backend.namespace, backend.name), backend.port)
    return _name(kind, *found) if found is not None else None


def retry(view: View, backends: Iterable[BackendName]) -> snapshot.Retry | None:
    """What RetryPolicies say of a rule's backends: the first that has one decides."""
    for backend in backends:
        found = of_service(view, "RetryPolicy", (backend.namespace, backend.name, backend.port))
        if found is not None:
            codes = tuple(sorted({code for word in found["retryOn"] for code in _codes(word)}))
            return snapshot.Retry(codes, found.get("numRetries", 3), float(found.get("backoffBaseInterval", 1)))
    return None


ALGORITHMS: Final = {
    "RoundRobinLoadBalancer": "RoundRobin", "LeastConnectionLoadBalancer": "LeastLoad", "HashingLoadBalancer": "Hashing",
    "RoundRobin": "RoundRobin", "LeastLoad": "LeastLoad",
}  # fmt: skip


def algorithm(view: View, namespace: str, name: str, port: int) -> str:
    """How a Service's endpoints are chosen."""
    for kind in ("BackendLBPolicy", "LoadBalancerPolicy"):
        found = of_service(view, kind, (namespace, name, port))
        if found is not None:
            return ALGORITHMS[found["algorithm"]]
    return "RoundRobin"


def is_hashed(view: View, backend: BackendName) -> bool:
    """Whether a client's requests all go to the same endpoint."""
    return backend.kind == "Service" and algorithm(view, backend.namespace, backend.name, backend.port) == "Hashing"


def health(view: View, namespace: str, name: str, port: int) -> snapshot.Health | None:
    """How the health of a Service's endpoints is known."""
    config = of_service(view, "HealthCheckPolicy", (namespace, name, port))
    if config is None:
        return None
    matches_ = tuple(
        snapshot.HealthMatch(
            tuple(one.get("statusCodes", ())), one.get("body", ""),
            tuple((field["name"], field["value"]) for field in one.get("headers", ())),
        )
        for one in config.get("matches", ())
    )  # fmt: skip
    interval, timeout = _lasting(config.get("interval", 0)), _lasting(config.get("failTimeout", 5))
    return snapshot.Health(interval, config.get("maxFails", 1), timeout, config.get("path", ""), matches_)


def upstream_tls(view: View, namespace: str, name: str, port: int) -> snapshot.BackendTLS | str | None:
    """How a Service is spoken to over TLS by an UpstreamTLSPolicy; in words, why it cannot be."""
    config = of_service(view, "UpstreamTLSPolicy", (namespace, name, port))
    return _authority(view, namespace, name, config) if config is not None else None


def _authority(view: View, namespace: str, service: str, config: Config) -> snapshot.BackendTLS | str:
    ref = config["certificateRef"]
    pem = extensions.secret(view, namespace, SecretKey(ref["name"], "ca.crt"))
    if not pem:
        return f'config.certificateRef: Secret "{namespace}/{ref["name"]}" with the key "ca.crt" is not there.'
    own = None
    if config.get("mTLS"):
        found = certificates.certificate(view, "UpstreamTLSPolicy", namespace, SecretRef(ref["name"]))
        if isinstance(found, certificates.Fault):
            return f"config.mTLS: {found.message}"
        own = found
    return snapshot.BackendTLS(f"{service}.{namespace}.svc", pem, own=own)


def _lasting(given: str | float) -> float:
    """Seconds, of a Duration or of a number of them."""
    return seconds(given) if isinstance(given, str) else float(given)


def asks_for_certificates(view: View, gateway: Ref, port: int) -> bool:
    """Whether clients of a Gateway's port must prove who they are, by a GatewayTLSPolicy."""
    found = _at_port(view, "GatewayTLSPolicy", gateway, port)
    return found is not None and bool((config_of(found[0], found[1][2]) or {}).get("mTLS", False))


def _codes(word: str) -> Iterable[int]:
    """ "503", or all of "5xx"."""
    return range(int(word[0]) * 100, int(word[0]) * 100 + 100) if word.endswith("xx") else (int(word),)


def session(view: View, backends: Iterable[BackendName]) -> snapshot.Persistence | None:
    """What BackendLBPolicies and SessionStickyPolicies say of a rule's backends: the first that has one decides."""
    for backend in backends:
        where = (backend.namespace, backend.name, backend.port)
        asked = (of_service(view, "BackendLBPolicy", where) or {}).get("sessionPersistence")
        if asked is not None:
            return sessions.persistence(_as_in_routes(asked), str(backend))
        found = of_service(view, "SessionStickyPolicy", where)
        if found is not None:
            lasting = float(found.get("expires", 3600))
            return snapshot.Persistence("", found.get("cookieName", "_srv_id"), "/", lasting, lasting > 0)
    return None


def _as_in_routes(asked: Config) -> SessionPersistence:
    """SessionPersistence as BackendLBPolicy spells it (Gateway API 1.1)."""
    name = asked.get("sessionName", "")
    return SessionPersistence(
        asked.get("type", "Cookie"),
        asked.get("absoluteTimeout", ""),
        CookiePersistence(name, lifetime_type=asked.get("cookieConfig", {}).get("lifetimeType", "Session")),
        HeaderPersistence(name) if name else None,
    )


def _of(view: View, kind: str, target: Ref) -> list[Policy]:
    """The policies of a kind for a target, the oldest first."""
    refs = [ref for ref in view.index("policies of", target.kind, target.namespace, target.name) if ref.kind == kind]
    found = [one for ref in refs if (one := view.get(POLICIES[kind].type, ref.namespace, ref.name)) is not None]
    return sorted(found, key=_age)


def _age(policy: Policy) -> tuple[str, str, str]:
    return policy.metadata.creation_timestamp, policy.metadata.namespace, policy.metadata.name


def scopes(policy: Policy) -> Iterator[Scope]:
    """Every part of a policy that says something."""
    for word in ("http", "grpc", "hostnames", "ports"):
        for index, entry in enumerate(policy.spec.get(word, ())):
            if config_of(policy, entry) is not None and ("bps" not in entry or "config" in entry):
                yield word, index, entry
    if config_of(policy, policy.spec) is not None:
        yield "", 0, policy.spec


def config_of(policy: Policy, entry: Config) -> Config | None:
    """What an entry of a policy says; the policy's own where it says nothing; None where neither does."""
    for one in (entry, policy.spec):
        if "config" in one or "healthCheck" in one:
            said: Config = one["config"] if "config" in one else one["healthCheck"]
            return said
        if "type" in one or "algorithm" in one:
            return {**one, "algorithm": one.get("type", one.get("algorithm"))}
    return None


def _is_of(view: View, target: Ref, scope: Scope) -> bool:
    """Whether a route has a rule with the match that an entry names."""
    route = view.get(TARGETS[target.kind], target.namespace, target.name)
    if isinstance(route, GRPCRoute) and scope[0] == "grpc":
        return any(_meant(scope) in grpc.matches_of(rule) for rule in route.spec.rules)
    if isinstance(route, HTTPRoute) and scope[0] == "http":
        return any(_meant(scope) in matches.matches(rule) for rule in route.spec.rules)
    return False


def _is_match(scope: Scope, rule: snapshot.Rule) -> bool:
    """Whether an entry is for a match, and a rule has it."""
    if scope[0] not in ("http", "grpc") or (scope[0] == "grpc" and not rule.grpc):
        return False
    return _meant(scope) in rule.matches


def _meant(scope: Scope) -> snapshot.Match:
    """The match that an entry names."""
    word, _, entry = scope
    if word == "grpc":
        return grpc.translated(msgspec.convert(entry["match"], GRPCMatch))
    return matches.translated(msgspec.convert(entry["match"], HTTPMatch))


def _means(pattern: str, hostname: str) -> bool:
    """Whether a hostname, or all that a wildcard stands for, is meant by a pattern."""
    return pattern.lower() == hostname or covers(pattern.lower(), hostname)


# --- programs ---


def script(view: View, namespace: str, name: str, kind: str) -> snapshot.Script | str:
    """The part that data planes get for one scope of a policy, or what is wrong."""
    name, _, scope = name.partition("#")
    meaning = POLICIES[kind]
    policy = view.get(meaning.type, namespace, name)
    if policy is None:
        return "it does not exist."
    if scope.startswith("bps"):
        bps = _bps(policy, int(scope[3:]))
        return _program(namespace, f"{name}#{scope}", kind, "ByteRate", {"bps": bps}) if bps else "it has no such scope."
    entry = next((one for word, index, one in scopes(policy) if f"{word}{index}" == scope), None)
    if entry is None:
        return "it has no such scope."
    config: Config = config_of(policy, entry) or {}
    if config.get("mode") == "Global" and "store" not in config:
        return 'config.mode: "Global" needs config.store, a Redis or Valkey in which all replicas count.'
    store = extensions.store(view, namespace, config["store"]) if "store" in config else None
    if isinstance(store, str):
        return store
    return _program(namespace, f"{name}#{scope}", kind, meaning.built_in, meaning.config(config), store)


def _program(
    namespace: str, name: str, kind: str, built_in: str, config: Config, store: snapshot.Store | None = None
) -> snapshot.Script:
    return snapshot.Script(
        name=str(FilterName(namespace, name, kind)),
        source="",
        built_in=built_in,
        config=msgspec.json.encode(config).decode(),
        execution="inline",
        seconds=extensions.LONGEST,
        passes=BUILT_IN[built_in].passes,
        store=store,
    )


# --- statuses ---


def status(view: View, kind: str, namespace: str, name: str) -> ExtensionStatus | None:
    """What to say of a policy."""
    policy = view.get(POLICIES[kind].type, namespace, name)
    if policy is None:
        return None
    accepted = _accepted(view, kind, policy)
    meant = [target for target in policy.targets if target.kind in POLICIES[kind].targets and target.namespace == namespace]
    return ExtensionStatus(policy.metadata.generation, (accepted,), ancestors.of(view, meant, accepted))


def _accepted(view: View, kind: str, policy: Policy) -> Condition:
    namespace = policy.metadata.namespace
    for target in policy.targets:
        if target.kind not in POLICIES[kind].targets:
            text = f'spec.targetRef.kind: "{target.kind}" cannot have a {kind}; {", ".join(POLICIES[kind].targets)} can.'
            return conditions.filter_not_valid("Invalid", text)
        if target.namespace != namespace:
            text = f'spec.targetRef.namespace: found "{target.namespace}"; a policy is for its own namespace, "{namespace}".'
            return conditions.filter_not_valid("Invalid", text)
        if view.get(TARGETS[target.kind], namespace, target.name) is None:
            text = f'spec.targetRef: {target.kind} "{namespace}/{target.name}" does not exist.'
            return conditions.filter_not_valid("TargetNotFound", text)
    said = list(scopes(policy))
    if not _says(policy):
        text = "spec: it says nothing; config, or a config in ports, hostnames, http or grpc is needed."
        return conditions.filter_not_valid("Invalid", text)
    for scope in said:
        if scope[0] in ("http", "grpc") and not _is_of(view, policy.targets[0], scope):
            text = f"spec.{scope[0]}[{scope[1]}].match: {policy.targets[0].kind} has no rule with this match."
            return conditions.filter_not_valid("TargetNotFound", text)
    for word, index, _ in said if POLICIES[kind].built_in else ():
        made = view.call(script, namespace, f"{policy.metadata.name}#{word}{index}", kind)
        if isinstance(made, str):
            return conditions.filter_not_valid("Invalid", f"spec.{f'{word}[{index}].' if word else ''}{made}")
    if kind == "UpstreamTLSPolicy":
        for word, index, entry in said:
            wrong = _authority(view, namespace, policy.targets[0].name, config_of(policy, entry) or {})
            if isinstance(wrong, str):
                return conditions.filter_not_valid("Invalid", f"spec.{f'{word}[{index}].' if word else ''}{wrong}")
    for other in _of(view, kind, policy.targets[0]):
        if _age(other) >= _age(policy):
            break
        if _says(policy) <= _says(other):
            text = f'{kind} "{other.metadata.name}" is older and says something of all that this one does.'
            return conditions.filter_not_valid("Conflicted", text)
    return conditions.policy_accepted()


def _says(policy: Policy) -> set[tuple[str, str]]:
    """What a policy speaks of."""
    whole = [("bps", "")] if "bps" in policy.spec else []
    ports = [("bps", str(one["port"])) for one in policy.spec.get("ports", ()) if "bps" in one]
    return {*(_names(one) for one in scopes(policy)), *whole, *ports}


def _names(scope: Scope) -> tuple[str, str]:
    word, _, entry = scope
    what = entry.get("match") or entry.get("hostname") or entry.get("port") if word else ""
    return word, str(what)
