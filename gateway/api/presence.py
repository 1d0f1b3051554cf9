"""Presence: the life of a session's socket, from its hello to its end.

Two directions that meet only in the record: what the client says becomes commands in the name of
this connection, and what the feed says of the session is told to the client. A close is announced
at once, and again when half of the time is over, 10 s and 3 s before it happens.

This socket is valid while the record names its connection. When another node ended the connection
although the client is still here (a node that was paused, or cut off), it attaches again, unless
somebody else came meanwhile.

Not here: how the socket came to its session (``connect``).
"""

import asyncio
import logging
from typing import Final

from msgspec.structs import replace

from gateway.api.commands import command_of
from gateway.api.handshake import Visit, refreshed, view_of
from gateway.api.watcher import Watcher, heartbeat
from gateway.auth.principals import Principal
from gateway.connections.lifecycle import ConnectionEnded, ServerClose
from gateway.core import command, model, protocol
from gateway.core.command import (
    AnyCommand,
    Connect,
    EndStream,
    StartStream,
    UpdateStream,
)
from gateway.core.errors import CloseCode, GatewayError, SessionClosed, UnknownStream
from gateway.core.event import (
    AnyEvent,
    CloseCancelled,
    CloseExtended,
    ClosingScheduled,
    Disconnected,
    SessionEntry,
    StreamStopped,
)
from gateway.core.model import Closing, Connection, Session
from gateway.core.protocol import ClientMessage
from gateway.core.public import render_session, rfc3339
from gateway.live.hub import MAILBOX_MAX, Notice
from gateway.metrics import OVERFLOWS

WARN_BEFORE_MS: Final = (10_000, 3_000)  # before the deadline, besides half of the time
UNIQUE_REF_MIN: Final = 12  # characters: a ref of so many is taken as unique; see ``connect``
STOPPED: Final = "stopped"  # the state that ends a stream
ENDED_BY_OTHERS: Final = frozenset(
    {CloseCode.SESSION_CLOSED, CloseCode.KICKED, CloseCode.DISPLACED}
)

log = logging.getLogger(__name__)


def warning_times(closing: Closing, now_ms: int) -> list[int]:
    """Return when a client is warned again of a pending close, after *now_ms*."""
    half = closing.requested_at + (closing.at - closing.requested_at) // 2
    times = {half, *(closing.at - before_ms for before_ms in WARN_BEFORE_MS)}
    return sorted(at for at in times if now_ms < at < closing.at)


