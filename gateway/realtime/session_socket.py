"""Session socket: the attachment of a connection to its session, from the commit to the end.

Messages of the client become commands of this connection, and changes of the session that come back
in the log are sent to the client. The session is committed before the greeting, so that a client
that was greeted is also listed.

A connection is valid while the record names it (*fencing*), so a client that is displaced, kicked
or closed learns that from the record, whichever node did it. When another node ended the connection
although the client is still here (because this node was paused or cut off), it attaches again,
unless another connection came meanwhile.

The client is told of a pending close at once, after half of the time, and 10 s and 3 s before it.

Not here: which session a client may have (a product's endpoint), the encoding (its codec).
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, ClassVar, Final, TypeVar

from msgspec.structs import replace

from gateway.connections.lifecycle import ConnectionEnded, ServerClose
from gateway.context import Context
from gateway.core.command import Connect
from gateway.core.errors import (
    AlreadyConnected,
    CloseCode,
    GatewayError,
    OutcomeUnknown,
    SessionClosed,
)
from gateway.core.event import (
    AnyEvent,
    CloseCancelled,
    CloseExtended,
    ClosingScheduled,
    SessionEntry,
    StreamStopped,
    disconnect_cause,
)
from gateway.core.model import Cause, Closing, Connection, Session
from gateway.metrics import OVERFLOWS
from gateway.node import MAILBOX_MAX, Notice
from gateway.realtime.close_reminder import schedule_reminder
from gateway.realtime.codec import SessionNotice, SocketRules
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.connection_state import ConnectionState
from gateway.realtime.contest import answer_contest, is_contest
from gateway.realtime.subscriber import ObserverSocket

ENDED_BY_OTHERS: Final = frozenset(
    {CloseCode.SESSION_CLOSED, CloseCode.KICKED, CloseCode.DISPLACED}
)
"""Ends that are in the record already; any other one is recorded as a disconnect."""

M = TypeVar("M")

log = logging.getLogger(__name__)


class SessionSocket(ObserverSocket[M]):
    """One connection attached to its session; a product derives from it and adds ``handle``.

    Call :meth:`open` or :meth:`attach`, which commits, and then, without waiting in between,
    :meth:`begin`, which greets the client. Notices of the session that come before the greeting
    are sent after it.

    Args:
        context: The node and its surroundings.
        connection: The client's.
        record: The same, as the session's record will name it; see ``handshake.new_connection``.
    """

    rules: ClassVar[SocketRules] = SocketRules()

    __slots__ = (
        "_context",
        "_early",
        "_held",
        "_is_attached",
        "_is_attaching_again",
        "_record",
        "_reminder",
        "_session",
        "_writing",
        "stopping",
        "workspace",
    )

    def __init__(
        self, context: Context, connection: WebSocketConnection[M], record: Connection
    ) -> None:
        super().__init__(context.node, connection)
        self.workspace: str | None = None  # for messages to all of a workspace
        self.stopping: set[str] | None = None  # streams that this client is ending itself
        self._context = context
        self._record = record
        self._session: Session | None = None
        self._early: list[Notice] | None = []  # until the greeting
        self._reminder: asyncio.TimerHandle | None = None
        self._held: str | None = None  # the session whose record may name this connection
        self._writing: asyncio.Task[Session] | None = None
        self._is_attached = False
        self._is_attaching_again = False

    # --- attaching

    async def open(self, session: Session) -> Session:
        """Open *session* with this connection; return the session after that.

        Raises:
            GatewayError: As :meth:`Node.open`; nothing is left behind.
        """
        wanted = replace(session, connection=self._record)
        return await self._commit(wanted, self.node.open(wanted))

    async def attach(self, session: Session, *, displace: bool, readmit: bool) -> Session:
        """Attach to *session*; return the session after that.

        Args:
            session: An open one.
            displace: Whether a live connection is displaced (4505); if not it refuses this one.
            readmit: Whether the client showed the session's own token: then a closing session may
                let it in once.

        Raises:
            AlreadyConnected: Another connection is live, and is not displaced.
            SessionClosing: It is closing, and this is not the one client that may come back.
            GatewayError: As :meth:`Node.apply`; nothing is left behind.
        """
        command = Connect(connection=self._record, displace=displace, readmit=readmit)
        return await self._commit(session, self.node.apply(session.id, command))

    async def _commit(self, session: Session, writing: Coroutine[Any, Any, Session]) -> Session:
        self._hold(session)
        try:
            if self.connection.state is ConnectionState.CONNECTING:  # nothing cancels a handshake
                self._session = await writing
            else:
                self._writing = asyncio.ensure_future(writing)
                self._session = await asyncio.shield(self._writing)
        except OutcomeUnknown:  # it may have been written: end it again
            await self._take_back(session.id)
            raise
        except BaseException:
            if not self.connection.is_over:  # else its end lets go, see on_end
                self._writing = None
                self._release()
            raise
        self._is_attached = True
        return self._session

    def begin(self, token: str | None = None) -> None:
        """Greet the client, and serve it from now on.

        Args:
            token: The session's token, if it was just opened.
        """
        connection, session = self.connection, self.session
        if greeting := connection.codec.greet(session, token):
            connection.write(greeting)  # even if the buffer is full
        self._context.connections.complete_handover(self._record.id)
        self.node.touch(session.id)
        if session.closing and self.rules.hears_notices:
            self._warn_of(session.closing)
        early, self._early = self._early or (), None
        for notice in early:
            self.put(notice)
        if connection.state in (ConnectionState.CONNECTING, ConnectionState.ABANDONED):
            connection.start()

    @property
    def session(self) -> Session:
        """The newest session that this connection knows; set once it is attached."""
        if self._session is None:
            raise RuntimeError("This connection has no session yet.")
        return self._session

    @property
    def is_own(self) -> bool:
        """Whether this connection is, as far as it knows, the session's."""
        held = self.session.connection
        return held is not None and held.id == self._record.id and self.session.is_connected

    @property
    def connection_id(self) -> str:
        """The connection as the record has it."""
        return self._record.id

    def _hold(self, session: Session) -> None:
        self.workspace = session.workspace
        self.connection.journal.attach(session)
        self._held = session.id
        self.node.hold(session.id, self._record.id)
        self.node.attach(session.id, self)
        self._context.connections.announce_handover(self._record.id)
        self.connection.bind(self)

    def _release(self) -> None:
        """Stop receiving notices: the session is not this connection's any more."""
        session_id, self._held = self._held, None
        if session_id is None:
            return
        self._context.connections.complete_handover(self._record.id)
        self.node.detach(session_id, self)
        self.node.release(self._record.id)

    async def _take_back(self, session_id: str) -> None:
        try:
            await self.node.disconnect(session_id, self._record.id, "server")
        finally:
            self._release()

    # --- the end

    def on_end(self, ended: ConnectionEnded) -> None:
        """Record the disconnect, unless the record caused it, and release the connection."""
        self.stop_watching()
        self._remind_no_more()
        if not self._is_attached and self._writing is not None:
            self._context.connections.spawn(self._end_unfinished(self._writing, ended.cause))
        elif not self._is_attached or (
            isinstance(ended, ServerClose) and ended.code in ENDED_BY_OTHERS
        ):
            self._let_go()
        else:
            self._context.connections.spawn(self._disconnect(self.session.id, ended.cause))

    async def _end_unfinished(self, writing: asyncio.Task[Session], cause: Cause) -> None:
        """End a connection that was lost while it was being written; see :meth:`_commit`."""
        await asyncio.wait({writing})
        error = None if writing.cancelled() else writing.exception()
        if self._held is not None and (error is None or isinstance(error, OutcomeUnknown)):
            await self._disconnect(self._held, cause)
        else:
            self._let_go()

    async def _disconnect(self, session_id: str, cause: Cause) -> None:
        try:
            await self.node.disconnect(session_id, self._record.id, cause)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._release()
        self.connection.release()

    # --- notices: live.hub.NoticeSink

    def put(self, notice: Notice) -> None:
        """Handle a notice of the session."""
        if not (self.rules.hears_notices or is_contest(notice.message)):
            return
        connection = self.connection
        if self._early is not None:
            if len(self._early) < MAILBOX_MAX:
                self._early.append(notice)
            else:  # it ends when the handshake has come to its end
                OVERFLOWS.labels("mailbox").inc()
                connection.end(connection.too_slow())
            return
        if connection.is_over:
            return
        try:
            self._hear(notice)
        except Exception as error:  # noqa: BLE001 - the feed must go on; logged if unforeseen
            connection.end(connection.closing_of(error))

    def _hear(self, notice: Notice) -> None:
        if notice.message and is_contest(notice.message):
            answer_contest(self.node, self.connection, self._record.id, notice.message)
        elif notice.message:
            self._notify(notice.message)
        elif notice.change is None:
            self.check()  # the replica was loaded again: changes may have been missed
        elif isinstance(notice.change.entry, SessionEntry):
            record = notice.change.entry.record
            if record.revision <= self.session.revision:
                return  # older than the greeting
            for event in notice.change.entry.events:
                self._tell(event)
            self.fence(record, disconnect_cause(notice.change.entry.events))

    def _tell(self, event: AnyEvent) -> None:
        match event:
            case ClosingScheduled():
                self._warn_of(event.closing)
            case CloseExtended():
                self._notify(event)
                self._remind_of(event.closing)
            case CloseCancelled():
                self._notify(event)
                self._remind_no_more()
            case StreamStopped() if self.stopping and event.key in self.stopping:
                self.stopping.discard(event.key)
            case StreamStopped():
                self._notify(event)
            case _:
                pass

    def _notify(self, notice: SessionNotice) -> None:
        data = self.connection.codec.notify(notice)
        if not isinstance(data, bytes):
            raise TypeError("A notice of a session cannot be waited for.")
        self.connection.send(data)

    def _warn_of(self, closing: Closing) -> None:
        self._remind_of(closing)  # first: a client that takes nothing ends here, with its timer
        self._notify(ClosingScheduled(closing=closing))

    def _remind_of(self, closing: Closing) -> None:
        self._remind_no_more()
        if self.rules.reminds:
            self._reminder = schedule_reminder(closing, self.node.now_ms(), self._warn_of)

    def _remind_no_more(self) -> None:
        if self._reminder is not None:
            self._reminder.cancel()
            self._reminder = None

    # --- fencing

    def heartbeat(self) -> bytes:
        """Return the heartbeat; see :meth:`check`."""
        self.check()
        return super().heartbeat()

    def check(self) -> None:
        """Check that the session in the replica still names this connection.

        Raises:
            ServerClose: It names another one, or the session is gone.
        """
        known = self.session
        session = self.node.sessions.get(known.id)
        if session is None:
            if tombstone := self.node.tombstone(known.id):
                raise ServerClose(CloseCode.SESSION_CLOSED, tombstone.reason or "closed")
            raise self.cut_off()
        if session.revision > known.revision:
            self.fence(session, None)

    def fence(self, record: Session, cause: Cause | None) -> None:
        """End this connection unless *record*, the newest one, still names it.

        Args:
            record: The session.
            cause: How its connection ended, if that just happened.

        Raises:
            ServerClose: The connection was kicked, or ended by mistake.
        """
        self._session = record
        if record.closed:
            reason = record.closed.reason or record.closed.outcome
            self.connection.end_after_answer(ServerClose(record.closed.code, reason))
            return
        held = record.connection
        if held is None:
            raise self.cut_off()
        if held.id != self._record.id:
            self.connection.spawn(self._make_way(held))
        elif held.ended_at is not None and not self._is_attaching_again:
            if cause == "kicked":
                raise ServerClose(CloseCode.KICKED, "kicked")
            if cause is None or not self.rules.reattaches:
                raise self.cut_off()
            self._is_attaching_again = True
            self.connection.spawn(self._attach_again())

    def cut_off(self) -> ServerClose:
        """Return the end of a connection that was ended by mistake: the client comes back."""
        return ServerClose(CloseCode.SERVER_ERROR, "cut_off", self.connection.reconnect_after_ms())

    async def _make_way(self, held: Connection) -> None:
        """End as displaced, once the connection that came has been greeted."""
        await self._context.connections.wait_handover(held.id, is_here=held.node == self.node.id)
        raise ServerClose(CloseCode.DISPLACED, "displaced")

    async def _attach_again(self) -> None:
        log.warning("a connection attaches again", extra={"session_id": self.session.id})
        again = Connect(connection=self._record, displace=False, readmit=True, again=True)
        try:
            await self.node.apply(self.session.id, again)
        except SessionClosed:
            return  # its log entry is on the way
        except AlreadyConnected:  # another connection came meanwhile
            raise ServerClose(CloseCode.DISPLACED, "displaced") from None
        except GatewayError as error:
            raise self.cut_off() from error
        finally:
            self._is_attaching_again = False

    # --- messages

    def touch(self) -> None:
        """Note that the client was active."""
        self.node.touch(self.session.id)
