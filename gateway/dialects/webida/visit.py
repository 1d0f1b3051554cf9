"""Visit: one client in its session, from its first words to its end.

What happens to the session is told in the words of the generation that is spoken: a close that was
asked for, at once and whenever its time changes; messages, as announcements. A connection is valid
while the record names it.

Not here: how a client comes to its session (``arrival``), limits and close frames (``line``).
"""

import asyncio
from contextlib import suppress
from typing import Final

from gateway.connections.lifecycle import ConnectionEnded, ServerClose
from gateway.core.document import Message
from gateway.core.errors import (
    AlreadyConnected,
    CloseCode,
    Forbidden,
    GatewayError,
    IdUnavailable,
    LimitExceeded,
    SessionClosed,
    SessionClosing,
)
from gateway.core.event import (
    AnyEvent,
    CloseCancelled,
    CloseExtended,
    ClosingScheduled,
    Disconnected,
    SessionEntry,
)
from gateway.core.model import Closing, Session
from gateway.dialects.webida.arrival import ALIVE, CONTESTED, Arrival, about
from gateway.dialects.webida.engineio import EngineSocket
from gateway.dialects.webida.line import EngineLine, Refused
from gateway.dialects.webida.render import CALLED_OFF, Words, announced, warning
from gateway.live.hub import Mailbox, Notice
from gateway.node import Node

REFUSALS: Final[tuple[tuple[type[GatewayError], str], ...]] = (
    (Forbidden, "insufficient access rights"),
    (SessionClosing, "session is closing"),
    (SessionClosed, "session is closed"),
    (IdUnavailable, "session id is not available"),
    (LimitExceeded, "too many sessions"),
)
"""What a client hears that may not come in; other errors say it themselves."""


class Visit:
    """One client in its session.

    Args:
        node: This node.
        words: How this generation says things.
        line: The connection.
        engine: Its protocol.
        arrival: How it comes in.
    """

    def __init__(
        self, node: Node, words: Words, line: EngineLine, engine: EngineSocket, arrival: Arrival
    ) -> None:
        self._node = node
        self._words = words
        self._line = line
        self._engine = engine
        self._arrival = arrival
        self._session: Session | None = None

    async def live(self) -> ConnectionEnded:
        """Serve the client until one of the two ends it, and record how; return that."""
        arrival = self._arrival
        with arrival.stack:
            ended = await self._line.run(self._beat, self._serve())
            await arrival.settled()
            async with asyncio.TaskGroup() as group:  # a goodbye must not wait for the store
                group.create_task(self._line.close(ended))
                if arrival.tried is not None:
                    await self._node.disconnect(arrival.tried, arrival.connection_id, ended.cause)
        return ended

    async def _serve(self) -> None:
        await self._line.open()
        try:
            session, box = await self._arrival.come_in()
        except AlreadyConnected:
            raise Refused(self._words.duplicate) from None
        except GatewayError as error:
            if error.retry:
                raise
            text = next((text for kind, text in REFUSALS if isinstance(error, kind)), error.detail)
            raise Refused(text) from error
        self._session = session
        self._node.touch(session.id)
        self._line.on_said = lambda: self._node.touch(session.id)
        self._engine.accept()
        if session.closing:
            self._warn_of(session.closing)
        await self._line.flush()
        await self._hear_all(session, box)

    # --- what the client hears

    async def _hear_all(self, session: Session, box: Mailbox) -> None:
        while True:
            session = self._hear(session, await box.get())
            await self._line.flush()
            if box.overflowed:
                raise ServerClose(CloseCode.TOO_SLOW, "too_slow", self._line.reconnect_after_ms())

    def _hear(self, session: Session, notice: Notice) -> Session:
        """Take in some news; return the session after it.

        Raises:
            Goodbye: It is not this client's any more.
        """
        change = notice.change
        if notice.message:
            self._hear_message(notice.message)
        if change is None and notice.message is None:
            self._beat()  # news may have been missed
        if change is None or not isinstance(change.entry, SessionEntry):
            return session
        record = change.entry.record
        if record.revision <= session.revision:
            return session  # older than what the client came back to
        self._session = record
        for event in change.entry.events:
            self._tell(event)
        self._check(record, change.entry.events)
        return record

    def _hear_message(self, message: Message) -> None:
        if message.topic == CONTESTED:
            if message.body == self._arrival.connection_id:
                self._line.probe(self._prove)
        elif (said := announced(message)) is not None:
            self._engine.emit(self._words.announcement, said)

    def _prove(self) -> None:
        self._line.spawn(self._prove_alive())

    async def _prove_alive(self) -> None:
        """Tell a newcomer that this client has answered."""
        arrival = self._arrival
        with suppress(GatewayError):  # the newcomer waits as long as for a dead client
            await self._node.publish(about(str(arrival.tried), ALIVE, arrival.connection_id))

    def _tell(self, event: AnyEvent) -> None:
        match event:
            case ClosingScheduled() | CloseExtended():
                self._warn_of(event.closing)
            case CloseCancelled():  # Webida has no word for it
                self._engine.emit(self._words.announcement, CALLED_OFF)
            case _:
                pass

    def _warn_of(self, closing: Closing) -> None:
        left_ms = closing.at - self._node.clock.now_ms()
        self._engine.emit(self._words.closing, *warning(self._words, closing.reason, left_ms))

    # --- is it still this client's session?

    def _check(self, record: Session, events: list[AnyEvent]) -> None:
        if record.closed:
            raise ServerClose(record.closed.code, record.closed.reason or record.closed.outcome)
        held = record.connection
        if held is None or held.id != self._arrival.connection_id:
            raise ServerClose(CloseCode.DISPLACED, "displaced")
        if held.ended_at is None:
            return
        if any(isinstance(event, Disconnected) and event.cause == "kicked" for event in events):
            raise ServerClose(CloseCode.KICKED, "kicked")
        raise self._cut_off()

    def _beat(self) -> bytes:
        """Return nothing to send; look whether news of the end was missed.

        Raises:
            Goodbye: It was.
        """
        known = self._session
        if known is not None:
            session = self._node.replica.sessions.get(known.id)
            if session is not None and session.revision > known.revision:
                self._check(session, [])
            elif session is None and known.id in self._node.replica.gone:
                raise ServerClose(CloseCode.SESSION_CLOSED, "closed")
            elif session is None:
                raise self._cut_off()
        return b""

    def _cut_off(self) -> ServerClose:
        """Return the end of a connection that others ended: the client comes back by itself."""
        return ServerClose(CloseCode.SERVER_ERROR, "cut_off", self._line.reconnect_after_ms())
