"""WebSockets of the native API: how they are admitted or refused.

Only a page of a foreign origin (403) and a node at its limit (503) are refused before the
handshake. Any other error completes the handshake, sends ``bye`` with a close code and closes,
because a browser cannot read the HTTP status. The answer never repeats a token; the only
subprotocol that is chosen is our own.

Not here: what an admitted connection does (``connect``, ``events``).
"""

from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Scope

from gateway.api.codec import NativeCodec
from gateway.auth.credentials import SUBPROTOCOL, Credential, read_credential
from gateway.auth.principals import Principal
from gateway.context import Context, caller_key
from gateway.core.errors import BadRequest, GatewayError
from gateway.http.problems import problem
from gateway.http.request import Request, check_target, read_pairs, without_token
from gateway.logs.request import mark_in
from gateway.realtime.codec import HeartbeatRule
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.handshake import Admission, WebSocketEndpoint, check_admissible


class WebSocketRequest:
    """An admitted WebSocket; its rights are not checked yet.

    Args:
        context: The node and its surroundings.
        scope: The ASGI scope of its request.
        full_codec: For a connection whose client may see the whole of its session.
    """

    __slots__ = (
        "_unreadable",
        "connection",
        "context",
        "credential",
        "full_codec",
        "pairs",
        "scope",
    )

    connection: WebSocketConnection[str]
    pairs: list[tuple[str, str]]  # the parameters of the query, in order, without the token

    def __init__(self, context: Context, scope: Scope, full_codec: NativeCodec) -> None:
        self.context = context
        self.scope = scope
        self.full_codec = full_codec
        self.credential, self._unreadable = _shown(scope)

    def read(self) -> None:
        """Read the rest of the request.

        Raises:
            BadRequest: A part of it cannot be read.
            UriTooLong: Path and query are too long.
        """
        if self._unreadable is not None:
            raise self._unreadable
        check_target(Request({**self.scope, "method": "GET"}))
        self.pairs = without_token(read_pairs(self.scope))

    async def principal(self) -> Principal:
        """Return the principal of the token, and count it; the connection ends when it expires.

        Raises:
            Unauthorized: There is no valid token.
            RateLimited: The caller has used up its rate, or its address with invalid tokens.
        """
        checking = self.context.principal_of(self.credential)
        principal = await self.context.rate_limited(self.scope, checking, caller_key)
        self.connection.expire_at(principal.expires_at, self.context.wall_ms)
        return principal


Serve = Callable[[WebSocketRequest], Awaitable[None]]
"""Starts the connection of a request; an exception is sent to the client."""


def native_socket(context: Context, serve: Serve) -> WebSocketEndpoint:
    """Return the application of a WebSocket path."""
    heartbeat_s = context.settings.heartbeat_s
    heartbeat = HeartbeatRule(interval_s=heartbeat_s)
    heartbeat_ms = int(heartbeat_s * 1000)
    codec = NativeCodec(context.node, heartbeat_ms)
    full = NativeCodec(context.node, heartbeat_ms, is_full=True)

    async def admit(scope: Scope) -> Admission[str]:
        request = WebSocketRequest(context, scope, full)
        check_admissible(context, scope, request.credential)

        async def begin(connection: WebSocketConnection[str]) -> None:
            request.connection = connection
            request.read()
            await serve(request)

        return Admission(
            codec=lambda _: codec,
            serve=begin,
            heartbeat=heartbeat,
            subprotocol=request.credential.subprotocol,
        )

    return WebSocketEndpoint(context, admit, _refuse)


def _refuse(error: GatewayError, scope: Scope) -> Response:
    return problem(error, mark_in(scope).request_id, root=scope.get("root_path", ""))


def _shown(scope: Scope) -> tuple[Credential, BadRequest | None]:
    try:
        return read_credential(scope), None
    except BadRequest as error:
        ours = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
        return Credential(subprotocol=ours), error
