"""The file provider: a file or directory of YAML, kept in a world, and followed as it changes.

`FileSource.load` is the whole truth of one look: it re-reads files that differ from last time and leaves the
rest alone. A file that is broken keeps the objects of its last good state; a broken object keeps its own;
one that guards something, and never was good, keeps that shut.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from controller.files.octets import MAX_BYTES, octets_of
from controller.files.reading import FileReading, Written
from controller.files.validate import is_near
from controller.objects.base import CONTROLLER, GATEWAY_CLASS, Meta, Ref
from controller.objects.core import Namespace
from controller.objects.documents import DocumentFault
from controller.objects.filters import (
    WRITTEN_AS_FILE,
    ExtensionRef,
    Filter,
    FilterDefinition,
    FilterDefinitionSpec,
    FilterSpec,
)
from controller.objects.gateways import GatewayClass, GatewayClassSpec
from controller.objects.kinds import AnyObject
from controller.state.world import World

log = logging.getLogger("fsm.files")
SUFFIXES = (".yaml", ".yml", ".json", ".py")
GATEWAY_CLASS_REF = Ref("GatewayClass", "", GATEWAY_CLASS)
MAX_DOCUMENTS = 100_000  # in one file
MAX_FAULTS = 1000  # in one file: behind them nothing more is read


class Stamp(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    modified: int
    size: int


class Origin(NamedTuple):
    """Where an object was written."""

    file: str
    line: int


class _Kept:
    """What a file said before."""

    def __init__(self, objects: dict[Ref, AnyObject]) -> None:
        self.objects = objects
        self._named: dict[str, list[Ref]] | None = None

    def called(self, name: Any, kind: str) -> dict[Ref, AnyObject]:
        """Those of a name and kind; also where the kind is misspelt now."""
        if self._named is None:
            self._named = {}
            for ref in self.objects:
                self._named.setdefault(ref.name, []).append(ref)
        named = self._named.get(name, ()) if isinstance(name, str) else ()
        return {ref: self.objects[ref] for ref in named if is_near(ref.kind, kind)}


def is_ours(path: Path) -> bool:
    """Whether a file's name says YAML, and is not an editor's or a mount's own."""
    return path.suffix in SUFFIXES and not path.name.startswith((".", "#")) and not path.name.endswith("~")


