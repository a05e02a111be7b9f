"""Worlds in which one object is refused."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
import trustme

from controller.inspect.status_report import parts as said_parts
from controller.objects.base import Ref
from controller.objects.decoding import faulty
from controller.objects.kinds import KINDS, AnyObject
from controller.state.world import World
from controller.translate import Translation
from controller.translate.shared.conditions import Condition
from support.objects import obj


@cache
def pem() -> tuple[str, str, str]:
    authority = trustme.CA()
    mine = authority.issue_cert("www.example")
    chain_ = b"".join(one.bytes() for one in mine.cert_chain_pems).decode()
    return authority.cert_pem.bytes().decode(), chain_, mine.private_key_pem.bytes().decode()


HOME, OTHER = "home", "other"


def made(
    kind: str, name: str, spec: Any, namespace: str = HOME, created: str = "2026-01-02T00:00:00Z", **rest: Any
) -> AnyObject:
    """An object as the watch would make it, whatever its spec is."""
    value = {
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created, "generation": 1},
        "spec": spec,
        **rest,
    }
    try:
        found: AnyObject = msgspec.convert(value, KINDS[kind].type)
    except msgspec.ValidationError as error:
        salvaged = faulty(KINDS[kind], value, Ref(kind, namespace, name), error)
        assert isinstance(salvaged, tuple | msgspec.Struct)
        return salvaged  # type: ignore[return-value]
    return found


def slices(service: str, namespace: str) -> AnyObject:
    return obj(
        "EndpointSlice", f"{service}-1", namespace, metadata={"labels": {"kubernetes.io/service-name": service}},
        endpoints=[{"addresses": ["10.0.0.1"]}], ports=[{"name": "p", "port": 8080}],
    )  # fmt: skip


def world(objects: Iterable[AnyObject]) -> World:
    found = World()
    for one in objects:
        found.put(one)
    return found


def said_of(translation: Translation, ref: Ref) -> Iterable[Condition]:
    """An object's own conditions; of routes and of BackendTLSPolicies those to each Gateway."""
    status = translation.statuses.get(ref)
    if status is None:
        return ()
    own: tuple[Condition, ...] = getattr(status, "conditions", ())
    return own or [one for _, several in said_parts(ref, status) for one in several]
