"""Event stream: what a subscription tells, as server-sent events (WHATWG HTML, section 9.2).

A product's codec says what is sent; this is the reply that goes on for as long as the reader stays
and may stay.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any, Final, NoReturn

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.auth.principals import Principal
from gateway.connections.lifecycle import (
    CLOSE_WITHIN_S,
    ClientClosed,
    ServerClose,
    TaskConnection,
)
from gateway.context import Context
from gateway.core.errors import GatewayError
from gateway.live.channel import Subscription
from gateway.realtime.codec import Codec

SSE: Final = "text/event-stream"

Subscribe = Callable[[], AbstractContextManager[Subscription]]


def sse_event(kind: str, data: bytes, position: str | None = None) -> bytes:
    """Return one event; *data* is JSON on one line."""
    head = b"" if position is None else b"id: %b\n" % position.encode()
    return b"%bevent: %b\ndata: %b\n\n" % (head, kind.encode(), data)


class EventStream(Response):
    """A reply that goes on for as long as the reader stays.

    Args:
        context: The node and its surroundings.
        principal: Who reads; the stream ends when its token expires.
        codec: What is sent; nothing is received, and a close has no code.
        subscribe: Begins the subscription when the reply is sent.
        refuse: Tells why there can be no subscription (``Overloaded``).
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
        """Tell until the reader leaves or may not stay."""
        context, codec = self._context, self._codec
        connection = _StreamConnection(context, receive, send, self._heartbeat_s)
        with ExitStack() as stack:
            stack.enter_context(context.connections.registered(connection))
            try:
                subscription = stack.enter_context(self._subscribe())
            except GatewayError as error:
                await self._refuse(error)(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            connection.expire_at(self._principal.expires_at, context.wall_ms)
            ended = await connection.run(
                lambda: codec.heartbeat(subscription), connection.tell(codec, subscription)
            )
            last = codec.close(ended).last if isinstance(ended, ServerClose) else b""
            await connection.close(last)


class _StreamConnection(TaskConnection):
    """An event stream as one of this process' connections."""

    def __init__(self, context: Context, receive: Receive, send: Send, heartbeat_s: float) -> None:
        super().__init__(context.connections.chance, heartbeat_s)
        self._receive = receive
        self._send = send

    async def tell(self, codec: Codec[Any], subscription: Subscription) -> None:
        """Send what happens."""
        if greeting := codec.greet(subscription, None):
            await self.send(greeting)
        while True:
            data = codec.notify(await subscription.next())
            if not isinstance(data, bytes):
                data = await data
            if data:
                await self.send(data)

    async def close(self, last: bytes) -> None:
        """End the reply with *last*."""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._send({"type": "http.response.body", "body": last})

    async def _write(self, data: bytes) -> None:
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError:
            raise ClientClosed("lost") from None

    async def _listen(self) -> NoReturn:
        while True:
            if (await self._receive())["type"] == "http.disconnect":
                raise ClientClosed("clean")
