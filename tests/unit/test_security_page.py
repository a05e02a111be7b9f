"""docs/security.md names a test for each row, and each of these exists."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
LINES = (HERE / "docs/security.md").read_text().splitlines()
# Behind a table's head, which is followed by a line of dashes.
ROWS = [line for before, line in pairwise(LINES) if line.startswith("| ") and before.startswith("|")]


@pytest.mark.parametrize("row", ROWS, ids=[row[2:40] for row in ROWS])
def test_a_row_is_proved_by_tests_that_exist(row: str) -> None:
    proofs = re.findall(r"`(tests/[^`:]+)(?:::([^`]+))?`", row)
    assert proofs, "a row needs a test"
    for path, name in proofs:
        source = (HERE / path).read_text()
        assert not name or f"def {name.partition('[')[0]}(" in source, f"{path} has no {name}"


def test_every_boundary_has_its_rows() -> None:
    sections = "\n".join(LINES).split("\n## ")[1:]
    empty = [section.partition("\n")[0] for section in sections if not any(row in section for row in ROWS)]
    assert len(sections) >= 8
    assert not empty
