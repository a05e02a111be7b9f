"""Kubernetes YAML with the line of every field, so that an error can point at it.

Reads what kubectl reads: several documents a file, Lists, JSON. Refuses duplicate keys, as kubectl does, and
keeps timestamps as the text that they are.
"""

from __future__ import annotations

import contextlib
import gc
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import yaml
from yaml.error import MarkedYAMLError

from gateway.base.logs import plain

NO_OBJECT: Final = "not a Kubernetes object: apiVersion, kind and metadata are needed"
MAX_VALUES: Final = 200_000  # values in one document; aliases make many of few
MAX_REPEATED: Final = MAX_VALUES  # values that aliases stand for, in all documents of a file
DEEPEST: Final = 200  # levels; the parser itself has no bound but the stack, whose end is the process's
TOO_MANY: Final = f"has more than {MAX_VALUES} values; split it"
MAX_LISTS: Final = 4  # Lists within Lists; each level looks at the lines of all that is in it
TOO_MANY_LISTS: Final = f"Lists stand in Lists more than {MAX_LISTS} deep; take the objects out of them"
TOO_DEEP: Final = f"is nested too deeply: {DEEPEST} levels can be read"
Path: TypeAlias = tuple[str | int, ...]
_PLAIN: Final = re.compile(r"[A-Za-z_]\w*")  # names of fields
_MAPS: Final = ("labels", "annotations", "matchLabels", "data", "stringData", "binaryData", "options")  # with keys of any kind


class TooMuchError(MarkedYAMLError):
    """A bound is passed; whatever follows, the text is refused."""


class Loader(yaml.CSafeLoader):
    """Safe YAML without timestamps, of bounded depth, with a bounded number of values in a document."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._nodes = 0  # of this document: names of fields, and values
        self.repeated = 0  # values that aliases stood for so far

    # The parser, which calls itself for each level in C, tells of each node that it begins and ends by these two.
    def descend_resolver(self, current_node: yaml.Node | None, current_index: Any) -> None:
        """A node begins."""
        self._nodes = self._nodes + 1 if self._depth else 0
        self._depth += 1
        if self._depth > DEEPEST or self._nodes > 2 * MAX_VALUES:
            mark = current_node.start_mark if current_node is not None else None
            raise TooMuchError(None, None, TOO_DEEP if self._depth > DEEPEST else TOO_MANY, mark)

    def ascend_resolver(self) -> None:
        """It ends."""
        self._depth -= 1

    def count(self, values: int, node: yaml.Node) -> None:
        """So many values were made of a document. Raises YAMLError where the file's aliases stand for too much."""
        self.repeated += max(values - self._nodes - 1, 0)
        if self.repeated > MAX_REPEATED:
            words = f"its aliases stand for more than {MAX_REPEATED} values; write them out"
            raise MarkedYAMLError(None, None, words, node.start_mark)


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

    @property
    def location(self) -> str:
        """FILE:LINE, the file alone, or nothing, as far as it is known; of a file of any name one line that can be printed."""
        return plain(f"{self.file}:{self.line}" if self.line else self.file)

    @property
    def subject(self) -> str:
        """The object and its field, likewise."""
        return ": ".join(plain(part) for part in (self.object, self.field) if part)

    def __str__(self) -> str:
        return ": ".join(part for part in (self.location, self.subject, self.message) if part)


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
        for node in _nodes(loader):
            yield from _documents(node, loader, file)
    except yaml.YAMLError as error:
        yield _not_yaml(error, file)
    finally:
        loader.dispose()


def _not_yaml(error: yaml.YAMLError, file: str) -> DocumentFault:
    if not isinstance(error, MarkedYAMLError):
        return DocumentFault(file, 0, f"not YAML: {error}")
    mark = error.problem_mark or error.context_mark
    words = ", ".join(part for part in (error.context, error.problem) if part)
    return DocumentFault(file, mark.line + 1 if mark else 0, f"not YAML: {words}")


class WholeText(NamedTuple):
    """A text that was read to its end, or to where nothing that follows could change what it says."""

    found: list[Document | DocumentFault]
    repeated: int  # values that its aliases stand for
    is_refused: bool = False  # a bound is passed: the last fault says which, and nothing behind it is read


