"""Streamed reply: an HTTP reply that is written bit by bit, until its reader leaves or must leave.

Not here: what is written (``sse``, a product's endpoints).
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, NoReturn

from starlette.responses import Response
from starlette.types import Receive, Send

from gateway.auth.principals import Principal
from gateway.connections.lifecycle import (
    CLOSE_WITHIN_S,
    SEND_WITHIN_S,
    ClientClosed,
    ConnectionEnded,
    LiveConnection,
    ServerClose,
)
from gateway.context import Context
from gateway.core.errors import CloseCode

UNBUFFERED: Final = {"X-Accel-Buffering": "no"}  # nginx would hold parts back


class StreamedReply(Response):
    """The start of such a reply; no proxy holds its parts back.

    Args:
        context: The node and its surroundings.
        principal: The reader; the reply ends when its token expires.
        media: The media type.
        cache_control: That of the reply.

    Raises:
        Draining: This node is shutting down.
        Overloaded: The maximum of connections is reached.
    """

    def __init__(
        self, context: Context, principal: Principal, media: str, cache_control: str
    ) -> None:
        context.connections.check_capacity()
        super().__init__(media_type=media)
        del self.headers["content-length"]
        self.headers["Cache-Control"] = cache_control
        self.headers.update(UNBUFFERED)
        self._context = context
        self._principal = principal

    async def begin(self, connection: "StreamConnection", send: Send) -> None:
        """Send status and headers, and let the connection end with the reader's token."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        connection.expire_at(self._principal.expires_at, self._context.wall_ms)


class StreamConnection(LiveConnection):
    """The connection of a streamed reply.

    Args:
        context: The node and its surroundings.
        receive: Tells when the reader has left.
        send: Takes the parts.
        heartbeat_s: Seconds of silence after which a heartbeat is due.
    """

    def __init__(self, context: Context, receive: Receive, send: Send, heartbeat_s: float) -> None:
        super().__init__(context.connections.chance, heartbeat_s)
        self._receive = receive
        self._send = send
        self._works: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[ConnectionEnded] = self._loop.create_future()

    async def serve(self, *works: Coroutine[Any, Any, None]) -> ConnectionEnded:
        """Do *works* until the reply ends; return how it ended."""
        ended: ConnectionEnded = ServerClose(CloseCode.DRAINING, "draining")  # if it is cancelled
        for work in (*works, self._listen()):
            self.spawn(work)
        try:
            ended = await self._ended
            return ended
        finally:
            self.stop_timers()
            await self.on_end(ended)
            left = list(self._works)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def on_end(self, ended: ConnectionEnded) -> None:
        """Do what has to be done at the end, before the works are cancelled."""

    def end(self, ended: ConnectionEnded) -> None:
        """End this reply as soon as possible; the first call decides how."""
        if not self._ended.done():
            self._ended.set_result(ended)

    async def close(self, last: bytes = b"") -> None:
        """End the reply with a last part."""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._send({"type": "http.response.body", "body": last})

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* while the reply lasts; an exception in it ends the reply."""
        task = self._loop.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, work: asyncio.Task[None]) -> None:
        self._works.discard(work)
        error = None if work.cancelled() else work.exception()
        if isinstance(error, Exception):
            self.end(self.closing_of(error))

    async def write(self, data: bytes) -> None:
        """Send *data*, unless it is empty.

        Raises:
            ConnectionEnded: The reader is gone, or took nothing for ``SEND_WITHIN_S``.
        """
        if not data:
            return
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            raise self.too_slow() from None
        except OSError:
            raise ClientClosed("lost") from None
        self._sent_at_s = self._loop.time()

    async def _listen(self) -> NoReturn:
        while True:
            if (await self._receive())["type"] == "http.disconnect":
                raise ClientClosed("clean")
