"""Style: how Gameye's Session API is spoken: its bearer tokens, violations and errors.

Gameye's scopes are ours: ``session:start`` and players are ``write``, ``session:stop`` is
``close``, and everything that reads shows what the token may see through any door. Every error has
one shape. Gameye answers 420, not 429, when there is no room or too much at once, and 422 for a
request whose content is wrong; one refusal lists all that is wrong. What it does not document (405,
and the codes of 503 and 504) follows its manner.
"""

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple
from uuid import uuid4

from msgspec import UNSET
from msgspec.json import encode
from starlette.responses import Response

from gateway.auth.principals import Principal, Scope
from gateway.context import Context
from gateway.core import errors
from gateway.core.errors import Forbidden, GatewayError, Unauthorized
from gateway.dialects.gameye.coerce import read_body
from gateway.dialects.gameye.query import read_list, read_parameters
from gateway.dialects.gameye.render import timestamp
from gateway.dialects.gameye.schema import VIOLATIONS, Failure, ListParameters
from gateway.http.endpoint import JSON, AnyEndpoint, EndpointTable, Nothing
from gateway.http.problems import nearest
from gateway.http.request import Request, read_pairs
from gateway.http.style import Reading, TableStyle, Traits, require_scope

PATH_MAX: Final = 512  # characters of the request's path that are repeated; ids are 128 at most

log = logging.getLogger(__name__)


def authorize(principal: Principal, endpoint: AnyEndpoint) -> None:
    """Refuse a caller without the endpoint's scope; whoever sees anything at all may read.

    Raises:
        Forbidden: The token lacks the scope.
    """
    if endpoint.scope is not Scope.READ:
        require_scope(principal, endpoint)
    elif principal.visibility().by == "nothing":
        raise Forbidden("The scope read is needed.")


class GameyeStyle(TableStyle[Principal]):
    """Gameye's style."""

    traits = Traits(
        authorize=authorize,  # Gameye has no scope for several of its reads
        body_discard_bytes=1024 * 1024,  # fleet managers write a body before they read the reply
        allows="Authorization, Content-Type",
        vary="Authorization, Origin",  # ``Accept`` is not looked at: Gameye has one form
    )

    def __init__(self, context: Context, table: EndpointTable) -> None:
        self._context = context
        super().__init__(table)

    async def credential(self, request: Request, _endpoint: AnyEndpoint | None) -> Principal:
        """Return whose bearer token stands in the header; it may stand nowhere else."""
        kind, _, token = (request.header("authorization") or "").partition(" ")
        if kind.lower() != "bearer":
            raise Unauthorized("Send a token as Authorization: Bearer.")
        wall_ms = self._context.wall_ms()
        return await self._context.authenticator.authenticate(token.strip(), wall_ms)

    async def read(
        self, endpoint: AnyEndpoint, request: Request, _names: Mapping[str, str]
    ) -> Reading:
        """Return the query and the body.

        Media types are not looked at: those who write such requests by hand often send none.
        """
        pairs, kind = read_pairs(request.scope), endpoint.query
        query = read_list(pairs) if kind is ListParameters else read_parameters(pairs, kind)
        if endpoint.body is Nothing:
            return Reading(query, Nothing())
        text = await request.read_body()
        return Reading(query, read_body(text, endpoint.body))

    def refuse(self, error: GatewayError, request: Request, _caller: object) -> Response:
        """Return the reply that tells *error*, and log what it was under its identifier."""
        row = row_of(type(error))
        failure = Failure(
            status_code=row.status,
            code=row.code,
            message=row.message,
            details=row.hint if error.detail == error.title else error.detail,
            path=(request.path or "/")[:PATH_MAX],
            timestamp=timestamp(self._context.wall_ms()),
            identifier=str(uuid4()),
            violations=error.extra.get(VIOLATIONS, UNSET),
        )
        if (fields := self._context.throttles["identifiers"].admit()) is not None:
            about = {"identifier": failure.identifier, "status": row.status, "code": error.code}
            log.info("a request is refused", extra={**about, **fields})
        return Response(encode(failure), row.status, media_type=JSON)


class ErrorRow(NamedTuple):
    """An error in Gameye's words; ``hint`` is told where the error has no detail of its own."""

    status: int
    code: str
    message: str
    hint: str


_CAPACITY: Final = ErrorRow(
    420, "CAPACITY_UNAVAILABLE", "There is no room, or too much is asked at once.",
    "Try again after a short delay.",
)  # fmt: skip
_INVALID: Final = ErrorRow(
    422, "INVALID_REQUEST", "The request is not acceptable.", "Send less, or other values."
)
_CONFLICT: Final = ErrorRow(
    409, "CONFLICT", "The state of the session does not allow this.",
    "The id was used before, or the session has ended.",
)  # fmt: skip
_MALFORMED: Final = ErrorRow(
    400, "BAD_REQUEST", "The request cannot be read.", "Check how it is written."
)
_INTERNAL: Final = ErrorRow(
    500, "INTERNAL_ERROR", "The request failed.", "Quote the identifier to the operator."
)

TABLE: Final[dict[type[GatewayError], ErrorRow]] = {  # the nearest ancestor of an error counts
    errors.Unauthorized: ErrorRow(
        401, "UNAUTHORIZED", "You are not authorized.",
        "Please make sure that the included bearer token is correct.",
    ),
    errors.Forbidden: ErrorRow(
        403, "FORBIDDEN", "This token may not do that.", "Use a token that has the scope.",
    ),
    errors.NotFound: ErrorRow(
        404, "RESOURCE_NOT_FOUND", "The resource was not found.", "Check the id.",
    ),
    errors.MethodNotAllowed: ErrorRow(
        405, "METHOD_NOT_ALLOWED", "This path does not take this method.", "See Allow.",
    ),
    errors.Conflict: _CONFLICT,
    errors.SessionClosed: _CONFLICT,
    errors.RateLimited: _CAPACITY,
    errors.Overloaded: _CAPACITY,
    errors.StoreFull: _CAPACITY,
    errors.Invalid: _INVALID,
    errors.TooManySessions: _CAPACITY,
    errors.LimitExceeded: _INVALID,
    errors.PayloadTooLarge: _INVALID,
    errors.OutcomeUnknown: ErrorRow(
        504, "GATEWAY_TIMEOUT", "It is not known whether this was done.",
        "Look at the session before you try again.",
    ),
    errors.Unavailable: ErrorRow(
        503, "SERVICE_UNAVAILABLE", "Not available right now.", "Try again in a moment.",
    ),
}  # fmt: skip


def row_of(kind: type[GatewayError]) -> ErrorRow:
    """Return errors of *kind* in Gameye's words."""
    return nearest(TABLE, kind, _INTERNAL if kind.status >= _INTERNAL.status else _MALFORMED)
