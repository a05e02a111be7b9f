"""`fsm validate`, `fsm translate`, `fsm status`: what files mean, without serving them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from controller.cli import console
from controller.cli.console import escape
from controller.files.source import SUFFIXES
from controller.inspect.loaded_files import LoadedFiles
from controller.inspect.status_report import as_dict, counted, described, parts
from controller.objects.documents import DocumentFault
from controller.translate import Translation
from gateway.snapshot import redacted

STANDARD_INPUT: Final = "standard input"
NOTHING: Final = 2  # exit code where there is nothing to look at


@contextmanager
def looked_at(paths: Sequence[Path]) -> Iterator[LoadedFiles]:
    """What these files say; `-` is standard input. Exits with 2 where there is no such file, or none in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        given = [path if str(path) != "-" else _from_standard_input(folder) for path in paths]
        for path in given:
            if not path.exists():
                raise _nothing(f"{path}: there is no such file or folder")
        loaded = LoadedFiles(*given)
        if not loaded.source.files:
            raise _nothing(f"{', '.join(map(str, paths))}: no file with a name in {', '.join(SUFFIXES)} was found")
        yield loaded


def _from_standard_input(folder: str) -> Path:
    path = Path(folder, STANDARD_INPUT)
    path.write_bytes(sys.stdin.buffer.read())
    return path


def _nothing(words: str) -> SystemExit:
    console.err.print(f"[red]{escape(words)}[/]")
    return SystemExit(NOTHING)


def shown(fault: DocumentFault) -> DocumentFault:
    """A fault as it is shown: of what came by standard input without the name of the file that it was kept in."""
    is_given = Path(fault.file).name == STANDARD_INPUT
    return replace(fault, file=STANDARD_INPUT) if is_given else fault


def validate_files(paths: Sequence[Path], *, as_json: bool) -> None:
    """Print every fault; exit with 1 if there is one, with 2 if there is nothing to look at."""
    with looked_at(paths) as loaded:
        faults, notes = [*map(shown, loaded.faults())], [*map(shown, loaded.notes())]
    if as_json:
        console.json([*(_as_dict(one) for one in faults), *(_as_dict(one) | {"onlyHere": True} for one in notes)])
    else:
        for one in faults:
            _print_fault(one, "red")
        _print_notes(notes)
    if faults:
        raise SystemExit(1)
    if not len(loaded.source):
        raise _nothing(f"{', '.join(map(str, paths))}: no object that means anything to a gateway was found")
    if not as_json:
        are = "is" if len(loaded.source) == 1 else "are"
        console.out.print(f"[green]{counted(len(loaded.source), 'object')} {are} valid[/]")


def _print_fault(fault: DocumentFault, colour: str, before: str = "") -> None:
    where = f"{fault.location}: " if fault.file else ""
    what = f"{fault.subject}: " if fault.subject else ""
    words = f"[bold]{escape(where)}[/][{colour}]{escape(what)}[/]{escape(before + fault.message)}"
    console.out.print(words, soft_wrap=True)


def _print_notes(notes: Iterable[DocumentFault]) -> None:
    for one in notes:
        _print_fault(one, "yellow", "only where files are served without a cluster: ")


def _as_dict(fault: DocumentFault) -> dict[str, Any]:
    return {"file": fault.file, "line": fault.line, "object": fault.object, "field": fault.field, "message": fault.message}


def translate_files(paths: Sequence[Path], *, as_json: bool) -> None:
    """Print parts and statuses."""
    with looked_at(paths) as loaded:
        _print_faults(loaded.source.faults)
    value = rendered(loaded.translation)
    if as_json:
        console.json(value)
    else:
        console.out.print(
            yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120), end="", markup=False, soft_wrap=True
        )


def _print_faults(faults: Iterable[DocumentFault]) -> None:
    for fault in map(shown, faults):
        console.err.print(f"[red]{escape(str(fault))}[/]")


def rendered(translation: Translation) -> dict[str, Any]:
    """A translation as plain values, secrets withheld."""
    return {
        "gateways": {
            f"{namespace}/{name}": [msgspec.to_builtins(redacted(part)) for _, part in sorted(gateway_parts.items())]
            for (namespace, name), gateway_parts in sorted(translation.parts.items())
        },
        "statuses": {
            name: [as_dict(condition) for condition in conditions]
            for ref, status in sorted(translation.statuses.items())
            for name, conditions in parts(ref, status)
        },
    }


def status_files(paths: Sequence[Path], *, as_json: bool) -> None:
    """Print the statuses, and what is to be said of objects that have none."""
    with looked_at(paths) as loaded:
        if as_json:
            console.json(described(loaded.translation.statuses, loaded.translation.remarks))
            return
        _print_faults(loaded.source.faults)
        notes = loaded.notes()
    statuses, remarks = loaded.translation.statuses, loaded.translation.remarks
    for entry in described(statuses, remarks):
        console.out.print(f"[bold]{escape(entry['object'])}[/]", soft_wrap=True)
        for one in entry["conditions"]:
            colour = "green" if one["healthy"] else "red"
            state = f"{one['type']}={one['status']}"
            console.out.print(
                f"  [{colour}]{state}[/]{' ' * (28 - len(state))} {one['reason']}: {escape(one['message'])}", soft_wrap=True
            )
        for words in entry["remarks"]:
            console.out.print(f"  [red]{escape(words)}[/]", soft_wrap=True)
    _print_notes(map(shown, notes))
