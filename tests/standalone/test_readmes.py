"""The commands in each example's README, as they stand, print what it says: in a network of their own, so that their ports are free."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())
BEFORE = """
ip link set lo up
trap 'kill $(jobs -p) 2>/dev/null' EXIT
"""


def commands(folder: Path) -> None:
    """What a user's PATH has, of this tree."""
    for name, words in {"fsm": "-m controller", "python": ""}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (folder / name).chmod(0o755)


def fenced(readme: Path, language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"{readme}: {len(found)} blocks of {language}"
    return found[0]


def has_networks() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    made = subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return made.returncode == 0


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_each_example_says_what_to_try(folder: Path) -> None:
    readme = folder / "README.md"
    assert f"examples/{folder.name}" in fenced(readme, "sh")
    assert fenced(readme, "text").strip()
    assert f"`{folder.name}`" in (ROOT / "examples" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not has_networks(), reason="a network of its own needs unshare -rn")
@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_what_a_readme_says_is_so(folder: Path, tmp_path: Path) -> None:
    readme = folder / "README.md"
    commands(tmp_path)
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["unshare", "-rn", "bash", "-c", BEFORE + fenced(readme, "sh")], cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        printed, said = process.communicate(timeout=120)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert printed == fenced(readme, "text"), said
