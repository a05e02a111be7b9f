"""The last good snapshot, kept in a file. It holds private keys: nobody else may read it, and nobody else's is believed.

What was cut short, changed, put there by somebody else or is no file at all is left alone, with a line in the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from gateway.base.logs import SHORT, plain
from gateway.snapshot import Change

log = logging.getLogger("fsm.feed")

MAX_KEPT_BYTES: Final = 30 << 20  # octets; while one is written there are two, and the pod's volume holds 64 MB
_MAGIC: Final = b"fsm snapshot 1\n"
_DIGEST: Final = 32

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Change).decode


class Kept:
    """The last good snapshot, on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Change | None:
        """What was kept, if it is whole and our own."""
        try:
            # Neither a link to elsewhere nor a pipe that would keep us waiting.
            handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._of_no_use(str(error))
        try:
            if wrong := _wrong(os.fstat(handle)):
                return self._of_no_use(wrong)
            with os.fdopen(handle, "rb", closefd=False) as file:
                data = file.read(MAX_KEPT_BYTES)
        except OSError as error:
            return self._of_no_use(str(error))
        finally:
            os.close(handle)
        head, content = data[: len(_MAGIC) + _DIGEST], data[len(_MAGIC) + _DIGEST :]
        if head != _MAGIC + _digest(content):
            return self._of_no_use("it is not as it was written")
        try:
            return _decode(content)
        except (msgspec.DecodeError, RecursionError) as error:  # written by another version of this program
            return self._of_no_use(str(error))

    def write(self, whole: Change) -> None:
        """Keep it instead of what was kept before: the whole of it, or not at all."""
        content = _encode(whole)
        if len(content) > MAX_KEPT_BYTES:
            log.warning(
                "the snapshot is not kept in %s: it has %d bytes, and %d is the most", self._path, len(content), MAX_KEPT_BYTES
            )
            with contextlib.suppress(OSError):
                self._path.unlink()  # an older one would come back
            return
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()  # of somebody who did not get to the end of it
            # A file of our own making: its mode is ours as well, and it is no link.
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + _digest(content))
                file.write(content)
                file.flush()
                os.fsync(handle)
            fresh.replace(self._path)
        except OSError as error:
            log.warning("the snapshot cannot be kept in %s: %s", self._path, error)

    def _of_no_use(self, why: str) -> Change | None:
        log.warning("the kept snapshot %s is of no use: %s", self._path, plain(why, SHORT))
        return None


def _wrong(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "it is not a file"
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        return "others may have written or read it"
    return f"it has {status.st_size} bytes" if status.st_size > MAX_KEPT_BYTES else ""


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()
