"""ASGI applications of the transport itself: one around every other, and one for ``OPTIONS *``."""

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.logs.request import current, mark_in
from gateway.transport.uvicorn_internals import RequestResponseCycle

METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"  # each is taken by some path

log = logging.getLogger(__name__)


class WholeResponses:
    """Application around another one; its clients get whole responses, or see that they do not.

    If the other leaves a response incomplete, the connection is aborted, because the client would
    take what it got for the whole. If it closes the connection while the client is still sending
    its body, the close lingers, because the client would lose the response.

    Args:
        app: The other application.
        cycle: uvicorn's state of the response.
        linger: Closes the connection, but takes what the client still sends.
    """

    def __init__(
        self, app: ASGIApp, cycle: RequestResponseCycle, linger: Callable[[], None]
    ) -> None:
        self._app = app
        self._cycle = cycle
        self._linger = linger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        cycle = self._cycle
        current.set(mark_in(scope))
        if cycle.more_body:
            send = partial(self._send_before_body, send)
        if scope["http_version"] == "1.0":
            send = _Unchunked(cycle, send)
        await self._app(scope, receive, send)
        if cycle.response_started and not cycle.response_complete and not cycle.disconnected:
            log.debug("a response was left incomplete")
            cycle.disconnected = True
            cycle.transport.abort()

    async def _send_before_body(self, send: Send, message: Message) -> None:
        cycle = self._cycle
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and cycle.more_body and not cycle.keep_alive:
            cycle.keep_alive = True  # or uvicorn would close it now
            await send(message)
            self._linger()
        else:
            await send(message)


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


async def describe_server(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Respond to ``OPTIONS *``, which asks about no path (RFC 9110 section 9.3.7)."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", METHODS)]})
    await send({"type": "http.response.body"})
