"""Events of the files below a root, which may be taken away and made again (`rm -rf` and a render, a checkout, a mount)."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from controller.files.source import is_ours

CLOSING_IS_SEEN: Final = sys.platform == "linux"  # inotify says when a writer closes a file
# Seconds for which a file may be gone before that counts: long enough for who deletes and writes it again, or takes all away.
GRACE: Final = 0.1
MAX_GRACE: Final = 2.0  # seconds, however many more go meanwhile


class Watcher:
    """Says when something below a root has changed: `changed` is called, in the loop's thread, with the files
    concerned, or None when only a look at everything can tell."""

    def __init__(self, root: Path, call: Callable[[Callable[[], None]], object], changed: Callable[[], None]) -> None:
        self.root = root
        self._call = call  # runs a function in the loop's thread: loop.call_soon_threadsafe
        self._changed = changed
        self._files: set[Path] = set()
        self._all = False
        self._gone: set[Path] = set()  # of which that does not count yet
        self._gone_since = 0.0
        self._flush: asyncio.TimerHandle | None = None
        self._observer = Observer()
        self._handler = _Handler(self._seen, self._gone_seen)
        self._folder = root if root.is_dir() else root.parent
        self._watch()
        self._observer.start()

    def _watch(self) -> None:
        """What is there now: the folder and all below, what links in it lead to, and, as it may go, the next folder above."""
        self._observer.unschedule_all()
        folder = self._folder
        # First, so that nothing that becomes of the folder while it is looked at goes unseen.
        above = folder.absolute().parent
        while not above.is_dir() and above != above.parent:
            above = above.parent
        around = {folder.absolute(), *folder.absolute().parents}
        self._schedule(_FolderHandler(around, self._folder_seen), above, recursive=False)
        if not folder.is_dir():
            return
        is_root = self.root == folder
        self._schedule(self._handler, folder, recursive=is_root)
        # A link to a file elsewhere changes there.
        links = [path for path in (_below(folder) if is_root else [self.root]) if path.is_symlink()]
        for target in {_led_to(path).parent for path in links}:
            if target.is_dir() and not target.is_relative_to(_led_to(folder)):
                self._schedule(self._handler, target, recursive=False)

    def _schedule(self, handler: FileSystemEventHandler, folder: Path, *, recursive: bool) -> None:
        try:
            self._observer.schedule(handler, str(folder), recursive=recursive)
        except OSError:
            pass  # gone since it was looked for: whoever took it away was seen from above

    def take(self) -> set[Path] | None:
        """What has changed since the last time; None means: look at everything."""
        files, self._files = self._files, set()
        everything, self._all = self._all, False
        return None if everything else files

    def stop(self) -> None:
        """End the watching thread."""
        self._observer.stop()
        self._observer.join()

    # --- in the watching thread ---

    def _seen(self, paths: list[Path] | None) -> None:
        self._call(lambda: self.note(paths))

    def _gone_seen(self, paths: list[Path] | None) -> None:
        self._call(lambda: self.note_gone(paths))

    def _folder_seen(self) -> None:
        self._call(self._folder_changed)

    # --- in the loop's thread ---

    def _folder_changed(self) -> None:
        """The folder has gone, or is there (again)."""
        self._watch()
        if self._folder.is_dir():
            self.note(None)
        else:
            self.note_gone(None)

    def note_gone(self, paths: list[Path] | None) -> None:
        """These files, or the root, are gone: which counts if they are not back in a moment."""
        loop = asyncio.get_running_loop()
        if self._flush is None:
            self._gone_since = loop.time()
        else:
            self._flush.cancel()
        self._gone.update(paths if paths is not None else [self.root])
        wait = max(min(GRACE, self._gone_since + MAX_GRACE - loop.time()), 0.0)
        self._flush = loop.call_later(wait, self._flush_gone)

    def _flush_gone(self) -> None:
        self._flush = None
        gone, self._gone = self._gone, set()
        self.note(None if self.root in gone else sorted(gone))

    def note(self, paths: list[Path] | None) -> None:
        """These files have changed; None: any may have."""
        if paths is None:
            self._all = True
        else:
            self._files.update(path for path in paths if self.root in (path, self._folder))
        if self._all or self._files:
            self._changed()


def _below(folder: Path) -> Iterator[Path]:
    """All that is in a folder now, but for what goes meanwhile (`Path.rglob` raises there)."""
    for inner, folders, names in os.walk(folder):
        yield from (Path(inner, name) for name in (*folders, *names))


def _led_to(path: Path) -> Path:
    """Where a path leads; for links in a circle, somewhere on it (`Path.resolve` raises there)."""
    return Path(os.path.realpath(path))


class _Handler(FileSystemEventHandler):
    """Turns events into files to look at. Where closing is seen (Linux), a file is read when it is whole."""

    def __init__(self, seen: Callable[[list[Path] | None], None], gone: Callable[[list[Path] | None], None]) -> None:
        self._seen = seen
        self._gone = gone

    def on_any_event(self, event: FileSystemEvent) -> None:
        kind = event.event_type
        if kind in ("opened", "closed_no_write") or (kind == "modified" and (CLOSING_IS_SEEN or event.is_directory)):
            return
        paths = [Path(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path]
        tell = self._gone if kind == "deleted" else self._seen
        if event.is_directory or any(path.is_symlink() or path.name.startswith("..") for path in paths):
            tell(None)
        elif ours := [path for path in paths if is_ours(path)]:
            tell(ours)


class _FolderHandler(FileSystemEventHandler):
    """Says when one of some folders comes or goes; what else happens beside them is nobody's business."""

    def __init__(self, folders: set[Path], seen: Callable[[], None]) -> None:
        self._folders = folders
        self._seen = seen

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("created", "deleted", "moved"):
            paths = (Path(os.fsdecode(path)).absolute() for path in (event.src_path, event.dest_path) if path)
            if any(path in self._folders for path in paths):
                self._seen()
