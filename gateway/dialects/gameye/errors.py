"""Gameye's errors: one shape, and one table from ours to its status and code.

Gameye answers 420, not 429, when there is no room or too much at once, and 422 for a request whose
content is wrong. What it does not document (405, and the codes of 503 and 504) follows its manner.
Not here: when an error is raised (``core.errors`` and the handlers).
"""

import logging
from typing import Final, NamedTuple
from uuid import uuid4

from msgspec import UNSET
from msgspec.json import encode
from starlette.responses import Response
from starlette.types import Scope

from gateway.core.errors import (
    Conflict,
    Forbidden,
    GatewayError,
    Invalid,
    LimitExceeded,
    MethodNotAllowed,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    SessionClosed,
    StoreFull,
    Unauthorized,
    Unavailable,
)
from gateway.dialects.gameye.shapes import VIOLATIONS_MAX, Failure, Violation, timestamp

PATH_MAX: Final = 512  # characters of the request's path that are repeated; ids are 128 at most
VIOLATIONS: Final = "violations"  # in an error's ``extra``

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """What an error of ours is for Gameye's clients; ``hint`` is told if nothing else is."""

    status: int
    code: str
    message: str
    hint: str


_CAPACITY: Final = Row(
    420,
    "CAPACITY_UNAVAILABLE",
    "There is no room, or too much is asked at once.",
    "Try again after a short delay.",
)
_INVALID: Final = Row(
    422, "INVALID_REQUEST", "The request is not acceptable.", "Send less, or other values."
)
_CONFLICT: Final = Row(
    409,
    "CONFLICT",
    "The state of the session does not allow this.",
    "The id was used before, or the session has ended.",
)
_MALFORMED: Final = Row(
    400, "BAD_REQUEST", "The request cannot be read.", "Check how it is written."
)
_INTERNAL: Final = Row(
    500, "INTERNAL_ERROR", "The request failed.", "Quote the identifier to the operator."
)

TABLE: Final[dict[type[GatewayError], Row]] = {  # the nearest ancestor of an error counts
    Unauthorized: Row(
        401,
        "UNAUTHORIZED",
        "You are not authorized.",
        "Please make sure that the included bearer token is correct.",
    ),
    Forbidden: Row(
        403, "FORBIDDEN", "This token may not do that.", "Use a token that has the scope."
    ),
    NotFound: Row(404, "RESOURCE_NOT_FOUND", "The resource was not found.", "Check the id."),
    MethodNotAllowed: Row(
        405, "METHOD_NOT_ALLOWED", "This path does not take this method.", "See Allow."
    ),
    Conflict: _CONFLICT,
    SessionClosed: _CONFLICT,
    RateLimited: _CAPACITY,
    Overloaded: _CAPACITY,
    StoreFull: _CAPACITY,
    Invalid: _INVALID,
    LimitExceeded: _INVALID,
    PayloadTooLarge: _INVALID,
    OutcomeUnknown: Row(
        504,
        "GATEWAY_TIMEOUT",
        "It is not known whether this was done.",
        "Look at the session before you try again.",
    ),
    Unavailable: Row(
        503, "SERVICE_UNAVAILABLE", "Not available right now.", "Try again in a moment."
    ),
}


def row_of(kind: type[GatewayError]) -> Row:
    """Return what errors of *kind* are for Gameye's clients."""
    for ancestor in kind.__mro__:
        if row := TABLE.get(ancestor):
            return row
    return _INTERNAL if kind.status >= _INTERNAL.status else _MALFORMED


def violated(*violations: Violation) -> Invalid:
    """Return the error that says what is wrong with which field."""
    return Invalid("See the violations.", extra={VIOLATIONS: violations[:VIOLATIONS_MAX]})


def wrong(field: str, description: str) -> Invalid:
    """Return the error that says what is wrong with one field."""
    return violated(Violation(field=field, description=description))


def failed(error: GatewayError, scope: Scope, at: int, cause: Exception | None = None) -> Response:
    """Return the answer that tells *error*, and log what it was.

    Args:
        error: What went wrong.
        scope: Of the request.
        at: Now, in milliseconds since the Unix epoch.
        cause: What nobody foresaw; logged whole, and nothing of it is told.
    """
    row = row_of(type(error))
    failure = Failure(
        status_code=row.status,
        code=row.code,
        message=row.message,
        details=row.hint if error.detail == error.title else error.detail,
        path=asked_path(scope)[:PATH_MAX],
        timestamp=timestamp(at),
        identifier=str(uuid4()),
        violations=error.extra.get(VIOLATIONS, UNSET),
    )
    level = logging.INFO if cause is None else logging.ERROR
    log.log(level, "request %s: %d %s", failure.identifier, row.status, error.code, exc_info=cause)
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None and row is not _CONFLICT:
        headers["Retry-After"] = str(error.retry_after_s)
    return Response(encode(failure), row.status, headers, "application/json")


def asked_path(scope: Scope) -> str:
    """Return the product's own path of a request, wherever the dialect is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"
