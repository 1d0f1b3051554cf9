"""Socket: ``/api/ws``: how a client comes in, and what it is told at the end.

neko completes the handshake whoever asks, says in ``system/disconnect`` why it will not serve, and
closes without a close frame, so clients see 1006; here the server closes the connection when the
application returns. A page of another site is refused before, with neko's 400.

When this node goes and others stay, nobody is told: a client that hears ``system/disconnect`` stays
away, the others are back on another node within the grace. Only the last node says farewell.

Not here: what a client hears and says meanwhile (``visit``).
"""

import logging
from typing import Final

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.auth.credentials import Credential, check_origin, networks, origins
from gateway.connections.lifecycle import ConnectionEnded, ServerClose
from gateway.core.errors import CloseCode, Forbidden, GatewayError, Unauthorized
from gateway.core.model import Session
from gateway.dialects.neko.errors import NO_SESSION, failure, refusal
from gateway.dialects.neko.line import Farewell, NekoLine
from gateway.dialects.neko.login import Caller, caller_key
from gateway.dialects.neko.service import Service
from gateway.dialects.neko.style import token_of
from gateway.dialects.neko.visit import MAY_NOT_CONNECT, Visit

MISSING: Final = "no authentication provided"
MAY_NOT_LOG_IN: Final = "session login disabled"
SHUTDOWN: Final = "connection shutdown"

log = logging.getLogger(__name__)


class Door:
    """Where clients come in: an ASGI application for WebSockets."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket from its request to its end."""
        service = self._service
        context = service.context
        websocket = WebSocket(scope, receive, send)
        token, is_cookie = token_of(scope, cookie=context.settings.neko_cookie)
        shown = Credential(token=token, source="cookie" if is_cookie else "query")
        try:
            allowed = context.settings.allowed_origins
            trusted = networks(context.settings.trusted_proxies)
            if "*" not in allowed:
                check_origin(scope, shown, origins(allowed), trusted)
            context.connections.check_capacity()
        except Forbidden:
            await websocket.send_denial_response(failure(400, "Bad Request"))
            return
        except GatewayError as error:
            await websocket.send_denial_response(refusal(error))
            return
        line = NekoLine(websocket, service)
        with context.connections.registered(line):
            try:
                await websocket.accept()
            except (OSError, RuntimeError, WebSocketDisconnect):  # it left meanwhile
                return
            ended = await self._serve(websocket, line, token)
            if message := self._last_words(ended):
                await line.say_goodbye(message)

    async def _serve(
        self, websocket: WebSocket, line: NekoLine, token: str | None
    ) -> ConnectionEnded:
        service = self._service
        try:
            await service.started.wait()
            caller, session = await _let_in(service, websocket.scope, token)
            return await Visit(service, websocket, line, caller, session).live()
        except ConnectionEnded as ended:
            return ended
        except GatewayError as error:
            return ServerClose.from_error(error, line.reconnect_after_ms())
        except Exception:
            log.exception("a socket failed")
            return ServerClose(CloseCode.SERVER_ERROR, "internal")

    def _last_words(self, ended: ConnectionEnded) -> str | None:
        if isinstance(ended, Farewell):
            return ended.message
        if isinstance(ended, ServerClose) and ended.code == CloseCode.DRAINING:
            node = self._service.node
            return SHUTDOWN if node.lease.live == {node.id} else None
        return None


async def _let_in(service: Service, scope: Scope, token: str | None) -> tuple[Caller, Session]:
    """Return whose *token* is, and that one's session.

    Raises:
        Farewell: Nobody's, or somebody's who may not connect.
        RateLimited: Too many handshakes of this caller, or too many bad ones of its address.
    """
    if token is None:
        raise Farewell(MISSING)
    try:
        caller = await service.context.rate_limited(scope, service.caller(token), caller_key)
    except Unauthorized:
        raise Farewell(NO_SESSION) from None
    if not caller.profile.can_login:
        raise Farewell(MAY_NOT_LOG_IN)
    if not caller.profile.can_connect or caller.session is None:
        raise Farewell(MAY_NOT_CONNECT)
    return caller, caller.session
