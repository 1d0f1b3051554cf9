"""Session socket: ``/api/ws``, one client of neko from its handshake to its end.

neko completes the handshake in any case, sends the reason of a refusal in ``system/disconnect``,
and closes. A page of a foreign origin is refused before, with neko's 400.

The session is committed before ``system/init``, so that a client that is greeted is also announced.
A new client gets, in this order: the whole state, as an admin the admins' part, its own state, the
plugins; then the events of the node's channel. Its end comes the same way, so it gets all events
before its end, and the reason.

Not here: the events of a change (``rooms``), the operations (``control``), the bytes (``codec``).
"""

import logging
from contextlib import ExitStack
from typing import ClassVar, Final

from starlette.responses import Response
from starlette.types import Scope

from gateway.auth.credentials import Credential
from gateway.connections.lifecycle import ConnectionEnded, ServerClose
from gateway.core.errors import (
    AlreadyConnected,
    CloseCode,
    Forbidden,
    GatewayError,
    NotFound,
    SessionClosed,
    SessionClosing,
    Unauthorized,
)
from gateway.core.model import Connection, Session
from gateway.dialects.neko.codec import INPUT, Dismissal, NekoCodec, understood
from gateway.dialects.neko.errors import NO_SESSION, failure, refusal
from gateway.dialects.neko.login import NekoCaller, caller_key, caller_of
from gateway.dialects.neko.render import is_there
from gateway.dialects.neko.rooms import VIEW, Fence
from gateway.dialects.neko.schema import ClientEvent, LogLine, Spoken
from gateway.dialects.neko.service import Service
from gateway.dialects.neko.style import token_of
from gateway.realtime.codec import HeartbeatRule, SocketRules
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

MISSING: Final = "no authentication provided"
MAY_NOT_LOG_IN: Final = "session login disabled"
LOG_LINES_MAX: Final = 20  # lines of a client's log that are taken from one message
LOG_LINE_MAX: Final = 500  # characters of such a line

MAY_NOT_CONNECT: Final = "connection disabled"
CONNECTED: Final = "already connected"
PROFILE_CHANGED: Final = "profile changed"

log = logging.getLogger(__name__)


