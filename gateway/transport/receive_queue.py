"""Receive queue: messages of one WebSocket that its ASGI application has not fetched.

Messages are bounded by their bytes: :attr:`ReceiveQueue.is_full` says when to stop reading. The
disconnect message comes last and is repeated for each further call.
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
        """Whether reading from the client should pause."""
        return self._bytes > RECEIVE_QUEUE_MAX_BYTES

    def on_message(self, message: str | bytes) -> None:
        """Add a message of the client."""
        kind = "text" if isinstance(message, str) else "bytes"
        self._messages.append({"type": "websocket.receive", kind: message})
        self._bytes += _cost(message)
        self._wake()

    def on_writable(self) -> None:
        """Do nothing: an ASGI sender waits in ``send``."""

    def on_close(self, code: int, reason: str | None = None) -> None:
        """Store how the connection ended; only the first call counts."""
        if self._ended is None:
            self._ended = {"type": "websocket.disconnect", "code": code}
            if reason is not None:
                self._ended["reason"] = reason
            self._wake()

    def clear(self) -> None:
        """Drop all messages."""
        self._messages.clear()
        self._bytes = 0

    def pass_on(self, listener: Listener) -> None:
        """Deliver everything that was not fetched to *listener*, in order."""
        for message in self._messages:
            if message["type"] == "websocket.receive":
                listener.on_message(message["text"] if "text" in message else message["bytes"])
        if self._ended is not None:
            listener.on_close(self._ended["code"], self._ended.get("reason"))

    async def get(self) -> Message:
        """Wait for the next message and return it."""
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
    """Listener that ignores everything, for a connection that its listener has closed."""

    def on_message(self, message: str | bytes) -> None:
        """Ignore it."""

    def on_writable(self) -> None:
        """Ignore it."""

    def on_close(self, code: int, reason: str | None) -> None:
        """Ignore it."""


NULL_LISTENER: Final = _NullListener()
