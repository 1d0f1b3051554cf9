"""Session endpoints: list, read, and close after some time.

Only sockets open sessions. In generation A a path names one session. In C it may be ``*``, and the
workspace in the query selects the sessions, ``*`` again for all. Reading by ``*`` needs the right
to see, closing the right to close. A token that is restricted to a workspace gets 403 for any other
one, whether it exists or not.

Not here: the form of a session (``render``), the warning of its client (``session_socket``).
"""

import asyncio
from typing import Final, Literal

from msgspec import ValidationError, convert
from starlette.responses import Response

from gateway.auth.principals import Principal, Scope
from gateway.core.command import AnyCommand, Close, RequestClose
from gateway.core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    GatewayError,
    NotFound,
    SessionClosed,
)
from gateway.core.model import Session, SessionId
from gateway.core.query import Filter, View
from gateway.dialects.webida.access import WebidaCaller
from gateway.dialects.webida.render import session_a, session_c, will_close
from gateway.dialects.webida.schema import DeleteQuery, RestOK, SessionA, SessionC, WorkspaceQuery
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing, list_reply, reply

EVERY: Final = "*"  # in generation C: all
CLOSERS: Final = 64  # concurrent closes of one request

Generation = Literal["A", "C"]
WorkspaceCall = (
    Call[WebidaCaller, WorkspaceQuery, Nothing] | Call[WebidaCaller, DeleteQuery, Nothing]
)


def table(generation: Generation) -> tuple[AnyEndpoint, ...]:
    """Return the rows of a generation; the list of A is served in C as well."""
    shown = SessionA if generation == "A" else SessionC
    return (
        Endpoint(
            "GET", "/api/sessions", find_sessions, "List sessions, of one workspace or all",
            returns={200: list[shown]},  # type: ignore[valid-type]
            query=WorkspaceQuery, tag="session",
        ),
        Endpoint(
            "GET", "/api/sessions/{sessionId}", get_session if generation == "A" else find_session,
            "Look at a session; in generation C a list, where `*` is all of a workspace",
            query=WorkspaceQuery, returns={200: SessionA if generation == "A" else list[SessionC]},
            errors=(NotFound,), tag="session",
        ),
        Endpoint(
            "DELETE", "/api/sessions/{sessionId}",
            close_session if generation == "A" else close_sessions,
            "Close a session after a while; in generation C `*` closes all of a workspace",
            query=DeleteQuery, returns={200: RestOK}, errors=(NotFound, Conflict),
            tag="session",
        ),
    )  # fmt: skip


async def find_sessions(call: Call[WebidaCaller, WorkspaceQuery, Nothing]) -> Response:
    """List sessions, of one workspace or all that the caller may see."""
    return await _list(call, _in_workspace(call, call.query.workspace_id))


async def get_session(call: Call[WebidaCaller, WorkspaceQuery, Nothing]) -> Response:
    """Return a session."""
    return reply(_shape(call, await _visible(call, call.path["sessionId"])))


async def find_session(call: Call[WebidaCaller, WorkspaceQuery, Nothing]) -> Response:
    """Return a list of one session, or of many."""
    if call.path["sessionId"] == EVERY:
        return await _list(call, _many(call))
    try:
        session = await _visible(call, call.path["sessionId"])
    except (NotFound, SessionClosed):
        return reply([])
    return reply([_shape(call, session)])


async def close_session(call: Call[WebidaCaller, DeleteQuery, Nothing]) -> Response:
    """Schedule the close of a session; the reply does not wait for it."""
    after_s, principal = call.query.close_after, call.caller.principal
    session = await _visible(call, call.path["sessionId"])
    if session.id != principal.session:
        principal.require(Scope.CLOSE)
        principal.require_in(session.workspace)
    await call.node.apply(session.id, _command(call, after_s))
    return reply(RestOK(will_close([session.id], after_s)))


async def close_sessions(call: Call[WebidaCaller, DeleteQuery, Nothing]) -> Response:
    """Schedule the close of one session or of many."""
    if call.path["sessionId"] != EVERY:
        return await close_session(call)
    after_s, principal = call.query.close_after, call.caller.principal
    sessions = _many(call)
    principal.require(Scope.CLOSE)
    closable = [session for session in sessions if principal.covers(session.workspace)]
    return reply(RestOK(will_close(await _close_all(call, closable, after_s), after_s)))


def _many(call: WorkspaceCall) -> list[Session]:
    """Return the sessions that ``*`` selects in generation C.

    Raises:
        BadRequest: No workspace is named.
        Forbidden: It is not the caller's.
    """
    workspace = call.query.workspace_id
    if workspace is None:
        raise BadRequest('"workspaceId" is required')
    if workspace != EVERY:
        return _in_workspace(call, workspace)
    principal = call.caller.principal
    if principal.workspace is not None and not principal.has(Scope.ADMIN):
        raise Forbidden("This token is good for one workspace.")
    return _in_workspace(call, None)


def _in_workspace(call: WorkspaceCall, workspace: str | None) -> list[Session]:
    """Return what the caller sees of a workspace, oldest first.

    Raises:
        Forbidden: It may not see that workspace, or nothing at all.
    """
    principal = call.caller.principal
    if workspace is not None:
        principal.require_in(workspace)
    visibility = principal.visibility()
    if visibility.by == "nothing":
        raise Forbidden("This token may see no sessions.")
    view = View(filter=Filter(workspace=workspace), visibility=visibility)
    found = call.node.all_in(view)
    return sorted(
        found, key=lambda session: (session.connected_at or session.created_at, session.id)
    )


async def _visible(call: WorkspaceCall, session_id: str) -> Session:
    """Return an open session that the caller sees.

    Raises:
        NotFound: There is none.
        GatewayError: As ``Node.find``.
    """
    missing = NotFound(f"no session {session_id[:64]}")
    try:
        session = await call.node.find(convert(session_id, SessionId))
    except (NotFound, SessionClosed, ValidationError):
        raise missing from None
    if not _sees(call.caller.principal, session):
        raise missing
    return session


def _sees(principal: Principal, session: Session) -> bool:
    return principal.owns(session) or principal.visibility().allows(session)


# --- closing


def _command(call: WorkspaceCall, after_s: int) -> AnyCommand:
    by = call.caller.principal.name
    if after_s == 0:
        return Close(by=by)
    return RequestClose(at=call.node.now_ms() + after_s * 1000, by=by)


async def _close_all(call: WorkspaceCall, sessions: list[Session], after_s: int) -> list[str]:
    """Close all of *sessions* that are still open; return which those were.

    Raises:
        GatewayError: As ``Node.apply``; some may be closing all the same.
    """
    queue = iter(sessions)
    closed: list[str] = []
    failures: list[GatewayError] = []

    async def work() -> None:
        for session in queue:
            try:
                await call.node.apply(session.id, _command(call, after_s))
            except (NotFound, SessionClosed):
                continue
            except GatewayError as error:
                failures.append(error)
                return
            closed.append(session.id)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(CLOSERS, len(sessions))):
            group.create_task(work())
    if failures:
        raise failures[0]
    return closed


# --- rendering


def _shape(call: WorkspaceCall, session: Session) -> SessionA | SessionC:
    principal = call.caller.principal
    full = principal.is_full or session.id == principal.session
    is_c = call.context.settings.webida_generation == "C"
    return session_c(session, full=full) if is_c else session_a(session, full=full)


async def _list(call: WorkspaceCall, sessions: list[Session]) -> Response:
    return await list_reply(sessions, lambda session: _shape(call, session))
