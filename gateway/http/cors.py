"""CORS: which pages of other origins may read a reply, and what they may send (WHATWG Fetch 3.2).

Pages of an origin in ``allowed_origins`` may use every door; other pages get no CORS headers. The
origins are the same for all doors; the headers that may be sent and read are data of the style.
"""

from collections.abc import Iterable
from typing import Final

from gateway.auth.credentials import cors_origin, headers, origins
from gateway.core.errors import BadRequest
from gateway.http.request import Request
from gateway.http.style import Traits

PREFLIGHT_AGE_S: Final = 600  # Chromium keeps an answer for 7200 s at most; settings change sooner
REQUESTED_MAX: Final = 2048  # characters of the names of headers that a page asks for

Headers = list[tuple[bytes, bytes]]


def cors_headers(
    request: Request, allowed_origins: tuple[str, ...], traits: Traits, methods: Iterable[str]
) -> Headers:
    """Return the headers that let the page of this request read the reply, if it may.

    Args:
        request: The request.
        allowed_origins: The origins of the settings.
        traits: The traits of the door's style.
        methods: The methods of this path, for the answer to a preflight.
    """
    scope = request.scope
    if not any(name == b"origin" for name, _ in scope["headers"]):
        return []
    try:
        origin = cors_origin(scope, origins(allowed_origins))
    except BadRequest:  # a request with two origins has none
        return []
    if origin is None:
        return []
    found = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", traits.exposes.encode()),
    ]
    if request.method == "OPTIONS":
        found += [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", _sendable(request, traits)),
            (b"access-control-max-age", str(PREFLIGHT_AGE_S).encode()),
        ]
    return found


def _sendable(request: Request, traits: Traits) -> bytes:
    """Return the headers that a page may send: those of the style, or all that it asks for."""
    if traits.allows is not None:
        return traits.allows.encode()
    asked = headers(request.scope, b"access-control-request-headers")
    return ", ".join(asked)[:REQUESTED_MAX].encode("latin-1")
