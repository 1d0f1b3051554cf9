"""Gameye's paths: the table that is served and described.

Gameye Session API 1.2.1 (https://docs.gameye.com), with the parameter ``encoding`` added:
``string`` writes ``port`` and ``labels`` as the samples in Gameye's documents show them. Gameye has
no live channel: its clients poll.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct
from starlette.routing import BaseRoute, Route

from gateway.auth.principals import Scope
from gateway.context import Context
from gateway.core.errors import (
    Conflict,
    Invalid,
    NotFound,
    Overloaded,
)
from gateway.dialects.gameye.operation import AnyOperation, Door, Operation, Parameter
from gateway.dialects.gameye.places import (
    TEXT,
    artifacts,
    available_location,
    health,
    logs,
    tag,
)
from gateway.dialects.gameye.players import join, leave
from gateway.dialects.gameye.reading import JoinBody, LeaveBody, StartBody
from gateway.dialects.gameye.sessions import (
    describe_session,
    list_sessions,
    start_session,
    stop_session,
)
from gateway.dialects.gameye.shapes import (
    Description,
    Health,
    LocationList,
    Roster,
    SessionList,
    Started,
    TagFound,
)


class Comparison(Struct, kw_only=True):
    """A number of players; both bounds are exclusive."""

    lt: int | None = None
    gt: int | None = None


_ENCODING: Final = Parameter(
    "encoding", Annotated[str, Meta(pattern="^(object|string)$")], "How `port`, `labels` are sent"
)
_FILTERS: Final = (
    Parameter("all", bool, "Also sessions that ended, the newest 1000 of them"),
    Parameter("location", str, "Exactly this region"),
    Parameter("image", str, "Exactly this image"),
    Parameter("tag", str, "Exactly this build"),
    Parameter("host", str, "Exactly this machine"),
    Parameter("playerCount", Comparison, "More or fewer players than this"),
    Parameter("filter", dict[str, str], "Labels, or fields, that must all have these values"),
    Parameter("filterNot", dict[str, str], "Labels, or fields, none of which may have its value"),
    _ENCODING,
)

OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/session",
        handler=list_sessions,
        summary="List sessions",
        returns=SessionList,
        parameters=_FILTERS,
        errors=(Invalid,),
    ),
    Operation(
        method="POST",
        path="/session",
        handler=start_session,
        summary="Start a session",
        status=201,
        returns=Started,
        scope=Scope.WRITE,
        body=StartBody,
        errors=(Conflict, Overloaded, Invalid),
    ),
    Operation(
        method="GET",
        path="/session/{id}",
        handler=describe_session,
        summary="Describe a session",
        returns=Description,
        parameters=(_ENCODING,),
        errors=(NotFound, Invalid),
    ),
    Operation(
        method="DELETE",
        path="/session/{id}",
        handler=stop_session,
        summary="Stop a session",
        status=204,
        scope=Scope.CLOSE,
        errors=(NotFound, Conflict),
    ),
    Operation(
        method="PUT",
        path="/session/player/join",
        handler=join,
        summary="Let players join a session",
        returns=Roster,
        scope=Scope.WRITE,
        body=JoinBody,
        errors=(NotFound, Invalid),
    ),
    Operation(
        method="DELETE",
        path="/session/player/leave",
        handler=leave,
        summary="Let players leave",
        returns=Roster,
        scope=Scope.WRITE,
        body=LeaveBody,
        errors=(NotFound, Invalid),
    ),
    Operation(
        method="GET",
        path="/logs",
        handler=logs,
        summary="Read the log of a session",
        returns=TEXT,
        parameters=(
            Parameter("id", str, "The session", required=True),
            Parameter("follow", bool, "Go on until the session ends"),
        ),
        errors=(NotFound, Invalid),
    ),
    Operation(
        method="GET",
        path="/artifacts",
        handler=artifacts,
        summary="Fetch what a session left behind",
        returns="application/x-tar",
        parameters=(
            Parameter("session", str, "The session", required=True),
            Parameter("path", str, "File or folder", required=True),
        ),
        errors=(NotFound, Invalid),
    ),
    Operation(
        method="GET",
        path="/available-location/{image:path}",
        handler=available_location,
        summary="List the regions of an image",
        returns=LocationList,
    ),
    Operation(
        method="GET",
        path="/tag/{region}/{image:path}/{version}",
        handler=tag,
        summary="Check whether a build is available",
        returns=TagFound,
    ),
    Operation(
        method="GET",
        path="/health",
        handler=health,
        summary="Whether the gateway serves",
        returns=Health,
        scope=None,
    ),
)


def routes(context: Context) -> list[BaseRoute]:
    """Return Gameye's own paths; the last one answers for every other."""
    paths: dict[str, list[AnyOperation]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, []).append(operation)
    found: list[BaseRoute] = [Route(path, Door(context, rows)) for path, rows in paths.items()]
    return [*found, Route("/{path:path}", Door(context))]
