"""Handshake: reads a request for a WebSocket and writes the answer (RFC 6455 section 4.2); no I/O.

Not here: who may come in and which subprotocol is spoken; the application says so.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha1
from http import HTTPStatus
from secrets import token_hex
from typing import Final

from msgspec import Struct
from msgspec.json import encode

from gateway.core.errors import BadRequest, Overloaded, UpgradeRequired, UriTooLong

Headers = Iterable[tuple[bytes, bytes]]

ENHANCE_YOUR_CALM: Final = (420, "Enhance Your Calm")  # not registered; some dialects' products say

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_KEY_BYTES: Final = 16
_VERSION: Final = b"13"
_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: %b\r\n"
)
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_UNSAFE: Final = re.compile(rb"[\x00\r\n]")


class Refusal(Struct, frozen=True):
    """Why a request is not taken any further; told as a problem document (RFC 9457)."""

    status: int
    code: str
    title: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def answer(self, headers: Headers = ()) -> bytes:
        """Return the whole answer, after which the connection is closed."""
        document = {
            "type": f"/docs#{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.title,
            "code": self.code,
            "request_id": token_hex(8),
        }
        own = ((b"content-type", b"application/problem+json"), (b"cache-control", b"no-store"))
        return answer(self.status, [*headers, *own, *self.headers], encode(document))


BAD_REQUEST: Final = Refusal(400, BadRequest.code, BadRequest.title)
URL_TOO_LONG: Final = Refusal(414, UriTooLong.code, UriTooLong.title)
HEADERS_TOO_LARGE: Final = Refusal(431, "headers_too_large", "The headers are too large.")
TOO_LATE: Final = Refusal(408, "request_timeout", "The request took too long to arrive.")
OVERLOADED: Final = Refusal(
    503, Overloaded.code, "There are too many connections.", ((b"retry-after", b"1"),)
)
SHUTTING_DOWN: Final = Refusal(
    503, "draining", "This node is shutting down.", ((b"retry-after", b"1"),)
)
FAILED: Final = Refusal(500, "internal", "The gateway failed to handle this request.")
_OTHER_VERSION: Final = Refusal(
    426,
    UpgradeRequired.code,
    "This server speaks version 13 of the WebSocket protocol.",
    ((b"upgrade", b"websocket"), (b"sec-websocket-version", _VERSION)),
)


class Request(Struct, frozen=True):
    """A good request for a WebSocket.

    Args:
        accept: What proves to the client that its request was understood.
        subprotocols: What the client offers, in its order.
    """

    accept: bytes
    subprotocols: list[str]


def read(
    method: str, http_version: str, headers: Sequence[tuple[bytes, bytes]]
) -> Request | Refusal:
    """Read the head of a request whose ``Upgrade`` and ``Connection`` ask for a WebSocket.

    Args:
        method: As it was sent.
        http_version: As ASGI has it.
        headers: Names in lower case.
    """
    keys: list[bytes] = []
    versions: list[bytes] = []
    offered: list[bytes] = []
    hosts = 0
    for name, value in headers:
        match name:
            case b"sec-websocket-key":
                keys.append(value)
            case b"sec-websocket-version":
                versions.append(value.strip())
            case b"sec-websocket-protocol":
                offered.extend(token.strip() for token in value.split(b","))
            case b"host":
                hosts += 1
    if method != "GET" or http_version != "1.1" or hosts != 1 or len(keys) != 1:
        return BAD_REQUEST
    if versions != [_VERSION]:
        return _OTHER_VERSION
    if not _is_key(keys[0]) or not all(_TOKEN.fullmatch(token) for token in offered):
        return BAD_REQUEST
    digest = sha1(keys[0] + _GUID, usedforsecurity=False).digest()
    return Request(b64encode(digest), [token.decode() for token in offered])


def _is_key(key: bytes) -> bool:
    try:
        return len(b64decode(key, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def switching(request: Request, subprotocol: str | None, headers: Headers) -> bytes:
    """Return the answer that opens the WebSocket.

    Raises:
        ValueError: A header would break the answer.
    """
    more = [*headers]
    if subprotocol is not None:
        more.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
    return _SWITCHING % request.accept + _lines(more)


def answer(status: int, headers: Headers, body: bytes) -> bytes:
    """Return a whole HTTP answer, after which the connection is closed.

    Raises:
        ValueError: A header would break the answer.
    """
    own = [
        (name, value)
        for name, value in headers
        if name.lower() not in (b"content-length", b"connection", b"transfer-encoding")
    ]
    own += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase(status)) + _lines(own) + body


def _lines(headers: Headers) -> bytes:
    lines: list[bytes] = []
    for name, value in headers:
        if _UNSAFE.search(value) or not _TOKEN.fullmatch(name):
            raise ValueError(f"The header {name!r} cannot be sent.")
        lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"\r\n")
    return b"".join(lines)


def phrase(status: int) -> bytes:
    """Return what stands behind a status for people."""
    if status == ENHANCE_YOUR_CALM[0]:
        return ENHANCE_YOUR_CALM[1].encode()
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