class FileSource:
    """Objects out of a directory of YAML files, followed by events."""

    def __init__(self, root: Path, world: World, *more: Path) -> None:
        self.root = root
        self._roots = (root, *more)
        self._world = world
        self._stamps: dict[Path, Stamp] = {}
        self._readings: dict[Path, FileReading] = {}
        self._objects: dict[Path, dict[Ref, AnyObject]] = {}  # the last good state of each file
        self._lines: dict[Path, dict[Ref, int]] = {}  # where its objects begin
        self._faults: dict[Path, list[DocumentFault]] = {}
        self._claims: dict[Ref, dict[Path, AnyObject]] = {}  # which files define an object
        self._doubles: dict[Ref, list[DocumentFault]] = {}  # objects that more than one file defines
        self._namespaces: Counter[str] = Counter()  # objects defined in each
        self.missing: set[Path] = set()  # not found by the last look at everything, if that was patient
        self.origins: dict[Ref, Origin] = {}
        self.refused: dict[Ref, AnyObject] = {}  # what the API server would not take, as far as it can be read

    @property
    def faults(self) -> list[DocumentFault]:
        """All that is wrong now."""
        faults = [fault for path in sorted(self._faults) for fault in self._faults[path]]
        return faults + [fault for ref in sorted(self._doubles) for fault in self._doubles[ref]]

    def __len__(self) -> int:
        """How many objects the files define."""
        return len(self._claims)

    @property
    def files(self) -> int:
        """How many files there are."""
        return len(self._stamps)

    def file_of(self, ref: Ref) -> Path | None:
        """The file whose word counts for an object."""
        return min(self._claims.get(ref, {}), default=None)

    def load(self, only: set[Path] | None = None, *, patient: bool = False) -> bool:
        """Look at every file, or `only` at some; True when something was read anew or is gone.

        Of a look at everything nobody knows for how long a file that it misses has been gone: a folder may have been renamed
        while it was looked at. Who is `patient` is told of these in `missing`, and says later that they are to be looked at.

        Where none is left, the last good state stays: a folder is taken away to be made anew (a checkout, a mount, `rm -rf` and
        a render), and nobody says by an empty one that nothing is to be served.
        """
        stamps = self._find() if only is None else self._stamped(only)
        gone = (self._stamps.keys() if only is None else self._stamps.keys() & only) - stamps.keys()
        there = self._find() if gone and only is not None else stamps
        gone = gone - there.keys()  # some may be back by now
        is_there = not gone or bool(there)
        self.missing = gone if patient and only is None and is_there else set()
        gone = gone - self.missing
        if is_there:
            self._faults.pop(self.root, None)
        else:
            words = "is gone" if not self.root.exists() else "has no files any more"
            self._faults[self.root] = [DocumentFault(str(self.root), 0, f"{words}; what was there last stays in force")]
            gone = set()
        changed = [path for path, stamp in stamps.items() if self._stamps.get(path) != stamp]
        first = not self._claims
        touched: set[Ref] = set()
        for path in gone:
            for store in (self._stamps, self._faults, self._readings, self._lines):
                store.pop(path, None)
            self._claim(path, self._objects.pop(path, {}), {}, touched)
        for path in changed:
            self._stamps[path] = stamps[path]
            old, old_lines = self._objects.get(path, {}), self._lines.get(path, {})
            try:
                self._read(path)
            except Exception as error:  # of our own, and no other file's
                log.exception("%s", path)
                words = f"cannot be read ({type(error).__name__}: {error}); please report this"
                self._faults[path] = [DocumentFault(str(path), 0, words)]
            self._claim(path, old, self._objects.get(path, {}), touched)
            for ref, line in self._lines.get(path, {}).items():
                if line != old_lines.get(ref):  # also of those that only moved
                    self._note_origin(ref)
        if first:
            self._publish_implied({GATEWAY_CLASS_REF})
        for ref in sorted(touched):
            self._publish(ref)
        self._publish_implied(touched)
        return bool(changed or gone)

    def _find(self) -> dict[Path, Stamp]:
        return self._stamped(path for root in self._roots for path in (self._walk(root) if root.is_dir() else [root]))

    def _stamped(self, paths: Iterable[Path]) -> dict[Path, Stamp]:
        stamps: dict[Path, Stamp] = {}
        for path in paths:
            try:
                status = path.stat()  # of what a link leads to: that is what a ConfigMap mount swaps
            except OSError:
                continue
            if stat.S_ISDIR(status.st_mode):
                continue
            if not status.st_size and path in self._stamps:
                stamps[path] = self._stamps[path]  # emptied to be written anew; its old state holds until then
            else:
                stamps[path] = Stamp(status.st_ino, status.st_mtime_ns, status.st_size)
        return stamps

    def _walk(self, root: Path) -> list[Path]:
        result: list[Path] = []
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            result += [path for name in sorted(names) if is_ours(path := Path(folder, name))]
        return result

    def _read(self, path: Path) -> None:
        file = str(path)
        try:
            octets = octets_of(path)
            if octets is None:
                self._faults[path] = [DocumentFault(file, 0, "is no file; a link to one, or one, is needed")]
                return
            if len(octets) > MAX_BYTES:
                self._faults[path] = [DocumentFault(file, 0, f"larger than {MAX_BYTES >> 20} MiB; split it")]
                return
            if octets.count(b"\n---") >= MAX_DOCUMENTS:
                self._faults[path] = [DocumentFault(file, 0, f"has more than {MAX_DOCUMENTS} documents; split it")]
                return
            text = octets.decode()
        except (OSError, UnicodeDecodeError) as error:
            self._faults[path] = [DocumentFault(file, 0, f"cannot be read: {error}")]
            return
        if path.suffix == ".py":
            self._objects[path] = dict(self._implied_filter(path, text))
            self._lines[path] = dict.fromkeys(self._objects[path], 1)
            self._faults.pop(path, None)
            return
        faults: list[DocumentFault] = []
        good: dict[Ref, AnyObject] = {}
        kept = _Kept(self._objects.get(path, {}))
        lines = dict(self._lines.get(path, {}))
        reading = self._readings.setdefault(path, FileReading(file))
        for found in reading.read(text):
            if len(faults) >= MAX_FAULTS:
                faults.append(DocumentFault(file, 0, "has more faults than these; behind them nothing is read"))
                good = {**kept.objects, **good}
                break
            if isinstance(found, DocumentFault):
                # From here on nothing is sure: everything that the file said before stays in force.
                faults.append(found)
                good = {**kept.objects, **good}
                continue
            self._take(found, file, kept, good, lines, faults)
        self._objects[path] = good
        self._lines[path] = {ref: lines[ref] for ref in good if ref in lines}
        self._faults[path] = faults
        if not faults:
            self._faults.pop(path, None)

    def _implied_filter(self, path: Path, source: str) -> Iterable[tuple[Ref, AnyObject]]:
        """A `.py` file is a filter of its name, for ExtensionRefs of routes in the namespace default; a FilterConfig
        of that name there is its configuration."""
        name = re.sub("[^a-z0-9-]+", "-", path.stem.lower()).strip("-") or "filter"
        type_ = "".join(word.capitalize() for word in name.split("-"))
        type_ = type_ if type_[0].isalpha() else f"F{type_}"
        definition = FilterDefinition(Meta(name=name), FilterDefinitionSpec(type=type_, script=source))
        ref = ExtensionRef(name=name, kind="FilterDefinition")
        for obj in (definition, Filter(Meta(name=name, namespace="default", labels=WRITTEN_AS_FILE), FilterSpec(type_, ref))):
            yield obj.ref, obj

    def _take(
        self,
        written: Written,
        file: str,
        kept: _Kept,
        good: dict[Ref, AnyObject],
        lines: dict[Ref, int],
        faults: list[DocumentFault],
    ) -> None:
        if written.object is not None:
            ref = written.object.ref
            self.refused.pop(ref, None)
            if ref in good:
                words = f"is defined in line {lines[ref]} of this file already; that one counts"
                faults.append(DocumentFault(file, written.line, words, written.title))
                return
            good[ref] = written.object
            lines[ref] = written.line
            return
        faults += written.faults
        odd = written.readable
        if odd is not None:
            self.refused[odd.ref] = odd
            self.origins.setdefault(odd.ref, Origin(file, written.line))
        stays = kept.called(written.name, written.kind)
        good.update(stays)
        guard = written.guard if not stays else None
        if guard is not None and guard.ref not in good:
            good[guard.ref] = guard  # it guards something, which stays shut as long as nobody knows how
            lines[guard.ref] = written.line

    def _claim(self, path: Path, old: dict[Ref, AnyObject], new: dict[Ref, AnyObject], touched: set[Ref]) -> None:
        """Note what a file defines now, in place of what it did."""
        for ref in old.keys() | new.keys():
            if old.get(ref) is new.get(ref):
                continue
            touched.add(ref)
            claims = self._claims.setdefault(ref, {})
            if not claims:
                self._namespaces[ref.namespace] += 1
            claims.pop(path, None)
            if ref in new:
                claims[path] = new[ref]
            if not claims:
                self._namespaces[ref.namespace] -= 1
                del self._claims[ref]

    def _publish(self, ref: Ref) -> None:
        """Bring the world to what the files say of one object: the first file's word counts."""
        claims = self._claims.get(ref, {})
        paths = sorted(claims)
        self._doubles.pop(ref, None)
        if len(paths) > 1:
            words = f"is defined in {paths[0]}:{self._line(paths[0], ref)} already; that one counts"
            self._doubles[ref] = [DocumentFault(str(path), self._line(path, ref), words, str(ref)) for path in paths[1:]]
        self._note_origin(ref)
        if not paths:
            self._world.drop(ref)
        elif self._world.read(("object", ref)) is not claims[paths[0]]:
            self._world.put(claims[paths[0]])

    def _note_origin(self, ref: Ref) -> None:
        """Where an object was written, by the file whose word counts."""
        path = self.file_of(ref)
        if path is not None:
            self.origins[ref] = Origin(str(path), self._line(path, ref))

    def _line(self, path: Path, ref: Ref) -> int:
        """Where an object began when its file was read last; 0 where it never could be read."""
        return self._lines.get(path, {}).get(ref, 0)

    def _publish_implied(self, touched: set[Ref]) -> None:
        """What a cluster would have made by itself: the namespaces in use, with their label, and our GatewayClass."""
        if GATEWAY_CLASS_REF in touched and GATEWAY_CLASS_REF not in self._claims:
            self._world.put(GatewayClass(Meta(name=GATEWAY_CLASS), GatewayClassSpec(CONTROLLER)))
        for name in {ref.name if ref.kind == "Namespace" else ref.namespace for ref in touched} - {""}:
            ref = Ref("Namespace", "", name)
            written = next((obj for _, obj in sorted(self._claims.get(ref, {}).items())), None)
            if written is None and not self._namespaces[name]:
                self._world.drop(ref)
                continue
            labels = {"kubernetes.io/metadata.name": name} | (written.metadata.labels if written is not None else {})
            self._world.put(Namespace(Meta(name=name, labels=labels)))
