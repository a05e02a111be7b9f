"""Retry budgets (GEP-3388): how many retries there are for how many requests, and whose policy says so."""

from __future__ import annotations

from typing import Any

import pytest
from support.objects import gateway, obj, route, service, slice_, world
from support.refusals import said_of

from controller.kubernetes.status_writer import merged
from controller.objects.base import Ref
from controller.translate import Translation, translate
from controller.translate.shared.status import PolicyStatus
from gateway.scripting.shared_state.memory import Memory, create
from gateway.snapshot import Backend, RetryBudget, Rule
from gateway.upstream.load_balancing import EndpointPicker
from gateway.upstream.retry_budget import RetryAllowance


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def allowance(percent: int, interval: float = 10.0, *, always: int = 0) -> tuple[RetryAllowance, Time]:
    time, left = Time(), [always]

    def in_any_case(_: RetryBudget) -> bool:
        left[0] -= 1
        return left[0] >= 0

    return RetryAllowance(RetryBudget("b", percent, interval), in_any_case, time), time


def granted(of: RetryAllowance, asked: int = 1000) -> int:
    return sum(of.allows() for _ in range(asked))


@pytest.mark.parametrize(
    ("percent", "requests", "always", "retries"),
    [
        # Retries are requests as well: 25 of 125 are 20 %.
        (20, 100, 0, 25),
        (50, 100, 0, 100),
        (0, 100, 0, 0),
        (100, 0, 0, 1000),
        (20, 0, 0, 0),
        (20, 3, 0, 0),
        (20, 4, 0, 1),
        # The minimum is what may be sent in any case; it is not added.
        (20, 100, 10, 25),
        (20, 4, 10, 10),
        (0, 0, 7, 7),
    ],
)
def test_how_many_are_granted(percent: int, requests: int, always: int, retries: int) -> None:
    budget, _ = allowance(percent, always=always)
    for _ in range(requests):
        budget.count()
    assert granted(budget) == retries
    assert budget.refused == 1000 - retries


def test_the_interval_slides() -> None:
    budget, time = allowance(20)
    for _ in range(10):  # ten seconds of ten requests each
        for _ in range(10):
            budget.count()
        time.now += 1
    assert granted(budget) in (22, 25)  # the first second may have just left
    time.now += 5
    before = granted(budget)
    assert before == 0  # of what is left of the requests, the retries are more than their share
    time.now += 10
    assert granted(budget) == 0  # nothing is known any more
    for _ in range(8):
        budget.count()
    assert granted(budget) == 2
    time.now += 1000.05  # far beyond all slices
    assert granted(budget) == 0


def test_a_long_silence_forgets_everything_once() -> None:
    budget, time = allowance(50)
    for _ in range(5):
        budget.count()
    time.now += 12345.6
    for _ in range(2):
        budget.count()
    assert granted(budget) == 2


def test_turns_are_counted_once_each_and_others_not() -> None:
    taken: list[int] = []
    picker = EndpointPicker("ab")
    picker.count(lambda: taken.append(1))
    assert [next(picker.turns) for _ in range(4)] == ["a", "b", "a", "b"]
    assert len(taken) == 4
    assert picker.next() == "a"
    picker.set("abc")  # whose turn it is, is looked at and not taken
    assert [next(picker.turns) for _ in range(3)] in (["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"])
    picker.eject("a")
    assert len(taken) == 7
    picker.count(None)
    next(picker.turns)
    assert len(taken) == 7
    picker.set(())
    picker.count(lambda: taken.append(1))
    assert next(picker.turns, None) is None
    assert len(taken) == 7


def test_workers_share_the_minimum() -> None:
    descriptor = create()
    workers = [Memory(descriptor, index, 2) for index in range(2)]
    spec = RetryBudget("b", 0, count=10, seconds=1000.0)

    def take(memory: Memory) -> Any:
        return lambda s: memory.take(b"k", s.seconds / s.count, s.count, 0) is not None

    budgets = [RetryAllowance(spec, take(memory)) for memory in workers]
    assert sum(granted(one, 8) for one in budgets) == 10
    workers[0].close()


# --- policies ---

X_GROUP = "gateway.networking.x-k8s.io"
TARGET = {"group": "", "kind": "Service", "name": "a"}


