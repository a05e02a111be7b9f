"""Shared by the workers of one data plane: done at once, in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.filters.api.shared_state import Known, Operation, SharedAnswer
from gateway.scripting.shared_state.memory import Memory


def local(memory: Callable[[], Memory], name: str) -> Callable[[Operation], SharedAnswer]:
    """Operations of the filter of this name."""

    # What a filter, or a client, calls it is last: nothing in it reaches what is called otherwise.
    own = name.encode()
    counts = own + b"\0\0"

    def do(operation: Operation) -> SharedAnswer:
        before = b"%b\0%b\0" % (own, operation.pace) if operation.kind == "take" else counts
        return Known(perform(memory(), before + operation.key.encode(), operation))

    return do


def perform(memory: Memory, key: bytes, operation: Operation) -> Any:
    """Do it."""
    match operation.kind:
        case "take":
            return memory.take(key, operation.amount, operation.burst, operation.backlog, operation.units)
        case "add":
            return memory.add(key, operation.amount, operation.seconds)
        case "hold":
            return memory.hold(key, int(operation.amount))
        case "release":
            return memory.release(key)
        case "count":
            return memory.read(key) or 0.0
        case "get":
            return memory.get(key)
        case "set":
            return memory.set(key, operation.value, operation.seconds)
        case "drop":
            return memory.drop(key)
