"""Forks the processes of filters. It has everything imported that they need, so that one more takes a millisecond or two.

A worker passes the far end of a socket; the fork serves there. The forkserver ends with its worker, and its children with it.
It never sees a source, a configuration or a secret: what it knows, every filter's process knows.
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

from gateway.base import descriptors
from gateway.base.privacy import keep_to_yourself
from gateway.scripting.sandbox import restrictions, runner
from gateway.scripting.sandbox.messages import FORK, KILL

NICE = 10  # who forwards requests goes first; of a core that a worker keeps busy this leaves a tenth


class Children:
    """By the numbers that the worker gave them: those of processes are used again, and one of the dead must not be killed."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._pids: dict[int, int] = {}

    def fork(self, number: int, fd: int) -> None:
        """One more, and an answer: the process's number, or what is in the way."""
        try:
            pid = _fork(fd)
        except OSError as error:  # there are too many, or there is no memory
            self._say(b"%d -%d" % (number, error.errno or 0))
        else:
            self._pids[number] = pid
            self._say(b"%d %d" % (number, pid))

    def _say(self, answer: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # then the next read says that it is over
            self._line.send(answer)

    def kill(self, number: int) -> None:
        """End one, unless it has been reaped."""
        if number in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pids[number], signal.SIGKILL)

    def stand_back(self, number: int) -> None:
        """Others go before one that has been replaced: it ends by itself, or is ended soon."""
        if number in self._pids:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(self._pids[number], os.SCHED_IDLE, os.sched_param(0))

    def kill_all(self) -> None:
        """End with the worker: kill what was forked."""
        for number in self._pids:
            self.kill(number)

    def reap(self) -> None:
        """Forget those that have ended."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self._pids = {number: child for number, child in self._pids.items() if child != pid}


def main() -> None:
    """Until the worker is gone."""
    parser = argparse.ArgumentParser(description="forks the processes of filters; started by a worker")
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    descriptors.keep_only(arguments.fd)
    keep_to_yourself()
    os.nice(NICE)
    line = socket.socket(fileno=arguments.fd)
    children = Children(line)
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
            children.reap()
        if line.fileno() in ready:
            data, fds, _, _ = socket.recv_fds(line, 64, 1)
            if not data:
                break
            if data[:1] == FORK:
                children.fork(int(data[1:]), fds[0])
                os.close(fds[0])
            elif data[:1] == KILL:
                children.kill(int(data[1:]))
            else:
                children.stand_back(int(data[1:]))
    children.kill_all()


def _fork(fd: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        descriptors.keep_only(fd)
        restrictions.follow(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        runner.run(socket.socket(fileno=fd))
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
