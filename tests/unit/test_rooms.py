"""Who looks for something finds it in the list of rooms: each file of the packages is named in `docs/architecture.md`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = (ROOT / "docs" / "architecture.md").read_text().partition("## The rooms")[2].partition("## ")[0]


@pytest.mark.parametrize("package", ["gateway", "controller"])
def test_each_file_has_its_room(package: str) -> None:
    rooms = ROOMS.partition("\ncontroller/")[0 if package == "gateway" else 2]
    # At the beginning of a line, or with its ending: words in what is said of others do not count.
    begins = [line.strip().partition("  ")[0] for line in rooms.splitlines()]
    named = {*re.findall(r"\w+", " ".join(begins)), *re.findall(r"(\w+)(?:\.py|/)", rooms)}
    found = {path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not found - named - {"__init__", "__main__"}