def read_whole(text: str, file: str) -> WholeText | None:
    """The same of a text that means what it means whatever follows it; None for another."""
    loader = Loader(text)
    found: list[Document | DocumentFault] = []
    try:
        with _collecting_later():
            for node in _nodes(loader):
                found += _documents(node, loader, file)
        return WholeText(found, loader.repeated)
    except TooMuchError as error:
        return WholeText([*found, _not_yaml(error, file)], loader.repeated, is_refused=True)
    except yaml.YAMLError:
        return None
    finally:
        loader.dispose()


@contextlib.contextmanager
def _collecting_later() -> Iterator[None]:
    """Nodes are trees, in which a collector finds nothing to free: its looking is half of a large text's time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_value(text: str, file: str, path: Path = ()) -> Document | None:
    """A text that is one value without a fault, as what stands at a path of some document; None for another, or for several.

    The value need not be an object: it may be the list of one item that an item of a List is by itself.
    """
    loader = Loader(text)
    lines: dict[Path, int] = {}
    try:
        nodes = list(_nodes(loader))
        return Document(file, _build(nodes[0], loader, path, lines), lines) if len(nodes) == 1 else None
    except (yaml.YAMLError, _NotJSONError):
        return None
    finally:
        loader.dispose()


def _nodes(loader: Loader) -> Iterator[yaml.Node]:
    while loader.check_node():
        node = loader.get_node()
        if node is None:
            return
        yield node


class _NotJSONError(Exception):
    """YAML that no JSON is as good as: what Kubernetes reads is JSON."""

    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


def _documents(node: yaml.Node, loader: Loader, file: str) -> Iterator[Document | DocumentFault]:
    lines: dict[Path, int] = {}
    fault = None
    value: Any = None
    try:
        value = _build(node, loader, (), lines)
    except _NotJSONError as error:
        fault = DocumentFault(file, error.line, str(error))
    loader.count(len(lines), node)
    if fault is not None:
        yield fault
    if value is None:
        return
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        yield DocumentFault(file, node.start_mark.line + 1, NO_OBJECT)
        return
    yield from _objects(Document(file, value, lines))


def is_list(value: dict[str, Any]) -> bool:
    """Whether a document stands for others, its items."""
    return str(value.get("kind")).endswith("List") and isinstance(value.get("items"), list)


def _objects(document: Document, depth: int = 0) -> Iterator[Document | DocumentFault]:
    """A document; of a List its items, which may be Lists themselves, as kubectl has it."""
    value, file = document.value, document.file
    if not is_list(value):
        yield document
        return
    if depth >= MAX_LISTS:
        yield DocumentFault(file, document.line(), TOO_MANY_LISTS)
        return
    for item, inner in zip(value["items"], _lines_of_items(document.lines, len(value["items"])), strict=True):
        if isinstance(item, dict) and isinstance(item.get("kind"), str):
            yield from _objects(Document(file, item, inner), depth + 1)
        else:
            yield DocumentFault(file, inner.get((), 0), NO_OBJECT)


def _lines_of_items(lines: dict[Path, int], count: int) -> list[dict[Path, int]]:
    """The lines of a List's fields, for each of its items by itself."""
    found: list[dict[Path, int]] = [{} for _ in range(count)]
    for path, line in lines.items():
        if len(path) > 1 and path[0] == "items" and isinstance(path[1], int):
            found[path[1]][path[2:]] = line
    return found


def _build(node: yaml.Node, loader: Loader, path: Path, lines: dict[Path, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if len(lines) > MAX_VALUES:
        raise _NotJSONError(node, TOO_MANY)
    if len(path) > DEEPEST:  # an alias may stand for what it is in
        raise _NotJSONError(node, TOO_DEEP)
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
    if node.tag == "tag:yaml.org,2002:str":
        return node.value
    try:
        value = loader.construct_object(node)
    except (
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        AttributeError,
    ):  # such as an int of more digits than Python reads, `!!bool x`
        value = node
    if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise _NotJSONError(
            node, f'found {node.tag.removeprefix("tag:yaml.org,2002:")} "{str(node.value)[:60]}"; JSON has no such value'
        )
    return value
