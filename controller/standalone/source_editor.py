"""Where the sources of filters are written, and writing them anew: `.py` files, and text inside YAML.

A file is replaced as a whole and at once, so that nobody reads half of it. Of a YAML file nothing but the one value
changes: it is cut out where the parser found it, and the result is read again before it is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import yaml

from controller.files.octets import octets_of
from controller.files.source import FileSource
from controller.objects import documents
from controller.objects.base import Ref
from controller.objects.core import ConfigMap
from controller.objects.documents import Document, Loader, spelled
from controller.objects.filters import Filter, FilterDefinition, ListenerFilter, NamespacedFilterDefinition
from controller.state.world import World
from controller.translate.shared.names import FilterName
from gateway.admin.server import EditError, FilterSource, Saved

Definition: TypeAlias = FilterDefinition | NamespacedFilterDefinition


class SourcePlace(NamedTuple):
    """The object and the field that hold a source, the file that they are in, and the text."""

    ref: Ref
    path: documents.Path
    file: Path
    text: str


class SourceEditor:
    """The sources of all filters that files define. `after(file, name)` says what became of one that was written."""

    def __init__(self, world: World, files: FileSource, after: Callable[[Path, str], Awaitable[Saved]]) -> None:
        self._world = world
        self._files = files
        self._after = after

    def sources(self) -> list[FilterSource]:
        """All of them, by the names that data planes know them by."""
        return [self._shown(name, place) for name, place in self._places()]

    async def save(self, name: str, text: str, digest: str) -> Saved:
        """Write one, and wait until it is in force or refused. Raises EditError; nothing is written then."""
        place = next((place for filter_name, place in self._places() if filter_name == name), None)
        if place is None:
            raise EditError(404, f'no file defines the source of a filter "{name}"')
        try:
            self._stays_inside(place.file)
            octets = octets_of(place.file)
            if octets is None:
                raise EditError(409, f"{place.file} is no file any more")
            written = octets.decode()
            if digest != digest_of(current(written, place)):
                raise EditError(412, f"{place.file} has changed since you began; what you typed is not written")
            _replace(place.file, replaced(written, place, text))
        except (OSError, UnicodeDecodeError) as error:
            raise EditError(409, f"{place.file} cannot be written: {error}") from None
        except ValueError as error:
            raise EditError(409, str(error)) from None
        return msgspec.structs.replace(await self._after(place.file, name), digest=digest_of(text))

    def _stays_inside(self, file: Path) -> None:
        """Raises ValueError for a link that leads elsewhere: who may write filters may not write any file for that."""
        inside = os.path.realpath(self._files.root)  # which links in a circle do not make raise
        if not Path(os.path.realpath(file)).is_relative_to(inside):
            raise ValueError(f"{file} is a link that leads out of {self._files.root}; edit the file that it leads to")

    def _shown(self, name: str, place: SourcePlace) -> FilterSource:
        origin = self._files.origins.get(place.ref)
        location = (
            str(place.file) if place.file.suffix == ".py" else f"{place.file}:{origin.line if origin else 1}, {_field(place)}"
        )
        if not os.access(place.file, os.W_OK):
            return FilterSource(name, place.text, location, unwritable="its file is read-only")
        try:
            self._stays_inside(place.file)
        except ValueError as error:
            return FilterSource(name, place.text, location, unwritable=str(error))
        return FilterSource(name, place.text, location, digest_of(place.text))

    def _places(self) -> Iterator[tuple[str, SourcePlace]]:
        for ref in (*self._world.refs("Filter"), *self._world.refs("ListenerFilter")):
            obj: Filter | ListenerFilter | None = self._world.read(("object", ref))
            definition = self._definition(ref, obj) if obj is not None else None
            place = self._place(ref.namespace, definition) if definition is not None else None
            if place is not None:
                yield str(FilterName(ref.namespace, ref.name, ref.kind)), place

    def _definition(self, ref: Ref, obj: Filter | ListenerFilter) -> Definition | None:
        wanted = obj.spec.definition_ref
        if wanted is None:
            return None
        of_namespace = wanted.kind == "NamespacedFilterDefinition"
        kind = "NamespacedFilterDefinition" if of_namespace else "FilterDefinition"
        definition: Definition | None = self._world.read(
            ("object", Ref(kind, ref.namespace if of_namespace else "", wanted.name))
        )
        return definition

    def _place(self, namespace: str, definition: Definition) -> SourcePlace | None:
        source = definition.spec.config_map_ref
        if source is None:
            return self._held(definition.ref, ("spec", "script"), definition.spec.script)
        ref = Ref("ConfigMap", source.namespace or namespace, source.name)
        held: ConfigMap | None = self._world.read(("object", ref))
        text = (held.data or {}).get(source.key) if held is not None else None
        return self._held(ref, ("data", source.key), text) if text is not None else None

    def _held(self, ref: Ref, path: documents.Path, text: str) -> SourcePlace | None:
        file = self._files.file_of(ref)
        return SourcePlace(ref, path, file, text) if file is not None else None


def _field(place: SourcePlace) -> str:
    return f"{place.ref.kind} {place.ref.name}: {spelled(place.path)}"


def digest_of(text: str) -> str:
    """What names a text."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def current(written: str, place: SourcePlace) -> str:
    """The source that a file's content holds, which may be newer than what was read. Raises ValueError where there is none."""
    plain = written.replace("\r\n", "\n")
    return plain if place.file.suffix == ".py" else str(_find(plain, place)[0].value)


