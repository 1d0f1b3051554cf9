"""Batch: many requests in one, done one after the other, each with its own rights and answer.

Each goes through the same pipeline as a request of its own, with the headers of the outer one (so
its bearer or cookie, not its ``?token=``). neko itself takes a batch from anybody; here the sender
must be somebody, as neko's document says.
"""

from typing import Final
from urllib.parse import unquote

from msgspec import UNSET, MsgspecError, Raw
from msgspec.json import decode
from starlette.responses import Response

from gateway.core.errors import BadRequest
from gateway.dialects.neko.login import NekoCaller
from gateway.dialects.neko.schema import Batch, BatchRequest, BatchResponse, ErrorMessage
from gateway.dialects.neko.style import row
from gateway.http.endpoint import AnyEndpoint, Call, Nothing, reply
from gateway.http.pipeline import Pipeline
from gateway.http.request import Request

EXCLUDED: Final = frozenset({"/api/batch", "/api/ws"})
_OWN: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})  # of the outer body


class BatchEndpoint:
    """The endpoint of batches; its ``pipeline`` is set once there is one."""

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
