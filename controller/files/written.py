"""YAML that stands inside of objects: annotations, values of ConfigMaps, FilterConfigs.

It is read without aliases, by which a few lines can stand for more than fits into memory; whatever is wrong is one error.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

DEEPEST: Final = 100  # levels
MAX_EVENTS: Final = 400_000  # of the parser: one for each value and name of a field, two for a list or a mapping


class WrittenError(ValueError):
    """It is not YAML that can be read."""


def load(text: str) -> Any:
    """The value that a text means. Raises WrittenError with words for one line."""
    try:
        depth = 0
        for number, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
            if number > MAX_EVENTS:
                raise WrittenError("it has more than 400,000 values and names")
            if isinstance(event, yaml.AliasEvent):
                raise WrittenError("aliases are not understood here; write it out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise WrittenError("it is nested too deeply")
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise WrittenError(str(error).splitlines()[0]) from None
    except (RecursionError, ValueError, OverflowError) as error:
        if isinstance(error, WrittenError):
            raise
        raise WrittenError("it is nested too deeply" if isinstance(error, RecursionError) else str(error)) from None
