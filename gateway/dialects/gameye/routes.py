"""Routes: the table of what is served of the Gameye Session API 1.2.1, and its description.

The parameter ``encoding`` is added: ``string`` writes ``port`` and ``labels`` as the samples in
Gameye's documents (https://docs.gameye.com) show them. There is no live channel: clients poll.
"""

from functools import partial
from typing import Any, Final

from gateway.auth.principals import Scope
from gateway.context import Context
from gateway.core.errors import Conflict, Invalid, NotFound, Overloaded
from gateway.dialects.gameye.endpoints_locations import (
    TEXT,
    find_build,
    get_artifact,
    get_health,
    get_log,
    list_locations,
)
from gateway.dialects.gameye.endpoints_players import join, leave
from gateway.dialects.gameye.endpoints_sessions import (
    describe_session,
    list_sessions,
    start_session,
    stop_session,
)
from gateway.dialects.gameye.query import read_artifact, read_encoding, read_list, read_log
from gateway.dialects.gameye.schema import (
    ArtifactParameters,
    BuildFound,
    EncodingParameters,
    Failure,
    HealthReply,
    JoinBody,
    LeaveBody,
    ListParameters,
    LocationList,
    LogParameters,
    Roster,
    SessionDescription,
    SessionList,
    StartBody,
    StartedSession,
)
from gateway.dialects.gameye.style import GameyeStyle, code_of, status_of
from gateway.http.endpoint import AnyEndpoint, Endpoint, EndpointTable
from gateway.http.openapi import Description, described
from gateway.http.pipeline import Application, Pipeline

_read = partial(Endpoint, method="GET", scope=Scope.READ)
_write = partial(Endpoint, scope=Scope.WRITE, consumes=(), errors=(NotFound,))

ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    _read(
        path="/session",
        handler=list_sessions,
        summary="List sessions",
        query=ListParameters,
        extra=read_list,
        returns={200: SessionList},
        errors=(Invalid,),
    ),
    _write(
        method="POST",
        path="/session",
        handler=start_session,
        summary="Start a session",
        body=StartBody,
        returns={201: StartedSession},
        errors=(Conflict, Overloaded),
    ),
    _read(
        path="/session/{id}",
        handler=describe_session,
        summary="Describe a session",
        query=EncodingParameters,
        extra=read_encoding,
        returns={200: SessionDescription},
        errors=(NotFound, Invalid),
    ),
    Endpoint(
        method="DELETE",
        path="/session/{id}",
        handler=stop_session,
        summary="Stop a session",
        scope=Scope.CLOSE,
        returns={204: None},
        errors=(NotFound, Conflict),
    ),
    _write(
        method="PUT",
        path="/session/player/join",
        handler=join,
        summary="Let players join a session",
        body=JoinBody,
        returns={200: Roster},
    ),
    _write(
        method="DELETE",
        path="/session/player/leave",
        handler=leave,
        summary="Let players leave",
        body=LeaveBody,
        returns={200: Roster},
    ),
    _read(
        path="/logs",
        handler=get_log,
        summary="Read the log of a session",
        query=LogParameters,
        extra=read_log,
        returns={200: str},
        produces=(TEXT,),
        errors=(NotFound, Invalid),
    ),
    _read(
        path="/artifacts",
        handler=get_artifact,
        summary="Fetch what a session left behind",
        query=ArtifactParameters,
        extra=read_artifact,
        returns={200: str},
        produces=("application/x-tar",),
        errors=(NotFound, Invalid),
    ),
    _read(
        path="/available-location/{image:path}",
        handler=list_locations,
        summary="List the regions of an image",
        returns={200: LocationList},
    ),
    _read(
        path="/tag/{region}/{image:path}/{version}",
        handler=find_build,
        summary="Check whether a build is available",
        returns={200: BuildFound},
    ),
    Endpoint(
        method="GET",
        path="/health",
        handler=get_health,
        summary="Whether the gateway serves",
        returns={200: HealthReply},
        is_public=True,
    ),
)


def _brackets(endpoint: AnyEndpoint) -> list[dict[str, Any]]:
    """Return the description of the parameters of the list that have brackets."""
    if endpoint.query is not ListParameters:
        return []
    text, integer = {"type": "string"}, {"type": "integer"}
    bounds = {"type": "object", "properties": {"lt": integer, "gt": integer}}
    texts = {"type": "object", "additionalProperties": text}
    return [
        {
            "name": name,
            "in": "query",
            "description": description,
            "schema": schema,
            "style": "deepObject",
            "explode": True,
        }
        for name, schema, description in (
            ("playerCount", bounds, "More or fewer players than this; both bounds are exclusive"),
            ("filter", texts, "Labels, or fields, that must all have these values"),
            ("filterNot", texts, "Labels, or fields, none of which may have its value"),
        )
    ]


ABOUT: Final = Description(
    title="Gameye Session API",
    text="Sessions as the Gameye Session API 1.2.1 shows them.",
    security_schemes={"token": {"type": "http", "scheme": "bearer"}},
    failure=Failure,
    status_of=status_of,
    code_of=code_of,
    parameters=_brackets,
)


def application(context: Context, root: str) -> Application:
    """Return what serves Gameye's API, mounted at *root*."""
    table = EndpointTable(described(ENDPOINTS, ABOUT, root))
    return Application(http=Pipeline(context, GameyeStyle(context, table)))
