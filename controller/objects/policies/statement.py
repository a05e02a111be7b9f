"""What a policy says, typed: read once, and whatever cannot be read is said in words.

A policy speaks of its target as a whole, and of parts of it (`http`, `grpc`, `hostnames`, `ports`). Each is a `Scope`; one
whose config cannot be read has a fault in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Meta

from controller.objects.base import Port, Struct
from controller.objects.conversion import convert
from controller.objects.documents import Path, spelled
from controller.objects.policies import POLICIES
from controller.objects.policies.base import Policy, Rate
from controller.objects.routes import GRPCMatch, HTTPMatch


class PolicyTargetConfig(Struct, frozen=True):
    """What a policy is for."""

    kind: str
    name: str
    group: str | None = None
    namespace: str = ""


class Scope(NamedTuple):
    """One part of a policy's target ("" for the whole), and what is said of it."""

    word: str  # the field that it stands in
    position: int
    of: HTTPMatch | GRPCMatch | str | int | None  # the match, hostname or port that is meant
    config: Any = None  # typed; None where only bytes are counted, or where it cannot be read
    bps: int = 0  # RateLimitPolicy: bytes a second

    @property
    def name(self) -> str:
        """Names it within its policy."""
        return f"{self.word}{self.position}"

    @property
    def field(self) -> str:
        """As people write it."""
        return f"spec.{self.word}[{self.position}]" if self.word else "spec"


class PolicyStatement(NamedTuple):
    """All that a policy says."""

    targets: tuple[PolicyTargetConfig, ...]
    scopes: tuple[Scope, ...]
    faults: tuple[str, ...]  # what cannot be read, by the field


UNKNOWN: Final = -1  # bytes a second that cannot be read
WHOLE: Final = Scope("", 0, None)
_HEADS: Final[dict[str, tuple[str, Any]]] = {
    "http": ("match", HTTPMatch),
    "grpc": ("match", GRPCMatch),
    "hostnames": ("hostname", Annotated[str, Meta(min_length=1, max_length=253)]),
    "ports": ("port", Port),
}


class _Reading:
    """One policy being read."""

    def __init__(self, policy: Policy) -> None:
        self.kind = POLICIES[policy.ref.kind]
        self.spec: Any = policy.spec
        self.faults: list[str] = []

    def fault(self, path: Path, words: str) -> None:
        self.faults.append(f"{spelled(('spec', *path))}: {words}.")

    def typed(self, value: Any, type_: Any, path: Path) -> Any:
        """A typed value, or None and a fault."""
        converted = convert(value, type_)
        if isinstance(converted, tuple) and len(converted) == 2 and isinstance(converted[0], tuple):
            self.fault((*path, *converted[0]), converted[1])
            return None
        return converted

    def targets(self) -> tuple[PolicyTargetConfig, ...]:
        if not isinstance(self.spec, dict):
            self.fault((), "is missing; targetRef is needed, and what is said of it")
            return ()
        if self.spec.get("targetRefs"):
            given = self.spec["targetRefs"]
            if not isinstance(given, list):
                self.fault(("targetRefs",), "is not a list")
                return ()
            targets = [self.typed(target, PolicyTargetConfig, ("targetRefs", index)) for index, target in enumerate(given)]
        elif "targetRef" in self.spec:
            targets = [self.typed(self.spec["targetRef"], PolicyTargetConfig, ("targetRef",))]
        else:
            self.fault(("targetRef",), "is missing; it is needed")
            return ()
        return tuple(target for target in targets if target is not None)

    def scopes(self) -> Iterator[Scope]:
        if not isinstance(self.spec, dict):
            return
        whole, path = self._given(self.spec, ())
        for word, (field, type_) in _HEADS.items():
            entries = self.spec.get(word)
            if entries is None:
                continue
            if not isinstance(entries, list):
                self.fault((word,), f"is not a list of entries, each with its {field}")
                yield WHOLE
                continue
            for index, entry in enumerate(entries):
                if not isinstance(entry, dict):
                    self.fault((word, index), f"is not an entry with its {field}")
                    yield WHOLE
                    continue
                if field not in entry:
                    self.fault((word, index, field), "is missing; it is needed")
                    yield WHOLE
                    continue
                of = self.typed(entry[field], type_, (word, index, field))
                if of is None:
                    yield WHOLE
                    continue
                own, own_path = self._given(entry, (word, index))
                bps = self.typed(entry["bps"], Rate, (word, index, "bps")) if "bps" in entry else 0
                if own is None and "bps" not in entry:
                    own, own_path = whole, path  # what an entry does not say is as the policy has it
                if own is None and "bps" not in entry:
                    self.fault(
                        (word, index), f"says nothing; {' or '.join(self.kind.config_fields) or self.kind.needed} is needed"
                    )
                    yield Scope(word, index, of)
                else:
                    config = self.typed(own, self.kind.config, own_path) if own is not None else None
                    yield Scope(word, index, of, config, UNKNOWN if bps is None else bps)
        bps = self.typed(self.spec["bps"], Rate, ("bps",)) if "bps" in self.spec else 0
        if whole is not None or "bps" in self.spec:
            config = self.typed(whole, self.kind.config, path) if whole is not None else None
            yield Scope("", 0, None, config, UNKNOWN if bps is None else bps)

    def _given(self, entry: dict[str, Any], path: Path) -> tuple[Any, Path]:
        """What an entry says, and where; None where it says nothing."""
        if not self.kind.config_fields:
            return (entry if not self.kind.needed or self.kind.needed in entry else None), path
        for field in self.kind.config_fields:
            if field in entry:
                return entry[field], (*path, field)
        return None, path


def read(policy: Policy) -> PolicyStatement:
    """All that a policy says, typed."""
    reading = _Reading(policy)
    targets = reading.targets()
    scopes = tuple(dict.fromkeys(reading.scopes())) if targets else ()
    if policy.fault:
        return PolicyStatement(targets, (WHOLE,), (policy.fault,))
    return PolicyStatement(targets, scopes, tuple(dict.fromkeys(reading.faults)))
