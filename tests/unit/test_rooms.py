"""Who looks for something finds it in the list of rooms: each file of the packages is named in `docs/architecture.md`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = (ROOT / "docs" / "architecture.md").read_text().partition("## The rooms")[2].partition("## ")[0]


@pytest.mark.parametrize("package", ["gateway", "controller"])
def test_each_file_has_its_room(package: str) -> None:
    rooms = ROOMS.partition("\ncontroller/")
    named = set(re.findall(r"\w+", rooms[0] if package == "gateway" else rooms[2]))
    found = {path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not found - named - {"__init__", "__main__"}
