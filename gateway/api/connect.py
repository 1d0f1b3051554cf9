"""Connect: ``WS /v1/connect``: the client at the other end *is* the session.

A socket opens a session or attaches to one. The session is committed before ``hello``, so that a
client that was greeted is also listed. Then the client's messages become commands of this
connection, and changes of the session come back from the log. A socket is valid only while the
record names its connection (*fencing*): a client that is displaced, kicked or closed learns that
from the record, whichever node did it.

Not here: the messages (``socket_handlers``), the end of a connection (``realtime``).
"""

import secrets
from collections.abc import Awaitable
from typing import Annotated, Final

from msgspec import Meta, Struct
from starlette.responses import Response

from gateway.api.access import owner_of
from gateway.api.create_session import uuid7
from gateway.api.socket_handlers import NativeSessionSocket
from gateway.api.websockets import WebSocketRequest
from gateway.auth.principals import (
    Principal,
    Scope,
    hash_secret,
    may_attach,
    mint_session_secret,
    secret_matches,
    split_session_token,
)
from gateway.context import caller_key
from gateway.core.errors import (
    BadRequest,
    Forbidden,
    IdUnavailable,
    NotFound,
    SessionClosed,
    UpgradeRequired,
)
from gateway.core.model import (
    DurationMs,
    Labels,
    Name,
    Private,
    Session,
    SessionId,
    new_session,
)
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing
from gateway.http.request import read_query
from gateway.node import Node
from gateway.realtime.handshake import new_connection

OPEN_ATTEMPTS: Final = 2  # if the id is taken meanwhile, the second attempt attaches to it


