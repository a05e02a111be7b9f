"""A list of system calls, compiled to the program by which the kernel looks at each (seccomp, classic BPF).

A program is lines of (code, where to jump if so, where if not, a constant); `tests/unit/test_cage.py` runs them. It
answers a call that may not be made with EPERM, and ends a process that speaks another architecture's numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.scripting.sandbox.syscalls import In, SystemCall, Way, Within

ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
ALLOW: Final = 0x7FFF0000
EPERM: Final = 0x00050000 | 1
KILL: Final = 0x80000000
# linux/bpf_common.h: load a word of the call's description; jump where it equals, where it has one of the bits; return.
LOAD: Final = 0x20
IF_EQUAL: Final = 0x15
IF_ANY: Final = 0x45
RETURN: Final = 0x06
# struct seccomp_data (linux/seccomp.h): both architectures put the low word of an argument first.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16

Line = tuple[int, int, int, int]


def compiled(architecture: str, calls: Iterable[SystemCall]) -> list[Line]:
    """The program."""
    program = [(LOAD, 0, 0, ARCHITECTURE), (IF_EQUAL, 1, 0, ARCHITECTURES[architecture]), (RETURN, 0, 0, KILL)]
    program.append((LOAD, 0, 0, NUMBER))
    for call in calls:
        number = call.x86_64 if architecture == "x86_64" else call.aarch64
        if number is not None:
            block = _block(call.ways)
            program += [(IF_EQUAL, 0, len(block), number), *block]
    program.append((RETURN, 0, 0, EPERM))
    return program


def _block(ways: tuple[Way, ...]) -> list[Line]:
    """What is looked at of one call, to its end."""
    lines: list[Line] = []
    for way in ways:
        tests = [line for condition in way for line in _tests(condition)]
        # Whatever does not hold leads behind the way's ALLOW: to the next one.
        lines += [_landed(line, len(tests) - at) for at, line in enumerate(tests)]
        lines.append((RETURN, 0, 0, ALLOW))
    return [*lines, (RETURN, 0, 0, EPERM)] if ways else [(RETURN, 0, 0, ALLOW)]


_FAIL: Final = -1  # a jump to where the way fails


def _tests(condition: In | Within) -> list[Line]:
    low = ARGUMENTS + 8 * condition.at
    lines: list[Line] = []
    if condition.is_long:
        lines += [(LOAD, 0, 0, low + 4), (IF_EQUAL, 0, _FAIL, 0)]
    lines.append((LOAD, 0, 0, low))
    if isinstance(condition, Within):
        lines.append((IF_ANY, _FAIL, 0, ~condition.mask & 0xFFFFFFFF))
        return lines
    *others, last = condition.values
    lines += [(IF_EQUAL, left, 0, value) for left, value in zip(range(len(others), 0, -1), others, strict=True)]
    return [*lines, (IF_EQUAL, 0, _FAIL, last)]


def _landed(line: Line, left: int) -> Line:
    """A jump to where the way fails, which is so many lines further on."""
    code, yes, no, constant = line
    return code, left if yes == _FAIL else yes, left if no == _FAIL else no, constant
