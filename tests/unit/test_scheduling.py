"""A worker asks for short slices of its core, for itself alone."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from gateway.base.scheduling import SCHED_SETATTR, SLICE

ASKED = """
import ctypes, json, os, struct, sys
from gateway.base.scheduling import ask_for_short_slices
os.nice(3)
if "batch" in sys.argv:
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
ask_for_short_slices()

def attributes():  # sched_getattr(2): policy, nice, runtime
    found = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall({number}, 0, found, 48, 0) == 0
    _, policy, _, nice, _, runtime, _, _ = struct.unpack("=IIQiIQQQ", found)
    return policy, nice, runtime

reading, writing = os.pipe()
if not os.fork():
    os.write(writing, json.dumps(attributes()).encode())
    os._exit(0)
print(json.dumps([attributes(), json.loads(os.read(reading, 100))]))
"""
GETATTR = {"x86_64": 315, "aarch64": 275}


def asked(*arguments: str) -> tuple[list[int], list[int]]:
    source = ASKED.replace("{number}", str(GETATTR[platform.machine()]))
    mine, childs = json.loads(subprocess.check_output([sys.executable, "-c", source, *arguments]))
    return mine, childs


pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in SCHED_SETATTR, reason="there is nobody to ask"
)


def test_slices_are_short_for_a_worker_and_not_for_its_children() -> None:
    mine, childs = asked()
    if not mine[2]:
        pytest.skip("this kernel has slices of one length")
    assert mine == [0, 3, SLICE]
    assert childs[:2] == [0, 3]
    assert childs[2] != SLICE


def test_who_has_been_told_how_to_run_is_left_alone() -> None:
    mine, _ = asked("batch")
    assert mine[:2] == [3, 3]  # SCHED_BATCH, nice
