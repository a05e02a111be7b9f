"""What is noted of the files beside a root: all below a folder; of one file, that file alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.files.watcher import Watcher


@contextmanager
def watched(root: Path) -> Iterator[Watcher]:
    watcher = Watcher(root, lambda function: function(), lambda: None)
    try:
        yield watcher
    finally:
        watcher.stop()


def test_of_one_file_its_neighbours_are_nobodys_business(tmp_path: Path) -> None:
    root, beside = tmp_path / "routes.yaml", tmp_path / "other.yaml"
    root.write_text("")
    with watched(root) as watcher:
        watcher.note([beside])
        assert watcher.take() == set()
        watcher.note([beside, root])
        assert watcher.take() == {root}


def test_all_below_a_folder(tmp_path: Path) -> None:
    below = tmp_path / "a.yaml"
    with watched(tmp_path) as watcher:
        watcher.note([below])
        assert watcher.take() == {below}
        watcher.note(None)
        assert watcher.take() is None


def test_links_of_every_kind_end_no_watching(tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.mkdir()
    for name, to in {
        "circle": "circle",
        "up": "..",
        "beside": "../other.yaml",
        "nowhere": "x/y.yaml",
        "to": "back",
        "back": "to",
    }.items():
        (root / f"{name}.yaml").symlink_to(to)
    with watched(root) as watcher:
        for _ in range(3):  # as when the folder comes and goes
            watcher._watch()
