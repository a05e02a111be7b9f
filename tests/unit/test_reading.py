"""A file that is read again after an edit says what it would say to somebody who never saw it before.

Two sources follow the same files through the same edits: one remembers what it read, the other reads all of the text each time.
"""

from __future__ import annotations

import json
import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.files import reading, source
from controller.files.cuts import documents, items
from controller.files.reading import FileReading, read_anew
from controller.files.source import FileSource
from controller.objects.base import Ref
from controller.objects.documents import Document, DocumentFault
from controller.state.world import World

ROUNDS = 40


class Anew:
    """Reads each time as if it were the first."""

    def __init__(self, file: str) -> None:
        self._file = file

    def read(self, text: str) -> Any:
        return read_anew(text, self._file)


class Both:
    """A file, and two who follow it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "f.yaml"
        self.path.write_bytes(b"kind: Service\napiVersion: v1\nmetadata: {name: first}\nspec: {ports: [{port: 80}]}\n")
        self.worlds = World(), World()
        self.sources = tuple(FileSource(self.path, world) for world in self.worlds)
        self._patch = monkeypatch

    def edit(self, octets: bytes) -> None:
        """Write it, and see that both say the same."""
        self.path.write_bytes(octets)
        for one, reader in zip(self.sources, (FileReading, Anew), strict=True):
            self._patch.setattr(source, "FileReading", reader)
            one._stamps.clear()  # two writes within a tick of the clock have one time
            one.load()
        remembering, anew = (self._said(one, world) for one, world in zip(self.sources, self.worlds, strict=True))
        for field, value in anew.items():
            assert remembering[field] == value, (field, octets.decode(errors="replace"))

    def _said(self, one: FileSource, world: World) -> dict[str, Any]:
        return {
            "faults": one.faults,
            "origins": one.origins,
            "refused": repr(sorted(one.refused.items())),
            "objects": repr(sorted((obj.ref, obj) for obj in world)),
        }


# --- what people write ---


def route(chance: random.Random) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": chance.choice(["HTTPRoute"] * 8 + ["HTTPRuote", "Pod", "GRPCRoute"]),
        "metadata": {
            "name": f"r{chance.randrange(12)}",
            "labels": {"a": chance.choice(["x", "a & b", "c&d", "# no", "---", "- x"])},
        },
        "spec": {
            "parentRefs": [{"name": "gw"}],
            "hostnames": [f"h{chance.randrange(9)}.example.com"],
            "rules": [{"backendRefs": [{"name": "a", "port": chance.choice([80, 80, 80, "x", 99999999999999999999])}]}],
        },
    }


def config_map(chance: random.Random) -> dict[str, Any]:
    text = "".join(
        chance.choice(["a: b\n", "---\n", " ---\n", "\n", "- c\n", "items:\n", "kind: List\n", "x & y\n", "# z\n", "}\n"])
        for _ in range(5)
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"c{chance.randrange(5)}"},
        "data": {"k": text, "n": "é"},
    }


def guard(chance: random.Random) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.flomesh.io/v1alpha1", "kind": "AccessControlPolicy", "metadata": {"name": f"p{chance.randrange(3)}"},
        "spec": {"targetRef": {"group": "", "kind": "Service", "name": "a"}, "odd": chance.randrange(2)},
    }  # fmt: skip


class Block(yaml.SafeDumper):
    """Texts of several lines as block scalars."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Block.add_representer(str, _text)


def value_of(chance: random.Random) -> dict[str, Any]:
    return chance.choice([route, route, route, config_map, guard])(chance)


def dumped(value: Any, chance: random.Random) -> str:
    return yaml.dump(
        value, Dumper=chance.choice([Block, yaml.SafeDumper]), sort_keys=False, allow_unicode=True, default_flow_style=chance.choice([False] * 5 + [None, True])
    )  # fmt: skip


