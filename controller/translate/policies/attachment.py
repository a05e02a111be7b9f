"""Policies of gateway.flomesh.io, attached to Gateways, routes and Services: which one is in force where.

One decision, `judged`, says what a policy may say and whether it can be done; its status and what is in force are both
made from it. What a policy has no right to say (its target is not there, is another namespace's, or an older policy has
said it) has no effect at all. What it has the right to say but says wrongly has none either, unless the kind protects:
then nothing passes where it was meant (`shut`), and its status says that.

Of several that fit, the most specific is in force: a rule's match before a hostname, before a whole route, before a
Gateway's port, before a whole Gateway; a Service's port before the Service. Of those that are equally specific the oldest
is. Each of a policy's scopes is one program of a data plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import msgspec

from controller.objects.base import GATEWAY_GROUP, Ref
from controller.objects.filters import SecretKey
from controller.objects.policies import POLICIES, statement
from controller.objects.policies.base import BuiltInConfig, Policy
from controller.objects.policies.rate_limit import RateLimitConfig
from controller.objects.policies.statement import WHOLE, PolicyStatement, PolicyTargetConfig, Scope
from controller.objects.policies.upstream_tls import UpstreamTLSConfig
from controller.objects.references import SecretRef
from controller.objects.routes import GRPCMatch, HTTPMatch
from controller.state.view import View, guarded
from controller.translate import certificates, python_filters
from controller.translate.policies import idleness
from controller.translate.policies.targets import LOOKING, TARGETS, match_of
from controller.translate.shared import ancestors, conditions
from controller.translate.shared.conditions import Condition
from controller.translate.shared.hostnames import covers
from controller.translate.shared.names import FilterName, ScopeName
from controller.translate.shared.status import ExtensionStatus
from gateway import snapshot
from gateway.filters.builtin import BUILT_IN

Fits: TypeAlias = Callable[[Scope], bool]


class RulePlacement(NamedTuple):
    """Where a rule is served."""

    gateway: tuple[str, str]
    port: int
    hostname: str


# --- the one decision ---


class Verdict(NamedTuple):
    """What becomes of a policy."""

    accepted: Condition
    at: tuple[tuple[Ref, tuple[Scope, ...]], ...] = ()  # what is in force at each of its targets
    shut: bool = False  # and that is that nothing passes there


def _closed(view: View, error: Exception, kind: str, namespace: str, name: str) -> Verdict | None:
    """In place of a verdict that our own code failed at."""
    policy = view.get(POLICIES[kind].type, namespace, name)
    accepted = conditions.filter_not_valid("Invalid", conditions.fault_of_ours(error))
    if policy is None or not POLICIES[kind].guards:
        return Verdict(accepted) if policy is not None else None
    return Verdict(accepted, tuple((target, (WHOLE,)) for target in dict.fromkeys(policy.targets)), shut=True)


@guarded(_closed)
def judged(view: View, kind: str, namespace: str, name: str) -> Verdict | None:
    """What a policy may say, and whether it can be done."""
    policy = view.get(POLICIES[kind].type, namespace, name)
    if policy is None:
        return None
    policy_statement = statement.read(policy)
    refusal = _no_right(view, policy, policy_statement)
    if refusal is not None:
        return Verdict(refusal)
    faults, scopes = policy_statement.faults, policy_statement.scopes
    if not scopes:
        # What it speaks of cannot be told, or it speaks of nothing: then it is for all of its target.
        scopes = (WHOLE,)
        faults = faults or ("spec: it says nothing; config, or a config in ports, hostnames, http or grpc is needed.",)
    standing, idle, older = _standing(view, policy, policy_statement.targets, scopes)
    if not standing:
        refusal = conditions.filter_not_valid("Conflicted", older) if older and not idle else None
        return Verdict(refusal or conditions.filter_not_valid("TargetNotFound", " ".join((*idle, *filter(None, [older])))))
    wrong = faults or tuple(_undone(view, policy, standing))
    if wrong and not POLICIES[kind].guards:
        return Verdict(conditions.filter_not_valid("Invalid", " ".join(wrong)))
    if wrong:
        return Verdict(conditions.filter_not_valid("Invalid", " ".join(wrong)), standing, shut=True)
    accepted = conditions.policy_accepted()
    return Verdict(conditions.with_fault(accepted, " ".join(idle)) if idle else accepted, standing)


def _no_right(view: View, policy: Policy, policy_statement: PolicyStatement) -> Condition | None:
    """Why a policy has nothing to say at all: of one that is for several, every target must be its own."""
    kind, namespace = policy.ref.kind, policy.metadata.namespace
    given = policy.spec.get("targetRefs") if isinstance(policy.spec, dict) else None
    if not policy_statement.targets or (isinstance(given, list) and given and len(policy_statement.targets) < len(given)):
        return conditions.filter_not_valid("Invalid", " ".join(policy_statement.faults) or "spec.targetRef is missing.")
    for index, target in enumerate(policy_statement.targets):
        field = f"spec.targetRefs[{index}]" if given else "spec.targetRef"
        if target.kind not in POLICIES[kind].targets:
            text = f'{field}.kind: "{target.kind}" cannot have a {kind}; {", ".join(POLICIES[kind].targets)} can.'
            return conditions.filter_not_valid("Invalid", text)
        group = "" if target.kind == "Service" else GATEWAY_GROUP
        if target.group not in (None, group):
            text = f'{field}.group: found "{target.group}"; a {target.kind} is of "{group}".'
            return conditions.filter_not_valid("Invalid", text)
        if target.namespace not in ("", namespace):
            text = f'{field}.namespace: found "{target.namespace}"; a policy is for its own namespace, "{namespace}".'
            return conditions.filter_not_valid("Invalid", text)
        if view.get(TARGETS[target.kind], namespace, target.name) is None:
            text = f'{field}: {target.kind} "{namespace}/{target.name}" does not exist.'
            return conditions.filter_not_valid("TargetNotFound", text)
    return None


def _standing(
    view: View, policy: Policy, targets: tuple[PolicyTargetConfig, ...], scopes: tuple[Scope, ...]
) -> tuple[tuple[tuple[Ref, tuple[Scope, ...]], ...], tuple[str, ...], str]:
    """What of a policy stands at its targets; what means nothing there, in words; and who has said the rest before."""
    kind, namespace = policy.ref.kind, policy.metadata.namespace
    standing: list[tuple[Ref, tuple[Scope, ...]]] = []
    idle: dict[str, None] = {}
    older = ""
    for ref in dict.fromkeys(Ref(target.kind, namespace, target.name) for target in targets):
        before = {name: other for other, theirs in _older(view, policy, ref) for scope in theirs for name in _names(scope)}
        kept: list[Scope] = []
        for scope in scopes:
            why = idleness.whole(view, kind, ref, scope)
            if why:
                idle[f"{scope.field}{why}"] = None
                continue
            names = [name for name in _names(scope) if name not in before]
            if not names:
                other = before[_names(scope)[0]]
                older = f'{kind} "{other}" is older and says something of all that this one does.'
                continue
            note = idleness.partial(view, kind, ref, scope)
            if note:
                idle[note] = None
            kept.append(scope._replace(bps=scope.bps if any(name[0] == "bps" for name in names) else 0))
        if kept:
            standing.append((ref, tuple(kept)))
    return tuple(standing), tuple(idle), older


def _names(scope: Scope) -> list[tuple[str, object]]:
    """What a scope speaks of, as another may have before it: requests, bytes, or both."""
    of: object = scope.of
    if isinstance(of, HTTPMatch | GRPCMatch):
        of = match_of(scope)
    names: list[tuple[str, object]] = [(scope.word, of)] if scope.config is not None or not scope.bps else []
    return [*names, ("bps", of)] if scope.bps else names


def _older(view: View, policy: Policy, target: Ref) -> list[tuple[str, tuple[Scope, ...]]]:
    """The older policies of the same kind at a target, and what of them stands there."""
    return [
        (older.name, older.scopes)
        for older in _in_force_at(view, policy.ref.kind, target, before=policy)
        if older.age < policy.metadata.age
    ]


def _undone(view: View, policy: Policy, standing: Iterable[tuple[Ref, tuple[Scope, ...]]]) -> Iterable[str]:
    """What cannot be done though it can be read: what it refers to is not there."""
    kind, namespace = policy.ref.kind, policy.metadata.namespace
    for target, scopes in standing:
        for scope in scopes:
            wrong: object = ""
            if POLICIES[kind].built_in and scope.config is not None:
                wrong = view.call(script, namespace, policy.metadata.name, kind, scope_name(scope))
            elif kind == "UpstreamTLSPolicy":
                wrong = authority(view, namespace, target.name, scope.config)
            if isinstance(wrong, str) and wrong:
                yield f"{scope.field}.{wrong}"


class InForce(NamedTuple):
    """What of a policy is in force at a target."""

    age: tuple[str, str, str]
    namespace: str
    name: str
    scopes: tuple[Scope, ...]
    shut: bool


def _in_force_at(view: View, kind: str, target: Ref, *, before: Policy | None = None) -> list[InForce]:
    """The policies of a kind that are in force at a target, the oldest first; or of those that are older than one."""
    policies = []
    for ref in view.index("policies of", target.kind, target.namespace, target.name):
        if ref.kind != kind:
            continue
        policy = view.get(POLICIES[kind].type, ref.namespace, ref.name)
        if policy is None or (before is not None and policy.metadata.age >= before.metadata.age):
            continue
        verdict = view.call(judged, kind, ref.namespace, ref.name)
        for at, scopes in verdict.at if verdict is not None else ():
            if at == target and verdict is not None:
                policies.append(InForce(policy.metadata.age, ref.namespace, ref.name, scopes, verdict.shut))
    return sorted(policies)


# --- which is in force ---


def apart(view: View, route: Ref, rule: snapshot.Rule | snapshot.Relay) -> list[snapshot.Rule | snapshot.Relay]:
    """A rule by those of its matches of which policies say the same: most often it stays whole."""
    if not isinstance(rule, snapshot.Rule) or len(rule.matches) < 2:
        return [rule]
    named_matches = [
        ((kind, policy.name, scope.name), match_of(scope))
        for kind in LOOKING for policy in _in_force_at(view, kind, route) for scope in policy.scopes if _is_match(scope, rule)
    ]  # fmt: skip
    if not named_matches:
        return [rule]
    groups: dict[tuple[tuple[str, str, str], ...], list[int]] = {}
    for index, match in enumerate(rule.matches):
        groups.setdefault(tuple(name for name, meant in named_matches if meant == match), []).append(index)
    return [
        msgspec.structs.replace(
            rule, name=f"{rule.name}#{group[0]}" if group[0] else rule.name, matches=tuple(rule.matches[at] for at in group)
        )
        for group in groups.values()
    ]


def filters(
    view: View, route: Ref, rule: snapshot.Rule | snapshot.Relay, place: RulePlacement
) -> tuple[FilterName | snapshot.Fault, ...]:
    """The programs of policies for a rule at one of its places; a fault where one cannot be done that protects."""
    programs = [_in_force(view, kind, route, rule, place) for kind in LOOKING]
    if isinstance(rule, snapshot.Relay):  # connections have addresses and bytes, and no requests
        programs = [
            program
            for program in programs
            if isinstance(program, snapshot.Fault) or (program is not None and POLICIES[program.kind].guards_connections)
        ]
    return tuple(name for name in (*programs, _byte_rate(view, place)) if name is not None)


def _byte_rate(view: View, place: RulePlacement) -> FilterName | None:
    """How many bytes may pass at a port; each port has its own, also where one number is given for all of a Gateway's."""
    for policy in _in_force_at(view, "RateLimitPolicy", Ref("Gateway", *place.gateway)):
        if _bps(policy.scopes, place.port):
            return FilterName(policy.namespace, policy.name, "RateLimitPolicy", ScopeName("bps", place.port))
    return None


