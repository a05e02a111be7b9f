"""Forks the processes of filters. It has everything imported that they need, so that one more takes a millisecond or two.

A worker passes the far end of a socket; the fork serves there. The zygote ends with its worker, and its children with it.
"""

from __future__ import annotations

import argparse

# What filters are likely to import: what is loaded here is shared by all.
import base64  # noqa: F401
import contextlib
import gc
import mimetypes
import os
import select
import signal
import socket
import sys
import xml.etree.ElementTree  # noqa: F401  # only loaded

from gateway.private import keep_to_yourself
from gateway.sandbox import cell
from gateway.sandbox.protocol import FORK


def main() -> None:
    """Until the worker is gone."""
    keep_to_yourself()
    parser = argparse.ArgumentParser(description="forks the processes of filters; started by a worker")
    parser.add_argument("--fd", type=int, required=True)
    line = socket.socket(fileno=parser.parse_args().fd)
    children: set[int] = set()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for name in (signal.SIGINT, signal.SIGTERM):  # the worker decides when it is over; a Ctrl-C reaches everybody
        signal.signal(name, signal.SIG_IGN)
    mimetypes.init()  # from files that filters cannot read
    gc.freeze()
    while True:
        ready, _, _ = select.select([line.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _reap(children)
        if line.fileno() in ready:
            data, fds, _, _ = socket.recv_fds(line, 64, 1)
            if not data:
                break
            if data[:1] == FORK:
                pid = _fork(fds[0], line, (wake, waker))
                children.add(pid)
                with contextlib.suppress(BrokenPipeError):  # then the next read says that it is over
                    line.send(b"%d" % pid)
            elif int(data[1:]) in children:  # not yet reaped, so the number is still its own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(data[1:]), signal.SIGKILL)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _fork(fd: int, line: socket.socket, pipe: tuple[int, int]) -> int:
    pid = os.fork()
    if pid:
        os.close(fd)
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        line.close()
        for end in pipe:
            os.close(end)
        cell.run(socket.socket(fileno=fd))
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def _reap(children: set[int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            children.discard(pid)


if __name__ == "__main__":
    main()
