"""Socket handlers: handle and answer the messages of clients on the native WebSockets.

Every message is answered with ``ack`` or ``error`` and its ``ref``. A ``ref`` of ``UNIQUE_REF_MIN``
characters or more counts as unique in the life of the session: if it is sent again, even on another
connection, it changes nothing (as an Idempotency-Key, for the record's last eight operations). A
shorter one only assigns answers to messages, because a page that is reloaded starts at one again.

Not here: the encoding (``codec``), which session a client gets (``connect``).
"""

import asyncio
import re
from collections import deque
from typing import Final

from msgspec import to_builtins
from msgspec.structs import replace

from gateway.api.access import subscribed_view
from gateway.api.codec import text_frame
from gateway.auth.principals import Principal
from gateway.connections.lifecycle import ServerClose
from gateway.context import Context
from gateway.core import command, model, protocol
from gateway.core.command import AnyCommand, EndStream, StartStream, UpdateStream
from gateway.core.errors import BadRequest, CloseCode, GatewayError, Invalid, UnknownStream
from gateway.core.model import Connection
from gateway.core.protocol import Ack, ClientMessage, Error, parse
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.session_socket import SessionSocket
from gateway.realtime.subscriber import ObserverSocket

UNIQUE_REF_MIN: Final = 12  # characters: a ref of so many is taken as unique
ERRORS_MAX: Final = 10  # unreadable messages within ERRORS_S end the socket: its client is broken
ERRORS_S: Final = 10.0
STOPPED: Final = "stopped"  # the state that ends a stream

_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # escaped NUL, but no escaped backslash


def command_of(message: ClientMessage, via: str, now_ms: int) -> AnyCommand:
    """Return the command of *message*.

    Args:
        message: A message that changes the session.
        via: The connection that sent it.
        now_ms: Redis time in milliseconds.
    """
    match message:
        case protocol.WatchMessage():
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
            return command.StartWatch(watch=watch, via=via)
        case protocol.UnwatchMessage():
            return command.Unwatch(via=via)
        case protocol.UpdateMessage():
            return command.Update(patch=to_builtins(message.changes), via=via)
        case protocol.StreamMessage():
            return command.EndStream(key=message.key, via=via)
        case protocol.SavingMessage():
            return command.Saving(via=via)
        case protocol.SavedMessage():
            return command.Saved(via=via)
        case protocol.NeedMoreMessage():
            return command.ExtendClose(at=now_ms + message.ms, via=via)
        case protocol.LeaveMessage():
            return command.Close(outcome="left", via=via)
    raise AssertionError(message)


class MessageHandler(ObserverSocket[str]):
    """Answers the messages on a native socket; those of tokens and subscriptions are handled here.

    It stands beside a base with slots, so that its own are declared by the classes that derive.
    """

    __slots__ = ()

    _context: Context
    _principal: Principal
    _errors: deque[float] | None  # when unreadable messages came

    async def handle(self, message: str) -> None:
        """Do what a message asks and answer it; unknown types are ignored.

        Raises:
            ServerClose: The client sends too many unreadable messages, or may not stay.
        """
        ref: str | None = None
        try:
            parsed = parse(message)
            if parsed is None:
                return
            ref = parsed.ref
            if _NUL.search(message):
                raise Invalid("A text in the message holds NUL.")
            answer: protocol.FromServer = Ack(ref=ref, revision=await self._do(parsed))
        except GatewayError as error:
            ref = ref or error.extra.get("ref")
            self.connection.send(text_frame(Error(code=error.code, message=error.detail, ref=ref)))
            self._count(error)
        else:
            self.connection.send(text_frame(answer))

    def _count(self, error: GatewayError) -> None:
        """Count unreadable messages; refused ones do not count."""
        if not isinstance(error, BadRequest | Invalid):
            return
        if self._errors is None:
            self._errors = deque(maxlen=ERRORS_MAX)  # type: ignore[misc] # the slots are below
        now_s = asyncio.get_running_loop().time()
        self._errors.append(now_s)
        if len(self._errors) == ERRORS_MAX and now_s - self._errors[0] < ERRORS_S:
            raise ServerClose(CloseCode.BAD_REQUEST, "bad_request", detail=error.detail)

    async def _do(self, message: ClientMessage) -> int | None:
        """Do what *message* asks; return the revision of the session after a change."""
        match message:
            case protocol.HeartbeatMessage():
                pass
            case protocol.TokenMessage():
                await self._refresh(message.token)
            case protocol.SubscribeMessage():
                view = subscribed_view(self._watcher(), message.filter)
                await self.subscriber.start(view, message.since)
            case protocol.UnsubscribeMessage():
                self.stop_watching()
            case _:
                raise BadRequest("This socket only watches; a session is at /v1/connect.")
        return None

    def _watcher(self) -> Principal:
        """Return the principal that subscribes."""
        return self._principal

    async def _refresh(self, token: str) -> None:
        """Prolong the connection by a new *token*.

        Raises:
            ServerClose: The token is invalid, or another caller's: the connection ends.
            Unavailable: The token cannot be checked now.
        """
        context, connection = self._context, self.connection
        try:
            newer = await context.authenticator.authenticate(token, context.wall_ms())
            newer = self._principal.refreshed(newer)
        except GatewayError as error:
            if error.retry:
                raise
            raise ServerClose.from_error(error, connection.reconnect_after_ms()) from error
        self._principal = newer  # type: ignore[misc] # the slots are below
        connection.expire_at(newer.expires_at, context.wall_ms)