def policy(name: str = "p", *, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Any:
    said = {"targetRefs": [TARGET], "retryConstraint": {}, **spec}
    return obj("XBackendTrafficPolicy", name, spec=said, metadata={"creationTimestamp": created})


def translated(*objects: Any) -> Translation:
    return translate(world(gateway(), service("a"), slice_("a", "10.0.0.1"), route("r", "a"), *objects))


def budgets(made: Translation) -> dict[str, RetryBudget | None]:
    return {part.name: part.budget for part in made.parts["default", "gw"].values() if isinstance(part, Backend)}


def test_defaults_and_values() -> None:
    assert budgets(translated())["default/a:80"] is None
    assert budgets(translated(policy()))["default/a:80"] == RetryBudget("Service/default/a", 20, 10.0, 10, 1.0)
    asked = {"budget": {"percent": 5, "interval": "1m30s"}, "minRetryRate": {"count": 3, "interval": "500ms"}}
    made = translated(policy(retryConstraint=asked))
    assert budgets(made)["default/a:80"] == RetryBudget("Service/default/a", 5, 90.0, 3, 0.5)
    (accepted,) = said_of(made, Ref("XBackendTrafficPolicy", "default", "p"))
    assert accepted.is_true
    assert not budgets(translated(policy(retryConstraint=None)))["default/a:80"]


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"retryConstraint": {"budget": {"percent": 101}}}, "Invalid", "budget.percent: found 101; 0 to 100"),
        ({"retryConstraint": {"budget": {"percent": -1}}}, "Invalid", "budget.percent: found -1"),
        ({"retryConstraint": {"budget": {"interval": "999ms"}}}, "Invalid", 'budget.interval: found "999ms"; 1s to 1h'),
        ({"retryConstraint": {"budget": {"interval": "61m"}}}, "Invalid", "budget.interval"),
        ({"retryConstraint": {"budget": {"interval": "soon"}}}, "Invalid", "budget.interval"),
        ({"retryConstraint": {"minRetryRate": {"count": 0}}}, "Invalid", "minRetryRate.count: found 0; 1 to 1000000"),
        ({"retryConstraint": {"minRetryRate": {"interval": "0s"}}}, "Invalid", "minRetryRate.interval"),
        ({"sessionPersistence": {"cookie": {"name": "a b"}}}, "Invalid", "spec.sessionPersistence.cookie.name"),
        ({"targetRefs": []}, "Invalid", "spec.targetRefs: found 0; 1 to 16"),
        ({"targetRefs": [{**TARGET, "name": "none"}]}, "TargetNotFound", 'Service "default/none" does not exist'),
        ({"targetRefs": [{"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "a"}]}, "Invalid",
         'spec.targetRefs[0]: "multicluster.x-k8s.io/ServiceImport" cannot have an XBackendTrafficPolicy here'),
    ],
)  # fmt: skip
def test_what_is_refused_has_no_effect(spec: dict[str, Any], reason: str, words: str) -> None:
    made = translated(policy(**spec))
    assert budgets(made) == {"default/a:80": None}
    said = list(said_of(made, Ref("XBackendTrafficPolicy", "default", "p")))
    if made.statuses.get(Ref("XBackendTrafficPolicy", "default", "p")) is None:
        # It is for nothing that a Gateway of ours has to do with: there is nobody to tell.
        assert spec.get("targetRefs") is not None
        return
    assert [(one.is_true, one.reason) for one in said] == [(False, reason)]
    assert words in said[0].message


def test_a_target_that_is_not_there_is_told_itself() -> None:
    status = translated(policy(targetRefs=[{**TARGET, "name": "none"}])).statuses[Ref("XBackendTrafficPolicy", "default", "p")]
    assert isinstance(status, PolicyStatus)
    (entry,) = merged({}, status, "now")["ancestors"]
    assert entry["ancestorRef"] == {"group": "", "kind": "Service", "namespace": "default", "name": "none"}
    assert entry["conditions"][0]["reason"] == "TargetNotFound"


def test_the_oldest_stands_at_each_target() -> None:
    both = [TARGET, {**TARGET, "name": "b"}]
    younger = policy("younger", created="2026-02-01T00:00:00Z", targetRefs=both, retryConstraint={"budget": {"percent": 1}})
    made = translated(policy("older"), younger, service("b"), route("s", "b"))
    assert [one.percent for one in budgets(made).values() if one is not None] == [20, 1]
    (said, *_) = said_of(made, Ref("XBackendTrafficPolicy", "default", "younger"))
    assert said.is_true
    assert 'spec.targetRefs[0]: XBackendTrafficPolicy "older" is older' in said.fault
    made = translated(policy("older"), policy("younger", created="2026-02-01T00:00:00Z"))
    (said,) = said_of(made, Ref("XBackendTrafficPolicy", "default", "younger"))
    assert (said.is_true, said.reason) == (False, "Conflicted")
    # One that says what cannot be done stands in no other's way.
    bad = policy("older", retryConstraint={"budget": {"percent": 200}})
    made = translated(bad, policy("younger", created="2026-02-01T00:00:00Z"))
    assert budgets(made)["default/a:80"] is not None


def test_all_ports_and_protocols_of_a_service_share_it() -> None:
    two = service("a", 80, 81)
    calls = obj(
        "GRPCRoute", "g", spec={"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": "a", "port": 80}]}]}
    )
    made = translated(two, policy(), calls, route("s", {"name": "a", "port": 81}))
    found = budgets(made)
    assert len(found) == 3
    assert len(set(found.values())) == 1


def test_of_an_xbackend() -> None:
    spec = {"type": "ExternalHostname", "externalHostname": {"hostname": "a.example"}, "port": {"number": 80}}
    ref = {"group": X_GROUP, "kind": "XBackend", "name": "x"}
    made = translated(obj("XBackend", "x", spec=spec), route("s", ref), policy(targetRefs=[ref]))
    assert budgets(made)["XBackend/default/x"] == RetryBudget("XBackend/default/x")
    assert budgets(made)["default/a:80"] is None


def test_bytes_have_none() -> None:
    listeners = ({"name": "tcp", "port": 81, "protocol": "TCP"},)
    spec = {"parentRefs": [{"name": "g2"}], "rules": [{"backendRefs": [{"name": "a", "port": 80}]}]}
    made = translate(world(gateway("g2", *listeners), service("a"), policy(), obj("TCPRoute", "t", spec=spec)))
    (backend,) = (part for part in made.parts["default", "g2"].values() if isinstance(part, Backend))
    assert backend.budget is None


def test_sessions_of_its_own_are_of_the_backend() -> None:
    made = translated(
        policy(retryConstraint=None, sessionPersistence={"cookie": {"name": "c"}}), service("b"), route("s", "a", "b")
    )
    rule = made.parts["default", "gw"]["rule", "default/s/0"]
    assert isinstance(rule, Rule)
    assert [target.persistence.cookie if target.persistence else "" for target in rule.targets] == ["c", ""]
