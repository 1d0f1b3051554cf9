"""Session socket: ``/socket.io/``, a client of Socket.IO from its handshake to its end.

The only transport is WebSocket, which Webida's clients use; long polling is refused in the form of
Engine.IO. A client that cannot be served at the moment (the limit is reached, the node drains) is
refused before the upgrade, because then it waits longer each time. A client that may not connect at
all gets the reason on the open connection, because only there it reads one.

A client is attached when it asks for its namespace. Its token names the session: an unknown one is
opened with this id; one that is open and has no client is attached to. Of two clients of one
session the first one stays, as in the product, if it still lives (see ``realtime.contest``).

Not here: tokens (``access``), the encoding (``codec``).
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final

from msgspec import Struct, ValidationError, convert
from starlette.responses import Response
from starlette.types import ASGIApp
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import Credential
from gateway.auth.principals import Principal, Scope, may_attach
from gateway.connections.lifecycle import ClientClosed, ServerClose
from gateway.context import Context, caller_key
from gateway.core.errors import (
    AlreadyConnected,
    BadRequest,
    CloseCode,
    Forbidden,
    GatewayError,
    IdUnavailable,
    LimitExceeded,
    NotFound,
    SessionClosed,
    SessionClosing,
    Unauthorized,
)
from gateway.core.model import Client, Name, Session, SessionId, new_session
from gateway.dialects.webida.access import INVALID, Access, WebidaCaller, may_enter, new_id
from gateway.dialects.webida.codec import EngineCodec, RefusedInside
from gateway.dialects.webida.engineio import PROTOCOL, EngineSocket, Heard, Joining, Sign
from gateway.dialects.webida.render import WORDS, Words
from gateway.dialects.webida.style import failed, pairs_of
from gateway.http.endpoint import AnyCall, reply
from gateway.realtime.codec import HeartbeatRule, SocketRules
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.contest import attach_when_free
from gateway.realtime.handshake import (
    Admission,
    WebSocketEndpoint,
    check_admissible,
    new_connection,
)
from gateway.realtime.session_socket import SessionSocket

LINGER_MS: Final = 150_000  # clients of the product reconnect for up to 149.5 s, then give up
JOIN_WITHIN_S: Final = 10.0  # for a client to ask for its namespace
OPEN_ATTEMPTS: Final = 2  # if the id is taken meanwhile, the second attempt attaches to it
SLACK_S: Final = 1.0  # to learn that the first client is dead
PRODUCT: Final = "Webida"
NO_TOKEN: Final = "need token"  # noqa: S105 - the product's words

REFUSALS: Final[tuple[tuple[type[GatewayError], str], ...]] = (
    (Forbidden, "insufficient access rights"),
    (SessionClosing, "session is closing"),
    (SessionClosed, "session is closed"),
    (IdUnavailable, "session id is not available"),
    (LimitExceeded, "too many sessions"),
)
"""The reasons of refused clients; other errors have their own text."""

Pairs = list[tuple[str, str]]


# --- before the upgrade


UNKNOWN_TRANSPORT: Final = (0, "Transport unknown")  # numbers and words of Engine.IO's own server
UNKNOWN_SESSION: Final = (1, "Session ID unknown")
BAD_METHOD: Final = (2, "Bad handshake method")
BAD_REQUEST: Final = (3, "Bad request")
UNSUPPORTED: Final = (5, "Unsupported protocol version")


class EngineRefusal(BadRequest):
    """A request that is refused with a number and a message of Engine.IO."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def endpoint(context: Context, access: Access) -> ASGIApp:
    """Return the WebSocket endpoint of this dialect.

    Args:
        context: The node and its surroundings.
        access: Tokens.
    """
    settings, words = context.settings, WORDS[context.settings.webida_generation]
    heartbeat = HeartbeatRule(
        interval_s=settings.heartbeat_s, silence_s=settings.heartbeat_s + settings.pong_s
    )

    async def admit(scope: AsgiScope) -> Admission[list[Heard]]:
        pairs = pairs_of(scope)
        check_admissible(context, scope, Credential())
        if (refusal := _why_not(pairs)) is not None:
            raise refusal
        connection_id = new_id()
        codec = EngineCodec(context.node, EngineSocket(connection_id, words.namespace), words)

        async def serve(connection: WebSocketConnection[list[Heard]]) -> None:
            request = SocketRequest(context, access, scope, pairs, connection_id, words)
            WebidaSocket(request, connection, codec).start()

        return Admission(codec=lambda _: codec, serve=serve, heartbeat=heartbeat)

    return WebSocketEndpoint(context, admit, _refuse)


