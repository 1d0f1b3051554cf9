"""Handshake: admits or refuses a WebSocket, at any product's door.

A browser cannot read the HTTP status of a refused WebSocket, so a product chooses where it refuses.
An error of its *admission* is answered by HTTP instead of the upgrade; a later error is encoded by
its codec, sent on the open connection, and closes it.

Not here: an admitted connection (``connection``, a product's handler).
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.auth.credentials import (
    Credential,
    check_origin,
    headers,
    networks,
    origins,
)
from gateway.connections.journal import ConnectionJournal
from gateway.connections.lifecycle import ClientClosed, ServerClose
from gateway.context import Context
from gateway.core.errors import CloseCode, Draining, GatewayError, Unavailable
from gateway.core.frames import Writer
from gateway.core.model import Connection
from gateway.http.answers import tell_answer
from gateway.logs.request import current, mark_in
from gateway.metrics import REFUSALS
from gateway.realtime.codec import Codec, HeartbeatRule
from gateway.realtime.connection import WebSocketConnection

EXTENSION: Final = "gateway.frames"  # of the ASGI scope; see ``transport``
USER_AGENT_MAX: Final = 512  # characters that are stored

M = TypeVar("M")


class Admission(Struct, Generic[M], frozen=True, kw_only=True):
    """How an admitted WebSocket is served.

    Args:
        codec: Makes the codec of its connection.
        serve: Starts the connection after the handshake; an exception closes it.
        heartbeat: When the connection is checked and sends a heartbeat.
        subprotocol: The subprotocol of the answer; never a token.
    """

    codec: Callable[[WebSocketConnection[M]], Codec[M]]
    serve: Callable[[WebSocketConnection[M]], Awaitable[None]]
    heartbeat: HeartbeatRule
    subprotocol: str | None = None


Admit = Callable[[Scope], Awaitable[Admission[Any]]]
"""Admits a request for a WebSocket; an exception is answered instead of the upgrade."""

Refuse = Callable[[GatewayError, Scope], Response]
"""Returns the response to a request that is not upgraded."""


def check_admissible(context: Context, scope: Scope, shown: Credential) -> None:
    """Raise if no door admits this WebSocket: from a foreign page, or beyond the limit.

    Raises:
        OriginRefused: The page that opens this WebSocket may not.
        Draining: This node is shutting down.
        Overloaded: The maximum of connections is reached.
    """
    settings = context.settings
    allowed, trusted = origins(settings.allowed_origins), networks(settings.trusted_proxies)
    check_origin(scope, shown, allowed, trusted)
    check_room(context)


def check_room(context: Context) -> None:
    """Raise if this node cannot accept another connection.

    Raises:
        Draining: This node is shutting down.
        Overloaded: The maximum of connections is reached.
    """
    if context.node.is_draining:
        raise Draining
    context.connections.check_capacity()


def new_connection(context: Context, scope: Scope, connection_id: str | None = None) -> Connection:
    """Return a connection as a session's record names it; its time is that of the commit."""
    peer = context.peer(scope)
    agents = headers(scope, b"user-agent")
    return Connection(
        id=connection_id or secrets.token_hex(12),
        node=context.node.id,
        connected_at=0,
        address=peer.address,
        port=peer.port,
        tls=peer.tls,
        user_agent=agents[0][:USER_AGENT_MAX] if agents else None,
    )


def journal_of(context: Context, scope: Scope) -> ConnectionJournal:
    """Return the journal of the connection that a request opens."""
    throttle = context.throttles["connections"]
    return ConnectionJournal(scope["path"], context.peer(scope).address, mark_in(scope), throttle)


class WebSocketEndpoint:
    """The ASGI application of a WebSocket path.

    It returns once the connection has its handler; from then on nothing of the request is kept.

    Args:
        context: The node and its surroundings.
        admit: Admits a request, or raises.
        refuse: Returns the response to a refused request.
    """

    def __init__(self, context: Context, admit: Admit, refuse: Refuse) -> None:
        self._context = context
        self._admit = admit
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket from its request to its handler, or refuse it."""
        context = self._context
        current.set(mark_in(scope))
        websocket = WebSocket(scope, receive, send)
        try:
            admission = await self._admit(scope)
            writer = _writer(scope)
        except GatewayError as error:
            REFUSALS.labels(error.code).inc()
            response = self._refuse(error, scope)
            tell_answer(context, scope, response, error)
            await websocket.send_denial_response(response)
            return
        journal = journal_of(context, scope)
        connection: WebSocketConnection[Any] = WebSocketConnection(
            writer,
            context.connections,
            admission.codec,
            journal=journal,
            heartbeat=admission.heartbeat,
            messages_per_s=context.settings.messages_per_s,
        )
        context.connections.add(connection)
        try:
            try:
                await websocket.accept(admission.subprotocol)
            except (OSError, RuntimeError, WebSocketDisconnect):  # it left meanwhile
                raise ClientClosed("lost") from None
            writer.adopt(connection)
            await admission.serve(connection)
        except Exception as error:  # noqa: BLE001 - the top of a handshake; logged if unforeseen
            if isinstance(error, GatewayError):
                REFUSALS.labels(error.code).inc()
            connection.refuse(connection.closing_of(error))
        except BaseException:  # this process stops
            reconnect_after_ms = connection.reconnect_after_ms()
            connection.refuse(ServerClose(CloseCode.DRAINING, "draining", reconnect_after_ms))
            raise


def _writer(scope: Scope) -> Writer:
    """Return the connection below the messages.

    Raises:
        Unavailable: Another server serves this application: its WebSockets cannot be adopted.
    """
    found: Writer | None = scope.get("extensions", {}).get(EXTENSION, {}).get("writer")
    if found is None:
        raise Unavailable("WebSockets need the gateway's own transport: use `gateway serve`.")
    return found
