"""Batch: many requests in one, done one after the other, each with its own rights and answer.

Each goes through the same routes as a request of its own, with the headers of the outer one (so its
bearer or cookie, not its ``?token=``). neko itself takes a batch from anybody; here the sender must
be somebody, as neko's document says.
"""

from typing import Annotated, Any, Final
from urllib.parse import unquote

from msgspec import UNSET, Meta, MsgspecError, Raw, Struct
from msgspec.json import decode
from starlette.types import ASGIApp, Message, Scope

from gateway.dialects.neko.bodies import BATCH_MAX, BatchRequest
from gateway.dialects.neko.operation import Answer, Call, Operation
from gateway.dialects.neko.shapes import ErrorMessage

EXCLUDED: Final = frozenset({"/api/batch", "/api/ws"})
_OWN: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})  # of the outer body

Requests = Annotated[list[BatchRequest], Meta(max_length=BATCH_MAX)]


class BatchResponse(Struct, frozen=True, omit_defaults=True):
    """What became of one request; without a body if the answer has none that is JSON."""

    path: str
    method: str
    status: int
    body: Any = None


def operation(app: ASGIApp) -> Operation:
    """Return the operation that serves batches with *app*."""

    async def batch(call: Call) -> Answer:
        requests: list[BatchRequest] = await call.read(Requests)
        return Answer(200, [await _one(app, call.request.scope, one) for one in requests])

    return Operation(
        method="POST", path="/api/batch", name="batch", handler=batch,
        summary="Many requests in one", body=Requests, returns={200: list[BatchResponse]},
        errors=(400,),
    )  # fmt: skip


async def _one(app: ASGIApp, outer: Scope, wanted: BatchRequest) -> BatchResponse:
    raw_path, _, query = wanted.path.partition("?")
    path = unquote(raw_path)
    refused = None
    if not path.startswith("/api"):
        refused = "this path is not allowed in batch requests"
    elif path in EXCLUDED:
        refused = "this path is excluded from batch requests"
    if refused is not None:
        return _response(wanted, 400, ErrorMessage(400, refused))
    root = outer.get("root_path", "")
    body = b"" if wanted.body is UNSET else bytes(wanted.body)
    body = b"" if body == b"null" else body
    kept = [(name, value) for name, value in outer["headers"] if name not in _OWN]
    scope = {
        **outer,
        "method": wanted.method,
        "path": root + path,
        "raw_path": (root + raw_path).encode(errors="replace"),
        "query_string": query.encode(errors="replace"),
        "headers": [*kept, (b"content-length", str(len(body)).encode())],
        "path_params": {},
    }
    status, answer = await _ask(app, scope, body)
    return _response(wanted, status, _json(answer))


async def _ask(app: ASGIApp, scope: Scope, body: bytes) -> tuple[int, bytes]:
    """Send one request through *app*; return the status and the body."""
    status, answer = 500, bytearray()
    given = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return given.pop() if given else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            answer.extend(message.get("body", b""))

    await app(scope, receive, send)
    return status, bytes(answer)


def _json(answer: bytes) -> Raw | None:
    try:
        decode(answer)
    except MsgspecError:
        return None
    return Raw(answer)


def _response(wanted: BatchRequest, status: int, body: object) -> BatchResponse:
    return BatchResponse(wanted.path, wanted.method, status, body)
