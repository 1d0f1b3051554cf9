"""Socket: ``/socket.io/``: a WebSocket of a Socket.IO client, from its request to its end.

The transport is WebSocket at once, as Webida's clients ask for it; long polling is answered in the
words of Engine.IO. Who may not come in for the moment (no room, a node that goes) is refused before
the upgrade, because that makes the client wait longer each time; who may not come in at all hears
why inside, because only there a client listens.

Not here: how it speaks (``line``), how it comes to its session (``arrival``), what it is told
(``visit``).
"""

import logging
from typing import Final

from msgspec import Struct
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.auth.credentials import Credential, check_origin, networks, origins
from gateway.context import Context
from gateway.core.errors import BadRequest, Draining, GatewayError
from gateway.dialects.webida.access import Access, new_id
from gateway.dialects.webida.arrival import Arrival
from gateway.dialects.webida.engineio import PROTOCOL, EngineSocket
from gateway.dialects.webida.line import EngineLine
from gateway.dialects.webida.render import WORDS
from gateway.dialects.webida.style import failed, pairs_of
from gateway.dialects.webida.visit import Visit
from gateway.http.endpoint import AnyCall, reply

log = logging.getLogger(__name__)


class EngineError(Struct, frozen=True):
    """Why Engine.IO refuses a request; numbers and words are those of its own server."""

    code: int
    message: str


UNKNOWN_TRANSPORT: Final = EngineError(0, "Transport unknown")
UNKNOWN_SESSION: Final = EngineError(1, "Session ID unknown")
BAD_METHOD: Final = EngineError(2, "Bad handshake method")
BAD_REQUEST: Final = EngineError(3, "Bad request")
UNSUPPORTED: Final = EngineError(5, "Unsupported protocol version")


class SocketDoor:
    """Where Socket.IO clients come in: an ASGI application.

    Args:
        context: The node and its surroundings.
        access: Tokens.
    """

    def __init__(self, context: Context, access: Access) -> None:
        self._context = context
        self._access = access
        self._words = WORDS[context.settings.webida_generation]

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        context, websocket = self._context, WebSocket(scope, receive, send)
        try:
            pairs = pairs_of(scope)
            check_origin(
                scope,
                Credential(),
                origins(context.settings.allowed_origins),
                networks(context.settings.trusted_proxies),
            )
            if context.node.is_draining:
                raise Draining
            context.connections.check_capacity()
        except GatewayError as error:
            await websocket.send_denial_response(failed(error))
            return
        if (refusal := _why_not(pairs)) is not None:
            await websocket.send_denial_response(_engine_failed(refusal))
            return
        scope["query_string"] = b""  # uvicorn logs it when it accepts, tokens and all
        await self._serve(websocket, pairs)

    async def _serve(self, websocket: WebSocket, pairs: list[tuple[str, str]]) -> None:
        connection_id = new_id()
        engine = EngineSocket(connection_id, self._words.namespace)
        line = EngineLine(websocket, self._context, engine)
        with self._context.connections.registered(line):
            try:
                await websocket.accept()
            except (OSError, RuntimeError, WebSocketDisconnect):  # it left meanwhile
                return
            arrival = Arrival(
                context=self._context,
                access=self._access,
                line=line,
                scope=websocket.scope,
                connection_id=connection_id,
                pairs=pairs,
            )
            visit = Visit(self._context.node, self._words, line, engine, arrival)
            ended = await visit.live()
            log.info("socket %s: %r", connection_id, ended)


def _why_not(pairs: list[tuple[str, str]]) -> EngineError | None:
    """Return why a handshake is refused, or ``None``."""
    query = dict(pairs)
    if query.get("EIO") != PROTOCOL:
        return UNSUPPORTED
    if query.get("transport") != "websocket":
        return UNKNOWN_TRANSPORT
    return UNKNOWN_SESSION if "sid" in query else None  # there is nothing to upgrade


async def answer_polling(call: AnyCall) -> Response:
    """Tell a client of Engine.IO in its words that only WebSockets are served here."""
    if call.request.method not in ("GET", "HEAD"):
        return _engine_failed(BAD_METHOD)
    try:
        transport = dict(pairs_of(call.request.scope)).get("transport")
    except BadRequest:
        return _engine_failed(BAD_REQUEST)
    return _engine_failed(BAD_REQUEST if transport == "websocket" else UNKNOWN_TRANSPORT)


def _engine_failed(error: EngineError) -> Response:
    return reply(error, 400, {"Cache-Control": "no-store"})
