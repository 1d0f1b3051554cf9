"""WebSocket: ``/api/ws``: how a client comes in.

neko completes the handshake whoever asks, says in ``system/disconnect`` why it will not serve, and
closes. A page of another site is refused before, with neko's 400.

Not here: what a client hears and says then (``session_socket``).
"""

from typing import Final

from starlette.responses import Response
from starlette.types import Scope

from gateway.auth.credentials import Credential
from gateway.core.errors import Forbidden, GatewayError, Unauthorized
from gateway.core.model import Session
from gateway.dialects.neko.codec import Dismissal, NekoCodec
from gateway.dialects.neko.errors import NO_SESSION, failure, refusal
from gateway.dialects.neko.login import NekoCaller, caller_key
from gateway.dialects.neko.schema import ClientEvent
from gateway.dialects.neko.service import Service
from gateway.dialects.neko.session_socket import MAY_NOT_CONNECT, NekoSocket
from gateway.dialects.neko.style import token_of
from gateway.realtime.codec import HeartbeatRule
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.handshake import (
    Admission,
    WebSocketEndpoint,
    check_admissible,
    check_room,
    new_connection,
)

HEARTBEAT_S: Final = 10.0  # between two heartbeats, whatever else is said; neko's constant

MISSING: Final = "no authentication provided"
MAY_NOT_LOG_IN: Final = "session login disabled"


def endpoint(service: Service) -> WebSocketEndpoint:
    """Return where neko's clients come in."""
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
    """Return whose *token* is, and that one's session.

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