class Opening(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of the session socket; all but the first two is for a session that it opens.

    Args:
        session: Which one; unknown, it is opened with this id if the caller may write.
        session_token: Proves that the caller opened that session; it never opens one.
        name: What others see.
        account: Whose it is; the token's.
        workspace: Where it belongs; the token's.
        service: What it is opened on.
        labels: ``label.<k>=v``.
        linger_ms: How long it waits for its client, in milliseconds.
        grace_ms: How long a loss goes unannounced where a dialect wants that.
        ttl_ms: Its longest life.
    """

    session: SessionId | None = None
    session_token: Annotated[str, Meta(max_length=256)] | None = None
    name: Name | None = None
    account: Name | None = None
    workspace: Name | None = None
    service: Name | None = None
    labels: Labels = {}
    linger_ms: DurationMs | None = None
    grace_ms: DurationMs | None = None
    ttl_ms: DurationMs | None = None


NEEDS_WRITE: Final = ("service", "linger_ms", "grace_ms", "ttl_ms")


async def connect(request: WebSocketRequest) -> None:
    """Serve ``WS /v1/connect``."""
    wanted = read_query(request.pairs, Opening, ())
    named, secret = _own_token(wanted, request.credential.session_token)
    principal: Principal | None = None
    if request.credential.token is not None or secret is None:
        principal = await request.principal()
    ask = named is not None and not _seems_new(request.context.node, named, principal, secret)
    for attempt in range(OPEN_ATTEMPTS):
        session = None
        if named is not None and ask:
            finding = _known(request, named, principal, secret)
            session = await (_rate_limited(request, named, finding) if not principal else finding)
        try:
            if session is not None:
                own = secret is not None and secret_matches(session.private.token_hash, secret)
                await _attach(request, session, principal, readmit=own)
            else:
                await _open(request, wanted, named, principal)
            return
        except IdUnavailable:  # it is there, or was, and this node has not heard of it
            if attempt + 1 == OPEN_ATTEMPTS:
                raise
            ask = True


async def _rate_limited(
    request: WebSocketRequest, session_id: str, finding: Awaitable[Session | None]
) -> Session | None:
    """Return the result of *finding*, and count a session token that came without another one."""
    caller = caller_key(Principal.of_session(session_id))
    return await request.context.rate_limited(request.scope, finding, lambda _: caller)


def _seems_new(node: Node, named: str, principal: Principal | None, secret: str | None) -> bool:
    """Whether to open a session without reading the store first, because opening checks the id."""
    may_open = secret is None and principal is not None and principal.has(Scope.WRITE)
    return may_open and named not in node.sessions and node.tombstone(named) is None


def _own_token(wanted: Opening, offered: str | None) -> tuple[str | None, str | None]:
    """Return the id of the session and the secret of its token, as far as the request has them.

    Raises:
        BadRequest: The token cannot be read, stands in two places, or is another session's.
    """
    if offered is not None and wanted.session_token is not None:
        raise BadRequest("More than one session token is shown.")
    text = offered if offered is not None else wanted.session_token
    if text is None:
        return wanted.session, None
    parts = split_session_token(text)
    if parts is None:
        raise BadRequest("The session token cannot be read.")
    if wanted.session not in (None, parts[0]):
        raise BadRequest("The session token is another session's.")
    return parts


async def _known(
    request: WebSocketRequest, session_id: str, principal: Principal | None, secret: str | None
) -> Session | None:
    """Return the session that the caller may attach to; ``None`` if it may open one of this id.

    Raises:
        SessionClosed: It is closed, or the token of a session was shown and there is none.
        Forbidden: It is somebody else's; a session that is not there is answered alike.
    """
    try:
        session = await request.context.node.find(session_id)
    except SessionClosed as error:
        known = isinstance(error.record, Session) and may_attach(error.record, principal, secret)
        if known or secret is not None:
            raise
        raise Forbidden from None
    except NotFound:
        if secret is not None:
            raise SessionClosed from None
        if principal is not None and principal.has(Scope.WRITE):
            return None
        raise Forbidden from None
    if not may_attach(session, principal, secret):
        raise Forbidden
    return session


async def _attach(
    request: WebSocketRequest, session: Session, principal: Principal | None, *, readmit: bool
) -> None:
    """Attach to a session, and displace a live connection.

    Raises:
        SessionClosing: It is closing, and this is not the one client that may come back.
        GatewayError: As :meth:`Node.apply`.
    """
    socket = _socket(request, principal or Principal.of_session(session.id))
    await socket.attach(session, displace=True, readmit=readmit)
    socket.begin()


async def _open(
    request: WebSocketRequest, wanted: Opening, session_id: str | None, principal: Principal | None
) -> None:
    """Open a session with this connection.

    Raises:
        Forbidden: The token does not allow it, or not so.
        LimitExceeded: There are as many sessions as may be.
        IdUnavailable: Somebody else took the id.
        GatewayError: As :meth:`Node.open`.
    """
    if principal is None or principal.session is not None:
        raise Forbidden("A session's token opens nothing.")
    secret = mint_session_secret()
    session_id = session_id or uuid7(request.context.node.now_ms(), secrets.randbits(74))
    session = _new_session(request, wanted, principal, session_id, hash_secret(secret))
    socket = _socket(request, principal)
    await socket.open(session)
    socket.begin(f"{session.id}.{secret}")


def _socket(request: WebSocketRequest, principal: Principal) -> NativeSessionSocket:
    connection = request.connection
    if principal.is_full:
        connection.codec = request.full_codec
    record = new_connection(request.context, request.scope)
    return NativeSessionSocket(request.context, connection, record, principal)


def _new_session(
    request: WebSocketRequest,
    wanted: Opening,
    principal: Principal,
    session_id: str,
    token_hash: str,
) -> Session:
    settings = request.context.settings
    principal.require(Scope.CONNECT)
    account, workspace = owner_of(principal, wanted.account, wanted.workspace)
    named = [name for name in NEEDS_WRITE if getattr(wanted, name) is not None]
    if named and not principal.has(Scope.WRITE):
        raise Forbidden(f"The scope write is needed to set {', '.join(named)}.")
    return new_session(
        session_id,
        name=wanted.name,
        account=account,
        workspace=workspace,
        service=wanted.service,
        labels=wanted.labels,
        linger_ms=settings.linger_ms if wanted.linger_ms is None else wanted.linger_ms,
        grace_ms=wanted.grace_ms,
        ttl_ms=wanted.ttl_ms,
        private=Private(token_hash=token_hash),
    )


async def upgrade_required(_call: Call[Principal, Nothing, Nothing]) -> Response:
    """Answer a request without an upgrade (426)."""
    raise UpgradeRequired


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "GET", "/v1/connect", upgrade_required, "The session socket; see /asyncapi.json",
        query=Opening, returns={}, errors=(UpgradeRequired,), tag="events", is_public=True,
        token_in_query=True,
    ),
)  # fmt: skip