def _bps(scopes: Iterable[Scope], port: int) -> int:
    """Bytes a second, by an entry for the port or for the whole; 0 for any number."""
    given = {scope.of: scope.bps for scope in scopes if scope.word in ("", "ports") and scope.bps > 0}
    return given.get(port) or given.get(None, 0)


def _in_force(
    view: View, kind: str, route: Ref, rule: snapshot.Rule | snapshot.Relay, place: RulePlacement
) -> FilterName | snapshot.Fault | None:
    gateway = Ref("Gateway", *place.gateway)
    of_route, of_gateway = _in_force_at(view, kind, route), _in_force_at(view, kind, gateway)
    fits: Fits = lambda scope: _is_match(scope, rule)  # noqa: E731
    named: Fits = lambda scope: scope.word == "hostnames" and _means(str(scope.of), place.hostname)  # noqa: E731
    at_port: Fits = lambda scope: scope.word == "ports" and scope.of == place.port  # noqa: E731
    whole: Fits = lambda scope: not scope.word  # noqa: E731
    for policies, is_meant in (
        (of_route, fits), (of_route, named), (of_route, whole), (of_gateway, named), (of_gateway, at_port), (of_gateway, whole),
    ):  # fmt: skip
        for policy in policies:
            for scope in policy.scopes:
                if is_meant(scope) and policy.shut:
                    return snapshot.Fault(500, f'{kind} "{policy.namespace}/{policy.name}" is not valid: nobody may pass')
                if is_meant(scope) and scope.config is not None:
                    return FilterName(policy.namespace, policy.name, kind, scope_name(scope))
    return None


