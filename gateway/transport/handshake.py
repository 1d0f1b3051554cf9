"""Handshake: parses a WebSocket request and writes its response (RFC 6455 section 4.2); no I/O.

Not here: authorization and the choice of a subprotocol, which are the application's.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha1
from typing import Final

from msgspec import Struct

from gateway.transport.responses import BAD_REQUEST, TOKEN, Headers, Refusal, header_block

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_KEY_BYTES: Final = 16
_VERSION: Final = b"13"
_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: %b\r\n"
)


_OTHER_VERSION: Final = Refusal(
    426,
    "version of the WebSocket protocol",
    ((b"upgrade", b"websocket"), (b"sec-websocket-version", _VERSION)),
)


class HandshakeRequest(Struct, frozen=True):
    """A valid request for a WebSocket.

    Args:
        accept: Value of ``Sec-WebSocket-Accept``.
        subprotocols: What the client offers, in its order.
    """

    accept: bytes
    subprotocols: list[str]


def read(
    method: str, http_version: str, headers: Sequence[tuple[bytes, bytes]]
) -> HandshakeRequest | Refusal:
    """Parse the head of a request whose ``Upgrade`` and ``Connection`` ask for a WebSocket.

    Args:
        method: As it was sent.
        http_version: As ASGI has it.
        headers: Names in lower case.
    """
    keys: list[bytes] = []
    versions: list[bytes] = []
    offered: list[bytes] = []
    has_body = False
    for name, value in headers:
        match name:
            case b"sec-websocket-key":
                keys.append(value)
            case b"sec-websocket-version":
                versions.append(value.strip())
            case b"sec-websocket-protocol":
                offered.extend(token.strip() for token in value.split(b","))
            case b"transfer-encoding":
                has_body = True
            case b"content-length":
                has_body = bool(value.strip(b"0"))
    if method != "GET" or http_version != "1.1" or len(keys) != 1 or has_body:
        return BAD_REQUEST
    if versions != [_VERSION]:
        return _OTHER_VERSION
    if not _is_key(keys[0]) or not all(TOKEN.fullmatch(token) for token in offered):
        return BAD_REQUEST
    digest = sha1(keys[0] + _GUID, usedforsecurity=False).digest()
    return HandshakeRequest(b64encode(digest), [token.decode() for token in offered])


def _is_key(key: bytes) -> bool:
    try:
        return len(b64decode(key, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def switching(request: HandshakeRequest, subprotocol: str | None, headers: Headers) -> bytes:
    """Return the response that opens the WebSocket.

    Raises:
        ValueError: A header would break the response.
    """
    more = [*headers]
    if subprotocol is not None:
        more.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
    return _SWITCHING % request.accept + header_block(more)
