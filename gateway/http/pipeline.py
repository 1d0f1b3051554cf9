"""The pipeline: the steps of every HTTP request, at every door.

The steps are: target and method, guard and credential, rate, scope, then what the style reads
(media type, query, position, body), handler, reply. The style renders an error of any step; the
pipeline adds CORS and the other headers that all doors have, and counts requests.

Not here: requests that break HTTP itself (``transport``), what an endpoint does (the doors).
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from msgspec import Struct
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.context import Context, door_of
from gateway.core.errors import (
    BadRequest,
    CloseCode,
    Draining,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    OutcomeUnknown,
    Unauthorized,
)
from gateway.http.answers import tell_answer
from gateway.http.cors import cors_headers
from gateway.http.endpoint import Call, Match, Nothing
from gateway.http.request import Request, check_target
from gateway.http.style import Style
from gateway.metrics import REFUSALS

_ANSWERED_LATER: Final = frozenset({420, 429, 503, 504})  # replies with ``Retry-After``

log = logging.getLogger(__name__)


class NoSuchPath(NotFound):
    """There is nothing at this path."""


class Pipeline:
    """An API over HTTP, as an ASGI application.

    Args:
        context: The node and its surroundings.
        style: The style of the API.
    """

    def __init__(self, context: Context, style: Style[Any]) -> None:
        traits = style.traits
        self._context = context
        self._style = style
        self._cache_control = (b"cache-control", traits.cache_control.encode())
        self._always = [
            (b"x-content-type-options", b"nosniff"),
            (b"vary", traits.vary.encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request, begun_s = Request(scope, receive), time.monotonic()
        response, allowed = await self._answer(request)
        self._finish(request, response, allowed)
        tell_answer(
            self._context, scope, response, request.refusal, (time.monotonic() - begun_s) * 1000
        )
        if request.method != "HEAD":
            await response(scope, receive, send)
            return
        start = {"type": "http.response.start", "status": response.status_code}
        await send({**start, "headers": response.raw_headers})
        await send({"type": "http.response.body"})

    async def answer(self, request: Request) -> Response:
        """Return the reply to a request inside another one; the outer one has the headers."""
        response, _ = await self._answer(request)
        return response

    async def _answer(self, request: Request) -> tuple[Response, tuple[str, ...]]:
        allowed: tuple[str, ...] = ()
        caller: object = None
        traits = self._style.traits
        request.body_bounds = traits.body_max_bytes, traits.body_discard_bytes
        try:
            check_target(request)
            match = self._style.match(request)
            endpoint, allowed = match.endpoint, match.allowed
            if match.method == "OPTIONS" and endpoint is None and allowed:
                return self._options(allowed), allowed
            if endpoint is None and not traits.credential_first:
                raise _missing(match)
            if endpoint is not None and endpoint.is_public:
                caller = traits.nobody
            else:
                asking = self._style.credential(request, endpoint)
                if traits.counts_callers:
                    asking = self._context.rate_limited(request.scope, asking, traits.rate_key)
                caller = await asking
            if endpoint is None:
                raise _missing(match)
            traits.authorize(caller, endpoint)
            if traits.refuses_body and endpoint.body is Nothing and request.has_body:
                raise BadRequest("This request takes no body.")
            reading = await self._style.read(endpoint, request, match.names)
            response = await endpoint.handler(
                Call(
                    context=self._context,
                    caller=caller,
                    path=match.names,
                    query=reading.query,
                    body=reading.body,
                    media=reading.media,
                    request=request,
                )
            )
        except GatewayError as error:
            response = self._refuse(error, request, caller, allowed)
        except asyncio.CancelledError:  # the server stops, and this request took too long
            late = Draining() if request.method in ("GET", "HEAD") else OutcomeUnknown()
            response = self._refuse(late, request, caller, allowed)
        except Exception:
            about = {"method": request.method, "door": door_of(request.scope)}
            log.exception("a request failed", extra=about)
            response = self._refuse(GatewayError(), request, caller, allowed)
        return response, allowed

    def _options(self, allowed: tuple[str, ...]) -> Response:
        status = self._style.traits.options_status
        return Response(status_code=status, headers={"Allow": ", ".join(allowed)})

    def _refuse(
        self, error: GatewayError, request: Request, caller: object, allowed: tuple[str, ...]
    ) -> Response:
        REFUSALS.labels(error.code).inc()
        request.refusal = error
        response = self._style.refuse(error, request, caller)
        headers = response.headers
        headers.setdefault("Cache-Control", "no-store")
        challenge = self._style.traits.challenge
        if isinstance(error, Unauthorized) and challenge is not None:
            headers["WWW-Authenticate"] = challenge
        if isinstance(error, MethodNotAllowed):
            headers["Allow"] = ", ".join(allowed)
        if response.status_code == HTTPStatus.UPGRADE_REQUIRED:  # RFC 9110 section 15.5.22
            headers["Upgrade"], headers["Connection"] = "websocket", "upgrade"
        if error.retry_after_s is not None and response.status_code in _ANSWERED_LATER:
            headers["Retry-After"] = str(error.retry_after_s)
        return response

    def _finish(self, request: Request, response: Response, allowed: tuple[str, ...]) -> None:
        """Add the headers that every reply has."""
        context, traits = self._context, self._style.traits
        raw = response.raw_headers  # ``headers`` would search the list for each header
        if traits.tells_position:
            raw.append((b"gateway-position", str(context.node.position()).encode()))
        if (lag_ms := context.node.lag_ms()) > 0:
            raw.append((b"gateway-lag-ms", str(lag_ms).encode()))
        if all(name != b"cache-control" for name, _ in raw):
            raw.append(self._cache_control)
        if request.has_body and not request.is_read:  # the unread rest is not the next request
            raw.append((b"connection", b"close"))
        raw += self._always
        raw += cors_headers(request, context.settings.allowed_origins, traits, allowed)
        self._style.finish(request, response)


def _missing(match: Match) -> GatewayError:
    return MethodNotAllowed() if match.allowed else NoSuchPath()


class Application(Struct, frozen=True):
    """One API below its prefix: its HTTP endpoints and its WebSockets.

    Args:
        http: Answers every HTTP request.
        sockets: WebSocket applications by path.
    """

    http: Pipeline
    sockets: Mapping[str, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] != "websocket":
            await self.http(scope, receive, send)
            return
        path: str = scope["path"]
        socket = self.sockets.get(path.removeprefix(scope.get("root_path", "")))
        if socket is None:
            await send({"type": "websocket.close", "code": CloseCode.BAD_REQUEST})
        else:
            await socket(scope, receive, send)
