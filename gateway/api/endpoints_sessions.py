"""Sessions over REST: open, list, look at, change, close.

Every write answers with the session after it. A page that looked at as many sessions as it may is
short and has a ``next``.

Not here: opening (``create_session``), what belongs to one session (``endpoints_subresources``),
``events``.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from msgspec import to_builtins
from msgspec.json import encode
from msgspec.structs import replace
from starlette.responses import Response

from gateway.api.access import WRITE_ERRORS, closable, closing_command, do, shown, visible, writable
from gateway.api.create_session import open_session
from gateway.api.schema import (
    CloseQuery,
    NewSession,
    OpenedSession,
    SessionPage,
    SessionPatch,
    SessionQuery,
)
from gateway.auth.principals import Principal
from gateway.core.command import Update
from gateway.core.errors import (
    BadPosition,
    Conflict,
    IdempotencyMismatch,
    IdUnavailable,
    LimitExceeded,
    NotFound,
    RevisionMismatch,
    SessionClosed,
)
from gateway.core.model import Session
from gateway.core.public import PublicSession, render_session
from gateway.core.query import Page, cursor, parse_cursor
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing, raw_reply
from gateway.http.preconditions import expected_revision, matches_tag
from gateway.node import Rendering


async def list_sessions(call: Call[Principal, SessionQuery, Nothing]) -> Response:
    """List open sessions."""
    query, node = call.query, call.node
    view = call.caller.view(query)
    after = parse_cursor(view, query.sort, query.cursor) if query.cursor else None
    position = node.position()  # first: others may have a turn while we look
    found, last = await node.page(view, Page(sort=query.sort, limit=query.limit, after=after))
    if query.fields is None:
        rendered = node.renderings(found, full=view.full)
    else:
        names = tuple(dict.fromkeys(query.fields.split(",")))
        rendered = [
            Rendering.of(session, _picked(session, names, full=view.full)) for session in found
        ]
    ending = b"]"
    if last is not None:
        ending = b'],"next":%b' % encode(cursor(view, query.sort, last))
    digests = b"".join([rendering.digest for rendering in rendered])
    tag = f'W/"{hashlib.blake2b(digests + ending, digest_size=12).hexdigest()}"'
    if matches_tag(call.request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    rows = b",".join([rendering.text for rendering in rendered])
    place = str(replace(position, view=view.hash32)).encode()
    body = b'{"sessions":[%b%b,"position":"%b"}' % (rows, ending, place)
    return raw_reply(body, headers={"ETag": tag})


def _picked(session: Session, names: tuple[str, ...], *, full: bool) -> bytes:
    whole: Mapping[str, Any] = to_builtins(render_session(session, full=full))
    return encode({name: whole[name] for name in names if name in whole})


async def get_session(call: Call[Principal, Nothing, Nothing]) -> Response:
    """Look at a session."""
    session = await visible(call)
    tag = f'"{session.revision}"'
    if matches_tag(call.request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return shown(call, session)


async def patch_session(call: Call[Principal, Nothing, SessionPatch]) -> Response:
    """Change a session by a merge patch."""
    patch: dict[str, Any] = to_builtins(call.body)
    session = await writable(call, frozenset(patch))
    wanted = Update(patch=patch, revision=expected_revision(call.request))
    return shown(call, await do(call, session, wanted))


async def close_session(call: Call[Principal, CloseQuery, Nothing]) -> Response:
    """Close a session, now or after a warning."""
    session = await closable(call)
    query, revision = call.query, expected_revision(call.request)
    command = closing_command(call, query.close_after, query.reason, revision)
    return shown(call, await do(call, session, command), 202 if query.close_after else 200)


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "POST", "/v1/sessions", open_session, "Open a session without a connection",
        body=NewSession, returns={201: OpenedSession},
        errors=(IdUnavailable, LimitExceeded, Conflict, IdempotencyMismatch),
        tag="sessions", headers=("Idempotency-Key",),
    ),
    Endpoint(
        "GET", "/v1/sessions", list_sessions, "List open sessions", query=SessionQuery,
        returns={200: SessionPage, 304: None}, errors=(BadPosition,), tag="sessions",
        headers=("If-None-Match",),
    ),
    Endpoint(
        "GET", "/v1/sessions/{id}", get_session, "Look at a session",
        returns={200: PublicSession, 304: None}, errors=(NotFound, SessionClosed), tag="sessions",
        headers=("If-None-Match",),
    ),
    Endpoint(
        "PATCH", "/v1/sessions/{id}", patch_session, "Change a session by a merge patch (RFC 7396)",
        body=SessionPatch, returns={200: PublicSession},
        errors=(*WRITE_ERRORS, RevisionMismatch, LimitExceeded),
        tag="sessions", consumes=("application/json", "application/merge-patch+json"),
        headers=("If-Match", "Idempotency-Key"),
    ),
    Endpoint(
        "DELETE", "/v1/sessions/{id}", close_session, "Close a session, now or after a warning",
        query=CloseQuery, returns={200: PublicSession, 202: PublicSession},
        errors=(*WRITE_ERRORS, RevisionMismatch),
        tag="sessions", headers=("If-Match", "Idempotency-Key"),
    ),
)  # fmt: skip
