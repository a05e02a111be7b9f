"""The worker's side of the forkserver: one more process, or one less."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from gateway.scripting.sandbox import credit, messages
from gateway.scripting.sandbox.credit import Credit

if TYPE_CHECKING:
    from gateway.scripting.sandbox.host import SandboxedFilter

STARTING: Final = 5.0  # seconds for the process that starts others to answer
BUSY: Final = 1.0  # seconds until it is told again, where it had no time to listen


class Forkserver:
    """Forks processes; started with the first."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._line: socket.socket | None = None
        self._turn = asyncio.Lock()
        self._numbers = itertools.count(1)
        self.of_all = Credit(credit.SHARE_OF_ALL)
        self.living: set[SandboxedFilter] = set()

    async def fork(self) -> tuple[socket.socket, int, int]:
        """One more process: our end of its line, the number by which it is killed, and its process id. Raises OSError."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        number = next(self._numbers)
        try:
            with theirs:
                async with self._turn, asyncio.timeout(STARTING):
                    line = await self._started()
                    socket.send_fds(line, [messages.FORK + b"%d" % number], [theirs.fileno()])
                    answer = b""
                    while not answer.startswith(b"%d " % number):  # somebody did not wait for the answer before
                        answer = await asyncio.get_running_loop().sock_recv(line, 64)
                        if not answer:
                            raise OSError("the process that starts filters has ended")
            pid = int(answer.split()[1])
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
            return ours, number, pid
        except BaseException as error:
            ours.close()
            if isinstance(error, TimeoutError) and self._process is not None and self._process.returncode is None:
                self._process.kill()
            raise

    async def _started(self) -> socket.socket:
        if self._line is not None and self._process is not None and self._process.returncode is None:
            return self._line
        if self._line is not None:
            self._line.close()
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.setblocking(False)
        with theirs:
            # Its environment is empty but for the import path: nothing that is secret is there to be read.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.scripting.sandbox.forkserver", "--fd", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
                env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
            )  # fmt: skip
        return self._line

    def kill(self, number: int) -> None:
        """End a process at once, if it has not ended. Those of a forkserver that is gone have ended with it."""
        self._tell(messages.KILL, number)

    def stand_back(self, number: int) -> None:
        """Let others go before a process that has been replaced."""
        self._tell(messages.STAND_BACK, number)

    def _tell(self, what: bytes, number: int) -> None:
        if self._line is not None and self._process is not None and self._process.returncode is None:
            try:
                self._line.send(what + b"%d" % number)
            except BlockingIOError:  # it is busy
                asyncio.get_running_loop().call_later(BUSY, self._tell, what, number)
            except OSError:
                pass

    async def stop(self) -> None:
        """End all of them."""
        for sandbox in list(self.living):
            await sandbox.stop()
        if self._process is not None and self._line is not None:
            self._line.close()
            self._line = None
            try:
                async with asyncio.timeout(STARTING):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
            self._process = None
