"""ASGI applications of the transport itself: one around every other, and one for ``OPTIONS *``."""

import logging
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

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
        await self._app(scope, receive, send)
        cycle = self._cycle
        if cycle.response_started and not cycle.response_complete and not cycle.disconnected:
            log.debug("a response was left incomplete")
            cycle.disconnected = True
            cycle.transport.abort()


async def describe_server(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Respond to ``OPTIONS *``, which asks about no path (RFC 9110 section 9.3.7)."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", METHODS)]})
    await send({"type": "http.response.body"})
