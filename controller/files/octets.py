"""What a file holds, where it is one: whoever owns the folder may put a pipe or a device in its place at any moment."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 16 << 20  # of one file


def octets_of(path: Path) -> bytes | None:
    """What a file holds, up to one more than may be; None where it is none, such as a pipe or a device, which would be read for
    ever. Nothing is waited for: there are files (of /proc) that have their content only later. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as opened:
            octets: bytes | None = opened.read(MAX_BYTES + 1)
        return octets
    finally:
        os.close(descriptor)
