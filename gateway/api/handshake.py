"""Handshake: how a WebSocket comes in, or is refused, before it means anything.

A browser cannot read the HTTP status of a refused WebSocket. So only a page that has no business
here (403) and a node without room (503) are refused before the handshake is complete; everybody
else is let in, told ``bye`` with a close code, and closed. A token is never answered: the one
subprotocol that we choose is our own.

Not here: what a socket does once it is in (``connect``, ``events``).
"""

import logging
import secrets
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final

from msgspec import Struct
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.api.socket import Socket
from gateway.auth.credentials import (
    SUBPROTOCOL,
    Credential,
    check_origin,
    networks,
    origins,
    read_credential,
)
from gateway.auth.principals import Principal
from gateway.connections.lifecycle import ClientClosed, ServerClose
from gateway.context import Context, caller_key
from gateway.core.errors import (
    BadRequest,
    CloseCode,
    Draining,
    Forbidden,
    GatewayError,
    Overloaded,
    Unavailable,
)
from gateway.core.frames import Writer
from gateway.core.query import Filter, View
from gateway.http.problems import problem
from gateway.http.request import Request, check_target, read_pairs, without_token

EXTENSION: Final = "gateway.frames"  # of the ASGI scope; see ``transport``

log = logging.getLogger(__name__)

_numbers = count(1)  # tell the sockets of this process apart in logs


class Visit(Struct, frozen=True, kw_only=True):
    """A WebSocket that was let in; nothing is said about its rights yet.

    Args:
        context: The node and its surroundings.
        socket: The connection.
        scope: The ASGI scope of its request.
        shown: The tokens.
        pairs: The parameters of the query, in order, without the token.
    """

    context: Context
    socket: Socket
    scope: Scope
    shown: Credential
    pairs: list[tuple[str, str]]

    async def principal(self) -> Principal:
        """Return whose the token is, and count it; the socket ends when it expires.

        Raises:
            Unauthorized: There is none, or none that is good.
            RateLimited: Too many of this caller's come, or too many bad ones of its address.
        """
        checking = self.context.principal_of(self.shown)
        principal = await self.context.rate_limited(self.scope, checking, caller_key)
        self.socket.expire_at(principal.expires_at, self.context.wall_ms)
        return principal


async def refreshed(
    context: Context, socket: Socket, principal: Principal, token: str
) -> Principal:
    """Return who goes on after *token* was shown on an open socket; it lives longer now.

    Raises:
        ServerClose: The token is not good, or not the same caller's: the socket ends.
        Unavailable: The token cannot be checked now.
    """
    try:
        newer = await context.authenticator.authenticate(token, context.wall_ms())
        newer = principal.refreshed(newer)
    except GatewayError as error:
        if error.retry:
            raise
        raise ServerClose.from_error(error, socket.reconnect_after_ms()) from error
    socket.expire_at(newer.expires_at, context.wall_ms)
    return newer


Door = Callable[[Visit], Awaitable[None]]
"""Lets a visit's socket begin to serve a guest; what it raises is told to the client."""


def view_of(principal: Principal, wanted: Filter) -> View:
    """Return what *principal* sees of what it asks for.

    Raises:
        Forbidden: It may see nothing at all, or filters by what it is not shown.
    """
    visibility = principal.visibility()
    if visibility.by == "nothing":
        raise Forbidden("This token may see no sessions.")
    if wanted.node is not None and not principal.is_full:
        raise Forbidden("Only those who may write see nodes.")
    return View(filter=wanted, visibility=visibility, full=principal.is_full)


class Entrance:
    """Where WebSockets come in, as an ASGI application.

    It returns once the socket serves its guest: from then on nothing of the request is kept.

    Args:
        door: What is behind.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a WebSocket from its request to its guest, or refuse it."""
        context: Context = scope["app"].state.context
        settings = context.settings
        websocket = WebSocket(scope, receive, send)
        shown, unreadable = _shown(scope)
        try:
            allowed, trusted = (
                origins(settings.allowed_origins),
                networks(settings.trusted_proxies),
            )
            check_origin(scope, shown, allowed, trusted)
            if context.node.is_draining:
                raise Draining
            context.connections.check_capacity()
            writer = _writer(scope)
        except (BadRequest, Forbidden, Draining, Overloaded, Unavailable) as error:
            await websocket.send_denial_response(problem(error, secrets.token_hex(8)))
            return
        socket = Socket(
            writer,
            context.connections,
            number=next(_numbers),
            heartbeat_s=settings.heartbeat_s,
            messages_per_s=settings.messages_per_s,
        )
        context.connections.add(socket)
        try:
            try:
                await websocket.accept(shown.subprotocol)
            except (OSError, RuntimeError, WebSocketDisconnect):  # it left meanwhile
                raise ClientClosed("lost") from None
            writer.adopt(socket)
            log.info("socket %d: %s from %s", socket.number, scope["path"], scope.get("client"))
            if unreadable is not None:
                raise unreadable
            check_target(Request({**scope, "method": "GET"}))
            await self._door(
                Visit(
                    context=context,
                    socket=socket,
                    scope=scope,
                    shown=shown,
                    pairs=without_token(read_pairs(scope)),
                )
            )
        except Exception as error:  # noqa: BLE001 - the top of a handshake; logged if unforeseen
            socket.refuse(socket.ending(error))
        except BaseException:  # this process stops
            socket.refuse(ServerClose(CloseCode.DRAINING, "draining", socket.reconnect_after_ms()))
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


def _shown(scope: Scope) -> tuple[Credential, BadRequest | None]:
    try:
        return read_credential(scope), None
    except BadRequest as error:
        ours = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
        return Credential(subprotocol=ours), error
