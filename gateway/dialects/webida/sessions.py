"""Sessions in Webida's way: list, look at, close after a while.

Nobody opens a session here: that is what a socket does. In generation A a path names one session;
in C it may be ``*``, and then the workspace in the query says which, ``*`` again for all. Reading
by ``*`` takes the right to see, closing the right to close; a token that is restricted to a
workspace is told 403 about every other one, whether there is such a workspace or not.

Not here: how a session looks (``shapes``), the warning of its client (``visit``).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Final

from msgspec import ValidationError, convert
from msgspec.json import encode
from starlette.responses import Response, StreamingResponse

from gateway.auth.principals import Principal, Scope
from gateway.core.command import AnyCommand, Close, RequestClose
from gateway.core.errors import BadRequest, Forbidden, GatewayError, NotFound, SessionClosed
from gateway.core.model import Session, SessionId
from gateway.core.query import Filter, View
from gateway.dialects.webida.door import Call, reply
from gateway.dialects.webida.errors import JSON
from gateway.dialects.webida.reading import close_after_s, one, workspace_of
from gateway.dialects.webida.shapes import (
    RestOK,
    SessionA,
    SessionC,
    session_a,
    session_c,
    will_close,
)

EVERY: Final = "*"  # in generation C: all of them
AT_ONCE: Final = 500  # sessions that are rendered before others get their turn
CLOSERS: Final = 64  # closes on their way at once when one request asks for many


async def find_sessions(call: Call) -> Response:
    """List sessions, of one workspace or all that the caller may see."""
    return await _listed(call, _in_workspace(call, workspace_of(call.pairs)))


async def get_session(call: Call) -> Response:
    """Return a session; in generation C a list of it, or of many."""
    session_id = call.path["sessionId"]
    if call.is_c and session_id == EVERY:
        return await _listed(call, _many(call))
    try:
        session = await _visible(call, session_id)
    except (NotFound, SessionClosed):
        if call.is_c:
            return reply([])
        raise
    shown = _shape(call, session)
    return reply([shown] if call.is_c else shown)


async def close_sessions(call: Call) -> Response:
    """Close a session, or in generation C many, after a while; answered before that."""
    after_s = close_after_s(call.pairs)
    principal = call.principal
    session_id = call.path["sessionId"]
    if call.is_c and session_id == EVERY:
        sessions = _many(call)
        principal.require(Scope.CLOSE)
        closable = [session for session in sessions if principal.covers(session.workspace)]
        return reply(RestOK(will_close(await _close_all(call, closable, after_s), after_s)))
    session = await _visible(call, session_id)
    if session.id != principal.session:
        principal.require(Scope.CLOSE)
        if not principal.covers(session.workspace):
            raise Forbidden("This token is good for another workspace.")
    await call.node.apply(session.id, _command(call, after_s))
    return reply(RestOK(will_close([session.id], after_s)))


def _many(call: Call) -> list[Session]:
    """Return the sessions that ``*`` means in generation C.

    Raises:
        BadRequest: No workspace is named.
        Forbidden: It is not the caller's.
    """
    if one(call.pairs, "workspaceId") is None:
        raise BadRequest('"workspaceId" is required')
    workspace = workspace_of(call.pairs)
    if workspace != EVERY:
        return _in_workspace(call, workspace)
    principal = call.principal
    if principal.workspace is not None and not principal.has(Scope.ADMIN):
        raise Forbidden("This token is good for one workspace.")
    return _in_workspace(call, None)


def _in_workspace(call: Call, workspace: str | None) -> list[Session]:
    """Return what the caller sees of a workspace, oldest first.

    Raises:
        Forbidden: It may not see that workspace, or nothing at all.
    """
    principal = call.principal
    if workspace is not None and not principal.covers(workspace):
        raise Forbidden("This token is good for another workspace.")
    visibility = principal.visibility()
    if visibility.by == "nothing":
        raise Forbidden("This token may see no sessions.")
    view = View(filter=Filter(workspace=workspace), visibility=visibility)
    found = call.node.replica.all_in(view)
    return sorted(
        found, key=lambda session: (session.connected_at or session.created_at, session.id)
    )


async def _visible(call: Call, session_id: str) -> Session:
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
    if not _sees(call.principal, session):
        raise missing
    return session


def _sees(principal: Principal, session: Session) -> bool:
    return principal.owns(session) or principal.visibility().allows(session)


# --- closing


def _command(call: Call, after_s: int) -> AnyCommand:
    by = call.principal.name
    if after_s == 0:
        return Close(by=by)
    return RequestClose(at=call.node.clock.now_ms() + after_s * 1000, by=by)


async def _close_all(call: Call, sessions: list[Session], after_s: int) -> list[str]:
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


# --- showing


def _shape(call: Call, session: Session) -> SessionA | SessionC:
    principal = call.principal
    full = principal.is_full or session.id == principal.session
    return session_c(session, full=full) if call.is_c else session_a(session, full=full)


async def _listed(call: Call, sessions: list[Session]) -> Response:
    pieces = _written(call, sessions)
    if len(sessions) > AT_ONCE:
        return StreamingResponse(pieces, media_type=JSON)
    return Response(b"".join([piece async for piece in pieces]), media_type=JSON)


async def _written(call: Call, sessions: list[Session]) -> AsyncIterator[bytes]:
    """Yield a list as JSON, in pieces, so that a long one holds nobody up."""
    yield b"["
    for number, text in enumerate(_texts(call, sessions)):
        yield b"," + text if number else text
        await asyncio.sleep(0)
    yield b"]"


def _texts(call: Call, sessions: list[Session]) -> Iterator[bytes]:
    for start in range(0, len(sessions), AT_ONCE):
        part = sessions[start : start + AT_ONCE]
        yield b",".join(encode(_shape(call, session)) for session in part)
