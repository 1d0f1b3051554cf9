"""Access: the session of a request, and whether the caller may do this to it.

A session that the caller may not see is answered like one that never existed, before anything else
is checked. With ``write`` a caller may change every field, with ``connect`` the fields that a
client reports of its own session. Ending a session or its connection needs ``close``.

Not here: authentication (``auth``, ``style``).
"""

from typing import Final

from starlette.responses import Response

from gateway.api.idempotency import NativeCall, operation_of
from gateway.auth.principals import Principal, Scope
from gateway.core.command import AnyCommand, Close, RequestClose
from gateway.core.errors import (
    Conflict,
    Forbidden,
    IdempotencyMismatch,
    NotFound,
    SessionClosed,
)
from gateway.core.model import Session
from gateway.core.public import render_session
from gateway.core.query import Filter, View
from gateway.http.endpoint import raw_reply, reply

OWN_FIELDS: Final = frozenset({"name", "labels", "attributes", "client", "watch", "streams"})
"""The fields that a client reports of its own session; with ``connect`` only these."""
WRITE_ERRORS: Final = (NotFound, SessionClosed, Conflict, IdempotencyMismatch)


def subscribed_view(principal: Principal, wanted: Filter) -> View:
    """Return the view that *principal* subscribes to.

    Raises:
        Forbidden: It may see nothing at all, or filters by a field that it may not see.
    """
    view = principal.view(wanted)
    if view.visibility.by == "nothing":
        raise Forbidden("This token may see no sessions.")
    return view


async def visible(call: NativeCall) -> Session:
    """Return the open session that the path names.

    Raises:
        NotFound: There is none, or the caller does not see it.
        SessionClosed: It is closed; the caller may have seen it.
    """
    try:
        session = await call.node.find(call.path["id"])
    except SessionClosed as error:
        session = _closed_by_this(call, error)
    if not call.caller.visibility().allows(session):
        raise NotFound
    return session


def _closed_by_this(call: NativeCall, error: SessionClosed) -> Session:
    """Return the final record if this request closed the session when it was sent before."""
    record = error.record
    if (
        isinstance(record, Session)
        and call.caller.visibility().allows(record)
        and operation_of(call, record) in record.ops
    ):
        return record
    raise error


async def writable(call: NativeCall, fields: frozenset[str]) -> Session:
    """Return the session that the path names if the caller may change *fields* of it.

    Raises:
        Forbidden: Not with this token.
        GatewayError: As :func:`visible`.
    """
    session, principal = await visible(call), call.caller
    if principal.has(Scope.WRITE) and principal.covers(session.workspace):
        return session
    if not (principal.has(Scope.CONNECT) and principal.owns(session)):
        raise Forbidden("The scope write is needed.")
    if not fields <= OWN_FIELDS:
        raise Forbidden(f"The scope write is needed to change {listed(fields - OWN_FIELDS)}.")
    return session


def owner_of(
    principal: Principal, account: str | None, workspace: str | None
) -> tuple[str | None, str | None]:
    """Return account and workspace of a session that *principal* opens; unset ones are its own.

    Raises:
        Forbidden: They are others than the token's, which takes ``write``, or out of its reach.
    """
    account, workspace = account or principal.account, workspace or principal.workspace
    principal.require_in(workspace)
    if not principal.has(Scope.WRITE) and (account, workspace) != (
        principal.account,
        principal.workspace,
    ):
        raise Forbidden("Account and workspace are those of the token.")
    return account, workspace


async def closable(call: NativeCall) -> Session:
    """Return the session that the path names if the caller may end it or its connection.

    Raises:
        Forbidden: Not with this token.
        GatewayError: As :func:`visible`.
    """
    session = await visible(call)
    call.caller.require(Scope.CLOSE)
    call.caller.require_in(session.workspace)
    return session


def closing_command(
    call: NativeCall, after_s: float, reason: str | None, revision: int | None = None
) -> Close | RequestClose:
    """Return the command that closes a session *after_s* from now, or at once if that is 0."""
    by = call.caller.name
    if after_s == 0:
        return Close(reason=reason, by=by, revision=revision)
    at = call.node.now_ms() + round(after_s * 1000)
    return RequestClose(at=at, reason=reason, by=by, revision=revision)


def listed(names: frozenset[str]) -> str:
    """Return *names* as one text for people."""
    return ", ".join(sorted(names))


async def do(call: NativeCall, session: Session, wanted: AnyCommand) -> Session:
    """Apply a command; a repeat with the same Idempotency-Key changes nothing."""
    return await call.node.apply(session.id, wanted, op=operation_of(call, session))


def shown(call: NativeCall, session: Session, status: int = 200) -> Response:
    """Return a reply with *session* in the caller's view."""
    tag = {"ETag": f'"{session.revision}"'}
    if session.closed:
        return reply(render_session(session, full=call.caller.is_full), status, tag)
    rendered = call.node.renderings([session], full=call.caller.is_full)[0].text
    return raw_reply(rendered, status, tag)
