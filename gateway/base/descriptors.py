"""What a process was handed, and nothing else: every other descriptor is closed before anything else is done.

Who starts a process cannot see to that. uvloop's subprocesses leave open whatever is inheritable, which is what others
have made so without a word (an inotify, the terminal of an editor, what a parent was handed itself); so the child does.
"""

from __future__ import annotations

import os
import resource


def keep_only(*kept: int) -> None:
    """Close all but the standard three and these, and let no child of this process inherit these."""
    above = 3
    for descriptor in sorted({number for number in kept if number >= 3}):
        os.closerange(above, descriptor)
        os.set_inheritable(descriptor, False)
        above = descriptor + 1
    os.closerange(above, _highest() + 1)


def _highest() -> int:
    """The highest descriptor that can be open. A limit that was lowered meanwhile does not bound those from before."""
    try:
        return max(int(name) for name in os.listdir("/proc/self/fd"))
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
