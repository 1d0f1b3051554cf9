"""Routes: the table of neko's endpoints, batches, and the WebSocket."""

from typing import Final
from urllib.parse import unquote

from msgspec import UNSET, MsgspecError, Raw
from msgspec.json import decode
from msgspec.structs import replace
from starlette.responses import PlainTextResponse, Response

from gateway.context import Context
from gateway.dialects.neko import endpoints_room, endpoints_sessions
from gateway.dialects.neko.render import Refused
from gateway.dialects.neko.schema import Batch, BatchRequest, BatchResponse, ErrorMessage
from gateway.dialects.neko.service import Service, service_of
from gateway.dialects.neko.session_socket import endpoint
from gateway.dialects.neko.style import ABOUT, NekoCall, NekoStyle, row
from gateway.http.endpoint import AnyCall, AnyEndpoint, EndpointTable, reply
from gateway.http.openapi import described
from gateway.http.pipeline import Application, Pipeline
from gateway.http.request import Request

SOCKET: Final = "/api/ws"
EXCLUDED: Final = frozenset({"/api/batch", SOCKET})  # from batches
SLASHED: Final = frozenset({"/api/sessions", "/api/sessions/{id}", "/api/members"})
"""Paths that neko also serves with a slash at their end."""

_OWN: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})  # of the outer body


async def health(_service: Service, _call: AnyCall) -> Response:
    """Say that the server is there."""
    return PlainTextResponse("true")


async def upgrade_required(_service: Service, _call: AnyCall) -> None:
    """Tell a request without an upgrade that a WebSocket stands here."""
    raise Refused(400, "Bad Request")


async def batch(service: Service, call: NekoCall[Batch]) -> Response:
    """Run many requests of one body, one after the other, each with its own rights and reply.

    Each request goes through the same pipeline, with the headers of the outer one (so its bearer or
    cookie, not its ``?token=``). neko accepts a batch from anybody; here the sender must be
    authenticated, as neko's document says.
    """
    answers = [(one, await _answer(service, call.request, one)) for one in call.body]
    return reply([BatchResponse(one.path, one.method, *answer) for one, answer in answers])


async def _answer(service: Service, outer: Request, wanted: BatchRequest) -> tuple[int, object]:
    raw_path, _, query = wanted.path.partition("?")
    path = unquote(raw_path)
    if path in EXCLUDED or not path.startswith("/api"):
        how = "excluded from" if path in EXCLUDED else "not allowed in"
        return 400, ErrorMessage(400, f"this path is {how} batch requests")
    body = b"" if wanted.body is UNSET else bytes(wanted.body)
    scope = {
        **outer.scope,
        "method": wanted.method,
        "path": outer.root + path,
        "raw_path": (outer.root + raw_path).encode(errors="replace"),
        "query_string": query.encode(errors="replace"),
        "headers": [known for known in outer.scope["headers"] if known[0] not in _OWN],
    }
    inner = Request(scope, body=b"" if body == b"null" else body)
    answer = await service.pipeline.answer(inner)
    try:
        decode(answer.body)
    except MsgspecError:  # it is no JSON
        return answer.status_code, None
    return answer.status_code, Raw(answer.body)


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    row(
        "GET", "/health", health, {200: {"type": "string"}}, produces=("text/plain",),
        is_public=True,
    ),
    row("GET", SOCKET, upgrade_required, is_public=True),
    *endpoints_sessions.ENDPOINTS,
    *endpoints_room.ENDPOINTS,
    row("POST", "/api/batch", batch, list[BatchResponse]),
)  # fmt: skip


def application(context: Context, root: str) -> Application:
    """Return the application of this dialect.

    Args:
        context: The node and its surroundings.
        root: The path that it is mounted at; empty at the root.
    """
    service = service_of(context)
    slashed = [
        replace(endpoint, path=f"{endpoint.path}/", is_hidden=True)
        for endpoint in ENDPOINTS
        if endpoint.path in SLASHED
    ]
    table = EndpointTable(described([*ENDPOINTS, *slashed], ABOUT, root))
    service.pipeline = Pipeline(context, NekoStyle(service, table))
    return Application(http=service.pipeline, sockets={SOCKET: endpoint(service)})
