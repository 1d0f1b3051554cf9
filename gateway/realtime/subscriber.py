"""Subscriber: the one subscription of a connection, and the handler of observer connections.

Once the client has its snapshot or the events that it missed, the channel writes to its connection
synchronously. If the write buffer is full, the subscriber waits and then reads the channel's ring.

Not here: who may watch what (``auth``, a product), the encoding (its codec).
"""

import asyncio
from collections.abc import Awaitable
from typing import Generic, TypeVar

from gateway.connections.lifecycle import ConnectionEnded
from gateway.core.position import Position
from gateway.core.query import View
from gateway.node import Node, OutboundMessage, Subscription, Tick
from gateway.realtime.connection import WebSocketConnection

M = TypeVar("M")


async def resume_point(
    node: Node, view: View, since: str | None
) -> tuple[Position | None, str | None]:
    """Return the position where a subscription can resume, or why it cannot.

    Raises:
        BadPosition: *since* is no position.
    """
    if since is None:
        return None, None
    position = Position.parse(since)
    reason = await node.check_resume(view, position)
    return (position if reason is None else None), reason


def position_of(node: Node, subscription: Subscription | None) -> str:
    """Return the position up to which a subscriber has all events.

    Within a snapshot it belongs to no view, so that no client resumes there; see ``live.channel``.
    """
    if subscription is None:
        return str(node.position())
    if subscription.is_behind:
        return subscription.position
    return str(node.position(subscription.view.hash32))


class Subscriber(Generic[M]):
    """The one subscription of a connection.

    Args:
        node: This node.
        connection: The connection of the subscriber.
    """

    __slots__ = ("_connection", "_is_greeted", "_node", "_waiting", "subscription")

    def __init__(self, node: Node, connection: WebSocketConnection[M]) -> None:
        self.subscription: Subscription | None = None
        self._node = node
        self._connection = connection
        self._is_greeted = False  # nothing is sent before the greeting
        self._waiting: asyncio.Task[None] | None = None  # waits for messages that are not here yet

    async def start(self, view: View, since: str | None) -> None:
        """Subscribe to *view*, in place of an earlier subscription.

        Messages follow the answer to the request for the subscription.

        Raises:
            BadPosition: *since* is no position.
            Overloaded: There are too many different subscriptions.
        """
        position, reason = await resume_point(self._node, view, since)
        self._begin(self._node.subscribe(view, position, reason))

    def start_here(self, view: View) -> None:
        """Subscribe to *view* from now on, without a snapshot.

        Raises:
            Overloaded: There are too many different subscriptions.
        """
        here = self._node.position(view.hash32)
        self._begin(self._node.subscribe(view, here))

    def _begin(self, subscription: Subscription) -> None:
        self.stop()
        self.subscription, self._is_greeted = subscription, False
        asyncio.get_running_loop().call_soon(self._greet, subscription)

    def stop(self) -> None:
        """End the subscription."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self.subscription is not None:
            self.subscription.close()
            self.subscription = None

    def last_sent_at_s(self) -> float:
        """Return when the channel last wrote to the connection, in loop time; 0 if never."""
        return 0.0 if self.subscription is None else self.subscription.last_sent_at_s

    def on_writable(self) -> None:
        """Continue: the write buffer drained below the low-water mark."""
        if self.subscription is not None and self._is_greeted and self._waiting is None:
            self._tell(self.subscription)

    def _greet(self, subscription: Subscription) -> None:
        if subscription is not self.subscription:
            return
        self._is_greeted = True
        connection = self._connection
        greeting = connection.codec.greet(subscription, None)
        if connection.codec.shares_frames and (first := subscription.take()) is not None:
            greeting += first.frame  # often it is all there is, and one write costs less
        if greeting:
            connection.write(greeting)
        self._tell(subscription)

    def _tell(self, subscription: Subscription) -> None:
        connection, behind = self._connection, self._fall_behind
        shares = connection.codec.shares_frames
        while not connection.is_full:
            if shares:
                if subscription.follow(connection.push, behind):
                    return
            elif subscription.follow_ticks(self._push, behind):
                return
            message = subscription.take()
            if message is None:
                self._waiting = connection.spawn(self._wait(subscription))
                return
            if not self._send(message):
                return

    def _fall_behind(self) -> None:
        # Later, because the channel is writing to others just now.
        asyncio.get_running_loop().call_soon(self.on_writable)

    def _push(self, tick: Tick) -> bool:
        """Write a tick of the channel; return whether the client keeps up."""
        return self._send(tick) and not self._connection.is_full

    def _send(self, message: OutboundMessage) -> bool:
        """Send *message*; return whether the next one may follow at once."""
        connection = self._connection
        try:
            data = (
                message.frame
                if connection.codec.shares_frames
                else connection.codec.notify(message)
            )
        except Exception as error:  # noqa: BLE001 - the channel must go on; logged if unforeseen
            # The channel is writing to others just now, so leave it after that.
            asyncio.get_running_loop().call_soon(connection.end, connection.closing_of(error))
            return False
        if not isinstance(data, bytes):
            self._waiting = connection.spawn(self._send_later(data))
            return False
        if data:
            connection.write(data)
        return True

    async def _send_later(self, data: Awaitable[bytes]) -> None:
        connection = self._connection
        if found := await data:
            connection.write(found)
        self._waiting = None
        self.on_writable()

    async def _wait(self, subscription: Subscription) -> None:
        message = await subscription.next()
        self._waiting = None
        if self._send(message):
            self._tell(subscription)


class ObserverSocket(Generic[M]):
    """Handler of an observer connection; a product adds the handling of messages.

    Args:
        node: This node.
        connection: The client's.
    """

    __slots__ = ("_subscriber", "connection", "node")

    def __init__(self, node: Node, connection: WebSocketConnection[M]) -> None:
        self.node = node
        self.connection = connection
        self._subscriber: Subscriber[M] | None = None

    @property
    def subscriber(self) -> Subscriber[M]:
        """The one subscription; made when it is first asked for: most sessions have none."""
        if self._subscriber is None:
            self._subscriber = Subscriber(self.node, self.connection)
        return self._subscriber

    async def handle(self, message: M) -> None:
        """Ignore a message: an observer has nothing to ask."""

    def heartbeat(self) -> bytes:
        """Return the heartbeat."""
        subscriber = self._subscriber
        subscription = None if subscriber is None else subscriber.subscription
        return self.connection.codec.heartbeat(subscription)

    def on_writable(self) -> None:
        """Continue the subscription."""
        if self._subscriber is not None:
            self._subscriber.on_writable()

    def last_sent_at_s(self) -> float:
        """Return when the channel last wrote to the connection, in loop time."""
        return 0.0 if self._subscriber is None else self._subscriber.last_sent_at_s()

    def on_end(self, ended: ConnectionEnded) -> None:  # noqa: ARG002 - for those who derive
        """End the subscription and release the connection."""
        self.stop_watching()
        self.connection.release()

    def stop_watching(self) -> None:
        """Tell nothing of a subscription any more."""
        if self._subscriber is not None:
            self._subscriber.stop()
