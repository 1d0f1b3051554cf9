"""Watcher: the one subscription of a socket, whether it is a session's or an observer's.

Not here: who may watch what (``handshake``).
"""

import asyncio

from gateway.api.socket import Socket
from gateway.connections.lifecycle import LiveConnection
from gateway.core.frames import TEXT, frame
from gateway.core.position import Position
from gateway.core.protocol import ObserverHello, ServerHeartbeat, render
from gateway.core.public import rfc3339
from gateway.core.query import View
from gateway.live.channel import Subscription
from gateway.node import Node


async def begin(node: Node, view: View, since: str | None) -> tuple[Position | None, str | None]:
    """Return where a subscription can go on, or why it cannot.

    Raises:
        BadPosition: *since* is no position.
    """
    if since is None:
        return None, None
    position = Position.parse(since)
    reason = await node.check_resume(view, position)
    return (position if reason is None else None), reason


def here(node: Node, subscription: Subscription) -> str:
    """Return the position up to which a subscriber has been told everything.

    Within a snapshot it belongs to no view, so that nobody goes on there: see ``live.channel``.
    """
    if subscription.is_behind:
        return subscription.position
    return str(node.replica.position(subscription.view.hash32))


def heartbeat(node: Node, subscription: Subscription | None) -> ServerHeartbeat:
    """Return what is said when nothing happens."""
    position = here(node, subscription) if subscription else str(node.replica.position())
    return ServerHeartbeat(position=position, at=rfc3339(node.clock.now_ms()))


class Watcher:
    """The one subscription of a socket.

    Once the client has its snapshot or what it missed, the channel writes to its socket by itself;
    one whose client takes too little waits for room, and then catches up from the ring.

    Args:
        node: This node.
        socket: Who is told.
    """

    __slots__ = ("_is_greeted", "_node", "_socket", "_subscription", "_waiting")

    def __init__(self, node: Node, socket: Socket) -> None:
        self._node = node
        self._socket = socket
        self._subscription: Subscription | None = None
        self._is_greeted = False  # nothing is told before the hello
        self._waiting: asyncio.Task[None] | None = None  # for the log, which has what was missed

    async def start(self, view: View, since: str | None) -> None:
        """Tell the client what happens in *view*, in place of what it was told before.

        What is told follows the answer to whoever asked for it.

        Raises:
            BadPosition: *since* is no position.
            Overloaded: There are too many different subscriptions.
        """
        position, reason = await begin(self._node, view, since)
        subscription = self._node.subscribe(view, position, reason)
        self.stop()
        self._subscription, self._is_greeted = subscription, False
        asyncio.get_running_loop().call_soon(self._greet, subscription)

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def heartbeat(self) -> bytes:
        """Return what is said in silence."""
        return render(heartbeat(self._node, self._subscription))

    def last_sent_at_s(self) -> float:
        """Return when the channel last wrote by itself, by the loop's time; 0 if it never did."""
        return 0.0 if self._subscription is None else self._subscription.last_sent_at_s

    def on_writable(self) -> None:
        """Go on: the client takes more again."""
        if self._subscription is not None and self._is_greeted and self._waiting is None:
            self._tell(self._subscription)

    def _greet(self, subscription: Subscription) -> None:
        if subscription is self._subscription:
            self._is_greeted = True
            greeting = frame(TEXT, render(hello(self._node, subscription, self._socket)))
            if (first := subscription.take()) is not None:
                greeting += first.frame  # often it is all there is, and one write costs less
            self._socket.write(greeting)
            self._tell(subscription)

    def _tell(self, subscription: Subscription) -> None:
        push, behind = self._socket.push, self._fall_behind
        while not self._socket.is_full and not subscription.follow(push, behind):
            delivery = subscription.take()
            if delivery is None:
                self._waiting = self._socket.spawn(self._wait(subscription))
                return
            self._socket.write(delivery.frame)

    def _fall_behind(self) -> None:
        asyncio.get_running_loop().call_soon(self.on_writable)  # others are being told just now

    async def _wait(self, subscription: Subscription) -> None:
        delivery = await subscription.next()
        self._waiting = None
        self._socket.write(delivery.frame)
        self._tell(subscription)


def hello(node: Node, subscription: Subscription, line: LiveConnection) -> ObserverHello:
    """Return the first message of a subscription."""
    return ObserverHello(
        position=subscription.position,
        mode=subscription.mode,
        reason=subscription.reason,
        heartbeat_ms=line.heartbeat_ms,
        node=node.name,
    )
