"""Endpoints of players: they are a session's members, and each is in it once.

Gameye's documents leave open what ``players`` of a reply holds. Its client counts them to know how
many are in, so the reply to a join lists all who are there now; that to a leave lists who left.
"""

from typing import Any, Final

from msgspec import UNSET
from starlette.responses import Response

from gateway.auth.principals import Principal
from gateway.core.command import Join, Leave
from gateway.core.errors import NotFound, SessionClosed, UnknownMember
from gateway.core.model import Session
from gateway.core.query import Filter, View
from gateway.dialects.gameye.endpoints_sessions import ApiCall, visible
from gateway.dialects.gameye.schema import JoinBody, LeaveBody, Roster, wrong
from gateway.http.endpoint import Call, reply

LEAVE_MAX: Final = 256  # sessions that one request leaves; each is a write


async def join(call: Call[Principal, Any, JoinBody]) -> Response:
    """Let players in; those who are there already stay."""
    session = await _open(call, call.body.session)
    try:
        after = await call.node.apply(session.id, Join(members=call.body.players))
    except SessionClosed:
        raise NotFound(_ENDED) from None
    return reply(Roster(count=len(after.members), players=after.members))


async def leave(call: Call[Principal, Any, LeaveBody]) -> Response:
    """Let players go, from one session or from every one they are in."""
    players = tuple(dict.fromkeys(call.body.players))
    if call.body.session is UNSET:
        sessions = _with(call, players)
    else:
        sessions = [await _open(call, call.body.session)]
    gone: set[str] = set()
    left = 0
    for session in sessions:
        here = tuple(player for player in players if player in session.members)
        try:
            after = await call.node.apply(session.id, Leave(members=here))
        except (NotFound, SessionClosed):  # UnknownMember too: somebody else was faster
            continue
        gone.update(here)
        left += len(after.members)
    if not gone:
        raise UnknownMember("None of these players is in a session.")
    removed = tuple(player for player in players if player in gone)
    return reply(Roster(count=left, players=removed))


async def _open(call: ApiCall, session_id: str) -> Session:
    """Return the session of this id if it is open and the caller may change it.

    Raises:
        NotFound: There is none, it ended, or the caller does not see it.
        Forbidden: The token is good for another workspace.
    """
    session = await visible(call, session_id)
    if session.closed:
        raise NotFound(_ENDED)
    call.caller.require_in(session.workspace)
    return session


def _with(call: ApiCall, players: tuple[str, ...]) -> list[Session]:
    """Return every session that has one of *players* and that the caller may change."""
    visibility = call.caller.visibility()
    found: dict[str, Session] = {}
    for player in players:
        view = View(filter=Filter(member=player), visibility=visibility)
        found |= {
            session.id: session
            for session in call.node.all_in(view)
            if call.caller.covers(session.workspace)
        }
        if len(found) > LEAVE_MAX:
            raise wrong("session", f"is required: they are in more than {LEAVE_MAX} sessions")
    return list(found.values())


_ENDED: Final = "This session has ended."
