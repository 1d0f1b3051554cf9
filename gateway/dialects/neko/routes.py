"""neko's paths: the table that is served and described, and its WebSocket."""

from typing import Final

from msgspec.structs import replace
from starlette.responses import PlainTextResponse, Response

from gateway.context import Context
from gateway.core.errors import BadRequest
from gateway.dialects.neko import endpoints_members, endpoints_room, endpoints_sessions
from gateway.dialects.neko.batch import BatchEndpoint
from gateway.dialects.neko.errors import Refused
from gateway.dialects.neko.service import service_of
from gateway.dialects.neko.style import ABOUT, NekoStyle, row
from gateway.dialects.neko.websocket import endpoint
from gateway.http.endpoint import AnyCall, AnyEndpoint, EndpointTable
from gateway.http.openapi import described
from gateway.http.pipeline import Application, Pipeline

SOCKET: Final = "/api/ws"
SLASHED: Final = frozenset({"/api/sessions", "/api/sessions/{id}", "/api/members"})
"""Paths that neko also serves with a slash at their end."""


async def health(_: AnyCall) -> Response:
    """Say that the server is there."""
    return PlainTextResponse("true")


async def upgrade_required(_: AnyCall) -> Response:
    """Tell a request without an upgrade that a WebSocket stands here."""
    raise Refused(400, "Bad Request")


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    row(
        *("GET", "/health", health, "Whether the server is there"),
        returns={200: {"type": "string"}},
        produces=("text/plain",),
        is_public=True,
    ),
    row(*("GET", SOCKET, upgrade_required, "The WebSocket"), is_public=True, errors=(BadRequest,)),
    *endpoints_sessions.ENDPOINTS,
    *endpoints_members.ENDPOINTS,
    *endpoints_room.ENDPOINTS,
)


def application(context: Context, root: str) -> Application:
    """Return what serves this dialect.

    Args:
        context: The node and its surroundings.
        root: The path that it is mounted at; empty at the root.
    """
    service, batch = service_of(context), BatchEndpoint()
    table = [*ENDPOINTS, batch.row()]
    slashed = [
        replace(endpoint, path=f"{endpoint.path}/", is_hidden=True)
        for endpoint in table
        if endpoint.path in SLASHED
    ]
    endpoints = described([*table, *slashed], ABOUT, root)
    batch.pipeline = Pipeline(context, NekoStyle(service, EndpointTable(endpoints)))
    return Application(http=batch.pipeline, sockets={SOCKET: endpoint(service)})