def _refuse(error: GatewayError, _: AsgiScope) -> Response:
    return _engine_failed(error) if isinstance(error, EngineRefusal) else failed(error)


def _why_not(pairs: Pairs) -> EngineRefusal | None:
    """Return why a handshake is refused, or ``None``."""
    query = dict(pairs)
    if query.get("EIO") != PROTOCOL:
        return EngineRefusal(*UNSUPPORTED)
    if query.get("transport") != "websocket":
        return EngineRefusal(*UNKNOWN_TRANSPORT)
    return EngineRefusal(*UNKNOWN_SESSION) if "sid" in query else None  # there is no upgrade


async def answer_polling(call: AnyCall) -> Response:
    """Refuse a transport other than WebSocket, in the form of Engine.IO."""
    told = UNKNOWN_TRANSPORT
    try:
        if call.request.method not in ("GET", "HEAD"):
            told = BAD_METHOD
        elif dict(pairs_of(call.request.scope)).get("transport") == "websocket":
            told = BAD_REQUEST
    except BadRequest:
        told = BAD_REQUEST
    return _engine_failed(EngineRefusal(*told))


def _engine_failed(error: EngineRefusal) -> Response:
    told = {"code": error.number, "message": error.detail}
    return reply(told, error.status, {"Cache-Control": "no-store"})


# --- the socket


class SocketRequest(Struct, frozen=True):
    """The handshake of a client.

    Args:
        context: The node and its surroundings.
        access: Tokens.
        scope: The ASGI scope.
        pairs: The parameters of the query.
        connection_id: What the connection is called in the record.
        words: How this generation says things.
    """

    context: Context
    access: Access
    scope: AsgiScope
    pairs: Pairs
    connection_id: str
    words: Words


