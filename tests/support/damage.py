"""Objects of every kind, and everything that can be wrong with one: each field gone, null, of another type, extreme.

Objects are those of the golden pairs and the examples, each in its own world, beside a Gateway that has nothing to do with it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from controller.objects.documents import Document, read
from controller.objects.kinds import KINDS

TESTS = Path(__file__).parent.parent
SOURCES = [*sorted((TESTS / "cases").glob("*.in.yaml")), *sorted((TESTS.parent / "examples").glob("*/*.yaml"))]
EACH = 2  # objects of each kind: those that say most

BYSTANDERS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: fsm-gateway-cls}
spec: {controllerName: flomesh.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bystander, namespace: elsewhere}
spec: {gatewayClassName: fsm-gateway-cls, listeners: [{name: http, port: 4321, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: bystander, namespace: elsewhere}
spec: {ports: [{name: p, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: bystander-1, namespace: elsewhere, labels: {kubernetes.io/service-name: bystander}}
addressType: IPv4
endpoints: [{addresses: [10.9.9.9]}]
ports: [{name: p, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bystander, namespace: elsewhere}
spec: {parentRefs: [{name: bystander}], rules: [{backendRefs: [{name: bystander, port: 80}]}]}
---
apiVersion: gateway.flomesh.io/v1alpha1
kind: AccessControlPolicy
metadata: {name: bystander, namespace: elsewhere}
spec: {targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: bystander}, config: {blacklist: [10.0.0.1]}}
"""


class Subject(NamedTuple):
    """An object that is damaged, and the file that it stands in."""

    source: Path
    value: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self.value['kind']}-{self.value['metadata']['name']}"


class Damage(NamedTuple):
    """One thing that is wrong with it."""

    what: str
    path: tuple[str | int, ...]
    value: dict[str, Any]

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.what}"


@cache
def documents(source: Path) -> tuple[dict[str, Any], ...]:
    found = []
    for one in read(source.read_text(), str(source)):
        if isinstance(one, Document) and one.value["kind"] in KINDS:
            meta = one.value.setdefault("metadata", {})
            if KINDS[one.value["kind"]].namespaced:
                meta.setdefault("namespace", "default")
            found.append(one.value)
    return tuple(found)


@cache
def subjects() -> tuple[Subject, ...]:
    by_kind: dict[str, list[Subject]] = {}
    for source in SOURCES:
        for value in documents(source):
            by_kind.setdefault(value["kind"], []).append(Subject(source, value))
    richest = [sorted(several, key=lambda one: -len(str(one.value)))[:EACH] for _, several in sorted(by_kind.items())]
    return tuple(one for several in richest for one in several)


def bystanders() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(BYSTANDERS))


def _deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


ODD: dict[str, Any] = {
    "null": None,
    "an empty list": [],
    "an empty object": {},
    "text": "x",
    "empty text": "",
    "a number": 7,
    "minus one": -1,
    "a huge number": 10**18,
    "more than 64 bits": 10**30,
    "a fraction": 1.5,
    "a truth": True,
    "a list of lists": [[[["x"]]]],
    "an object of objects": {"x": {"x": {"x": 1}}},
    "nested deeply": _deep(200),
    "odd Unicode": "\u202e\u0000\uffff\U0001f4a5é\r\n",
    "long text": "a" * 5000,
    "a long name": "a." * 126 + "a",
    "a huge list": ["x"] * 3000,
    "a list of odd things": [None, 1, "x", {}, []],
    "a time": "99999999999h",
    "a way up": "../../etc/passwd",
}


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every field of an object but those that say which one it is."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        here = (*path, name)
        if here not in {("kind",), ("apiVersion",), ("metadata", "name"), ("metadata", "namespace"), ("metadata",)}:
            yield here
        yield from paths(inner, here)


def damages(value: dict[str, Any]) -> Iterator[Damage]:
    """An object with one thing wrong, for each thing and each field; all the same in every run."""
    for path in paths(value):
        yield Damage("gone", path, _changed(value, path, None, gone=True))
        for what, odd in ODD.items():
            yield Damage(what, path, _changed(value, path, odd))
        yield Damage("twice", path, _doubled(value, path))


def _changed(value: dict[str, Any], path: tuple[str | int, ...], to: Any, *, gone: bool = False) -> dict[str, Any]:
    made = deepcopy(value)
    inner: Any = made
    for name in path[:-1]:
        inner = inner[name]
    if gone:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return made


def _doubled(value: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    """A list with each of its entries twice."""
    made = deepcopy(value)
    inner: Any = made
    for name in path[:-1]:
        inner = inner[name]
    if isinstance(inner[path[-1]], list):
        inner[path[-1]] = inner[path[-1]] * 2
    return made


def is_sampled(subject: Subject, damage: Damage, one_in: int) -> bool:
    """One in so many, the same in every run."""
    return zlib.crc32(f"{subject!r} {damage}".encode()) % one_in == 0
