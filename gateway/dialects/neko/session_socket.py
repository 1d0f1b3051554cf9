"""Session socket: ``/api/ws``, one client of neko from its handshake to its end.

neko completes the handshake in any case, sends the reason of a refusal in ``system/disconnect``,
and closes. A page of a foreign origin is refused before, with neko's 400.

The session is committed before ``system/init``, so that a client that is greeted is also announced.
A new client gets, in this order: the whole state, as an admin the admins' part, its own state, the
plugins; then the events of the node's channel. Its end comes the same way, so it gets all events
before its end, and the reason.

neko has no error messages, so unreadable messages are ignored. Input that only moves pixels is too
frequent to handle each, so it counts a few times a second.

A client that gets ``system/disconnect`` stays away; one that does not reconnects within the grace
period. So the message is sent only to clients that should stay away, and not when this node drains
or the connection ended by mistake. neko closes without a close frame (clients see 1006).

Not here: the events of a change (``rooms``), the operations (``control``).
"""

import asyncio
import logging
from functools import partial
from typing import ClassVar, Final, TypeVar, cast

from msgspec import MsgspecError
from msgspec.json import decode
from starlette.responses import Response
from starlette.types import Scope

from gateway.connections.lifecycle import ConnectionEnded, ServerClose
from gateway.core import errors
from gateway.core.errors import CloseCode, GatewayError
from gateway.core.frames import TEXT, frame
from gateway.core.model import Cause, Connection, Session
from gateway.dialects.neko import render
from gateway.dialects.neko.members import NekoCaller, caller_key, caller_of, shown_id
from gateway.dialects.neko.rooms import VIEW, News, room_of
from gateway.dialects.neko.schema import ClientEvent, Init, LogLine, ScreenConfiguration, Spoken
from gateway.dialects.neko.service import Service
from gateway.dialects.neko.style import credential_of
from gateway.node import Subscription, Tick
from gateway.realtime.codec import Announcement, ClosingFrames, HeartbeatRule, SocketRules
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.handshake import (
    Admission,
    WebSocketEndpoint,
    check_admissible,
    check_room,
    new_connection,
)
from gateway.realtime.session_socket import SessionSocket

HEARTBEAT_S: Final = 10.0  # between two heartbeats, in any case; neko's constant
LOG_LINES_MAX: Final = 20  # lines of a client's log that are taken from one message
LOG_LINE_MAX: Final = 500  # characters of such a line

MAY_NOT_CONNECT: Final = "connection disabled"
CONNECTED: Final = "already connected"

INPUT_EVERY_S: Final = 0.25  # between two inputs that count (a mouse moves 60 times a second)

HEARD: Final = ("control/", "send/", "system/logs")  # events that are handled
INPUT: Final = (
    "control/move", "control/scroll", "control/button", "control/key", "control/touch",
    "control/cut", "control/copy", "control/paste", "control/select_all",
)  # fmt: skip

ENDS: Final[dict[int, str]] = {
    CloseCode.DISPLACED: "connection replaced",
    CloseCode.KICKED: "session disconnected",
    CloseCode.SESSION_CLOSED: "session deleted",
}
"""The message of each end that is in the record."""

T = TypeVar("T")

log = logging.getLogger(__name__)


# --- codec


class Dismissal(ServerClose):
    """Ends a connection with a message, after which the client does not reconnect."""

    def __init__(self, message: str) -> None:
        super().__init__(CloseCode.FORBIDDEN, message)
        self.cause = "kicked"


