"""Routes: neko's paths, each served by what stands behind it."""

from collections.abc import Iterable
from typing import Any, Final

from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.context import Context
from gateway.dialects.neko import batch, people, room, sessions
from gateway.dialects.neko.describe import described
from gateway.dialects.neko.errors import Refused
from gateway.dialects.neko.operation import Answer, Call, Operation, Resource, not_found
from gateway.dialects.neko.service import service_of
from gateway.dialects.neko.socket import Door

SLASHED: Final = frozenset({"/api/sessions", "/api/sessions/{id}", "/api/members"})
"""Paths that neko also serves with a slash at their end."""


async def health(call: Call) -> PlainTextResponse:
    """Say that the server is there."""
    del call
    return PlainTextResponse("true")


async def upgrade_required(call: Call) -> Answer:
    """Tell a request without an upgrade that a WebSocket stands here."""
    del call
    raise Refused(400, "Bad Request")


def _operations(app: ASGIApp) -> list[Operation]:
    return [
        Operation(
            method="GET", path="/health", name="healthcheck", handler=health, who="public",
            summary="Whether the server is there", returns={200: None},
        ),
        Operation(
            method="GET", path="/api/ws", name="ws", handler=upgrade_required, who="public",
            summary="The WebSocket", returns={}, errors=(400,),
        ),
        batch.operation(app),
        *sessions.OPERATIONS,
        *people.OPERATIONS,
        *room.OPERATIONS,
    ]  # fmt: skip


def routes(context: Context) -> list[BaseRoute]:
    """Return neko's routes; everything else is not found, in neko's way."""
    service = service_of(context)
    router = Router()
    table: dict[str, list[Operation]] = {}
    for operation in _operations(router):
        table.setdefault(operation.path, []).append(operation)
    found: list[BaseRoute] = [WebSocketRoute("/api/ws", Door(service))]
    for path, operations in table.items():
        resource = Resource(service, operations)
        found.append(Route(path, resource))
        if path in SLASHED:
            found.append(Route(f"{path}/", resource))
    found.append(Route("/{path:path}", _NotFound()))
    router.routes.extend(found)
    return found


class _NotFound:
    """Whatever has no route."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await not_found(scope, receive, send)


def describe() -> dict[str, Any]:
    """Return neko's part of the OpenAPI document."""
    operations: Iterable[Operation] = _operations(not_found)
    return described(operations)