def at_port(view: View, kind: str, target: Ref, port: int) -> tuple[InForce, Scope] | None:
    """What is in force at a port of a target: an entry for it, or else for all of its ports."""
    policies = _in_force_at(view, kind, target)
    for word in ("ports", ""):
        for policy in policies:
            for scope in policy.scopes:
                if scope.word == word and (not word or scope.of == port):
                    return policy, scope
    return None


def authority(view: View, namespace: str, service: str, config: UpstreamTLSConfig) -> snapshot.BackendTLS | str:
    """How a Service is spoken to by an UpstreamTLSPolicy's config; in words, why it cannot be."""
    name = config.certificate_ref.name
    pem = python_filters.secret(view, namespace, SecretKey(name, "ca.crt"))
    if not pem:
        return f'config.certificateRef: Secret "{namespace}/{name}" with the key "ca.crt" is not there.'
    checked = certificates.checked(pem, f'Secret "{namespace}/{name}"')
    if isinstance(checked, certificates.CertificateFault):
        return f"config.certificateRef: {checked.message}"
    own = None
    if config.mtls:
        certificate = certificates.certificate(view, "UpstreamTLSPolicy", namespace, SecretRef(name))
        if isinstance(certificate, certificates.CertificateFault):
            return f"config.mTLS: {certificate.message}"
        own = certificate
    return snapshot.BackendTLS(f"{service}.{namespace}.svc", pem, own=own)


