"""Parts of a session over REST: its pending close, connection, watch, streams and members.

Every write returns the session after it, and renews the keepalive of a session whose producer has
no socket.

Not here: the session itself (``endpoints_sessions``).
"""

from typing import Any, Final

from msgspec import to_builtins
from starlette.responses import Response

from gateway.api.access import WRITE_ERRORS, closable, do, shown, visible, writable
from gateway.api.schema import ClosingBody, StreamBody, WatchBody, given
from gateway.auth.principals import Principal
from gateway.core import command, model
from gateway.core.command import (
    CancelClose,
    EndStream,
    Join,
    Kick,
    Leave,
    RequestClose,
    StartStream,
    Unwatch,
)
from gateway.core.errors import (
    GatewayError,
    LimitExceeded,
    NotClosing,
    NotConnected,
    NotFound,
    SessionClosed,
    UnknownMember,
    UnknownStream,
)
from gateway.core.model import Stream
from gateway.core.public import PublicClosing, PublicSession, render_session
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing, reply


async def put_closing(call: Call[Principal, Nothing, ClosingBody]) -> Response:
    """Schedule a close, or move it."""
    session = await closable(call)
    body = call.body
    wanted = RequestClose(
        at=call.node.now_ms() + round(body.after_s * 1000),
        reason=given(body.reason),
        by=call.caller.name,
        extend_max_ms=round(body.extend_max_s * 1000),
    )
    return shown(call, await do(call, session, wanted))


async def get_closing(call: Call[Principal, Nothing, Nothing]) -> Response:
    """Look at a pending close."""
    closing = render_session(await visible(call)).closing
    if closing is None:
        raise NotFound("No close is pending.")
    return reply(closing)


async def cancel_closing(call: Call[Principal, Nothing, Nothing]) -> Response:
    """Call a pending close off."""
    return shown(call, await do(call, await closable(call), CancelClose()))


async def kick(call: Call[Principal, Nothing, Nothing]) -> Response:
    """End the live connection of a session; the session stays."""
    return shown(call, await do(call, await closable(call), Kick()))


async def put_watch(call: Call[Principal, Nothing, WatchBody]) -> Response:
    """Report what a session looks at."""
    session = await writable(call, frozenset({"watch"}))
    watch = model.Watch(**to_builtins(call.body))
    return shown(call, await do(call, session, command.StartWatch(watch=watch)))


async def delete_watch(call: Call[Principal, Nothing, Nothing]) -> Response:
    """Report that a session looks at nothing any more."""
    return shown(call, await do(call, await writable(call, frozenset({"watch"})), Unwatch()))


async def put_stream(call: Call[Principal, Nothing, StreamBody]) -> Response:
    """Start a stream, or replace what is known of it."""
    session = await writable(call, frozenset({"streams"}))
    stream = Stream(key=call.path["key"], **to_builtins(call.body))
    return shown(call, await do(call, session, StartStream(stream=stream)))


async def delete_stream(call: Call[Principal, Nothing, Nothing]) -> Response:
    """End a stream."""
    session = await writable(call, frozenset({"streams"}))
    return shown(call, await do(call, session, EndStream(key=call.path["key"])))


async def put_member(call: Call[Principal, Nothing, Nothing]) -> Response:
    """Let a member in."""
    session = await writable(call, frozenset({"members"}))
    return shown(call, await do(call, session, Join(members=(call.path["name"],))))


async def delete_member(call: Call[Principal, Nothing, Nothing]) -> Response:
    """Let a member go."""
    session = await writable(call, frozenset({"members"}))
    return shown(call, await do(call, session, Leave(members=(call.path["name"],))))


def _write(
    method: str,
    path: str,
    handler: Any,  # noqa: ANN401 - of the body's type, which Endpoint checks
    summary: str,
    *errors: type[GatewayError],
    body: Any = Nothing,  # noqa: ANN401 - a Struct type
) -> AnyEndpoint:
    return Endpoint(
        method,
        f"/v1/sessions/{{id}}/{path}",
        handler,
        summary,
        body=body,
        returns={200: PublicSession},
        errors=(*WRITE_ERRORS, *errors),
        tag="parts of a session",
        headers=("Idempotency-Key",),
    )


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "GET", "/v1/sessions/{id}/closing", get_closing, "Look at a pending close",
        returns={200: PublicClosing}, errors=(NotFound, SessionClosed), tag="parts of a session",
    ),
    _write("PUT", "closing", put_closing, "Schedule a close, or move it", body=ClosingBody),
    _write("DELETE", "closing", cancel_closing, "Call a pending close off", NotClosing),
    _write("DELETE", "connection", kick, "End the connection, keep the session", NotConnected),
    _write("PUT", "watch", put_watch, "Report what is watched", LimitExceeded, body=WatchBody),
    _write("DELETE", "watch", delete_watch, "Report that nothing is watched"),
    _write(
        "PUT", "streams/{key:path}", put_stream, "Report a stream", LimitExceeded, body=StreamBody,
    ),
    _write("DELETE", "streams/{key:path}", delete_stream, "End a stream", UnknownStream),
    _write("PUT", "members/{name:path}", put_member, "Let a member in", LimitExceeded),
    _write("DELETE", "members/{name:path}", delete_member, "Let a member go", UnknownMember),
)  # fmt: skip
