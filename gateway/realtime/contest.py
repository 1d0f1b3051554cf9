"""Contest: how a session's live connection is asked whether it still lives, when another one comes.

Where the first connection stays (``displace=False``), a client that is refused may never come back
by itself. But the record cannot say whether the first client is still there: a page that is
reloaded opens its new socket before the old one is closed, and a client whose network has gone
looks alive until a ping is not answered. So the newcomer contests the session: the node that holds
the first connection pings it at once and says when it has answered. The newcomer comes in as soon
as the record says that the first has gone, whichever way; it is refused ``RACE_S`` after the first
has proved that it lives.

The two sides speak by messages to the session, which no client hears.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from gateway.core.document import Message, Recipients
from gateway.core.errors import AlreadyConnected, GatewayError
from gateway.core.model import Session
from gateway.node import Node, Notice
from gateway.realtime.connection import WebSocketConnection

CONTESTED: Final = "connection:contested"  # topics; the body is the first connection's id
ALIVE: Final = "connection:alive"
LAG_S: Final = 0.01  # for this node's replica to hear of what the store refused by
RACE_S: Final = 1.0  # for a first client that lives to go, before the newcomer is refused


async def attach_when_free(
    node: Node, session: Session, attach: Callable[[], Awaitable[Session]], patience_s: float
) -> Session:
    """Attach to *session* once no other connection is live; return it as it is then.

    Args:
        node: This node.
        session: An open one.
        attach: Tries it, without displacing anybody.
        patience_s: Seconds for a first connection that does not answer to be found dead.

    Raises:
        AlreadyConnected: There is one, and it stays.
        GatewayError: What *attach* raises.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + patience_s
    while True:
        try:
            return await attach()
        except AlreadyConnected:
            if loop.time() >= until_s or not await _Contest(node, session).first_goes(until_s):
                raise


class _Contest:
    """One newcomer's question; hears what happens to the session as its ``NoticeSink``."""

    def __init__(self, node: Node, session: Session) -> None:
        self.workspace = session.workspace
        self._node = node
        self._session_id = session.id
        self._first = self._live_connection()
        self._has_gone = asyncio.Event()
        self._proved_at_s: float | None = None
        self._patience: asyncio.Timeout | None = None

    async def first_goes(self, until_s: float) -> bool:
        """Ask the first connection; return whether it has gone, or stays.

        Args:
            until_s: When to give up, by the loop's time, if it does not prove that it lives.
        """
        if self._first is None:  # this node sees none; the store may know more, for a moment
            await asyncio.sleep(LAG_S)
            return True
        self._node.attach(self._session_id, self)
        try:
            await self._node.publish(_about(self._session_id, CONTESTED, self._first))
            async with asyncio.timeout_at(until_s) as self._patience:
                self._shorten()
                await self._has_gone.wait()
            return True
        except TimeoutError:
            return self._has_gone.is_set()
        finally:
            self._node.detach(self._session_id, self)

    def put(self, notice: Notice) -> None:
        """Take what happens to the session."""
        said = notice.message
        if said is None:
            if self._live_connection() != self._first:
                self._has_gone.set()
        elif (said.topic, said.body) == (ALIVE, self._first) and self._proved_at_s is None:
            self._proved_at_s = asyncio.get_running_loop().time()
            self._shorten()

    def _shorten(self) -> None:
        patience = self._patience
        if patience is None or self._proved_at_s is None:
            return
        until_s = patience.when() or 0.0
        patience.reschedule(min(until_s, self._proved_at_s + RACE_S))

    def _live_connection(self) -> str | None:
        session = self._node.sessions.get(self._session_id)
        held = session.connection if session and session.is_connected else None
        return held.id if held else None


def _about(session_id: str, topic: str, connection_id: str) -> Message:
    return Message(to=Recipients(session=session_id), topic=topic, body=connection_id)


def is_contest(message: Message | None) -> bool:
    """Whether a message belongs to a contest, which every product's socket answers."""
    return message is not None and message.topic in (CONTESTED, ALIVE)


def answer_contest(
    node: Node, connection: WebSocketConnection[Any], connection_id: str, said: Message
) -> None:
    """Ping this client if *said* asks whether it lives, and publish it when it has answered."""
    session_id = said.to.session
    if said.topic != CONTESTED or said.body != connection_id or session_id is None:
        return

    async def publish() -> None:
        try:
            await node.publish(_about(session_id, ALIVE, said.body))
        except GatewayError:  # then the newcomer waits as long as for a dead client
            return

    def answered() -> None:
        connection.spawn(publish())

    connection.probe(answered)