class NekoCodec:
    """neko's messages on one WebSocket.

    Args:
        service: neko on this node.
        connection: The connection of the client.
    """

    shares_frames: Final = False

    def __init__(self, service: Service, connection: WebSocketConnection[ClientEvent]) -> None:
        self.socket: NekoSocket | None = None  # once the client is attached
        self._service = service
        self._connection = connection
        self._is_fenced = False  # the session is another connection's: nothing is sent any more
        self._input_at_s = 0.0

    def receive(self, data: str | bytes) -> ClientEvent | None:
        """Decode an event that is handled; ``None`` for any other."""
        received = understood(data, ClientEvent)
        if received is None:
            return None
        if self.socket is not None:
            self.socket.touch()
        is_heard = received.event.startswith(HEARD) and not self._is_too_soon(received)
        return received if is_heard else None

    def _is_too_soon(self, received: ClientEvent) -> bool:
        if not received.event.startswith(INPUT):
            return False
        now_s = asyncio.get_running_loop().time()
        if now_s - self._input_at_s < INPUT_EVERY_S:
            return True
        self._input_at_s = now_s
        return False

    def greet(self, subject: Session | Subscription, token: str | None) -> bytes:  # noqa: ARG002
        """Return the first messages of a new client: a consistent snapshot of what it may see."""
        if isinstance(subject, Subscription) or self.socket is None:
            return b""
        caller, service = self.socket.caller, self._service
        data = Init(
            session_id=caller.id,
            control_host=render.about("", render.control(service.control.host_id(caller))),
            screen_size=ScreenConfiguration(),
            sessions={
                (name := shown_id(known)): render.session_data(name, known)
                for known in service.sessions(caller)
            },
            settings=service.control.room_of(caller).shown,
        )
        own = render.event("session/state", render.about(caller.id, render.state_of(subject)))
        admins = (render.FOR_ADMINS,) if caller.profile.is_admin else ()
        texts = (render.event("system/init", data), *admins, own, *render.PLUGINS)
        return b"".join(frame(TEXT, text) for text in texts)

    def notify(self, notice: Announcement) -> bytes:
        """Return the messages that a tick of the node's channel has for this client.

        Raises:
            ServerClose: The client is too slow, history was lost, or the session is not its own.
        """
        socket = self.socket
        if not isinstance(notice, Tick):
            raise self._connection.too_slow()
        if socket is None:
            return b""
        frames: list[bytes] = []
        for item in notice.items:
            if self._is_fenced or not isinstance(item, News) or not socket.is_meant(item):
                continue
            if item.fence is not None:
                self._connection.write(b"".join(frames))  # messages before an end are sent
                frames.clear()
                self._is_fenced = not socket.on_fence(*item.fence)
            elif item.about is None or socket.caller.visibility.allows(item.about):
                frames.append(frame(TEXT, item.data))
            elif item.blind is not None:
                frames.append(frame(TEXT, item.blind))
        return b"".join(frames)

    def heartbeat(self, subscription: Subscription | None) -> bytes:  # noqa: ARG002 - the port's
        """Return neko's heartbeat."""
        return frame(TEXT, render.HEARTBEAT)

    def close(self, ended: ServerClose) -> ClosingFrames:
        """Return the reason for a client that should stay away, and close."""
        message = self._reason(ended)
        if message is None:
            return ClosingFrames()
        return ClosingFrames(
            last=frame(TEXT, render.event("system/disconnect", {"message": message}))
        )

    def _reason(self, ended: ServerClose) -> str | None:
        if isinstance(ended, Dismissal):
            return ended.reason
        if ended.code == CloseCode.DRAINING:
            node = self._service.node
            return "connection shutdown" if node.is_alone else None
        return ENDS.get(ended.code)


def understood(data: str | bytes, kind: type[T]) -> T | None:
    """Decode a message of a client; ``None`` if it is invalid, which neko does not answer."""
    try:
        return decode(data, type=kind)
    except (MsgspecError, ValueError, RecursionError):
        log.debug("a message is ignored: it cannot be read")
        return None


# --- attachment


