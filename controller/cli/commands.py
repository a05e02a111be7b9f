"""Commands whose help says in words what an option takes (PATH, PORT, COUNT): Typer would name the type in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _in_words(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _in_words(super().get_params(ctx))


def _in_words(params: list[Any]) -> list[Any]:
    """Arguments have their name and flags have none beside them."""
    for param in params:
        if isinstance(param, TyperArgument) or getattr(param, "is_flag", False):
            param.display_type_rich = lambda ctx: None
    return params


class Commands(typer.Typer):
    """A group of commands; `-h` is help for each."""

    def __init__(self, **given: Any) -> None:
        names = {"help_option_names": ["-h", "--help"]}
        super().__init__(cls=_Group, no_args_is_help=True, context_settings=names, **given)

    def command(self, name: str | None = None, **given: Any) -> Callable[[Any], Any]:
        """Add one."""
        return super().command(name, cls=_Command, **given)
