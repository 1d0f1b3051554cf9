"""Webida's errors: one shape, and one table from ours to its status and code.

Codes are those of the product's own server, which are not the phrases of HTTP: a conflict is an
``InvalidArgument``, a path that does not exist another thing than a session that does not. A
closed session is not there any more, so it is answered like one that never was. Clients are told to
read ``message``. What the product does not document (413, 414, 415, 429) follows its manner.

Not here: when an error is raised (``core.errors`` and the handlers).
"""

from typing import Final, NamedTuple

from gateway.core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    GatewayError,
    Invalid,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    RevisionMismatch,
    SessionClosed,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UriTooLong,
)
from gateway.http.pipeline import NoSuchPath


class Row(NamedTuple):
    """What an error of ours is for Webida's clients."""

    status: int
    code: str


_MALFORMED: Final = Row(400, "BadRequestError")
_MISSING: Final = Row(404, "NotFoundError")
_INTERNAL: Final = Row(500, "InternalError")

TABLE: Final[dict[type[GatewayError], Row]] = {  # the nearest ancestor of an error counts
    BadRequest: _MALFORMED,
    Invalid: _MALFORMED,
    Unauthorized: Row(401, "UnauthorizedError"),
    Forbidden: Row(403, "ForbiddenError"),
    NotFound: _MISSING,
    SessionClosed: _MISSING,
    NoSuchPath: Row(404, "ResourceNotFound"),
    MethodNotAllowed: Row(405, "MethodNotAllowedError"),
    Conflict: Row(409, "InvalidArgument"),
    RevisionMismatch: Row(409, "InvalidArgument"),
    PayloadTooLarge: Row(413, "RequestEntityTooLargeError"),
    UriTooLong: Row(414, "RequesturiTooLargeError"),
    UnsupportedMediaType: Row(415, "UnsupportedMediaTypeError"),
    RateLimited: Row(429, "TooManyRequestsError"),
    Unavailable: Row(503, "ServiceUnavailableError"),
}


def row_of(kind: type[GatewayError]) -> Row:
    """Return what errors of *kind* are for Webida's clients."""
    return next((TABLE[ancestor] for ancestor in kind.__mro__ if ancestor in TABLE), _INTERNAL)