def replaced(written: str, place: SourcePlace, text: str) -> str:
    """A file's content with another source in it. Raises ValueError where that cannot be done with nothing else changed."""
    ends = "\r\n" if "\r\n" in written else "\n"
    if place.file.suffix == ".py":
        return text.replace("\n", ends)
    plain = written.replace("\r\n", "\n")
    node, key, in_flow = _find(plain, place)
    wanted = _values(plain, place, text)
    behind = plain[_end(plain, node) :] or "\n"
    # Inside braces there are no lines; and not every text can be written as such.
    for value in (_quoted(text),) if in_flow else (_literal(text, key.start_mark.column), _quoted(text)):
        result = plain[: node.start_mark.index] + value + behind
        if _values(result, strict=False) == wanted:
            return result.replace("\n", ends)
    raise ValueError(f"{place.file} is written in a way in which {_field(place)} cannot be changed alone; edit the file")


def _end(text: str, node: yaml.ScalarNode) -> int:
    """Behind a value. The parser's end of a literal one is behind the empty lines and notes that follow it as well."""
    end = node.end_mark.index
    if node.style not in ("|", ">"):
        return end
    while end > node.start_mark.index and text[end - 1] in " \n":
        end -= 1
    return end


def _literal(text: str, column: int) -> str:
    """A text as lines below its key, whose column is given (YAML 1.2, 8.1)."""
    body = text.rstrip("\n")
    chomp = {0: "-", 1: ""}.get(len(text) - len(body), "+")
    indent = "2" if body.startswith((" ", "\n")) else ""
    lines = [" " * (column + 2) + line if line else "" for line in body.split("\n")]
    return "\n".join([f"|{indent}{chomp}", *lines]) + "\n" * max(len(text) - len(body) - 1, 0)


def _quoted(text: str) -> str:
    """A text in quotes, with what cannot be printed escaped (YAML 1.2, 5.7)."""
    return re.sub(
        r"[^ -~]",
        lambda match: match[0] if match[0].isprintable() else f"\\U{ord(match[0]):08X}",
        json.dumps(text, ensure_ascii=False),
    )


def _values(
    text: str, place: SourcePlace | None = None, source: str = "", *, strict: bool = True
) -> list[dict[str, Any]] | None:
    """The objects of a file, with another source in one of them. A broken one raises ValueError, or has none."""
    objects: list[dict[str, Any]] = []
    for document in documents.read(text, ""):
        if not isinstance(document, Document):
            if not strict:
                return None
            raise ValueError(f"the file is broken at line {document.line}: {document.message}; mend it first")
        if place is not None and _is(document.value, place.ref):
            holder: Any = document.value
            for step in place.path[:-1]:
                holder = holder[step]
            holder[place.path[-1]] = source
            place = None
        objects.append(document.value)
    return objects


def _is(value: Any, ref: Ref) -> bool:
    meta = value.get("metadata") or {}
    named = ref.namespace in ("", meta.get("namespace", "default"))
    return bool(value.get("kind") == ref.kind and meta.get("name") == ref.name and named)


def _find(text: str, place: SourcePlace) -> tuple[yaml.ScalarNode, yaml.Node, bool]:
    """The node that holds a source, that of its key, and whether it stands inside braces."""
    loader = Loader(text)
    try:
        while loader.check_node():
            root = loader.get_node()
            for node in _objects(root):
                if _is(loader.construct_document(node), place.ref):
                    return _walk(node, place.path, in_flow=_is_flow(root))
    except yaml.YAMLError as error:
        raise ValueError(f"{place.file} is not YAML now ({error}); mend it first") from None
    finally:
        loader.dispose()
    raise ValueError(f"{place.file} does not define {place.ref} any more")


def _objects(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    if not isinstance(root, yaml.MappingNode):
        return
    fields = {key.value: value for key, value in root.value if isinstance(key, yaml.ScalarNode)}
    kind, items = fields.get("kind"), fields.get("items")
    if isinstance(kind, yaml.ScalarNode) and kind.value == "List" and isinstance(items, yaml.SequenceNode):
        yield from (item for item in items.value if isinstance(item, yaml.MappingNode))
    else:
        yield root


def _is_flow(node: yaml.Node | None) -> bool:
    return isinstance(node, yaml.CollectionNode) and bool(node.flow_style)


def _walk(node: yaml.Node, path: documents.Path, *, in_flow: bool) -> tuple[yaml.ScalarNode, yaml.Node, bool]:
    key: yaml.Node = node
    for step in path:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        in_flow = in_flow or _is_flow(node)
        key, node = next((pair for pair in pairs if pair[0].value == step), (node, node))
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{spelled(path)} is not written out there; edit the file")
    return node, key, in_flow


def _replace(path: Path, text: str) -> None:
    """Beside it, then in its place, with its mode; what a link leads to is what is written."""
    path = Path(os.path.realpath(path))
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, name)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
