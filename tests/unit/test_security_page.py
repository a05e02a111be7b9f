"""docs/security.md names a test for each row, and each of these exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
ROWS = [
    line
    for before, line in zip(["", *(lines := (HERE / "docs/security.md").read_text().splitlines())], lines, strict=False)
    if line.startswith("| ") and before.startswith("|")
]


@pytest.mark.parametrize("row", ROWS, ids=[row[2:40] for row in ROWS])
def test_a_row_is_proved_by_tests_that_exist(row: str) -> None:
    proofs = re.findall(r"`(tests/[^`:]+)(?:::([^`]+))?`", row)
    assert proofs, "a row needs a test"
    for path, name in proofs:
        source = (HERE / path).read_text()
        assert not name or f"def {name.partition('[')[0]}(" in source, f"{path} has no {name}"


def test_every_section_has_rows() -> None:
    sections = (HERE / "docs/security.md").read_text().split("\n## ")[1:]
    assert len(sections) >= 8
    for section in sections:
        assert any(row in section for row in ROWS), section.splitlines()[0]
