"""Event stream: a subscription as server-sent events (WHATWG HTML, section 9.2).

A product's codec encodes the events; this is the reply, which lasts until the reader leaves or must
leave.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any, Final, NoReturn

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.auth.principals import Principal
from gateway.connections.journal import ConnectionJournal
from gateway.connections.lifecycle import (
    CLOSE_WITHIN_S,
    SEND_WITHIN_S,
    ClientClosed,
    ConnectionEnded,
    LiveConnection,
    ServerClose,
)
from gateway.context import Context
from gateway.core.errors import CloseCode, GatewayError
from gateway.node import Subscription
from gateway.realtime.codec import Codec
from gateway.realtime.handshake import journal_of

SSE: Final = "text/event-stream"

Subscribe = Callable[[], AbstractContextManager[Subscription]]


def sse_event(kind: str, data: bytes, position: str | None = None) -> bytes:
    """Return one event; *data* is JSON on one line."""
    head = b"" if position is None else b"id: %b\n" % position.encode()
    return b"%bevent: %b\ndata: %b\n\n" % (head, kind.encode(), data)


class EventStream(Response):
    """A reply that lasts until the reader leaves.

    Args:
        context: The node and its surroundings.
        principal: The reader; the stream ends when its token expires.
        codec: Encodes the events; nothing is received, and a close has no code.
        subscribe: Starts the subscription when the reply is sent.
        refuse: Returns the reply when there can be no subscription (``Overloaded``).
        heartbeat_s: Seconds of silence after which the codec's heartbeat is sent.
    """

    media_type = SSE

    def __init__(
        self,
        context: Context,
        principal: Principal,
        codec: Codec[Any],
        subscribe: Subscribe,
        *,
        refuse: Callable[[GatewayError], Response],
        heartbeat_s: float,
    ) -> None:
        context.connections.check_capacity()
        super().__init__()
        del self.headers["content-length"]
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        self._context = context
        self._principal = principal
        self._codec = codec
        self._subscribe = subscribe
        self._refuse = refuse
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader leaves or must leave."""
        context = self._context
        connection = _StreamConnection(context, self._codec, receive, send, self._heartbeat_s)
        with ExitStack() as stack:
            stack.enter_context(context.connections.registered(connection))
            try:
                subscription = stack.enter_context(self._subscribe())
            except GatewayError as error:
                await self._refuse(error)(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            connection.expire_at(self._principal.expires_at, context.wall_ms)
            journal = journal_of(context, scope)
            await connection.close(await connection.serve(subscription, journal))


class _StreamConnection(LiveConnection):
    """The connection of an event stream."""

    def __init__(
        self,
        context: Context,
        codec: Codec[Any],
        receive: Receive,
        send: Send,
        heartbeat_s: float,
    ) -> None:
        super().__init__(context.connections.chance, heartbeat_s)
        self._codec = codec
        self._receive = receive
        self._send = send
        self._subscription: Subscription | None = None
        self._works: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[ConnectionEnded] = self._loop.create_future()

    async def serve(
        self, subscription: Subscription, journal: ConnectionJournal
    ) -> ConnectionEnded:
        """Send events until the stream ends; return how it ended."""
        ended: ConnectionEnded = ServerClose(CloseCode.DRAINING, "draining")  # if it is cancelled
        self._subscription = subscription
        journal.opened(self._loop.time())
        self.start_heartbeat()
        self._spawn(self._tell(subscription))
        self._spawn(self._listen())
        try:
            ended = await self._ended
            return ended
        finally:
            journal.ended(ended, self._loop.time())
            self.stop_timers()
            works = list(self._works)
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    def end(self, ended: ConnectionEnded) -> None:
        """End this stream as soon as possible; the first call decides how."""
        if not self._ended.done():
            self._ended.set_result(ended)

    async def close(self, ended: ConnectionEnded) -> None:
        """End the reply, with the codec's last event if the gateway ends it."""
        last = self._codec.close(ended).last if isinstance(ended, ServerClose) else b""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._send({"type": "http.response.body", "body": last})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* while the stream lives; an exception in it ends the stream."""
        task = self._loop.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, work: asyncio.Task[None]) -> None:
        self._works.discard(work)
        error = None if work.cancelled() else work.exception()
        if isinstance(error, Exception):
            self.end(self.closing_of(error))

    async def _tell(self, subscription: Subscription) -> None:
        await self._write(self._codec.greet(subscription, None))
        while True:
            data = self._codec.notify(await subscription.next())
            await self._write(data if isinstance(data, bytes) else await data)

    def _on_heartbeat(self, *, is_due: bool) -> None:
        if is_due:
            self._spawn(self._write(self._codec.heartbeat(self._subscription)))

    async def _write(self, data: bytes) -> None:
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
