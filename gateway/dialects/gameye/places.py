"""What Gameye offers around sessions: logs, artifacts, regions, builds, health.

The gateway runs no containers: a session's log is empty (followed, it ends with the session), and
there are no artifacts. There is no catalogue either: whatever image may be started anywhere.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.responses import Response, StreamingResponse

from gateway.core.errors import NotFound, Unavailable
from gateway.core.query import View
from gateway.dialects.gameye.operation import Call, reply
from gateway.dialects.gameye.query import ListQuery, read_follow, read_texts
from gateway.dialects.gameye.sessions import matching, visible
from gateway.dialects.gameye.shapes import (
    LOCATION,
    Health,
    Location,
    LocationList,
    TagFound,
)
from gateway.node import Node

TEXT: Final = "text/plain"
LOOK_EVERY_S: Final = 15.0  # a followed session is looked at so often, should its end be missed


async def logs(call: Call[None]) -> Response:
    """Answer a session's log, which is empty; a followed one ends when the session does."""
    [session_id] = read_texts(call.pairs, "id")
    follow = read_follow(call.pairs)
    session = await visible(call, session_id)
    if not follow or session.closed:
        return Response(b"", media_type=TEXT)
    return StreamingResponse(_until_ended(call.node, session.id), media_type=TEXT)


async def _until_ended(node: Node, session_id: str) -> AsyncIterator[bytes]:
    """Yield nothing for as long as a session is open."""
    yield b""  # sends the headers
    while session := node.replica.sessions.get(session_id):
        with node.hub.mailbox(session) as box:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await box.get()
            except TimeoutError:
                pass


async def artifacts(call: Call[None]) -> Response:
    """Answer that a session left nothing behind."""
    session_id, _ = read_texts(call.pairs, "session", "path")
    session = await visible(call, session_id)
    if session.closed:
        raise NotFound("This session left no artifacts.")
    raise NotFound("There are no artifacts before a session has ended.")


async def available_location(call: Call[None]) -> Response:
    """Answer where an image runs that the caller sees, and the region there always is."""
    view = View(visibility=call.principal.visibility())
    query = ListQuery(image=call.path["image"])
    hosts: dict[str, set[str]] = {LOCATION: {call.home.host}}
    for seen in await matching(call, query, call.node.replica.all_in(view)):
        hosts.setdefault(seen.location, set()).add(seen.host)
    return reply(
        LocationList(
            locations=tuple(
                Location(id=location, ips=tuple(sorted(found))) for location, found in hosts.items()
            )
        )
    )


async def tag(_: Call[None]) -> Response:
    """Answer that a build may be started; there is no list of builds that would say no."""
    return reply(TagFound(exists=True))


async def health(call: Call[None]) -> Response:
    """Answer whether this node serves."""
    if not call.node.is_ready:
        raise Unavailable("This node is not ready.")
    return reply(Health())
