"""What a process may no longer do once it is in here: no network, no files but Python's own, no other processes.

Three layers, each of which holds without the others. Limits (setrlimit) on memory, files and their size, and no
capabilities; Landlock, which leaves the directories of Python to be read and nothing else; and a list of system calls
with their arguments (seccomp, `calls`), off which everything is answered with EPERM. Linux on x86-64 and arm64 has all
three; elsewhere there are limits only, and `layers` says so.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
import sysconfig
from pathlib import Path
from typing import Final

from gateway.scripting.sandbox import seccomp
from gateway.scripting.sandbox.syscalls import CALLS, OPENAT

PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_SECCOMP: Final = 22
SECCOMP_MODE_FILTER: Final = 2
CAPSET: Final = {"x86_64": 126, "aarch64": 91}
CAPABILITIES: Final = 0x20080522  # linux/capability.h: the version that has 64 of them
# linux/landlock.h
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
READ: Final = 1 << 2 | 1 << 3  # files, directories
# How many rights of files each version knows: 2 links between directories, 3 truncation, 5 commands of devices.
RIGHTS: Final = (0, 13, 14, 15, 15, 16)
CONNECTIONS: Final = 1 << 0 | 1 << 1  # version 4: to bind and to connect, over TCP
SCOPES: Final = 1 << 0 | 1 << 1  # version 6: abstract sockets, and signals, of those outside


def follow(parent: int) -> None:
    """End with the parent, whatever becomes of it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def enter(memory: int) -> tuple[str, ...]:
    """Close the door behind this process. `memory` is what it may use besides what it has. Returns the layers in force."""
    os.chdir("/")
    layers = [_limit(memory)]
    machine = platform.machine()
    if sys.platform == "linux" and machine in seccomp.ARCHITECTURES:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Who runs the gateway as root has not made a filter root.
        libc.syscall(CAPSET[machine], struct.pack("Ii", CAPABILITIES, 0), bytes(24))
        has_landlock = _landlock(libc)
        if has_landlock:
            layers.append("landlock")
        if _seccomp(libc, machine, files=has_landlock):
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
    limit(resource.RLIMIT_NPROC, 0)
    limit(resource.RLIMIT_MEMLOCK, 0)
    return "limits"


def _size() -> int:
    """Bytes of address space in use."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30


def _landlock(libc: ctypes.CDLL) -> bool:
    """Leave only Python's own directories, to be read; no way to others, where the kernel knows how to close it."""
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    handled = (1 << RIGHTS[min(version, len(RIGHTS) - 1)]) - 1
    wanted = struct.pack("Q", handled)
    if version >= 4:
        wanted += struct.pack("Q", CONNECTIONS)
    if version >= 6:
        wanted += struct.pack("Q", SCOPES)
    ruleset = libc.syscall(CREATE_RULESET, wanted, len(wanted), 0)
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
    return {str(Path(__file__).resolve().parents[2]), "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"}


def _seccomp(libc: ctypes.CDLL, machine: str, *, files: bool) -> bool:
    """Answer every system call that is not on the list with EPERM."""
    program = seccomp.compiled(machine, (*CALLS, OPENAT) if files else CALLS)
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    return bool(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) == 0)