def asks_for_certificates(view: View, gateway: Ref, port: int) -> bool | str:
    """Whether clients of a Gateway's port must prove who they are, by a GatewayTLSPolicy; in words, why nobody can."""
    in_force = at_port(view, "GatewayTLSPolicy", gateway, port)
    if in_force is None:
        return False
    if in_force[0].shut:
        return f'GatewayTLSPolicy "{in_force[0].name}" is not valid: until it is, nobody may connect.'
    return bool(in_force[1].config.mtls)


def _is_match(scope: Scope, rule: snapshot.Rule | snapshot.Relay) -> bool:
    """Whether an entry is for a match, and a rule has it."""
    if scope.word not in ("http", "grpc") or isinstance(rule, snapshot.Relay) or (scope.word == "grpc" and not rule.grpc):
        return False
    return match_of(scope) in rule.matches


def _means(pattern: str, hostname: str) -> bool:
    """Whether a hostname, or all that a wildcard stands for, is meant by a pattern."""
    return pattern.lower() == hostname or covers(pattern.lower(), hostname)


# --- programs ---


def scope_name(scope: Scope) -> ScopeName:
    """The name of a policy's part."""
    return ScopeName(scope.word, scope.position)


@guarded(lambda view, error, *_: f"cannot be used: {conditions.fault_of_ours(error)}")
def script(view: View, namespace: str, name: str, kind: str, wanted: ScopeName) -> snapshot.Script | str:
    """The part that data planes get for one scope of a policy, or what is wrong."""
    policy_kind = POLICIES[kind]
    policy = view.get(policy_kind.type, namespace, name)
    if policy is None:
        return "it does not exist."
    policy_statement = statement.read(policy)
    whole_name = FilterName(namespace, name, kind, wanted)
    if wanted.word == "bps":
        bps = _bps(policy_statement.scopes, wanted.number)
        return _program(whole_name, "ByteRate", {"bps": bps}) if bps else "it has no such scope."
    scope = next((scope for scope in policy_statement.scopes if scope_name(scope) == wanted), None)
    if scope is None or scope.config is None:
        return "it has no such scope."
    store = None
    if isinstance(scope.config, RateLimitConfig) and scope.config.store is not None:
        resolved = python_filters.store(view, namespace, scope.config.store, "config.store")
        if isinstance(resolved, str):
            return resolved
        store = resolved
    return _program(whole_name, policy_kind.built_in, policy_kind.built_in_config(scope.config), store)


