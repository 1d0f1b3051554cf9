"""Event stream: what a subscription tells, as server-sent events (WHATWG HTML, section 9.2).

Each event comes by itself, under its type; ``hello``, ``snapshot``, ``resync``, ``heartbeat`` and
``bye`` are the observer socket's messages. Only the last event of a frame has an ``id``, and only
the last page of a snapshot: there a reader that lost the connection may go on without losing what
stood between.

Not here: the other two ways to be told (``events``).
"""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Final, NoReturn

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.watcher import heartbeat, hello
from gateway.auth.principals import Principal
from gateway.connections.lifecycle import (
    CLOSE_WITHIN_S,
    ClientClosed,
    ConnectionEnded,
    ServerClose,
    TaskConnection,
)
from gateway.context import Context
from gateway.core.errors import Overloaded
from gateway.core.protocol import render
from gateway.http.problems import problem
from gateway.live.channel import Subscription
from gateway.live.outbound import OutboundMessage, SnapshotPage, Tick
from gateway.node import Node

SSE: Final = "text/event-stream"

Subscribe = Callable[[], AbstractContextManager[Subscription]]


class EventStream(Response):
    """A reply that goes on for as long as the reader stays (WHATWG HTML, *Server-sent events*)."""

    media_type = SSE

    def __init__(self, context: Context, principal: Principal, subscribe: Subscribe) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        self._context = context
        self._principal = principal
        self._subscribe = subscribe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell until the reader leaves or may not stay."""
        context = self._context
        line = _EventLine(context, receive, send)
        with ExitStack() as stack:
            stack.enter_context(context.connections.registered(line))
            try:
                subscription = stack.enter_context(self._subscribe())
            except Overloaded as error:
                await problem(error, secrets.token_hex(8))(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            line.expire_at(self._principal.expires_at, context.wall_ms)
            ended = await line.run(
                lambda: _beat(context.node, subscription), line.tell(subscription)
            )
            await line.close(ended)


class _EventLine(TaskConnection):
    """An event stream as a line."""

    def __init__(self, context: Context, receive: Receive, send: Send) -> None:
        super().__init__(context.connections.chance, context.settings.heartbeat_s)
        self._node = context.node
        self._receive = receive
        self._send = send

    async def tell(self, subscription: Subscription) -> None:
        """Say what happens."""
        await self.send(_event("hello", render(hello(self._node, subscription, self))))
        while True:
            await self.send(_events(await subscription.next()))

    async def close(self, ended: ConnectionEnded) -> None:
        """Say goodbye if it is ours to say, and end the reply."""
        data = b""
        if isinstance(ended, ServerClose):
            data = _event("bye", render(ended.message))
            if ended.retry_after_ms is not None:
                data = b"retry: %d\n%b" % (ended.retry_after_ms, data)
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._send({"type": "http.response.body", "body": data})

    async def _write(self, data: bytes) -> None:
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError:
            raise ClientClosed("lost") from None

    async def _listen(self) -> NoReturn:
        while True:
            if (await self._receive())["type"] == "http.disconnect":
                raise ClientClosed("clean")


def _beat(node: Node, subscription: Subscription) -> bytes:
    beat = heartbeat(node, subscription)
    return _event("heartbeat", render(beat), None if subscription.is_behind else beat.position)


def _events(delivery: OutboundMessage) -> bytes:
    """Return what a delivery is in an event stream."""
    match delivery:
        case Tick(items=items, position=at):
            *others, last = items
            told = [_event(item.type, item.data) for item in others]
            return b"".join([*told, _event(last.type, last.data, str(at))])
        case SnapshotPage():
            return _event(
                "snapshot", delivery.message, None if delivery.more else delivery.position
            )
        case _:
            return _event("resync", delivery.message)


def _event(kind: str, data: bytes, position: str | None = None) -> bytes:
    """Return one event; *data* is JSON on one line."""
    head = b"" if position is None else b"id: %b\n" % position.encode()
    return b"%bevent: %b\ndata: %b\n\n" % (head, kind.encode(), data)
