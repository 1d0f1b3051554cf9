"""Routes: the table of what is served of the Gameye Session API 1.2.1, and its description.

The parameter ``encoding`` is added: ``string`` writes ``port`` and ``labels`` as the samples in
Gameye's documents (https://docs.gameye.com) show them. There is no live channel: clients poll.
"""

from typing import Any, Final

from gateway.auth.principals import Scope
from gateway.context import Context
from gateway.core.errors import Conflict, Invalid, NotFound
from gateway.dialects.gameye import schema
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
from gateway.dialects.gameye.style import GameyeStyle, row_of
from gateway.http.endpoint import AnyEndpoint, Endpoint, EndpointTable
from gateway.http.openapi import Description, described
from gateway.http.pipeline import Application, Pipeline

ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "GET", "/session", list_sessions, query=schema.ListParameters,
        returns={200: schema.SessionList}, scope=Scope.READ, errors=(Invalid,),
    ),
    Endpoint(
        "POST", "/session", start_session, body=schema.StartBody, consumes=(),
        returns={201: schema.StartedSession}, scope=Scope.WRITE, errors=(Conflict,),
    ),
    Endpoint(
        "GET", "/session/{id}", describe_session, query=schema.EncodingParameters,
        returns={200: schema.SessionDescription}, scope=Scope.READ, errors=(NotFound, Invalid),
    ),
    Endpoint(
        "DELETE", "/session/{id}", stop_session, returns={204: None}, scope=Scope.CLOSE,
        errors=(NotFound, Conflict),
    ),
    Endpoint(
        "PUT", "/session/player/join", join, body=schema.JoinBody, consumes=(),
        returns={200: schema.Roster}, scope=Scope.WRITE, errors=(NotFound,),
    ),
    Endpoint(
        "DELETE", "/session/player/leave", leave, body=schema.LeaveBody, consumes=(),
        returns={200: schema.Roster}, scope=Scope.WRITE, errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/logs", get_log, query=schema.LogParameters, returns={200: str},
        produces=(TEXT,), scope=Scope.READ, errors=(NotFound, Invalid),
    ),
    Endpoint(
        "GET", "/artifacts", get_artifact, query=schema.ArtifactParameters, returns={200: str},
        produces=("application/x-tar",), scope=Scope.READ, errors=(NotFound, Invalid),
    ),
    Endpoint(
        "GET", "/available-location/{image:path}", list_locations,
        returns={200: schema.LocationList}, scope=Scope.READ,
    ),
    Endpoint(
        "GET", "/tag/{region}/{image:path}/{version}", find_build,
        returns={200: schema.BuildFound}, scope=Scope.READ,
    ),
    Endpoint("GET", "/health", get_health, returns={200: schema.HealthReply}, is_public=True),
)  # fmt: skip


def _brackets(endpoint: AnyEndpoint) -> list[dict[str, Any]]:
    """Return the description of the parameters of the list that have brackets."""
    if endpoint.query is not schema.ListParameters:
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
    failure=schema.Failure,
    status_of=lambda error: row_of(error).status,
    code_of=lambda error: row_of(error).code,
    parameters=_brackets,
)


def application(context: Context, root: str) -> Application:
    """Return what serves Gameye's API, mounted at *root*."""
    table = EndpointTable(described(ENDPOINTS, ABOUT, root))
    return Application(http=Pipeline(context, GameyeStyle(context, table)))
