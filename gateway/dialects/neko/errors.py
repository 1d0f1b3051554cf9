"""Errors in neko's form: ``{"code": <status>, "message": <sentence>}``.

One table maps the gateway's errors to neko's; a sentence of ours is used only where neko has none.
Not here: what a WebSocket is told (``codec``): it knows no errors, only an end.
"""

from typing import Final

from starlette.responses import Response

from gateway.core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    GatewayError,
    Invalid,
    LimitExceeded,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    SessionClosed,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UriTooLong,
)
from gateway.dialects.neko.schema import ErrorMessage
from gateway.http.endpoint import reply

NO_DATA: Final = "no data provided"
UNREADABLE: Final = "unable to parse provided data"
NO_SESSION: Final = "session not found"

_TABLE: Final[tuple[tuple[type[GatewayError], int, str | None], ...]] = (  # the first that fits
    (Unauthorized, 401, "Unauthorized"),
    (Forbidden, 403, None),
    (SessionClosed, 404, NO_SESSION),
    (NotFound, 404, NO_SESSION),
    (BadRequest, 400, UNREADABLE),
    (Invalid, 400, UNREADABLE),
    (PayloadTooLarge, 400, UNREADABLE),  # as neko, which stops reading
    (UriTooLong, 414, None),
    (UnsupportedMediaType, 415, None),
    (RateLimited, 429, None),
    (LimitExceeded, 422, None),
    (Conflict, 503, None),
    (Unavailable, 503, None),
    (GatewayError, 500, "Internal Server Error"),
)


class Refused(GatewayError):
    """A request that neko refuses in its own words.

    Args:
        answered: The HTTP status.
        message: What neko says.
    """

    def __init__(self, answered: int, message: str) -> None:
        super().__init__(message)
        self.answered = answered


def status_of(kind: type[GatewayError]) -> int:
    """Return the status that an error of *kind* becomes."""
    return next(status for known, status, _ in _TABLE if issubclass(kind, known))


def refusal(error: GatewayError) -> Response:
    """Return the answer that tells *error*."""
    if isinstance(error, Refused):
        return failure(error.answered, error.detail)
    status, message = next(
        (status, message) for kind, status, message in _TABLE if isinstance(error, kind)
    )
    return failure(status, message or error.detail)


def failure(status: int, message: str) -> Response:
    """Return an error as neko answers it."""
    return reply(ErrorMessage(status, message), status)
