"""The functions that a filter may have, by name: one table for who loads a filter, who calls it, and who calls it elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from gateway.filters import api

Hook: TypeAlias = Callable[..., Any]
HookName: TypeAlias = Literal["connect", "data", "datagram", "log", "request", "request_body", "response", "response_body"]


class HookKind(NamedTuple):
    """What a function of this name is given, and when it can be called."""

    parameters: tuple[str, ...]
    of_exchanges: bool = True  # rather than of connections and what passes over them
    is_quick: bool = False  # a plain function of this name can be called on the fast path


HOOKS: Final[dict[HookName, HookKind]] = {
    "request": HookKind(("request",), is_quick=True),
    "request_body": HookKind(("chunk",)),
    "response": HookKind(("request", "response"), is_quick=True),
    "response_body": HookKind(("chunk",)),
    "log": HookKind(("exchange",), is_quick=True),
    "connect": HookKind(("connection",), of_exchanges=False),
    "data": HookKind(("data",), of_exchanges=False),
    "datagram": HookKind(("datagram",), of_exchanges=False),
}


class Hooks:
    """The functions of a filter; None for those that it does not have. Each may answer at once or later."""

    __slots__ = (*HOOKS, "is_quick")

    connect: Hook | None
    data: Hook | None
    datagram: Hook | None
    log: Hook | None
    request: Hook | None
    request_body: Hook | None
    response: Hook | None
    response_body: Hook | None
    is_quick: bool  # whether all of its functions can be called on the fast path

    def __init__(self) -> None:
        self.set_functions({})
        self.is_quick = False

    def set_functions(self, functions: Mapping[HookName, Hook]) -> None:
        """Its functions, from now on."""
        for name in HOOKS:
            setattr(self, name, functions.get(name))

    @property
    def names(self) -> tuple[HookName, ...]:
        """The names of the functions that it has."""
        return tuple(name for name in HOOKS if getattr(self, name) is not None)

    @property
    def runs(self) -> str:
        """Where, in words."""
        raise NotImplementedError

    def acquire(self) -> None:
        """An exchange, a connection or a datagram keeps to this from now on."""

    def release(self) -> None:
        """It does so no longer."""

    def forget(self, request: api.Request) -> None:
        """The exchange of this request is over."""

    def retire(self) -> None:
        """Other functions have their place: end with the last that keeps to them."""
