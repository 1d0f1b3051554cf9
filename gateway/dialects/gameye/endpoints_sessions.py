"""Endpoints of sessions: list, describe, start, stop.

A start opens a session without a connection, with a deadline for its first work. A stop is a
delayed close, so that a connected client is warned and may save; a stop that would change nothing
any more is a conflict. What ended is listed only with ``all``, the newest ``ENDED_MAX`` of it; one
session alone can be looked at until its tombstone expires.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Final
from uuid import uuid4

from msgspec import UNSET, ValidationError, convert
from msgspec.json import decode, encode
from starlette.responses import Response

from gateway.auth.principals import Principal
from gateway.core.command import RequestClose
from gateway.core.errors import Conflict, NotFound, SessionClosed
from gateway.core.model import Private, Session, SessionId, new_session
from gateway.core.query import View
from gateway.dialects.gameye.coerce import ttl_ms
from gateway.dialects.gameye.query import SessionListQuery
from gateway.dialects.gameye.render import (
    ATTRIBUTE,
    TAG,
    ContainerFacts,
    GameSession,
    HomeAddress,
    description,
    game_session,
    listed,
    started,
    timestamp,
)
from gateway.dialects.gameye.schema import EncodingParameters, StartBody
from gateway.http.endpoint import Call, list_reply, paced, reply

ENDED_MAX: Final = 1_000  # ended sessions in one list; each costs a question to the store
STOPPED: Final = "stopped"  # why a session closes that was stopped here

PORT: Final = 443  # of a gateway on a free port; Gameye's client reads the first one of any list

ApiCall = Call[Principal, Any, Any]


def home_of(call: ApiCall) -> HomeAddress:
    """Return the address of sessions that have no other."""
    settings = call.context.settings
    return HomeAddress(settings.gameye_host, settings.port or PORT)


async def list_sessions(call: Call[Principal, SessionListQuery, Any]) -> Response:
    """List what runs, or everything."""
    query = call.query
    node, visibility = call.node, call.caller.visibility()
    sessions = node.all_in(View(filter=query.index, visibility=visibility))
    if query.all:
        sessions.extend(await _ended(call))
        sessions.sort(key=lambda session: (session.created_at, session.id))
    rows = await matching(call, query, sessions)
    return await list_reply(rows, partial(listed, as_text=query.encoding == "string"), "sessions")


async def matching(
    call: ApiCall, query: SessionListQuery, sessions: Iterable[Session]
) -> list[GameSession]:
    """Return those *sessions* that *query* asks for, in Gameye's words."""
    now_ms, home = call.node.now_ms(), home_of(call)
    seen = [game_session(session, home, now_ms) async for session in paced(sessions)]
    return [one for one in seen if query.matches(one)]


async def _ended(call: ApiCall) -> list[Session]:
    """Return the final records of the newest ended sessions that the caller may see."""
    visibility = call.caller.visibility()
    wanted: list[str] = []
    # A copy, of the same moment as the list of what runs: nothing twice, nothing left out.
    async for gone in paced(reversed(call.node.tombstones())):
        if visibility.allows_of(gone.id, gone.account, gone.workspace):
            wanted.append(gone.id)
            if len(wanted) == ENDED_MAX:
                break
    records = []
    for session_id in wanted:
        try:
            await call.node.find(session_id)
        except SessionClosed as error:
            if isinstance(error.record, Session):
                records.append(error.record)
        except NotFound:  # its tombstone expired meanwhile
            pass
    return records


async def describe_session(call: Call[Principal, EncodingParameters, Any]) -> Response:
    """Look at one session, also one that ended."""
    session = await visible(call, call.path["id"])
    seen = game_session(session, home_of(call), call.node.now_ms())
    return reply(description(seen, as_text=call.query.encoding == "string"))


async def start_session(call: Call[Principal, Any, StartBody]) -> Response:
    """Open a session without a connection."""
    session = await call.node.open(_new_session(call))
    seen = game_session(session, home_of(call), call.node.now_ms())
    return reply(started(seen), 201, {"Location": f"{call.request.root}/session/{session.id}"})


def _new_session(call: Call[Principal, Any, StartBody]) -> Session:
    body, principal = call.body, call.caller
    start_within_ms = round(call.context.settings.gameye_start_within_s * 1000)
    facts = ContainerFacts(
        image=body.image,
        tag=TAG if body.version is UNSET else body.version,
        location=body.location,
        args=() if body.args is UNSET else body.args,
        restart=body.restart is True,
        external_id=None if body.external_id is UNSET else body.external_id,
    )
    session_id = str(uuid4()) if body.id is UNSET else body.id
    return new_session(
        session_id,
        account=principal.account,
        workspace=principal.workspace,
        name=body.image,
        service=body.image,
        labels={} if body.labels is UNSET else body.labels,
        attributes={ATTRIBUTE: decode(encode(facts))},
        ttl_ms=None if body.ttl is UNSET else ttl_ms(body.ttl),
        start_within_ms=start_within_ms or None,
        private=Private(environment=None if body.env is UNSET else body.env),
    )


async def stop_session(call: ApiCall) -> Response:
    """Close a session after the time that stops take."""
    session = await visible(call, call.path["id"])
    if session.closed:
        raise Conflict(f"It ended at {timestamp(session.closed.at)}.")
    call.caller.require_in(session.workspace)
    now_ms = call.node.now_ms()
    at = now_ms + round(call.context.settings.gameye_stop_after_s * 1000)
    if session.closing and session.closing.at <= at:
        raise Conflict(f"It is stopping, and ends at {timestamp(session.closing.at)}.")
    wanted = RequestClose(at=at, reason=STOPPED, by=call.caller.name)
    await call.node.apply(session.id, wanted)
    return Response(status_code=204)


async def visible(call: ApiCall, session_id: str) -> Session:
    """Return the session of this id, open or ended.

    Raises:
        NotFound: There is none, or the caller does not see it.
        GatewayError: The store did not answer.
    """
    try:
        convert(session_id, SessionId)  # nothing else may be asked of the store
        session = await call.node.find(session_id)
    except (ValidationError, NotFound):
        raise NotFound(_UNKNOWN) from None
    except SessionClosed as error:
        if not isinstance(error.record, Session):
            raise
        session = error.record
    if not call.caller.visibility().allows(session):
        raise NotFound(_UNKNOWN)
    return session


_UNKNOWN: Final = "There is no such session."
