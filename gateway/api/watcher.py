"""Watcher: the one subscription of a socket, whether it is a session's or an observer's.

Not here: who may watch what (``handshake``).
"""

import asyncio
from contextlib import ExitStack

from gateway.api.socket import Socket
from gateway.context import Context
from gateway.core.position import Position
from gateway.core.protocol import ObserverHello, ServerHeartbeat, render
from gateway.core.public import rfc3339
from gateway.core.query import View
from gateway.lines import Line
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
    reason = await node.why_not(view, position)
    return (position if reason is None else None), reason


def here(node: Node, subscription: Subscription) -> str:
    """Return the position up to which a subscriber has been told everything."""
    if subscription.is_behind:
        return subscription.position
    return str(node.mirror.position(subscription.view.hash32))


def heartbeat(node: Node, subscription: Subscription | None) -> ServerHeartbeat:
    """Return what is said when nothing happens."""
    position = here(node, subscription) if subscription else str(node.mirror.position())
    return ServerHeartbeat(position=position, at=rfc3339(node.clock.now_ms()))


class Watcher:
    """The one subscription of a socket.

    Args:
        context: The node and its surroundings.
        socket: Who is told.
    """

    def __init__(self, context: Context, socket: Socket) -> None:
        self._node = context.node
        self._socket = socket
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, view: View, since: str | None) -> None:
        """Tell the client what happens in *view*, in place of what it was told before.

        Raises:
            BadPosition: *since* is no position.
            Overloaded: There are too many different subscriptions.
        """
        position, reason = await begin(self._node, view, since)
        with ExitStack() as stack:
            subscription = stack.enter_context(self._node.subscribe(view, position, reason))
            self.stop()
            task = self._socket.spawn(self._tell(subscription))
            if task is not None:
                self._task, self._subscription = task, subscription
                rest = stack.pop_all()
                task.add_done_callback(lambda _: rest.close())

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._subscription = None

    def beat(self) -> bytes:
        """Return the heartbeat."""
        return render(heartbeat(self._node, self._subscription))

    async def _tell(self, subscription: Subscription) -> None:
        async with self._socket.speaking:  # after the answer to who asked for it
            await self._socket.say(hello(self._node, subscription, self._socket))
        while True:
            await self._socket.send((await subscription.next()).frame)


def hello(node: Node, subscription: Subscription, line: Line) -> ObserverHello:
    """Return the first message of a subscription."""
    return ObserverHello(
        position=subscription.position,
        mode=subscription.mode,
        reason=subscription.reason,
        heartbeat_ms=line.heartbeat_ms,
        node=node.name,
    )
