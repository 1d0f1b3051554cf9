"""Sessions: what MaxScale's API does with them: list, look, change, restart, close.

A session is found by its number; closed and hidden ones are unknown. ``ttl`` is a delayed close. A
restart, and what is changed about logs and filters, is written down for the producer of the
session, who carries it out. Links to relationships can be followed, which MaxScale's cannot.
"""

import asyncio
import re
from typing import Final

from starlette.responses import Response

from gateway.core.command import Close, RequestClose, Update
from gateway.core.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    NotFound,
    SessionClosed,
    Unavailable,
)
from gateway.core.model import CLOSE_AFTER_MAX_S, Object, Session
from gateway.core.public import rfc3339
from gateway.core.query import Filter, Page, Sort, View
from gateway.dialects.maxscale.bodies import filters_patch, in_attributes, session_patch
from gateway.dialects.maxscale.collection import Collection, listed, single
from gateway.dialects.maxscale.conditions import Validators, is_unmodified, tag_of
from gateway.dialects.maxscale.door import Call, told
from gateway.dialects.maxscale.query import service_asked_for
from gateway.dialects.maxscale.shapes import document, filters_of, resource, service_of

RESTARTS_AT_ONCE: Final = 64  # commits on their way; they travel in one pipeline
DETAILS_MAX: Final = 10  # errors told of one request

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,18}")


async def list_sessions(call: Call) -> Response:
    """List sessions, by number."""
    filters, mirror = call.query.filters(), call.context.node.replica
    view = View(
        filter=Filter(service=service_asked_for(filters)), visibility=call.principal.visibility()
    )
    collection = Collection(
        kind="sessions",
        count=lambda: mirror.count(view),
        rows=lambda offset, limit: mirror.page(
            view, Page(sort=Sort.NUMBER, limit=limit, offset=offset)
        )[0],
        render=lambda session: resource(session, mirror.active.get(session.id), call.scene),
        stamp=lambda session: f"{session.number}.{tag_of(session, mirror.active.get(session.id))}",
    )
    return await listed(call, collection, filters)


async def get_session(call: Call) -> Response:
    """Look at a session."""
    session = _visible(call)
    current = _validators(call, session)
    headers = current.headers()
    if is_unmodified(call.headers, current, is_read=True):
        return Response(status_code=304, headers=dict(headers))
    shown = document(session, call.context.node.replica.active.get(session.id), call.scene)
    return single(call, shown, "sessions", dict(headers))


async def patch_session(call: Call) -> Response:
    """Change a session's log switches and filters."""
    session = _changeable(call)
    await _change(call, session, session_patch(call.body))
    return Response(status_code=200)


async def patch_filters(call: Call) -> Response:
    """Change a session's filters."""
    session = _changeable(call)
    await _change(call, session, filters_patch(call.body))
    return Response(status_code=200)


async def restart_session(call: Call) -> Response:
    """Ask the producer of a session to build it anew with the service's present settings."""
    await _change(call, _changeable(call), _restart(call))
    return Response(status_code=200)


async def restart_sessions(call: Call) -> Response:
    """Ask the same for all sessions that the caller may change."""
    view = View(visibility=call.principal.visibility())
    wanted = [
        session
        for session in call.context.node.replica.all_in(view)
        if call.principal.covers(session.workspace)
    ]
    failed: list[GatewayError] = []

    async def restart(session: Session) -> None:
        try:
            await _change(call, session, _restart(call))
        except (NotFound, SessionClosed):
            pass  # it ended meanwhile: nothing is left to restart
        except GatewayError as error:
            failed.append(error)

    for start in range(0, len(wanted), RESTARTS_AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for session in wanted[start : start + RESTARTS_AT_ONCE]:
                group.create_task(restart(session))
        for error in failed:
            if isinstance(error, Unavailable):
                raise error
    if failed:
        details = [error.detail for error in failed[:DETAILS_MAX]]
        return told(400, *details, "Could not restart all sessions")
    return Response(status_code=200)


async def delete_session(call: Call) -> Response:
    """Close a session, now or after ``ttl`` seconds."""
    session = _changeable(call)
    ttl_s = call.query.seconds("ttl")
    if ttl_s is not None and ttl_s > CLOSE_AFTER_MAX_S:
        raise BadRequest(f"ttl is at most {CLOSE_AFTER_MAX_S} seconds")
    node, by = call.context.node, call.principal.name
    if ttl_s:
        at = node.clock.now_ms() + ttl_s * 1000
        await node.apply(session.id, RequestClose(at=at, by=by))
    else:
        await node.apply(session.id, Close(by=by))
    return Response(status_code=200)


async def get_services(call: Call) -> Response:
    """Look at the relationship of a session to its service."""
    return call.reply(service_of(_visible(call), call.scene))


async def get_filters(call: Call) -> Response:
    """Look at the relationship of a session to its filters."""
    return call.reply(filters_of(_visible(call), call.scene))


def _visible(call: Call) -> Session:
    """Return the session that the path names.

    Raises:
        NotFound: There is none, or the caller does not see it.
    """
    text = call.names[0]
    number = int(text) if _NUMBER.fullmatch(text) else 0
    session = call.context.node.replica.numbered(number)
    if session is None or not call.principal.visibility().allows(session):
        raise NotFound(f"{text[:64]} is not a session")
    return session


def _changeable(call: Call) -> Session:
    """Return the session that the path names, if it may be changed by this request.

    Raises:
        NotFound: There is none, or the caller does not see it.
        Forbidden: The caller's rights are good for another workspace.
        RevisionMismatch: A precondition does not hold.
    """
    session = _visible(call)
    if not call.principal.covers(session.workspace):
        raise Forbidden("This login is good for another workspace.")
    is_unmodified(call.headers, _validators(call, session), is_read=False)
    return session


def _validators(call: Call, session: Session) -> Validators:
    tag = tag_of(session, call.context.node.replica.active.get(session.id))
    return call.seen.validators(b"session " + session.id.encode(), tag, call.context.wall_ms())


async def _change(call: Call, session: Session, patch: Object) -> None:
    if patch:
        revision = session.revision if "if-match" in call.headers else None
        wanted = Update(patch=in_attributes(patch), revision=revision)
        await call.context.node.apply(session.id, wanted)


def _restart(call: Call) -> Object:
    return {"restart_requested_at": rfc3339(call.scene.now_ms)}
