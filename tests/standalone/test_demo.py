"""The demo, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def test_the_demo_runs_the_whole_canary(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", "controller", "demo", "--fast", "--json", str(output)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "curl -H 'Host: demo.example.com' http://127.0.0.1:" in done.stdout
    summary = json.loads(output.read_text())
    assert summary["failed"] == 0
    assert [step["desired"] for step in summary["steps"]] == [0, 30, 60, 100]
    for step in summary["steps"]:
        assert abs(step["observed"] - step["desired"]) <= 1
        assert step["requests"] > 1000
    assert summary["propagation_ms"]["p50"] > 0


def test_interrupting_the_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-m", "controller", "demo"], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    process.stdout.readline()
    family = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(family) == 3
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    process.stdout.close()
    deadline = time.monotonic() + 5
    while (alive := [pid for pid in family if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive
    assert not list(tmp_path.glob("fsm-demo-*"))
