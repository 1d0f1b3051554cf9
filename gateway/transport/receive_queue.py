"""Receive queue: what an ASGI application has not fetched of one WebSocket.

Messages are bounded by their bytes: :attr:`ReceiveQueue.is_full` says when to read no more. How it
ended comes last, and again whenever somebody asks.
"""

import asyncio
from collections import deque
from typing import Final

from starlette.types import Message

from gateway.core.frames import Listener

RECEIVE_QUEUE_MAX_BYTES: Final = (
    128 * 1024
)  # two of the longest messages; more is left in the kernel
MESSAGE_COST_BYTES: Final = 256  # what a message takes besides its payload, roughly


class ReceiveQueue:
    """Messages in the order in which they came."""

    __slots__ = ("_bytes", "_ended", "_messages", "_waiter")

    def __init__(self) -> None:
        self._messages: deque[Message] = deque([{"type": "websocket.connect"}])
        self._bytes = 0
        self._ended: Message | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether no more should be read."""
        return self._bytes > RECEIVE_QUEUE_MAX_BYTES

    def on_message(self, message: str | bytes) -> None:
        """Add what the client said."""
        kind = "text" if isinstance(message, str) else "bytes"
        self._messages.append({"type": "websocket.receive", kind: message})
        self._bytes += _cost(message)
        self._wake()

    def on_writable(self) -> None:
        """Nothing follows from it here: who sends waits by itself."""

    def on_close(self, code: int, reason: str | None = None) -> None:
        """Say how it ended; the first one to say so is right."""
        if self._ended is None:
            self._ended = {"type": "websocket.disconnect", "code": code}
            if reason is not None:
                self._ended["reason"] = reason
            self._wake()

    def clear(self) -> None:
        """Forget the messages: nobody wants them any more."""
        self._messages.clear()
        self._bytes = 0

    def pass_on(self, listener: Listener) -> None:
        """Tell *listener* what was not fetched, in the same order."""
        for message in self._messages:
            if message["type"] == "websocket.receive":
                listener.on_message(message["text"] if "text" in message else message["bytes"])
        if self._ended is not None:
            listener.on_close(self._ended["code"], self._ended.get("reason"))

    async def get(self) -> Message:
        """Return the next message, when there is one."""
        while not self._messages:
            if self._ended is not None:
                return self._ended
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._messages.popleft()
        if message["type"] == "websocket.receive":
            self._bytes -= _cost(message.get("text") or message.get("bytes") or "")
        return message

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _cost(message: str | bytes) -> int:
    return len(message) + MESSAGE_COST_BYTES


class _NullListener:
    """Listens to a connection that its listener has closed."""

    def on_message(self, message: str | bytes) -> None:
        """Pass it over."""

    def on_writable(self) -> None:
        """Nobody waits."""

    def on_close(self, code: int, reason: str | None) -> None:
        """Nobody asks."""


NULL_LISTENER: Final = _NullListener()