def indented(text: str) -> str:
    return text.replace("\n- ", "\n  - ").replace("\n  ", "\n    ") if text else text


def listed(chance: random.Random) -> str:
    entries = [value_of(chance) for _ in range(chance.randrange(5))]
    value = {"apiVersion": "v1", "kind": "List", "items": entries, "metadata": {"resourceVersion": ""}}
    way = chance.randrange(6)
    if way == 0:
        return json.dumps(value, indent=4)
    if way == 1:
        return json.dumps(value, indent=chance.choice([None, 1, 2]))
    pieces = "".join(yaml.dump([entry], Dumper=Block, sort_keys=False) for entry in entries)
    if way == 2:
        pieces = "".join(f"  {line}" for line in pieces.splitlines(keepends=True))
    return f"apiVersion: v1\nitems:\n{pieces}kind: List\nmetadata:\n  resourceVersion: ''\n"


ODD = [
    "a: &a {kind: Service}\nb: *a\n", "kind: Service\nkind: Service\n", "a: [\n", 'a: "x\n', "a: |\n  ---\n b\n", "%YAML 1.1\n",
    "a: 1\n...\n%TAG !e! tag:yaml.org,2002:\n---\nkind: Service\napiVersion: v1\nmetadata: {name: !e!str x}\n", "...\n", "# only a comment\n", "",
    "kind: List\nitems:\n- kind: List\n  items:\n  - kind: Service\n    apiVersion: v1\n    metadata: {name: inner}\n  - 5\n- kind: List\n  items: []\n",
    "kind: List\nitems: [5, {kind: 6}]\n", "kind: List\nitems:\n- &x {kind: Service}\n- &x {kind: Service}\n", "- a\n- b\n", "kind: Service\nmetadata: {name: &n x}\n",
    "kind: List\nitems:\n- kind: Service\n  metadata: {name: &n x}\n- kind: Service\n  metadata: {name: *n}\n", "kind: List\nmetadata: \"\nitems:\n- kind: Service\n\"\nitems:\n",
    "kind: List\nitems:\n  - kind: Service\n []\n", "kind: List\nitems:\n  - kind: Service\n null\n", "\tkind: Service\n", "kind: Service\x85a: b\n", "a: b\x01\n", "\u2028---\n", "a: \ufeff\n",
    "kind: List\nitems:\n# one\n- kind: Service\n# two\n- kind: Service\n", "{\n \"kind\": \"List\",\n \"items\": [\n  {\n  },\n  {\n  }\n ]\n}\n", "--- |\n x\n", "--- {kind: Service}\n",
]  # fmt: skip


def file_of(chance: random.Random) -> list[str]:
    return [
        chance.choice([lambda: dumped(value_of(chance), chance), lambda: listed(chance)])()
        for _ in range(chance.randrange(1, 6))
    ]


def edited(parts: list[str], chance: random.Random) -> list[str]:
    """One edit: of a document, of their order, or of a few characters, as of somebody who types."""
    parts = list(parts) or [""]
    at = chance.randrange(len(parts))
    way = chance.randrange(10)
    if way == 0:
        del parts[at]
    elif way == 1:
        parts.insert(at, dumped(value_of(chance), chance))
    elif way == 2:
        parts.insert(at, parts[chance.randrange(len(parts))])
    elif way == 3:
        chance.shuffle(parts)
    elif way == 4:
        parts.insert(at, chance.choice(ODD))
    elif way == 5:
        parts[at] = listed(chance)
    else:
        lines = parts[at].splitlines(keepends=True) or [""]
        line = chance.randrange(len(lines))
        if way == 6:
            del lines[line]
        elif way == 7:
            lines.insert(line, chance.choice(lines))
        elif way == 8:
            lines.insert(
                line,
                " " * chance.randrange(5)
                + chance.choice(
                    ["# note\n", "\n", "- kind: Service\n", "items:\n", "x\n", '"\n', "---\n", "]\n", "a: &b c\n", "\t\n"]
                ),
            )
        else:
            where = chance.randrange(len(lines[line]) + 1)
            lines[line] = (
                lines[line][:where]
                + chance.choice(['"', "'", "[", "}", "&", "*a ", "\n", " ", "|\n", ":", "\r", "5", "- "])
                + lines[line][where:]
            )
        parts[at] = "".join(lines)
    return parts