class NekoSocket(SessionSocket[ClientEvent]):
    """One client in its session.

    Args:
        service: neko on this node.
        connection: The client's.
        codec: What is spoken on it.
        record: The same, as the session's record will name it.
        caller: Who the client is.
    """

    # A client that is cut without a message reconnects; neko does not warn of a close.
    rules: ClassVar[SocketRules] = SocketRules(reattaches=False, reminds=False, hears_notices=False)

    __slots__ = ("_caller", "_codec", "_service", "_stack")

    def __init__(
        self,
        service: Service,
        connection: WebSocketConnection[ClientEvent],
        codec: NekoCodec,
        record: Connection,
        caller: NekoCaller,
    ) -> None:
        super().__init__(service.context, connection, record)
        self._service = service
        self._codec = codec
        self._caller = caller
        self._stack = ExitStack()

    async def join(self, session: Session) -> None:
        """Attach to *session*, and serve the client from now on.

        Raises:
            Dismissal: It may not attach, or it was over before it began.
            ServerClose: This node has not heard of the session yet.
            GatewayError: As ``SessionSocket.attach``.
        """
        merciful = self._service.merciful(session)
        if not merciful and is_there(session):
            raise Dismissal(CONNECTED)
        try:
            attached = await self.attach(session, displace=merciful, readmit=True)
        except AlreadyConnected:
            raise Dismissal(CONNECTED) from None
        except (NotFound, SessionClosed):
            raise Dismissal(NO_SESSION) from None
        except SessionClosing:
            raise Dismissal(MAY_NOT_CONNECT) from None
        # No await from here to the greeting, which must be consistent.
        self._stack.enter_context(self._service.rooms.heard())
        self.subscriber.start_here(VIEW)
        known = self.node.sessions.get(session.id)
        if known is not None and known.revision < attached.revision:
            raise self.cut_off()
        self.check()
        if not self.is_own:
            raise ServerClose(CloseCode.DISPLACED, "displaced")
        self._on_record(self.session)
        self._codec.on_fence, self._codec.on_received = self._on_fence, self.touch
        self.begin()

    def on_end(self, ended: ConnectionEnded) -> None:
        """Record the disconnect, unless the record caused it, and release the connection."""
        self._stack.close()
        super().on_end(ended)

    # --- notices

    def _on_fence(self, fence: Fence) -> bool:
        """Check a new record of the session; return whether this connection is still its own."""
        self.fence(fence.record, fence.cause)
        if not self.is_own:
            return False
        self._on_record(fence.record)
        return True

    def _on_record(self, record: Session) -> None:
        caller = caller_of(record)
        if not (caller.profile.can_login and caller.profile.can_connect):
            raise Dismissal(PROFILE_CHANGED)
        self._caller = self._codec.caller = caller
        self._codec.session = record

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
            about = {"event": message.event, "account": self._caller.id, "reason": str(error)}
            log.debug("a message is refused", extra=about)

    async def _do(self, said: ClientEvent) -> None:
        control = self._service.control
        kind, _, what = said.event.partition("/")
        match kind, what:
            case "control", "request":
                await control.request(self._caller)
            case "control", "release":
                await control.release(self._caller)
            case "control", _ if said.event.startswith(INPUT):
                await control.request(self._caller, ask=False)
            case "send", "unicast":
                if (one := understood(said.payload, Spoken)) is not None:
                    await self._unicast(one)
            case "send", "broadcast":
                if (one := understood(said.payload, Spoken)) is not None:
                    await control.broadcast(self._caller, one.subject, one.body)
            case "system", "logs":
                for line in (understood(said.payload, list[LogLine]) or [])[:LOG_LINES_MAX]:
                    if (fields := self._service.client_lines.admit()) is not None:
                        about = {"account": self._caller.id, "text": line.message[:LOG_LINE_MAX]}
                        log.info("a client logs", extra={**about, **fields})
            case _:
                log.debug("a message is ignored: its event is unknown", extra={"event": said.event})

    async def _unicast(self, said: Spoken) -> None:
        target = await self._service.session(said.receiver, self._caller)
        if target is not None:
            await self._service.control.unicast(self._caller, target, said.subject, said.body)


# --- handshake


def endpoint(service: Service) -> WebSocketEndpoint:
    """Return the WebSocket endpoint of neko's clients."""
    context = service.context

    async def admit(scope: Scope) -> Admission[ClientEvent]:
        token, is_cookie = token_of(scope, cookie=context.settings.neko_cookie)
        if "*" in context.settings.allowed_origins:
            check_room(context)
        else:
            shown = Credential(token=token, source="cookie" if is_cookie else "query")
            check_admissible(context, scope, shown)
        codecs: list[NekoCodec] = []

        def codec_of(connection: WebSocketConnection[ClientEvent]) -> NekoCodec:
            codecs.append(NekoCodec(service, connection))
            return codecs[0]

        async def serve(connection: WebSocketConnection[ClientEvent]) -> None:
            await service.started.wait()
            caller, session = await _let_in(service, scope, token)
            record = new_connection(context, scope)
            await NekoSocket(service, connection, codecs[0], record, caller).join(session)

        return Admission(
            codec=codec_of,
            serve=serve,
            heartbeat=HeartbeatRule(interval_s=HEARTBEAT_S, in_silence=False),
        )

    return WebSocketEndpoint(context, admit, _refuse)


def _refuse(error: GatewayError, _scope: Scope) -> Response:
    return failure(400, "Bad Request") if isinstance(error, Forbidden) else refusal(error)


async def _let_in(service: Service, scope: Scope, token: str | None) -> tuple[NekoCaller, Session]:
    """Return the caller of *token* and its session.

    Raises:
        Dismissal: Nobody's, or somebody's who may not connect.
        RateLimited: Too many handshakes of this caller, or too many bad ones of its address.
    """
    if token is None:
        raise Dismissal(MISSING)
    try:
        caller = await service.context.rate_limited(scope, service.caller(token), caller_key)
    except Unauthorized:
        raise Dismissal(NO_SESSION) from None
    if not caller.profile.can_login:
        raise Dismissal(MAY_NOT_LOG_IN)
    if not caller.profile.can_connect or caller.session is None:
        raise Dismissal(MAY_NOT_CONNECT)
    return caller, caller.session
