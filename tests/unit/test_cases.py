"""Golden pairs: objects in; parts and statuses out. `pytest --update` rewrites the expected files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from controller.cli.validate import rendered
from controller.inspect.loaded_files import LoadedFiles

CASES = Path(__file__).parent.parent / "cases"


@pytest.mark.parametrize("case", sorted(path.name.removesuffix(".in.yaml") for path in CASES.glob("*.in.yaml")))
def test_case(case: str, update: bool) -> None:
    loaded = LoadedFiles(CASES / f"{case}.in.yaml")
    faults = [str(fault).partition(".in.yaml")[2] for fault in loaded.source.faults]
    found = {**({"faults": faults} if faults else {}), **rendered(loaded.translation)}
    found["statuses"].pop("GatewayClass fsm-gateway-cls", None)
    text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120)
    expected = CASES / f"{case}.out.yaml"
    if update or not expected.exists():
        expected.write_text(text)
    assert expected.read_text() == text


def test_each_case_says_what_it_shows() -> None:
    cases = list(CASES.glob("*.in.yaml"))
    assert len(cases) >= 10
    assert not [case.name for case in cases if not case.read_text().startswith("# shows: ")]