def octets_of(parts: list[str], chance: random.Random) -> bytes:
    text = "---\n".join(part if part.endswith("\n") or not part else f"{part}\n" for part in parts)
    if chance.random() < 0.2:
        text = text.rstrip("\n")
    if chance.random() < 0.2:
        text = text.replace("\n", "\r\n")
    if chance.random() < 0.1:
        text = "\ufeff" + text
    return text.encode()


@pytest.mark.parametrize("seed", range(12))
def test_what_is_remembered_is_what_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    both = Both(tmp_path, monkeypatch)
    parts = file_of(chance)
    for _ in range(ROUNDS):
        both.edit(octets_of(parts, chance))
        before = parts
        parts = edited(parts, chance)
        if chance.random() < 0.3:  # most of what people break they mend
            both.edit(octets_of(parts, chance))
            parts = before
        if chance.random() < 0.05:
            parts = file_of(chance)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("behind", ["", "kind: Service\napiVersion: v1\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n"])
def test_odd_text_beside_good_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str, behind: str) -> None:
    both = Both(tmp_path, monkeypatch)
    good = "kind: Service\napiVersion: v1\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n"
    for text in (
        f"{good}---\n{odd}---\n{behind}",
        f"---\n{odd}---\n{good}---\n{behind}",
        f"{odd}\n---\n{good}",
        f"{good}---\n{behind}",
    ):
        both.edit(text.encode())


# --- what it costs ---


