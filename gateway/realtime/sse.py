"""Event stream: a subscription as server-sent events (WHATWG HTML, section 9.2).

A product's codec encodes the events; this is the reply, which lasts until the reader leaves or must
leave.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.auth.principals import Principal
from gateway.connections.journal import ConnectionJournal
from gateway.connections.lifecycle import ConnectionEnded, ServerClose
from gateway.context import Context
from gateway.core.errors import GatewayError
from gateway.node import Subscription
from gateway.realtime.codec import Codec
from gateway.realtime.handshake import journal_of
from gateway.realtime.stream import StreamConnection, StreamedReply

SSE: Final = "text/event-stream"

Subscribe = Callable[[], AbstractContextManager[Subscription]]


def sse_event(kind: str, data: bytes, position: str | None = None) -> bytes:
    """Return one event; *data* is JSON on one line."""
    head = b"" if position is None else b"id: %b\n" % position.encode()
    return b"%bevent: %b\ndata: %b\n\n" % (head, kind.encode(), data)


class EventStream(StreamedReply):
    """A reply that lasts until the reader leaves.

    Args:
        context: The node and its surroundings.
        principal: The reader; the stream ends when its token expires.
        codec: Encodes the events; nothing is received, and a close has no code.
        subscribe: Starts the subscription when the reply is sent.
        refuse: Returns the reply when there can be no subscription (``Overloaded``).
        heartbeat_s: Seconds of silence after which the codec's heartbeat is sent.
    """

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
        super().__init__(context, principal, SSE, "no-store")
        self._codec = codec
        self._subscribe = subscribe
        self._refuse = refuse
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader leaves or must leave."""
        context = self._context
        connection = _EventConnection(
            *(context, receive, send, self._heartbeat_s),
            codec=self._codec,
            journal=journal_of(context, scope),
        )
        with ExitStack() as stack:
            stack.enter_context(context.connections.registered(connection))
            try:
                subscription = stack.enter_context(self._subscribe())
            except GatewayError as error:
                await self._refuse(error)(scope, receive, send)
                return
            await self.begin(connection, send)
            await connection.follow(subscription)


class _EventConnection(StreamConnection):
    """The connection of an event stream."""

    def __init__(
        self,
        context: Context,
        receive: Receive,
        send: Send,
        heartbeat_s: float,
        *,
        codec: Codec[Any],
        journal: ConnectionJournal,
    ) -> None:
        super().__init__(context, receive, send, heartbeat_s)
        self._codec = codec
        self._journal = journal
        self._subscription: Subscription | None = None

    async def follow(self, subscription: Subscription) -> None:
        """Send events until the stream ends, and the codec's last one if the gateway ends it."""
        self._subscription = subscription
        self._journal.opened(self._loop.time())
        self.start_heartbeat()
        ended = await self.serve(self._tell(subscription))
        await self.close(self._codec.close(ended).last if isinstance(ended, ServerClose) else b"")

    async def on_end(self, ended: ConnectionEnded) -> None:
        """Tell the log how the stream ended."""
        self._journal.ended(ended, self._loop.time())

    async def _tell(self, subscription: Subscription) -> None:
        await self.write(self._codec.greet(subscription, None))
        while True:
            data = self._codec.notify(await subscription.next())
            await self.write(data if isinstance(data, bytes) else await data)

    def _on_heartbeat(self, *, is_due: bool) -> None:
        if is_due:
            self.spawn(self.write(self._codec.heartbeat(self._subscription)))
