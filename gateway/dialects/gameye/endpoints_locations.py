"""Endpoints around sessions: logs, artifacts, regions, builds, health.

The gateway runs no containers. The log of a session is therefore empty (one that is followed ends
with the session), and there are no artifacts. There is no catalogue either: any image may be
started anywhere.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.responses import Response, StreamingResponse

from gateway.auth.principals import Principal
from gateway.core.errors import NotFound, Unavailable
from gateway.core.query import View
from gateway.dialects.gameye import schema
from gateway.dialects.gameye.endpoints_sessions import ApiCall, home_of, matching, visible
from gateway.dialects.gameye.query import SessionListQuery
from gateway.dialects.gameye.render import LOCATION
from gateway.http.endpoint import Call, reply
from gateway.node import Node

TEXT: Final = "text/plain"
LOOK_EVERY_S: Final = 15.0  # a followed session is looked at so often, should its end be missed


async def get_log(call: Call[Principal, schema.LogParameters, Any]) -> Response:
    """Answer a session's log, which is empty; a followed one ends when the session does."""
    session = await visible(call, call.query.id)
    if not call.query.follow or session.closed:
        return Response(b"", media_type=TEXT)
    return StreamingResponse(_until_ended(call.node, session.id), media_type=TEXT)


async def _until_ended(node: Node, session_id: str) -> AsyncIterator[bytes]:
    """Yield nothing for as long as a session is open."""
    yield b""  # sends the headers
    while session := node.sessions.get(session_id):
        with node.mailbox(session) as box:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await box.get()
            except TimeoutError:
                pass


async def get_artifact(call: Call[Principal, schema.ArtifactParameters, Any]) -> Response:
    """Answer that a session left nothing behind."""
    session = await visible(call, call.query.session)
    if session.closed:
        raise NotFound("This session left no artifacts.")
    raise NotFound("There are no artifacts before a session has ended.")


async def list_locations(call: ApiCall) -> Response:
    """Answer where an image runs that the caller sees, and the region there always is."""
    view = View(visibility=call.caller.visibility())
    query = SessionListQuery(image=call.path["image"])
    hosts: dict[str, set[str]] = {LOCATION: {home_of(call).host}}
    for seen in await matching(call, query, call.node.all_in(view)):
        hosts.setdefault(seen.location, set()).add(seen.host)
    return reply(
        schema.LocationList(
            locations=tuple(
                schema.Location(id=location, ips=tuple(sorted(found)))
                for location, found in hosts.items()
            )
        )
    )


async def find_build(_: ApiCall) -> Response:
    """Answer that a build may be started; there is no list of builds that would say no."""
    return reply(schema.BuildFound(exists=True))


async def get_health(call: ApiCall) -> Response:
    """Answer whether this node serves."""
    if not call.node.is_ready:
        raise Unavailable("This node is not ready.")
    return reply(schema.HealthReply())
