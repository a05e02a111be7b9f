"""A minute of fuzzing; `python tests/fuzz/target.py -max_total_time=3600` and `python tests/fuzz/files.py` fuzz for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).parent.parent / "fuzz" / "target.py"
FILES = TARGET.with_name("files.py")
SECONDS = 60


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="atheris is made for Linux")
def test_a_minute_of_fuzzing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(TARGET),
        f"-max_total_time={SECONDS}",
        f"-artifact_prefix={tmp_path}/",
        "-print_final_stats=1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS * 3, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = next(line for line in done.stderr.splitlines() if "number_of_executed_units" in line)
    print(runs)
    assert int(runs.split()[-1]) > 10_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what memory is held")
def test_files_of_every_kind_beside_a_gateway_that_serves() -> None:
    command = [sys.executable, str(FILES), "--seconds", "20", "--bound", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
