"""A request of our own to a backend: sent at once, its answer collected, given up after a while.

For whatever the gateway itself wants to know: whether a request may pass, what a filter asks of somebody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from gateway.http.http1 import Field, ProtocolError, Response
from gateway.interfaces import Endpoint, ResponseHeads, UpstreamStream
from gateway.transport.dial import DialError


class Answered(NamedTuple):
    """A whole answer."""

    response: Response
    body: bytes
    trailers: list[Field]


class InternalRequest:
    """The user of a backend's connection. `told` is called once: with the answer, or with why there is none."""

    __slots__ = (
        "_content", "_done", "_pieces", "_response", "_size", "_timer", "_told", "_trailers", "answers",
        "head_only", "most", "peer", "wants_payload",
    )  # fmt: skip

    def __init__(self, content: bytes, told: Callable[[Answered | str], None], *, most: int, head_only: bool) -> None:
        self._content = content  # head and body
        self._told = told
        self._response: Response | None = None
        self._trailers: list[Field] = []
        self._pieces: list[bytes] = []
        self._size = 0  # octets of them
        self._done = False
        self._timer: asyncio.TimerHandle | None = None
        self.most = most
        self.answers: ResponseHeads | None = None
        self.head_only = head_only
        self.peer: UpstreamStream | None = None
        self.wants_payload = True

    def send(self, endpoint: Endpoint | None, patience: float) -> None:
        """Send it, and wait for so many seconds."""
        self._timer = asyncio.get_running_loop().call_later(patience, self._tell, f"no answer within {patience:g} s")
        if endpoint is None:
            self._tell("nobody is there to be asked")
            return
        peer = endpoint.take(self)
        if peer is not None:
            self.connected(peer)
        else:
            endpoint.connect(self)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._done = True
        if self._timer is not None:
            self._timer.cancel()
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.abort()

    def _tell(self, what: Answered | str) -> None:
        if not self._done:
            self.cancel()
            self._told(what)

    # --- called by the backend's connection (`UpstreamHandler`) ---

    @property
    def is_sent(self) -> bool:
        """Whether the backend has been told everything."""
        return True

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for a connection any more."""
        return self._done

    def connected(self, peer: UpstreamStream) -> None:
        """Ask."""
        self.peer = peer
        peer.write(self._content)

    def connect_failed(self, failure: DialError) -> None:
        """No connection could be made."""
        self._tell(str(failure))

    def response(self, response: Response, head: bytes) -> None:
        """The answer's head."""
        if response.status >= 200:
            self._response = response

    def response_data(self, data: bytes) -> None:
        """The answer's content."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self.most:
            self._tell(f"the answer is longer than {self.most} bytes")

    def response_trailers(self, fields: list[Field]) -> None:
        """The answer's trailers."""
        self._trailers = fields

    def flush(self) -> None:
        """Nothing is passed on."""

    def response_end(self) -> None:
        """The answer is whole."""
        self.peer = None
        if self._response is None:
            self._tell("the answer has no head")
        else:
            self._tell(Answered(self._response, b"".join(self._pieces), self._trailers))

    def response_lost(self, reason: str, *, clean: bool, untouched: bool = False) -> None:
        """The connection ended."""
        self.peer = None
        if clean:
            self.response_end()
        else:
            self._tell(f"the connection ended before the answer did ({reason})")

    def response_invalid(self, error: ProtocolError) -> None:
        """Not HTTP."""
        self.peer = None
        self._tell(error.reason)

    def answered(self, data: bytes, status_class: int) -> None:
        """Never: `answers` is None."""

    def begun(self, data: bytes, status_class: int) -> None:
        """Never: `answers` is None."""

    def continued(self, data: bytes | memoryview) -> None:
        """A piece from the middle of a large answer."""
        self.response_data(bytes(data))

    def ended(self, data: bytes, status_class: int) -> None:
        """Never: `answers` is None."""

    def owes(self) -> int:
        """Nothing is passed on."""
        return 0

    def promote(self) -> InternalRequest:
        """Itself: it takes every response in full."""
        return self

    def pause_sending(self) -> None:
        """It is sent at once."""

    def resume_sending(self) -> None:
        """It is sent at once."""


async def answer_to(
    content: bytes, endpoint: Endpoint | None, patience: float, *, most: int, head_only: bool = False
) -> Answered | str:
    """The answer to a request within so many seconds, its body no longer than `most` octets; or why there is none."""
    future: asyncio.Future[Answered | str] = asyncio.get_running_loop().create_future()

    def told(what: Answered | str) -> None:
        # Cancelled, the future is done at once, and `ask.cancel` comes a turn of the loop later.
        if not future.done():
            future.set_result(what)

    ask = InternalRequest(content, told, most=most, head_only=head_only)
    ask.send(endpoint, patience)
    try:
        return await future
    finally:
        ask.cancel()
