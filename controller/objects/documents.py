"""Kubernetes YAML with the line of every field, so that an error can point at it.

Reads what kubectl reads: several documents a file, Lists, JSON. Refuses duplicate keys, as kubectl does, and
keeps timestamps as the text that they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

NO_OBJECT: Final = "not a Kubernetes object: apiVersion, kind and metadata are needed"
MAX_VALUES: Final = 200_000  # values in one document; aliases make many of few
Path: TypeAlias = tuple[str | int, ...]
_PLAIN: Final = re.compile(r"[A-Za-z_]\w*")  # names of fields
_MAPS: Final = ("labels", "annotations", "matchLabels", "data", "stringData", "binaryData", "options")  # with keys of any kind


class Loader(yaml.CSafeLoader):
    """Safe YAML without timestamps."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class DocumentFault:
    """What is wrong: where, with which object and field, and in words that say what would work."""

    file: str
    line: int
    message: str
    object: str = ""
    field: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.object, self.field, self.message) if part)


@dataclass
class Document:
    """One object as it was written, and the line of each of its fields."""

    file: str
    value: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The object in words."""
        meta = self.value.get("metadata")
        meta = meta if isinstance(meta, dict) else {}
        namespace = meta.get("namespace")
        name = f"{namespace}/{meta.get('name', '?')}" if namespace else str(meta.get("name", "?"))
        return f"{self.value.get('kind', 'object')} {name}"

    def line(self, path: Path = ()) -> int:
        """The line of a field, or of the nearest one around it that exists."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def fault(self, path: Path, message: str) -> DocumentFault:
        """A fault of one field."""
        return DocumentFault(self.file, self.line(path), message, self.name, spelled(path))


def spelled(path: Path) -> str:
    """A path as people write it: spec.rules[0].backendRefs[1].port, metadata.labels["example.com/team"]."""
    text = ""
    for around, part in zip(("", *path), path, strict=False):
        if isinstance(part, int):
            text += f"[{part}]"
        elif around in _MAPS or (text and not _PLAIN.fullmatch(part)):
            text += f'["{part}"]'
        else:
            text += f".{part}" if text else part
    return text


def read(text: str, file: str) -> Iterator[Document | DocumentFault]:
    """The documents of a file, in order; a fault where one cannot be read. YAML that does not parse ends it."""
    loader = Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                break
            yield from _documents(node, loader, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        yield DocumentFault(file, mark.line + 1 if mark else 0, f"not YAML: {words}")
    except yaml.YAMLError as error:
        yield DocumentFault(file, 0, f"not YAML: {error}")
    finally:
        loader.dispose()


class _NotJSONError(Exception):
    """YAML that no JSON is as good as: what Kubernetes reads is JSON."""

    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


def _documents(node: yaml.Node, loader: Loader, file: str) -> Iterator[Document | DocumentFault]:
    lines: dict[Path, int] = {}
    try:
        value = _build(node, loader, (), lines)
    except _NotJSONError as error:
        yield DocumentFault(file, error.line, str(error))
        return
    except RecursionError:
        yield DocumentFault(file, node.start_mark.line + 1, "is nested too deeply to be read")
        return
    if value is None:
        return
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        yield DocumentFault(file, node.start_mark.line + 1, NO_OBJECT)
        return
    if value["kind"].endswith("List") and isinstance(value.get("items"), list):
        for index, item in enumerate(value["items"]):
            inner = {path[2:]: line for path, line in lines.items() if path[:2] == ("items", index)}
            if isinstance(item, dict) and isinstance(item.get("kind"), str):
                yield Document(file, item, inner)
            else:
                yield DocumentFault(file, inner.get((), 0), NO_OBJECT)
        return
    yield Document(file, value, lines)


def _build(node: yaml.Node, loader: Loader, path: Path, lines: dict[Path, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if len(lines) > MAX_VALUES:
        raise _NotJSONError(node, f"has more than {MAX_VALUES} values; split it")
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _NotJSONError(key_node, "the name of a field is text")
            key = key_node.value
            if key in result:
                raise _NotJSONError(key_node, f'"{key}" is given twice; keep one')
            lines[*path, key] = key_node.start_mark.line + 1
            result[key] = _build(value_node, loader, (*path, key), lines)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, loader, (*path, index), lines) for index, item in enumerate(node.value)]
    value = loader.construct_object(node)
    if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise _NotJSONError(
            node, f'found {node.tag.removeprefix("tag:yaml.org,2002:")} "{str(node.value)[:60]}"; JSON has no such value'
        )
    return value
