"""Make before break: which rules wait, for whom, and for how long."""

from __future__ import annotations

from controller.delivery.barrier import LIMIT, Barrier
from gateway.snapshot import Backend, Endpoint, Key, Order, Part, Rule, Target, key

HERE = (Endpoint("10.0.0.1", 80),)


def rule(**weights: int) -> Rule:
    return Rule("r", Order(), (), targets=tuple(Target(weight, name) for name, weight in weights.items()))


class Stage:
    """A barrier, the parts that are wanted, and who is fresh."""

    def __init__(self, *fresh: str, **backends: tuple[Endpoint, ...]) -> None:
        self.fresh = set(fresh)
        self.parts: dict[Key, Part] = {("backend", n): Backend(n, endpoints) for n, endpoints in backends.items()}
        self.barrier = Barrier(lambda name: name in self.fresh)
        self.now = 0.0

    def change(self, *parts: Part, drop: tuple[Key, ...] = ()) -> dict[Key, Part | None]:
        changes: dict[Key, Part | None] = {key(part): part for part in parts}
        changes |= dict.fromkeys(drop)
        for k, part in changes.items():
            if part is None:
                self.parts.pop(k, None)
            else:
                self.parts[k] = part
        return self.barrier.filter(changes, self.parts, self.now)


def test_the_first_version_never_waits() -> None:
    stage = Stage(s=HERE, c=())
    assert ("rule", "r") in stage.change(rule(s=50, c=50))


def test_a_rise_waits_until_its_endpoints_are_fresh() -> None:
    stage = Stage("s", s=HERE, c=())
    stage.change(rule(s=100, c=0))
    assert stage.change(rule(s=70, c=30)) == {}
    assert stage.barrier.deadline == LIMIT
    stage.fresh.add("c")
    assert stage.change(Backend("c", HERE)) == {("backend", "c"): Backend("c", HERE), ("rule", "r"): rule(s=70, c=30)}
    assert stage.barrier.deadline is None


def test_a_rise_waits_no_longer_than_the_limit() -> None:
    stage = Stage("s", s=HERE, c=())
    stage.change(rule(s=100, c=0))
    stage.change(rule(s=70, c=30))
    stage.now = LIMIT - 0.01
    assert stage.change(rule(s=40, c=60)) == {}, "a newer wish does not start the wait anew"
    stage.now = LIMIT
    assert stage.change() == {("rule", "r"): rule(s=40, c=60)}


def test_promotion_waits_for_the_stable_services_new_pods() -> None:
    """The selector has moved, the slices have not: without waiting the old version would answer again."""
    stage = Stage("c", "s", s=HERE, c=HERE)
    stage.change(rule(s=0, c=100))
    stage.fresh.remove("s")
    assert stage.change(rule(s=100, c=0)) == {}
    stage.fresh.add("s")
    assert stage.change(Backend("s", (Endpoint("10.0.0.2", 80),)))["rule", "r"] == rule(s=100, c=0)


def test_a_fall_to_a_fresh_backend_does_not_wait() -> None:
    stage = Stage("s", s=HERE, c=HERE)
    stage.change(rule(s=70, c=30))
    assert stage.change(rule(s=100, c=0)) == {("rule", "r"): rule(s=100, c=0)}


def test_nothing_waits_for_donors_that_have_nothing() -> None:
    stage = Stage(s=(), c=())
    stage.change(rule(s=100, c=0))
    assert stage.change(rule(s=70, c=30)) == {("rule", "r"): rule(s=70, c=30)}


def test_what_a_held_rules_predecessor_needs_stays() -> None:
    stage = Stage("s", s=HERE, c=())
    stage.change(rule(s=100))
    stage.parts["backend", "s"] = Backend("s", HERE)
    out = stage.change(rule(c=100))
    assert out == {}
    out = stage.barrier.filter({("backend", "x"): None}, stage.parts, 0.5)
    assert out == {}, "a backend is dropped after the rule that may use it has gone"
    stage.now = LIMIT
    assert stage.change() == {("rule", "r"): rule(c=100), ("backend", "x"): None}


def test_a_dropped_rule_is_dropped_at_once() -> None:
    stage = Stage("s", s=HERE, c=())
    stage.change(rule(s=100, c=0))
    stage.change(rule(s=0, c=100))
    assert stage.change(drop=(("rule", "r"),)) == {("rule", "r"): None}
    assert stage.barrier.deadline is None
