"""ASGI applications of the transport itself: one around every other, and one for ``OPTIONS *``."""

import logging
import sys
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.transport.uvicorn_internals import RequestResponseCycle

METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"  # each is taken by some path

log = logging.getLogger(__name__)


class CompleteOrAbort:
    """Application that aborts the connection if another one leaves its response incomplete.

    The client would otherwise take what it got for the whole response.

    Args:
        app: The other application.
        cycle: uvicorn's state of the response.
    """

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        cycle = self._cycle
        await self._app(scope, receive, _Unchunked(cycle, send) if _is_old(scope) else send)
        if cycle.response_started and not cycle.response_complete and not cycle.disconnected:
            log.debug("a response was left incomplete")
            cycle.disconnected = True
            cycle.transport.abort()


class _Unchunked:
    """``send`` for a client of HTTP/1.0, which knows no chunks (RFC 9112 section 6.1).

    A response without a length ends with its connection. uvicorn would send chunks, and so it is
    told a length that no body reaches, and in the end the one that was reached.
    """

    def __init__(self, cycle: RequestResponseCycle, send: Send) -> None:
        self._cycle = cycle
        self._send = send
        self._has_length = False

    async def __call__(self, message: Message) -> None:
        cycle = self._cycle
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            self._has_length = b"content-length" in names
            if not self._has_length:
                cycle.chunked_encoding, cycle.expected_content_length = False, sys.maxsize
        elif not self._has_length and not message.get("more_body", False):
            cycle.expected_content_length = len(message.get("body", b""))
        await self._send(message)


def _is_old(scope: Scope) -> bool:
    return bool(scope["http_version"] == "1.0")


async def describe_server(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Respond to ``OPTIONS *``, which asks about no path (RFC 9110 section 9.3.7)."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", METHODS)]})
    await send({"type": "http.response.body"})