class WebidaSocket(SessionSocket[list[Heard]]):
    """The socket of one client, from its handshake to its end.

    Args:
        request: Its handshake.
        connection: Its connection.
        codec: The codec of the connection.
    """

    rules: ClassVar[SocketRules] = SocketRules(
        reattaches=False,  # a client of Socket.IO reconnects by itself
        reminds=False,  # the product warns once, and again when the time changes
    )

    __slots__ = ("_codec", "_is_in", "_joining", "_request")

    def __init__(
        self,
        request: SocketRequest,
        connection: WebSocketConnection[list[Heard]],
        codec: EngineCodec,
    ) -> None:
        record = new_connection(request.context, request.scope, request.connection_id)
        super().__init__(request.context, connection, record)
        self._request = request
        self._codec = codec
        self._joining: asyncio.Future[Joining] = asyncio.get_running_loop().create_future()
        self._is_in = False

    def start(self) -> None:
        """Begin the protocol; the client is attached when it asks for its namespace."""
        pong_ms = round(self._request.context.settings.pong_s * 1000)
        heard, first = self._codec.open(self.connection.heartbeat_ms, pong_ms)
        self.connection.send(first)
        self._take(heard)
        self.connection.bind(self)
        self.connection.start()
        self.connection.spawn(self._come_in())

    async def handle(self, message: list[Heard]) -> None:
        """Handle the packets of one text."""
        self._take(message)
        self.connection.send(self._codec.flush())

    def _take(self, heard: list[Heard]) -> None:
        for one in heard:
            match one:
                case Joining():
                    self._joining.set_result(one)
                case Sign.SAID if self._is_in:
                    self.touch()
                case Sign.LEFT:
                    raise ClientClosed("clean")
                case _:
                    pass

    def heartbeat(self) -> bytes:
        """Check that the session still names this connection, once it is attached."""
        return super().heartbeat() if self._is_in else b""

    # --- attaching

    async def _come_in(self) -> None:
        """Attach the client to its session, or refuse it with the reason."""
        try:
            await self._attach()
        except AlreadyConnected:
            raise RefusedInside(self._request.words.duplicate) from None
        except GatewayError as error:
            if error.retry:
                raise
            text = next((text for kind, text in REFUSALS if isinstance(error, kind)), error.detail)
            raise RefusedInside(text) from error
        self._is_in = True
        self.begin()

    async def _attach(self) -> None:
        """Open the session or attach to it.

        Raises:
            ServerClose: The client did not ask for its namespace.
            RateLimited: Too many come of this caller, or too many bad tokens of its address.
            GatewayError: It may not come in, or not now.
        """
        try:
            async with asyncio.timeout(JOIN_WITHIN_S):
                joining = await self._joining
        except TimeoutError:
            raise ServerClose(CloseCode.BAD_REQUEST, "no_namespace") from None
        request, context = self._request, self._request.context
        query = {**dict(request.pairs), **dict(joining.query)}
        if not query.get("token"):
            raise Unauthorized(NO_TOKEN)
        caller = await context.rate_limited(
            request.scope,
            request.access.visitor(query["token"]),
            lambda caller: caller_key(caller.principal),
        )
        self.connection.expire_at(caller.principal.expires_at, context.wall_ms)
        wanted = _named(query, "sessionId", SessionId) or caller.principal.session
        workspace = _named(query, "workspaceId", Name)
        for attempt in range(OPEN_ATTEMPTS):
            session = await self._find(caller, wanted)
            try:
                if session is None:
                    await self.open(self._new_session(caller, wanted or new_id(), workspace))
                elif workspace not in (None, session.workspace):
                    raise Forbidden
                else:
                    own = session.id == caller.principal.session
                    await self._come_back(session, own=own)
                return
            except IdUnavailable:  # another client opened it just now
                if attempt + 1 == OPEN_ATTEMPTS:
                    raise

    async def _find(self, caller: WebidaCaller, session_id: str | None) -> Session | None:
        """Return the open session that the caller may attach to; ``None`` if it may open one.

        Raises:
            SessionClosed: It is closed, and was the caller's.
            Forbidden: It is somebody else's.
            Unauthorized: There is none, and the token has expired.
        """
        principal = caller.principal
        own = session_id is not None and session_id == principal.session
        session = None
        try:
            if session_id is not None:
                session = await self.node.find(session_id)
        except NotFound:
            pass
        except SessionClosed:
            if not own:
                raise Forbidden from None
            raise
        if caller.is_expired and not (own and session is not None):
            raise Unauthorized(INVALID)
        if session is None:
            if not own and session_id is not None and not principal.has(Scope.WRITE):
                raise Forbidden
        elif not (own and principal.covers(session.workspace)) and not may_attach(
            session, principal, None
        ):
            raise Forbidden
        return session

    async def _come_back(self, session: Session, *, own: bool) -> None:
        settings = self._request.context.settings
        attach = partial(self.attach, session, displace=False, readmit=own)
        patience_s = settings.heartbeat_s + settings.pong_s + SLACK_S
        await attach_when_free(self.node, session, attach, patience_s)

    def _new_session(self, caller: WebidaCaller, session_id: str, workspace: str | None) -> Session:
        """Return the session that is to be opened.

        Raises:
            Forbidden: The token does not allow it, or not in that workspace.
        """
        principal: Principal = caller.principal
        workspace = workspace or principal.workspace
        if caller.is_session:
            raise Forbidden
        if not (principal.has(Scope.CONNECT) or principal.has(Scope.WRITE)):
            raise Forbidden
        if workspace is not None and not may_enter(principal, workspace):
            raise Forbidden
        return new_session(
            session_id,
            name=principal.name,
            account=principal.account,
            workspace=workspace,
            client=Client(product=PRODUCT),
            linger_ms=LINGER_MS,
        )


def _named(query: Mapping[str, str], name: str, kind: Any) -> str | None:  # noqa: ANN401 - a type
    text = query.get(name)
    if not text:
        return None
    try:
        found: str = convert(text, kind)
    except ValidationError as error:
        raise BadRequest(f'"{name}" is not acceptable') from error
    return found
