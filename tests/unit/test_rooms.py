"""Who looks for something finds it: the list of rooms names every part, folders and files stay small, a class's name is its own."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = (ROOT / "docs" / "architecture.md").read_text().partition("## The rooms")[2].partition("## ")[0]
PACKAGES = ("gateway", "controller")
MAX_ENTRIES = 18  # at the top of a package
MAX_FILES = 14  # in a folder
MAX_LINES = 500  # of a file
# Two classes may share a name where both are the same thing of the field, and their modules tell which is meant: what the contract
# (`snapshot`) has and what an object has; what a filter sees and what the proxy works with; the messages of two lines.
TWINS = {
    "Backend", "Endpoint", "Exchange", "Metrics", "PathMatch", "Ping", "Pong", "Request", "Response", "Retry", "Struct", "Target",
    "Timeouts", "ValueMatch",
}  # fmt: skip


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_each_file_has_its_room(package: str) -> None:
    rooms = ROOMS.partition("\ncontroller/")[0 if package == "gateway" else 2]
    # At the beginning of a line, or with its ending: words in what is said of others do not count.
    begins = [line.strip().partition("  ")[0] for line in rooms.splitlines()]
    named = {*re.findall(r"\w+", " ".join(begins)), *re.findall(r"(\w+)(?:\.py|/)", rooms)}
    found = {path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not found - named - {"__init__", "__main__"}


def test_folders_stay_small() -> None:
    files = defaultdict(set)
    for path in sources():
        files[path.parent].add(path.name)
    assert not {folder: len(names) for folder, names in files.items() if len(names) > MAX_FILES}
    entries = {path.name for path in (ROOT / "gateway").iterdir() if path.name != "__pycache__"}
    assert len(entries) <= MAX_ENTRIES


def test_files_stay_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


def test_a_class_is_found_by_its_name() -> None:
    places = defaultdict(set)
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(str(path.relative_to(ROOT)))
    twins = {name: where for name, where in places.items() if len(where) > 1 and name not in TWINS}
    assert not twins
    assert not {name for name in TWINS if len(places[name]) < 2}, "no twins any more"


def test_no_test_module_imports_another() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("test_"), path
