"""A process that holds private keys keeps its memory to itself: no core is ever written, and nobody but root looks into it.

Said first of all by every process of ours that may hold one; a program that is started anew has to say it again.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def keep_to_yourself() -> None:
    """Keep other processes of the same user out of this one.

    What a process reads of itself in /proc it still may, whoever runs it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Also where cores go to a program (core(5), "Piping core dumps to a program"), which heeds no limit; and it keeps
        # other processes of the same user from memory, environment and descriptors (ptrace(2), proc(5)).
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