class Presence:
    """One socket attached to its session.

    It hears what happens to the session from the moment it is made, that is before it is attached;
    what it hears before its hello it tells after it.

    Args:
        visit: The socket.
        principal: Who the client is.
        session: The session that it will be attached to.
        connection: This socket, as the record will name it.
    """

    __slots__ = (
        "_connection",
        "_context",
        "_early",
        "_node",
        "_principal",
        "_session",
        "_socket",
        "_stopping",
        "_warner",
        "_watcher",
        "workspace",
    )

    def __init__(
        self, visit: Visit, principal: Principal, session: Session, connection: Connection
    ) -> None:
        self.workspace = session.workspace
        self._context = visit.context
        self._node = visit.context.node
        self._socket = visit.socket
        self._principal = principal
        self._session = session
        self._connection = connection
        self._early: list[Notice] | None = []  # until the hello
        self._watcher: Watcher | None = None
        self._warner: asyncio.TimerHandle | None = None
        self._stopping: set[str] | None = None  # streams that this client is ending itself
        self._node.hold(session.id, connection.id)
        self._node.hub.attach(session.id, self)
        self._context.connections.announce_handover(connection.id)

    def begin(self, session: Session, token: str | None) -> None:
        """Greet the client, and serve it from now on.

        Args:
            session: As attaching left it.
            token: The session's token, if it was just opened.
        """
        self._session = session
        self._socket.say(
            protocol.Hello(
                session=render_session(session, full=self._principal.is_full),
                session_token=token,
                position=str(self._node.replica.position()),
                heartbeat_ms=self._socket.heartbeat_ms,
            )
        )
        self._context.connections.complete_handover(self._connection.id)
        self._node.touch(session.id)
        if session.closing:
            self._warn_of(session.closing)
        early, self._early = self._early or (), None
        for notice in early:
            self.put(notice)
        self._socket.begin(self)

    def left(self, ended: ConnectionEnded) -> None:
        """Record how it ended, unless that is why, and let go."""
        if self._watcher is not None:
            self._watcher.stop()
        self._schedule(None)
        if isinstance(ended, ServerClose) and ended.code in ENDED_BY_OTHERS:
            self._gone()
        else:
            self._context.connections.spawn(self._disconnect(ended))

    async def _disconnect(self, ended: ConnectionEnded) -> None:
        try:
            await self._node.disconnect(self._session.id, self._connection.id, ended.cause)
        finally:
            self._gone()

    def _gone(self) -> None:
        self.let_go()
        self._socket.release()

    def let_go(self) -> None:
        """Hear nothing more of the session."""
        self._context.connections.complete_handover(self._connection.id)
        self._node.hub.detach(self._session.id, self)
        self._node.release(self._connection.id)

    async def take_back(self) -> None:
        """End the connection again, of which nobody knows whether it was written."""
        try:
            await self._node.disconnect(self._session.id, self._connection.id, "server")
        finally:
            self.let_go()

    # --- what the client hears

    def put(self, notice: Notice) -> None:
        """Take what the feed says of the session."""
        if self._early is not None:
            if len(self._early) < MAILBOX_MAX:
                self._early.append(notice)
            else:  # it ends when the handshake has come to its end
                OVERFLOWS.labels("mailbox").inc()
                self._socket.end(
                    ServerClose(CloseCode.TOO_SLOW, "too_slow", self._socket.reconnect_after_ms())
                )
            return
        if self._socket.is_over:
            return
        try:
            self._hear(notice)
        except Exception as error:  # noqa: BLE001 - the feed must go on; logged if unforeseen
            self._socket.end(self._socket.ending(error))

    def _hear(self, notice: Notice) -> None:
        if notice.message:
            said = notice.message
            self._socket.say(
                protocol.MessageNotice(topic=said.topic, body=said.body, sender=said.sender)
            )
            return
        change = notice.change
        if change is None:
            self._look()  # the mirror was loaded again: news may have been missed
            return
        if not isinstance(change.entry, SessionEntry):
            return
        record = change.entry.record
        if record.revision <= self._session.revision:
            return  # older than what the hello said
        self._session = record
        for event in change.entry.events:
            self._tell(event)
        self._check(record, change.entry.events)

    def _tell(self, event: AnyEvent) -> None:
        match event:
            case ClosingScheduled():
                self._warn_of(event.closing)
            case CloseExtended():
                at = event.closing.at
                self._socket.say(
                    protocol.CloseExtendedNotice(closes_at=rfc3339(at), in_ms=self._in_ms(at))
                )
                self._schedule(event.closing)
            case CloseCancelled():
                self._socket.say(protocol.CloseCancelledNotice())
                self._schedule(None)
            case StreamStopped() if self._stopping and event.key in self._stopping:
                self._stopping.discard(event.key)
            case StreamStopped():
                self._socket.say(protocol.StopStream(key=event.key))
            case _:
                pass

    def _warn_of(self, closing: Closing) -> None:
        self._schedule(closing)  # first: who takes nothing ends here, and its timer with it
        self._say_closing(closing)

    def _schedule(self, closing: Closing | None) -> None:
        """Warn again when it is time, in place of what was to be said before."""
        if self._warner is not None:
            self._warner.cancel()
            self._warner = None
        if closing is None:
            return
        times = warning_times(closing, self._node.clock.now_ms())
        if times:
            wait_s = self._in_ms(times[0]) / 1000
            loop = asyncio.get_running_loop()
            self._warner = loop.call_later(wait_s, self._warn_of, closing)

    def _say_closing(self, closing: Closing) -> None:
        self._socket.say(
            protocol.ClosingNotice(
                closes_at=rfc3339(closing.at),
                in_ms=self._in_ms(closing.at),
                extend_max_ms=closing.extend_max_ms,
                reason=closing.reason,
            )
        )

    def _in_ms(self, at: int) -> int:
        return max(0, at - self._node.clock.now_ms())

    # --- is it still this socket's session?

    def heartbeat(self) -> bytes:
        """Return what is said in silence; see :meth:`_look`."""
        self._look()
        if self._watcher is not None:
            return self._watcher.heartbeat()
        return protocol.render(heartbeat(self._node, None))

    def last_sent_at_s(self) -> float:
        """Return when the client was last told what it watches."""
        return 0.0 if self._watcher is None else self._watcher.last_sent_at_s()

    def on_writable(self) -> None:
        """Go on with what the client watches."""
        if self._watcher is not None:
            self._watcher.on_writable()

    def _look(self) -> None:
        """Check that the mirror's session still names this connection."""
        session_id = self._session.id
        session = self._node.replica.sessions.get(session_id)
        if session is None:
            if tombstone := self._node.replica.gone.get(session_id):
                raise ServerClose(CloseCode.SESSION_CLOSED, tombstone.reason or "closed")
            raise self._cut_off()
        held = session.connection
        mine = held is not None and held.id == self._connection.id and session.is_connected
        if session.revision > self._session.revision and not mine:
            raise self._cut_off()

    def _cut_off(self) -> ServerClose:
        return ServerClose(CloseCode.SERVER_ERROR, "cut_off", self._socket.reconnect_after_ms())

    def _check(self, record: Session, events: list[AnyEvent]) -> None:
        if record.closed:
            reason = record.closed.reason or record.closed.outcome
            self._socket.end_after_answer(ServerClose(record.closed.code, reason))
            return
        held = record.connection
        if held is None:
            raise self._cut_off()
        if held.id != self._connection.id:
            self._socket.spawn(self._displaced(held))
        elif held.ended_at is None:
            return
        elif any(isinstance(event, Disconnected) and event.cause == "kicked" for event in events):
            raise ServerClose(CloseCode.KICKED, "kicked")
        else:
            self._socket.spawn(self._attach_again())

    async def _displaced(self, held: Connection) -> None:
        is_here = held.node == self._node.id
        await self._context.connections.wait_handover(held.id, is_here=is_here)
        raise ServerClose(CloseCode.DISPLACED, "displaced")

    async def _attach_again(self) -> None:
        log.warning("connection %s was ended by others; attaching again", self._connection.id)
        again = Connect(connection=self._connection, displace=False, readmit=True)
        try:
            await self._node.apply(self._session.id, again)
        except SessionClosed:
            return  # its news is on the way
        except GatewayError as error:
            raise self._cut_off() from error

    # --- what the client says

    async def handle(self, message: ClientMessage) -> int | None:
        """Do what a message asks."""
        self._node.touch(self._session.id)
        via = self._connection.id
        match message:
            case protocol.HeartbeatMessage():
                return None
            case protocol.TokenMessage():
                self._principal = await refreshed(
                    self._context, self._socket, self._principal, message.token
                )
                return None
            case protocol.SubscribeMessage():
                mine = replace(self._principal, session=self._session.id)
                self._watcher = self._watcher or Watcher(self._node, self._socket)
                await self._watcher.start(view_of(mine, message.filter), message.since)
                return None
            case protocol.UnsubscribeMessage():
                if self._watcher is not None:
                    self._watcher.stop()
                return None
            case protocol.ProgressMessage():
                progress = command.Progress(
                    position_ms=message.position_ms,
                    state=message.state,
                    bandwidth=message.bandwidth,
                    via=via,
                )
                await self._node.report(self._session.id, progress)
                return None
            case protocol.StreamMessage() if message.state != STOPPED:
                return await self._stream(message)
            case _:
                if isinstance(message, protocol.StreamMessage):
                    self._stopping = self._stopping or set()
                    self._stopping.add(message.key)
                wanted = command_of(message, via, self._node.clock.now_ms())
                return await self._apply(wanted, message.ref)

    async def _stream(self, message: protocol.StreamMessage) -> int | None:
        stream = model.Stream(
            key=message.key, kind=message.kind, state=message.state, data=message.data
        )
        try:
            update = UpdateStream(stream=stream, via=self._connection.id)
            await self._node.report(self._session.id, update)
            return None
        except UnknownStream:
            start = StartStream(stream=stream, via=self._connection.id)
            return await self._apply(start, message.ref)

    async def _apply(self, wanted: AnyCommand, ref: str | None) -> int:
        op = f"ref:{ref}" if ref is not None and len(ref) >= UNIQUE_REF_MIN else None
        try:
            return (await self._node.apply(self._session.id, wanted, op=op)).revision
        finally:  # its news, if there is any, has been heard by now
            if isinstance(wanted, EndStream) and self._stopping:
                self._stopping.discard(wanted.key)