class NekoSocket(SessionSocket[ClientEvent]):
    """One client in its session.

    Args:
        service: neko on this node.
        connection: The client's.
        record: The same, as the session's record will name it.
        caller: Who the client is.
    """

    # A client that is cut without a message reconnects; neko does not warn of a close.
    rules: ClassVar[SocketRules] = SocketRules(reattaches=False, reminds=False, hears_notices=False)

    __slots__ = ("_service", "caller")

    def __init__(
        self,
        service: Service,
        connection: WebSocketConnection[ClientEvent],
        record: Connection,
        caller: NekoCaller,
    ) -> None:
        super().__init__(service.context, connection, record)
        self.caller = caller
        self._service = service

    async def join(self, session: Session) -> None:
        """Attach to *session*, and serve the client from now on.

        Raises:
            Dismissal: It may not attach, or it was over before it began.
            ServerClose: This node has not heard of the session yet.
            GatewayError: As ``SessionSocket.attach``.
        """
        merciful = self._service.merciful(session)
        if not merciful and render.is_there(session):
            raise Dismissal(CONNECTED)
        try:
            attached = await self.attach(session, displace=merciful, readmit=True)
        except errors.AlreadyConnected:
            raise Dismissal(CONNECTED) from None
        except (errors.NotFound, errors.SessionClosed):
            raise Dismissal(render.NO_SESSION) from None
        except errors.SessionClosing:
            raise Dismissal(MAY_NOT_CONNECT) from None
        # No await from here to the greeting, which must be consistent.
        self._service.rooms.listeners.add(self)
        self.subscriber.start_here(VIEW)
        known = self.node.sessions.get(session.id)
        if known is not None and known.revision < attached.revision:
            raise self.cut_off()
        self.check()
        if not self.is_own:
            raise ServerClose(CloseCode.DISPLACED, "displaced")
        self._on_record(self.session)
        cast("NekoCodec", self.connection.codec).socket = self
        self.begin()

    def on_end(self, ended: ConnectionEnded) -> None:
        """Record the disconnect, unless the record caused it, and release the connection."""
        self._service.rooms.listeners.discard(self)
        super().on_end(ended)

    # --- notices

    def is_meant(self, news: News) -> bool:
        """Whether this client is one of the recipients of *news*."""
        caller, own = self.caller, self.session.id
        return (
            news.only in (None, own)
            and news.but != own
            and news.room in (None, room_of(self.session))
            and news.workspace in (None, caller.workspace)
            and news.sees_room in (None, caller.visibility.by in ("all", "workspace"))
        )

    def on_fence(self, record: Session, cause: Cause | None) -> bool:
        """Check a new record of the session; return whether this connection is still its own."""
        self.fence(record, cause)
        if self.is_own:
            self._on_record(record)
        return self.is_own

    def _on_record(self, record: Session) -> None:
        self.caller = caller_of(record)
        if not (self.caller.profile.can_login and self.caller.profile.can_connect):
            raise Dismissal("profile changed")

    # --- messages

    async def handle(self, message: ClientEvent) -> None:
        """Handle an event of the client; neko answers none, not even a refused one."""
        known = self.node.sessions.get(self.session.id)
        held = known.connection if known and known.is_connected else None
        if held is None or held.id != self.connection_id:
            return  # displaced; the end follows
        try:
            await self._do(message)
        except GatewayError as error:
            facts = {"event": message.event, "account": self.caller.id, "reason": str(error)}
            log.debug("a message is refused", extra=facts)

    async def _do(self, said: ClientEvent) -> None:
        rooms = self._service.control
        kind, _, what = said.event.partition("/")
        match kind, what:
            case "control", "request":
                await rooms.request(self.caller)
            case "control", "release":
                await rooms.release(self.caller)
            case "control", _ if said.event.startswith(INPUT):
                await rooms.request(self.caller, ask=False)
            case "send", "unicast" | "broadcast":
                if (one := understood(said.payload, Spoken)) is None:
                    return
                to = None
                if what == "unicast":
                    to = await self._service.session(one.receiver, self.caller)
                if to is not None or what == "broadcast":
                    await rooms.say(self.caller, to, one.subject, one.body)
            case "system", "logs":
                for line in (understood(said.payload, list[LogLine]) or [])[:LOG_LINES_MAX]:
                    if (fields := self._service.client_lines.admit()) is not None:
                        facts = {"account": self.caller.id, "text": line.message[:LOG_LINE_MAX]}
                        log.info("a client logs", extra={**facts, **fields})
            case _:
                log.debug("a message is ignored: its event is unknown", extra={"event": said.event})


# --- handshake


def endpoint(service: Service) -> WebSocketEndpoint:
    """Return the WebSocket endpoint of neko's clients."""
    context = service.context

    async def admit(scope: Scope) -> Admission[ClientEvent]:
        shown = credential_of(scope, cookie=context.settings.neko_cookie)
        if "*" in context.settings.allowed_origins:
            check_room(context)
        else:
            check_admissible(context, scope, shown)

        async def serve(connection: WebSocketConnection[ClientEvent]) -> None:
            await service.started.wait()
            caller, session = await _let_in(service, scope, shown.token)
            record = new_connection(context, scope)
            await NekoSocket(service, connection, record, caller).join(session)

        return Admission(
            codec=partial(NekoCodec, service),
            serve=serve,
            heartbeat=HeartbeatRule(interval_s=HEARTBEAT_S, in_silence=False),
        )

    return WebSocketEndpoint(context, admit, _refuse)


def _refuse(error: GatewayError, _scope: Scope) -> Response:
    if isinstance(error, errors.Forbidden):
        return render.failure(400, "Bad Request")
    return render.refusal(error)


async def _let_in(service: Service, scope: Scope, token: str | None) -> tuple[NekoCaller, Session]:
    """Return the caller of *token* and its session.

    Raises:
        Dismissal: Nobody's, or somebody's who may not connect.
        RateLimited: Too many handshakes of this caller, or too many bad ones of its address.
    """
    if token is None:
        raise Dismissal("no authentication provided")
    try:
        caller = await service.context.rate_limited(scope, service.caller(token), caller_key)
    except errors.Unauthorized:
        raise Dismissal(render.NO_SESSION) from None
    if not caller.profile.can_login:
        raise Dismissal("session login disabled")
    if not caller.profile.can_connect or caller.session is None:
        raise Dismissal(MAY_NOT_CONNECT)
    return caller, caller.session
