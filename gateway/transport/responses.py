"""Responses of the transport itself: a bare status, after which the connection is closed.

They refuse what breaks HTTP or exceeds a limit before an application is asked. They have no body
because the transport does not know which product's error document the client expects.

Not here: the responses of applications.
"""

import logging
from collections.abc import Iterable
from http import HTTPStatus
from re import compile as pattern
from typing import Final

from msgspec import Struct

from gateway.logs.request import RequestMark

Headers = Iterable[tuple[bytes, bytes]]

ENHANCE_YOUR_CALM: Final = (420, "Enhance Your Calm")  # not registered; some dialects' products say

TOKEN: Final = pattern(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_UNSAFE: Final = pattern(rb"[\x00\r\n]")


log = logging.getLogger(__name__)


class Refusal(Struct, frozen=True):
    """A status that ends the connection.

    Args:
        status: The HTTP status.
        reason: For the log; the client is told the status alone.
        headers: What the status wants beside it.
    """

    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def tell(self, client: tuple[str, int] | None, mark: RequestMark) -> None:
        """Log the refusal of a request of *client*, which may have had no end."""
        about: dict[str, object] = {"request_id": mark.request_id, "address": client and client[0]}
        about |= {"status": self.status, "reason": self.reason}
        log.debug("a request is refused by the transport", extra=about)

    def response(self, headers: Headers = ()) -> bytes:
        """Return the whole response; *headers* go before its own."""
        return response(self.status, [*headers, *self.headers], b"")


class RequestRefused(Exception):
    """A request breaks HTTP or a limit; raised while its head or body is parsed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


BAD_REQUEST: Final = Refusal(400, "malformed request")
TOO_LATE: Final = Refusal(408, "the request took too long to arrive")
URL_TOO_LONG: Final = Refusal(414, "the target is too long")
HEADERS_TOO_LARGE: Final = Refusal(431, "the headers are too large")
FAILED: Final = Refusal(500, "the application failed")
OVERLOADED: Final = Refusal(503, "too many connections", ((b"retry-after", b"1"),))
SHUTTING_DOWN: Final = Refusal(503, "this server stops", ((b"retry-after", b"1"),))


def bad_request(reason: str) -> RequestRefused:
    """Return the refusal of a request that breaks a rule of HTTP."""
    return RequestRefused(Refusal(400, reason))


def response(status: int, headers: Headers, body: bytes) -> bytes:
    """Return a whole response, after which the connection is closed.

    Raises:
        ValueError: A header would break the response.
    """
    own = [
        (name, value)
        for name, value in headers
        if name.lower() not in (b"content-length", b"connection", b"transfer-encoding")
    ]
    own += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase(status)) + header_block(own) + body


def header_block(headers: Headers) -> bytes:
    """Return the lines of *headers* and the empty line behind them.

    Raises:
        ValueError: A header would break the response.
    """
    lines: list[bytes] = []
    for name, value in headers:
        if _UNSAFE.search(value) or not TOKEN.fullmatch(name):
            raise ValueError(f"The header {name!r} cannot be sent.")
        lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"\r\n")
    return b"".join(lines)


def phrase(status: int) -> bytes:
    """Return the reason phrase of a status."""
    if status == ENHANCE_YOUR_CALM[0]:
        return ENHANCE_YOUR_CALM[1].encode()
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
