"""Routes: the table of what is served of the Gameye Session API 1.2.1, and its description.

The parameter ``encoding`` is added: ``string`` writes ``port`` and ``labels`` as the samples in
Gameye's documents (https://docs.gameye.com) show them. There is no live channel: clients poll.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from starlette.responses import Response

from gateway.auth.principals import Scope
from gateway.context import Context
from gateway.core.errors import Conflict, GatewayError, Invalid, NotFound, Overloaded
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
    ApiCall,
    describe_session,
    list_sessions,
    start_session,
    stop_session,
)
from gateway.dialects.gameye.style import GameyeStyle, row_of
from gateway.http.endpoint import AnyEndpoint, Endpoint, EndpointTable, Nothing
from gateway.http.openapi import Description, described
from gateway.http.pipeline import Application, Pipeline

Handler = Callable[[ApiCall], Awaitable[Response]]


def _get(
    path: str,
    handler: Handler,
    returns: Any,  # noqa: ANN401 - a type
    query: type[Struct] = Nothing,
    errors: tuple[type[GatewayError], ...] = (),
) -> AnyEndpoint:
    return Endpoint(
        method="GET",
        path=path,
        handler=handler,
        query=query,
        returns={200: returns},
        scope=Scope.READ,
        errors=errors if query is Nothing else (*errors, Invalid),
    )


def _change(
    method: str,
    path: str,
    handler: Handler,
    returns: Mapping[int, Any],
    *,
    body: type[Struct] = Nothing,
    scope: Scope = Scope.WRITE,
    errors: tuple[type[GatewayError], ...] = (NotFound,),
) -> AnyEndpoint:
    return Endpoint(
        method=method,
        path=path,
        handler=handler,
        body=body,
        consumes=(),
        returns=returns,
        scope=scope,
        errors=errors,
    )


_log = _get("/logs", get_log, str, schema.LogParameters, (NotFound,))
_tar = _get("/artifacts", get_artifact, str, schema.ArtifactParameters, (NotFound,))
_health = _get("/health", get_health, schema.HealthReply)

ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    _get("/session", list_sessions, schema.SessionList, schema.ListParameters),
    _change(
        "POST",
        "/session",
        start_session,
        {201: schema.StartedSession},
        body=schema.StartBody,
        errors=(Conflict, Overloaded),
    ),
    _get(
        "/session/{id}",
        describe_session,
        schema.SessionDescription,
        schema.EncodingParameters,
        (NotFound,),
    ),
    _change(
        "DELETE",
        "/session/{id}",
        stop_session,
        {204: None},
        scope=Scope.CLOSE,
        errors=(NotFound, Conflict),
    ),
    _change("PUT", "/session/player/join", join, {200: schema.Roster}, body=schema.JoinBody),
    _change("DELETE", "/session/player/leave", leave, {200: schema.Roster}, body=schema.LeaveBody),
    replace(_log, produces=(TEXT,)),
    replace(_tar, produces=("application/x-tar",)),
    _get("/available-location/{image:path}", list_locations, schema.LocationList),
    _get("/tag/{region}/{image:path}/{version}", find_build, schema.BuildFound),
    replace(_health, scope=None, is_public=True),
)


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
