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

from msgspec import to_builtins
from msgspec.structs import replace

from gateway.api.handshake import Visit, view_of
from gateway.api.watcher import Watcher
from gateway.auth.principals import Principal
from gateway.core import command, model, protocol
from gateway.core.command import (
    AnyCommand,
    Close,
    Connect,
    ExtendClose,
    StartStream,
    StopStream,
    Unwatch,
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
from gateway.core.public import public, rfc3339
from gateway.lines import Ended, Goodbye
from gateway.live.hub import Mailbox, Notice

WARN_BEFORE_MS: Final = (10_000, 3_000)  # before the deadline, besides half of the time
UNIQUE_REF_MIN: Final = 12  # characters: a ref of so many is taken as unique; see ``connect``
ANSWERED_WITHIN_S: Final = 1.0  # the last answer leaves before the goodbye, if it does so in time
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

    Args:
        visit: The socket.
        principal: Who the client is.
        session: The session as attaching left it.
        connection: This socket, as the record names it.
        box: What happens to the session, since before it was attached.
    """

    def __init__(
        self,
        visit: Visit,
        principal: Principal,
        session: Session,
        connection: Connection,
        box: Mailbox,
    ) -> None:
        self._visit = visit
        self._node = visit.context.node
        self._socket = visit.socket
        self._principal = principal
        self._session = session
        self._connection = connection
        self._box = box
        self._watcher = Watcher(visit.context, visit.socket)
        self._warner: asyncio.Task[None] | None = None
        self._stopping: set[str] = set()  # streams that this client is ending itself

    async def live(self, token: str | None, greeted: asyncio.Event) -> Ended:
        """Greet the client, serve it until it or the session ends, and record how.

        Args:
            token: The session's token, if it was just opened.
            greeted: Set when the hello is out.
        """
        ended = await self._socket.run(self._beat, self._hear_all(token, greeted))
        if isinstance(ended, Goodbye) and ended.code in ENDED_BY_OTHERS:
            return ended
        async with asyncio.TaskGroup() as group:  # a goodbye must not wait for the store
            group.create_task(self._socket.close(ended))
            await self._node.disconnect(self._session.id, self._connection.id, ended.cause)
        return ended

    # --- what the client hears

    async def _hear_all(self, token: str | None, greeted: asyncio.Event) -> None:
        session = self._session
        await self._socket.say(
            protocol.Hello(
                session=public(session, full=self._principal.is_full),
                session_token=token,
                position=str(self._node.mirror.position()),
                heartbeat_ms=self._socket.heartbeat_ms,
            )
        )
        greeted.set()
        self._node.touch(session.id)
        if session.closing:
            await self._warn_of(session.closing)
        self._socket.begin(self._do)
        while True:
            await self._hear(await self._box.get())
            if self._box.overflowed:
                raise Goodbye(CloseCode.TOO_SLOW, "too_slow", self._socket.away_ms())

    async def _hear(self, notice: Notice) -> None:
        if notice.message:
            said = notice.message
            await self._socket.say(
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
            await self._tell(event)
        await self._check(record, change.entry.events)

    async def _tell(self, event: AnyEvent) -> None:
        match event:
            case ClosingScheduled():
                await self._warn_of(event.closing)
            case CloseExtended():
                at = event.closing.at
                await self._socket.say(
                    protocol.CloseExtendedNotice(closes_at=rfc3339(at), in_ms=self._in_ms(at))
                )
                self._schedule(event.closing)
            case CloseCancelled():
                await self._socket.say(protocol.CloseCancelledNotice())
                self._schedule(None)
            case StreamStopped() if event.key not in self._stopping:
                await self._socket.say(protocol.StopStream(key=event.key))
            case StreamStopped():
                self._stopping.discard(event.key)
            case _:
                pass

    async def _warn_of(self, closing: Closing) -> None:
        await self._say_closing(closing)
        self._schedule(closing)

    def _schedule(self, closing: Closing | None) -> None:
        if self._warner is not None:
            self._warner.cancel()
        self._warner = self._socket.spawn(self._warn_again(closing)) if closing else None

    async def _warn_again(self, closing: Closing) -> None:
        for at in warning_times(closing, self._node.clock.now_ms()):
            await asyncio.sleep(self._in_ms(at) / 1000)
            await self._say_closing(closing)

    async def _say_closing(self, closing: Closing) -> None:
        await self._socket.say(
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

    def _beat(self) -> bytes:
        """Return the heartbeat."""
        self._look()
        return self._watcher.beat()

    def _look(self) -> None:
        """Check that the mirror's session still names this connection."""
        session_id = self._session.id
        session = self._node.mirror.sessions.get(session_id)
        if session is None:
            if tombstone := self._node.mirror.gone.get(session_id):
                raise Goodbye(CloseCode.SESSION_CLOSED, tombstone.reason or "closed")
            raise self._cut_off()
        held = session.connection
        mine = held is not None and held.id == self._connection.id and session.is_connected
        if session.revision > self._session.revision and not mine:
            raise self._cut_off()

    def _cut_off(self) -> Goodbye:
        return Goodbye(CloseCode.SERVER_ERROR, "cut_off", self._socket.away_ms())

    async def _check(self, record: Session, events: list[AnyEvent]) -> None:
        if record.closed:
            await self._last_answer()
            raise Goodbye(record.closed.code, record.closed.reason or record.closed.outcome)
        held = record.connection
        if held is None:
            raise self._cut_off()
        if held.id != self._connection.id:
            is_here = held.node == self._node.id
            await self._visit.context.sockets.greeted(held.id, is_here=is_here)
            raise Goodbye(CloseCode.DISPLACED, "displaced")
        if held.ended_at is None:
            return
        if any(isinstance(event, Disconnected) and event.cause == "kicked" for event in events):
            raise Goodbye(CloseCode.KICKED, "kicked")
        await self._attach_again()

    async def _last_answer(self) -> None:
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S), self._socket.speaking:
                return
        except TimeoutError:
            return

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

    async def _do(self, message: ClientMessage) -> int | None:
        self._node.touch(self._session.id)
        via = self._connection.id
        match message:
            case protocol.Heartbeat():
                return None
            case protocol.Token():
                self._principal = await self._visit.refreshed(self._principal, message.token)
                return None
            case protocol.Subscribe():
                mine = replace(self._principal, session=self._session.id)
                await self._watcher.start(view_of(mine, message.filter), message.since)
                return None
            case protocol.Unsubscribe():
                self._watcher.stop()
                return None
            case protocol.Progress():
                progress = command.Progress(
                    position_ms=message.position_ms,
                    state=message.state,
                    bandwidth=message.bandwidth,
                    via=via,
                )
                await self._node.report(self._session.id, progress)
                return None
            case protocol.Stream() if message.state != STOPPED:
                return await self._stream(message)
            case _:
                return await self._apply(self._command(message), message.ref)

    def _command(self, message: ClientMessage) -> AnyCommand:
        via = self._connection.id
        match message:
            case protocol.Watch():
                watch = model.Watch(
                    key=message.key,
                    title=message.title,
                    kind=message.kind,
                    state=message.state,
                    position_ms=message.position_ms,
                    duration_ms=message.duration_ms,
                    bandwidth=message.bandwidth,
                    item=message.item,
                )
                return command.Watch(watch=watch, via=via)
            case protocol.Unwatch():
                return Unwatch(via=via)
            case protocol.Update():
                return command.Update(patch=to_builtins(message.changes), via=via)
            case protocol.Stream():
                self._stopping.add(message.key)
                return StopStream(key=message.key, via=via)
            case protocol.Saving():
                return command.Saving(via=via)
            case protocol.Saved():
                return command.Saved(via=via)
            case protocol.NeedMore():
                return ExtendClose(at=self._node.clock.now_ms() + message.ms, via=via)
            case protocol.Leave():
                return Close(outcome="left", via=via)
        raise AssertionError(message)

    async def _stream(self, message: protocol.Stream) -> int | None:
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
        except GatewayError:
            if isinstance(wanted, StopStream):
                self._stopping.discard(wanted.key)
            raise