class Counted:
    """How many documents were checked, and how many characters parsed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.checked = self.parsed = 0
        for name in ("read_whole", "read_value", "read"):
            monkeypatch.setattr(reading, name, self._counting(getattr(reading, name)))
        real = reading.validate

        def validate(document: Document) -> Any:
            self.checked += 1
            return real(document)

        monkeypatch.setattr(reading, "validate", validate)

    def _counting(self, real: Any) -> Any:
        def read(text: str, *more: Any) -> Any:
            self.parsed += len(text)
            return real(text, *more)

        return read


@pytest.mark.parametrize(("more", "words"), [("- a\n" * 441, "has more than"), ("[" * 201 + "]" * 201, "is nested too deeply")])
def test_a_document_beyond_a_bound_is_parsed_once(monkeypatch: pytest.MonkeyPatch, more: str, words: str) -> None:
    monkeypatch.setattr("controller.objects.documents.MAX_VALUES", 220)
    text = f"kind: Service\n---\n{more}\n---\nkind: X\n"
    counted = Counted(monkeypatch)
    found = list(FileReading("f").read(text))
    assert counted.parsed == text.index("---\nkind: X")
    assert found == list(read_anew(text, "f"))
    assert words in str(found[-1])


def good(number: int, host: str = "a") -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{number}", "labels": {"x": "a"}, "annotations": {"x": host}},
        "spec": {"ports": [{"port": 80}]},
    }  # fmt: skip


def as_documents(values: list[Any]) -> str:
    return yaml.dump_all(values)


def as_list(values: list[Any]) -> str:
    return yaml.dump({"apiVersion": "v1", "kind": "List", "items": values, "metadata": {}})


def as_indented_list(values: list[Any]) -> str:
    entries = "".join(f"  {line}" for line in yaml.dump(values).splitlines(keepends=True))
    return f"kind: List\napiVersion: v1\nitems:\n{entries}"


def as_json(values: list[Any]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": values, "metadata": {}}, indent=4)


WAYS = [as_documents, as_list, as_indented_list, as_json]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("written", WAYS)
def test_an_edit_of_one_reads_one(monkeypatch: pytest.MonkeyPatch, written: Any, ends: str) -> None:
    values = [good(number) for number in range(100)]
    one = FileReading("f")
    list(one.read(written(values).replace("\n", ends)))
    counted = Counted(monkeypatch)
    text = written([*values[:50], good(50, "b\nc"), *values[51:]]).replace("\n", ends)
    found = list(one.read(text))
    assert counted.checked == 1
    assert counted.parsed < 800  # characters, of 15,000
    assert found == list(read_anew(text, "f"))
    assert [written_.line for written_ in found] == sorted({written_.line for written_ in found})
    del values[3:7]
    values.reverse()
    counted.checked = counted.parsed = 0
    moved = written(values).replace("\n", ends)
    assert list(one.read(moved)) == list(read_anew(moved, "f"))
    assert counted.checked == 1 + len(values)  # one is as it was at first; and all of them by the second reader


@pytest.mark.parametrize("written", WAYS)
def test_what_was_broken_and_is_mended_costs_what_was_broken(monkeypatch: pytest.MonkeyPatch, written: Any) -> None:
    values = [good(number) for number in range(100)]
    one = FileReading("f")
    list(one.read(written(values)))
    counted = Counted(monkeypatch)
    broken = written(values).replace("s50", '"s50: [', 1)
    assert any(isinstance(found, DocumentFault) for found in one.read(broken))
    counted.checked = 0
    assert len(list(one.read(written(values)))) == 100
    assert counted.checked <= 1


def test_a_list_that_cannot_be_cut_is_parsed_and_its_items_are_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [good(number) for number in range(100)]
    one = FileReading("f")
    flow = {"apiVersion": "v1", "kind": "List", "items": values}
    list(one.read(json.dumps(flow)))
    counted = Counted(monkeypatch)
    values[7] = good(7, "new")
    assert len(list(one.read(json.dumps(flow)))) == 100
    assert counted.checked == 1


def test_aliases_of_all_documents_are_counted_together() -> None:
    """Each by itself would be small enough."""
    entries = ", ".join(["*a"] * 99)
    many = f"kind: Pod\na: &a [{', '.join('x' * 1000)}]\nb: [{entries}]\n"
    for behind in ("", "---\nkind: ["):
        text = "---\n".join([dumped(good(1), random.Random(0)), *[many] * 7]) + behind
        one = FileReading("f")
        found = list(one.read(text))
        assert found == list(read_anew(text, "f")) == list(one.read(text))
        assert isinstance(found[-1], DocumentFault)
        assert "aliases stand for more than" in found[-1].message
    assert not any(isinstance(found, DocumentFault) for found in FileReading("f").read("---\n".join([many] * 2)))
    broken = "---\n".join([many] * 2) + "---\nkind: ["
    assert list(FileReading("f").read(broken)) == list(read_anew(broken, "f"))


def test_a_file_of_nothing_but_faults_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(as_documents([good(1)]))
    world = World()
    one = FileSource(path, world)
    one.load()
    path.write_text("---\na\n" * 50_000)
    one.load()
    assert len(one.faults) == source.MAX_FAULTS + 1
    assert "has more faults than these" in one.faults[-1].message
    path.write_text("---\na\n" * 200_000)
    one.load()
    assert [fault.message for fault in one.faults] == ["has more than 100000 documents; split it"]
    assert len(world.refs("Service")) == 1


def test_lists_within_lists_are_read_with_their_lines() -> None:
    """As kubectl has it; nothing of it is passed over."""
    inner = "kind: List\n    items:\n    - kind: Service\n      apiVersion: v1\n      metadata: {name: "
    text = f"kind: List\nitems:\n  - {inner}a}}\n      spec: {{ports: [{{port: 80}}]}}\n  - {inner}b}}\n      spec: {{ports: [{{port: 0}}]}}\n"
    for found in (list(FileReading("f").read(text)), list(read_anew(text, "f"))):
        assert [(one.line, getattr(one, "name", "")) for one in found] == [(5, "a"), (11, "b")]
        assert [fault.line for one in found for fault in getattr(one, "faults", ())] == [14]


def test_lists_within_lists_have_a_bound() -> None:
    def nested(levels: int) -> str:
        good = "{kind: Service, apiVersion: v1, metadata: {name: a}, spec: {ports: [{port: 80}]}}"
        return "{kind: List, items: [" * levels + good + "]}" * levels

    for read_ in (FileReading("f").read, lambda text: read_anew(text, "f")):
        assert [getattr(one, "name", "") for one in read_(nested(4))] == ["a"]
        (fault,) = read_(nested(5))
        assert "more than 4 deep" in str(fault)


def test_where_texts_are_cut() -> None:
    assert [above for above, _ in documents("a: 1\n---\nb: |\n  ---\n---x\n--- c\n---")] == [0, 1, 5, 6]
    assert "".join(text for _, text in documents("a\r\n---\r\nb\n---\n")) == "a\r\n---\r\nb\n---\n"
    cut = items("kind: List\nitems:\n- a: 1\n\n- b: |\n    - c\nmetadata: {}\n")
    assert cut is not None
    assert cut.items == [(2, "- a: 1\n\n"), (4, "- b: |\n    - c\n")]
    assert cut.frame == "kind: List\nitems:\nmetadata: {}\n"
    assert items("kind: List\nitems:\n# a note\n- a: 1\n") is None


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "waits"])
def test_what_is_no_file_is_said_to_be_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    else:  # a file, says its mode; whoever may read it waits for what the kernel says next
        path.symlink_to("/proc/kmsg")
    one_ = FileSource(tmp_path, World())
    one_.load()
    if kind == "waits":  # that it came back is what counts: perhaps the kernel had something to say
        assert one_.faults
        return
    (fault,) = one_.faults
    assert "is no file" in fault.message or "cannot be read" in fault.message


def test_what_a_look_at_everything_misses_is_not_gone_at_once(tmp_path: Path) -> None:
    kept, going = tmp_path / "a.yaml", tmp_path / "b.yaml"
    kept.write_text(dumped(good(1), random.Random(0)))
    going.write_text(dumped(good(2), random.Random(0)))
    world = World()
    one = FileSource(tmp_path, world)
    one.load()
    going.unlink()
    one.load(patient=True)
    assert one.missing == {going}
    assert len(world.refs("Service")) == 2
    one.load({going}, patient=True)  # once it has been gone for long enough
    assert not one.missing
    assert len(world.refs("Service")) == 1
    assert not one.load(patient=True)
    assert not one.missing


def test_a_copy_of_a_file_is_told_by_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an object begins is known from reading: nothing is read again for that, and what only moved is known to have."""
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    text = as_documents([good(number) for number in range(50)])
    first.write_text(text)
    one = FileSource(tmp_path, World())
    one.load()
    read: list[Path] = []
    real = source.octets_of
    monkeypatch.setattr(source, "octets_of", lambda path: read.append(path) or real(path))
    second.write_text(text)
    one.load()
    assert read == [second]
    assert len(one.faults) == 50
    (told,) = [fault for fault in one.faults if fault.object == "Service default/s1"]
    origin = one.origins[Ref("Service", "default", "s1")]
    assert origin.file == str(first)
    assert told.line == origin.line > 1
    assert told.message == f"is defined in {first}:{origin.line} already; that one counts"
    second.write_text(f"# moved\n{text}")
    one.load()
    assert one.origins[Ref("Service", "default", "s1")] == origin
    first.write_text(f"# moved\n{text}")
    one.load()
    assert one.origins[Ref("Service", "default", "s1")] == origin._replace(line=origin.line + 1)
