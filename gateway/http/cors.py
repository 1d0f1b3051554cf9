"""CORS: which pages of other origins may read a reply, and what they may send (WHATWG Fetch 3.2).

Pages of an origin in ``allowed_origins`` may use every door; nobody else is answered a header. A
list is the same for all doors; what may be sent and read is data of the style.
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
    """Return the headers that let the page that asks read the reply; none if it may not.

    Args:
        request: The request.
        allowed_origins: As the operator set them.
        traits: Of the door's style.
        methods: What may be done at this path, told to a preflight.
    """
    scope = request.scope
    if not any(name == b"origin" for name, _ in scope["headers"]):
        return []
    try:
        origin = cors_origin(scope, origins(allowed_origins))
    except BadRequest:  # two origins are nobody's
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
    """Return the names of headers that a page may send; all that it asks for if the style says."""
    if traits.allows is not None:
        return traits.allows.encode()
    asked = headers(request.scope, b"access-control-request-headers")
    return ", ".join(asked)[:REQUESTED_MAX].encode("latin-1")