def _program(name: FilterName, built_in: str, config: BuiltInConfig, store: snapshot.Store | None = None) -> snapshot.Script:
    return snapshot.Script(
        name=str(name),
        source="",
        built_in=built_in,
        config=msgspec.json.encode(config).decode(),
        execution="inline",
        seconds=python_filters.MAX_BUILT_IN_SECONDS,
        passes=BUILT_IN[built_in].passes,
        store=store,
    )


# --- statuses ---


def _unsaid(view: View, error: Exception, kind: str, namespace: str, name: str) -> ExtensionStatus | None:
    policy = view.get(POLICIES[kind].type, namespace, name)
    accepted = conditions.filter_not_valid("Invalid", conditions.fault_of_ours(error))
    return ExtensionStatus(policy.metadata.generation, (accepted,)) if policy is not None else None


@guarded(_unsaid)
def status(view: View, kind: str, namespace: str, name: str) -> ExtensionStatus | None:
    """What to say of a policy."""
    policy = view.get(POLICIES[kind].type, namespace, name)
    verdict = view.call(judged, kind, namespace, name)
    if policy is None or verdict is None:
        return None
    accepted = verdict.accepted
    if kind == "CircuitBreakingPolicy" and accepted.is_true and _has_streams(view, policy):
        text = "What TCP, TLS and UDP routes send there has no requests to count, and is never held back."
        accepted = conditions.with_warning(accepted, text)
    own_conditions = [accepted]
    if verdict.shut:
        what = ", ".join(f'{target.kind} "{target.name}"' for target, _ in verdict.at)
        own_conditions.append(conditions.failing_closed(f"{POLICIES[kind].when_shut} {what}"))
    meant = [target for target in policy.targets if target.kind in POLICIES[kind].targets]
    return ExtensionStatus(policy.metadata.generation, tuple(own_conditions), ancestors.of(view, meant, *own_conditions))


def _has_streams(view: View, policy: Policy) -> bool:
    """Whether anything but requests is sent to a policy's Services."""
    return any(
        {"tcp", "udp"} & set(view.noted("spoken to service", target.namespace, target.name)) for target in policy.targets
    )
