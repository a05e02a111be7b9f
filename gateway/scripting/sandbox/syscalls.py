"""The system calls of a process that computes, waits, and talks over the one socket that it has; each with its arguments.

A call that is not here is refused. So is one whose arguments fit none of its `ways`: `fcntl` is harmless with F_GETFL and
sends signals to other processes with F_SETOWN. Numbers are those of unistd.h; what the kernel takes as an `int` is compared
as 32 bits, since it does not look at the rest and neither do C libraries; what it takes as a `long` is compared as 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class In:
    """Argument `at` is one of these."""

    at: int
    values: tuple[int, ...]
    is_long: bool = False


@dataclass(frozen=True)
class Within:
    """Argument `at` has no bits but these."""

    at: int
    mask: int
    is_long: bool = False


Way = tuple[In | Within, ...]  # all of these must hold


@dataclass(frozen=True)
class SystemCall:
    """A call, by its number on each architecture; None where it has none. Without ways, any arguments will do."""

    name: str
    x86_64: int | None
    aarch64: int | None
    ways: tuple[Way, ...] = ()


# linux/fcntl.h. The four are O_DIRECT, O_LARGEFILE, O_DIRECTORY and O_NOFOLLOW, which each architecture has in its own order.
_FOUR: Final = 0x3C000
_NONBLOCK, _CLOEXEC, _NOCTTY = 0x800, 0x80000, 0x100
_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL, _F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
# asm-generic/ioctls.h: whether it is a terminal, how much there is to read, not to wait, close on exec or not.
_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x541B, 0x5421, 0x5450, 0x5451
# linux/mman.h
_READ, _WRITE, _EXEC = 1, 2, 4
_SHARED, _PRIVATE, _FIXED, _ANONYMOUS = 1, 2, 0x10, 0x20
_DENYWRITE, _NORESERVE, _STACK, _FIXED_NOREPLACE = 0x800, 0x4000, 0x20000, 0x100000
_MAPPED: Final = _SHARED | _PRIVATE | _FIXED | _DENYWRITE | _NORESERVE | _STACK | _FIXED_NOREPLACE
# What malloc says of memory, and transparent huge pages: not to poison a page, nor to share those that are equal.
_ADVICE: Final = (0, 1, 2, 3, 4, 8, 14, 15)
# linux/futex.h: wait, wake, requeue, the same by bits; not those that hand on priorities. Private or not, by either clock.
_FUTEX: Final = tuple(op | flags for op in (0, 1, 3, 4, 5, 9, 10) for flags in (0, 128, 256, 384))
# linux/time.h: the clocks of the machine, and of this process; other numbers are clocks of other processes, and of devices.
_CLOCKS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 11)
_SLEEPING: Final = (0, 1, 7)
# linux/socket.h: MSG_NOSIGNAL, MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, MSG_TRUNC; no MSG_OOB.
_SENDING, _RECEIVING = 0x4000 | 0x40, 0x40 | 0x2 | 0x100 | 0x20
_SOL_SOCKET, _SO_TYPE, _SO_ERROR, _SO_PROTOCOL, _SO_DOMAIN = 1, 3, 4, 38, 39

CALLS: Final = (
    # Bytes of what is open.
    SystemCall("read", 0, 63),
    SystemCall("write", 1, 64),
    SystemCall("readv", 19, 65),
    SystemCall("writev", 20, 66),
    SystemCall("pread64", 17, 67),
    SystemCall("lseek", 8, 62),
    SystemCall("close", 3, 57),
    SystemCall("dup", 32, 23),
    SystemCall(
        "fcntl", 72, 25,
        (
            (In(1, (_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC)),),
            (In(1, (_F_SETFL,)), Within(2, _NONBLOCK | _FOUR | 3, is_long=True)),  # not O_ASYNC
        ),
    ),
    SystemCall("ioctl", 16, 29, ((In(1, (_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX)),),)),
    # The socket.
    SystemCall("sendto", 44, 206, ((Within(3, _SENDING), In(4, (0,), is_long=True)),)),  # to nobody else
    SystemCall("recvfrom", 45, 207, ((Within(3, _RECEIVING),),)),
    SystemCall("shutdown", 48, 210),
    SystemCall("getsockname", 51, 204),
    SystemCall("getpeername", 52, 205),
    SystemCall("getsockopt", 55, 209, ((In(1, (_SOL_SOCKET,)), In(2, (_SO_TYPE, _SO_ERROR, _SO_PROTOCOL, _SO_DOMAIN))),)),
    # Waiting.
    SystemCall("epoll_wait", 232, None),
    SystemCall("epoll_pwait", 281, 22),
    SystemCall("epoll_pwait2", 441, 441),
    SystemCall("epoll_ctl", 233, 21),
    SystemCall("poll", 7, None),
    SystemCall("ppoll", 271, 73),
    SystemCall("select", 23, None),
    SystemCall("pselect6", 270, 72),
    SystemCall("futex", 202, 98, ((In(1, _FUTEX),),)),
    SystemCall("nanosleep", 35, 101),
    SystemCall("clock_nanosleep", 230, 115, ((In(0, _SLEEPING),),)),
    SystemCall("sched_yield", 24, 124),
    SystemCall("restart_syscall", 219, 128),
    # Clocks, and what the process is.
    SystemCall("clock_gettime", 228, 113, ((In(0, _CLOCKS),),)),
    SystemCall("clock_getres", 229, 114, ((In(0, _CLOCKS),),)),
    SystemCall("gettimeofday", 96, 169),
    SystemCall("time", 201, None),
    SystemCall("times", 100, 153),
    SystemCall("getrusage", 98, 165),
    SystemCall("getpid", 39, 172),
    SystemCall("getppid", 110, 173),
    SystemCall("gettid", 186, 178),
    SystemCall("getuid", 102, 174),
    SystemCall("geteuid", 107, 175),
    SystemCall("getgid", 104, 176),
    SystemCall("getegid", 108, 177),
    SystemCall("uname", 63, 160),
    SystemCall("sysinfo", 99, 179),
    SystemCall("sched_getaffinity", 204, 123, ((In(0, (0,)),),)),
    SystemCall("getrandom", 318, 278),
    # Memory. What can be written cannot be executed, and code comes out of files, which are Python's.
    SystemCall("brk", 12, 214),
    SystemCall(
        "mmap", 9, 222,
        (
            (Within(2, _READ | _WRITE, is_long=True), Within(3, _MAPPED | _ANONYMOUS, is_long=True)),
            (Within(2, _READ | _EXEC, is_long=True), Within(3, _MAPPED, is_long=True)),
        ),
    ),
    SystemCall("mprotect", 10, 226, ((Within(2, _READ | _WRITE, is_long=True),),)),
    SystemCall("munmap", 11, 215),
    SystemCall("mremap", 25, 216),
    SystemCall("madvise", 28, 233, ((In(2, _ADVICE),),)),
    # Signals to itself.
    SystemCall("rt_sigaction", 13, 134),
    SystemCall("rt_sigprocmask", 14, 135),
    SystemCall("rt_sigreturn", 15, 139),
    SystemCall("sigaltstack", 131, 132),
    # Files, to look at: which can be opened is decided by Landlock.
    SystemCall("stat", 4, None),
    SystemCall("lstat", 6, None),
    SystemCall("fstat", 5, 80),
    SystemCall("newfstatat", 262, 79),
    SystemCall("statx", 332, 291),
    SystemCall("getdents64", 217, 61),
    SystemCall("getcwd", 79, 17),
    # The end.
    SystemCall("exit", 60, 93),
    SystemCall("exit_group", 231, 94),
)  # fmt: skip
# Only where Landlock decides; to read only, so not O_PATH either.
OPENAT: Final = SystemCall("openat", 257, 56, ((Within(2, _NONBLOCK | _CLOEXEC | _NOCTTY | _FOUR),),))