class NativeObserver(MessageHandler):
    """Handles the messages of an observer.

    Args:
        context: The node and its surroundings.
        connection: The client's.
        principal: Who the client is.
    """

    __slots__ = ("_context", "_errors", "_principal")

    def __init__(
        self, context: Context, connection: WebSocketConnection[str], principal: Principal
    ) -> None:
        super().__init__(context.node, connection)
        self._context = context
        self._principal = principal
        self._errors = None


class NativeSessionSocket(MessageHandler, SessionSocket[str]):
    """Handles the messages of a session's client.

    Args:
        context: The node and its surroundings.
        connection: The client's.
        record: The same, as the session's record will name it.
        principal: Who the client is.
    """

    __slots__ = ("_errors", "_principal")

    def __init__(
        self,
        context: Context,
        connection: WebSocketConnection[str],
        record: Connection,
        principal: Principal,
    ) -> None:
        SessionSocket.__init__(self, context, connection, record)
        self._principal = principal
        self._errors = None

    def _watcher(self) -> Principal:
        return replace(self._principal, session=self.session.id)

    async def _do(self, message: ClientMessage) -> int | None:
        self.touch()
        via = self.connection_id
        match message:
            case (
                protocol.HeartbeatMessage()
                | protocol.TokenMessage()
                | protocol.SubscribeMessage()
                | protocol.UnsubscribeMessage()
            ):
                return await super()._do(message)
            case protocol.ProgressMessage():
                progress = command.Progress(
                    position_ms=message.position_ms,
                    state=message.state,
                    bandwidth=message.bandwidth,
                    via=via,
                )
                await self.node.report(self.session.id, progress)
                return None
            case protocol.StreamMessage() if message.state != STOPPED:
                return await self._stream(message)
            case _:
                if isinstance(message, protocol.StreamMessage):
                    self.stopping = self.stopping or set()
                    self.stopping.add(message.key)
                wanted = command_of(message, via, self.node.now_ms())
                return await self._apply(wanted, message.ref)

    async def _stream(self, message: protocol.StreamMessage) -> int | None:
        stream = model.Stream(
            key=message.key, kind=message.kind, state=message.state, data=message.data
        )
        try:
            update = UpdateStream(stream=stream, via=self.connection_id)
            await self.node.report(self.session.id, update)
            return None
        except UnknownStream:
            start = StartStream(stream=stream, via=self.connection_id)
            return await self._apply(start, message.ref)

    async def _apply(self, wanted: AnyCommand, ref: str | None) -> int:
        op = f"ref:{ref}" if ref is not None and len(ref) >= UNIQUE_REF_MIN else None
        try:
            return (await self.node.apply(self.session.id, wanted, op=op)).revision
        finally:  # its log entry, if there is one, has been applied by now
            if isinstance(wanted, EndStream) and self.stopping:
                self.stopping.discard(wanted.key)
