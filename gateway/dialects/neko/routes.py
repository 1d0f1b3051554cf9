"""Routes: the table of neko's endpoints, batches, and the WebSocket."""

from typing import Final
from urllib.parse import unquote

from msgspec import UNSET, MsgspecError, Raw
from msgspec.json import decode
from msgspec.structs import replace
from starlette.responses import PlainTextResponse, Response

from gateway.context import Context
from gateway.core.errors import BadRequest
from gateway.dialects.neko import endpoints_members, endpoints_room, endpoints_sessions
from gateway.dialects.neko.errors import Refused
from gateway.dialects.neko.login import NekoCaller
from gateway.dialects.neko.schema import Batch, BatchRequest, BatchResponse, ErrorMessage
from gateway.dialects.neko.service import service_of
from gateway.dialects.neko.session_socket import endpoint
from gateway.dialects.neko.style import ABOUT, NekoStyle, row
from gateway.http.endpoint import AnyCall, AnyEndpoint, Call, EndpointTable, Nothing, reply
from gateway.http.openapi import described
from gateway.http.pipeline import Application, Pipeline
from gateway.http.request import Request

SOCKET: Final = "/api/ws"
EXCLUDED: Final = frozenset({"/api/batch", SOCKET})  # from batches
SLASHED: Final = frozenset({"/api/sessions", "/api/sessions/{id}", "/api/members"})
"""Paths that neko also serves with a slash at their end."""

_OWN: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})  # of the outer body


async def health(_: AnyCall) -> Response:
    """Say that the server is there."""
    return PlainTextResponse("true")


async def upgrade_required(_: AnyCall) -> Response:
    """Tell a request without an upgrade that a WebSocket stands here."""
    raise Refused(400, "Bad Request")


class BatchEndpoint:
    """Runs many requests of one body, one after the other, each with its own rights and reply.

    Each request goes through the same pipeline, with the headers of the outer one (so its bearer or
    cookie, not its ``?token=``). neko accepts a batch from anybody; here the sender must be
    authenticated, as neko's document says.
    """

    pipeline: Pipeline

    def row(self) -> AnyEndpoint:
        """Return the row of the table."""
        returns = {200: list[BatchResponse]}
        return row(
            *("POST", "/api/batch", self.batch, "Many requests in one"),
            body=Batch,
            returns=returns,
            errors=(BadRequest,),
        )

    async def batch(self, call: Call[NekoCaller, Nothing, list[BatchRequest]]) -> Response:
        """Do many requests, one after the other."""
        return reply([await self._answer(call.request, one) for one in call.body])

    async def _answer(self, outer: Request, wanted: BatchRequest) -> BatchResponse:
        raw_path, _, query = wanted.path.partition("?")
        path = unquote(raw_path)
        refused = None
        if not path.startswith("/api"):
            refused = "this path is not allowed in batch requests"
        elif path in EXCLUDED:
            refused = "this path is excluded from batch requests"
        if refused is not None:
            return _response(wanted, 400, ErrorMessage(400, refused))
        body = b"" if wanted.body is UNSET else bytes(wanted.body)
        body = b"" if body == b"null" else body
        kept = [(name, value) for name, value in outer.scope["headers"] if name not in _OWN]
        scope = {
            **outer.scope,
            "method": wanted.method,
            "path": outer.root + path,
            "raw_path": (outer.root + raw_path).encode(errors="replace"),
            "query_string": query.encode(errors="replace"),
            "headers": kept,
        }
        answer = await self.pipeline.answer(Request(scope, body=body))
        return _response(wanted, answer.status_code, _json(bytes(answer.body)))


def _json(answer: bytes) -> Raw | None:
    try:
        decode(answer)
    except MsgspecError:
        return None
    return Raw(answer)


def _response(wanted: BatchRequest, status: int, body: object) -> BatchResponse:
    return BatchResponse(wanted.path, wanted.method, status, body)


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
    """Return the application of this dialect.

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
