"""What a process may no longer do once it is in here: no network, no files but Python's own, no other processes.

Three layers, each of which holds without the others. Limits (setrlimit) on memory, files and their size; Landlock, which
leaves the directories of Python to be read and nothing else; and a list of system calls (seccomp), off which everything
is answered with EPERM. Linux on x86-64 and arm64 has all three; elsewhere there are limits only, and `layers` says so.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
import sysconfig
from typing import Final

# System calls of a process that computes, waits and talks over sockets that it has (numbers of unistd.h).
CALLS: Final = {
    "x86_64": (
        0xC000003E,  # AUDIT_ARCH_X86_64
        (
            0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 23, 24, 25, 28, 32, 35, 39,
            44, 45, 46, 47, 48, 51, 52, 54, 55, 60, 63, 72, 79, 89, 96, 98, 99, 100, 102, 104, 107, 108, 110,
            131, 158, 186, 201, 202, 204, 217, 218, 219, 228, 229, 230, 231, 232, 233, 262, 267, 269, 270,
            271, 273, 281, 290, 291, 293, 318, 324, 332, 334, 439, 441,
        ),
        257,
    ),
    "aarch64": (
        0xC00000B7,  # AUDIT_ARCH_AARCH64
        (
            17, 19, 20, 21, 22, 23, 25, 29, 48, 57, 59, 61, 62, 63, 64, 65, 66, 67, 72, 73, 78, 79, 80, 93,
            94, 96, 98, 99, 101, 113, 114, 115, 123, 124, 128, 132, 134, 135, 139, 153, 160, 165, 169, 172,
            173, 174, 175, 176, 177, 178, 179, 204, 205, 206, 207, 208, 209, 210, 211, 212, 214, 215, 216,
            222, 226, 233, 278, 283, 291, 293, 439, 441,
        ),
        56,
    ),
}  # fmt: skip
PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_SECCOMP: Final = 22
SECCOMP_MODE_FILTER: Final = 2
ALLOW: Final = 0x7FFF0000
EPERM: Final = 0x00050000 | 1
KILL: Final = 0x80000000
# linux/bpf_common.h: load a word of the call's description; jump where it equals; return.
LOAD: Final = 0x20
IF_EQUAL: Final = 0x15
RETURN: Final = 0x06
# linux/landlock.h
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
READ: Final = 1 << 2 | 1 << 3  # files, directories


def enter(memory: int) -> tuple[str, ...]:
    """Close the door behind this process. `memory` is what it may use besides what it has. Returns the layers in force."""
    layers = [_limit(memory)]
    if sys.platform == "linux" and platform.machine() in CALLS:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        has_landlock = _landlock(libc)
        if has_landlock:
            layers.append("landlock")
        if _seccomp(libc, files=has_landlock):
            layers.append("seccomp")
    return tuple(layers)


def _limit(memory: int) -> str:
    def limit(what: int, most: int) -> None:
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))

    limit(resource.RLIMIT_AS, _size() + memory)
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, 32)
    os.nice(10)  # who forwards requests goes first
    return "limits"


def _size() -> int:
    """Bytes of address space in use."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30


def _landlock(libc: ctypes.CDLL) -> bool:
    """Leave only Python's own directories, to be read."""
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    handled = (1 << {1: 13, 2: 14}.get(version, 15)) - 1
    ruleset = libc.syscall(CREATE_RULESET, struct.pack("Q", handled), 8, 0)
    if ruleset < 0:
        return False
    try:
        for path in sorted({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")} | _own()):
            try:
                folder = os.open(path, os.O_PATH)
            except OSError:
                continue
            libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", READ, folder), 0)
            os.close(folder)
        return bool(libc.syscall(RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _own() -> set[str]:
    """Where this package lies, shared libraries, and the time zones of `zoneinfo`."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return {package, "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"}


def _seccomp(libc: ctypes.CDLL, *, files: bool) -> bool:
    """Answer every system call that is not on the list with EPERM."""
    architecture, calls, openat = CALLS[platform.machine()]
    allowed = (*calls, openat) if files else calls
    program = [(LOAD, 0, 0, 4), (IF_EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    for left, number in zip(range(len(allowed), 0, -1), allowed, strict=True):
        program.append((IF_EQUAL, left, 0, number))  # over the rest and the refusal, to ALLOW
    program += [(RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    return bool(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) == 0)
