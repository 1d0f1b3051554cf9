"""Door: the one way that every request of this dialect takes, and every reply.

Address, effective method, caller, endpoint, right, body, handler. The effective method may come
from ``X-HTTP-Method-Override``; rights are judged by it, not by the one on the wire. The version in
an address is optional, slashes at its end are ignored, and links repeat the version if it was
there. What nobody serves is 404 for every method that MaxScale knows, and 405 for others.
Not here: who the caller is (``access``), what the endpoints do (``routes``).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from msgspec import Struct
from msgspec.json import encode
from msgspec.json import format as indented
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import (
    client_address,
    cors_origin,
    headers,
    networks,
    one_header,
    origins,
)
from gateway.auth.principals import Principal, Scope
from gateway.context import Context
from gateway.core.errors import (
    BadRequest,
    Draining,
    Forbidden,
    GatewayError,
    Invalid,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    SessionClosed,
    Unauthorized,
    UriTooLong,
)
from gateway.dialects.maxscale.access import Access
from gateway.dialects.maxscale.conditions import Seen
from gateway.dialects.maxscale.query import Query
from gateway.dialects.maxscale.shapes import Scene, error_document

JSON: Final = "application/json"
BODY_MAX_BYTES: Final = 64 * 1024  # a partial resource is far smaller
DISCARD_MAX_BYTES: Final = 1024 * 1024  # is read to the end, so that the refusal is heard
BODY_WITHIN_S: Final = 5.0
TARGET_MAX: Final = 8 * 1024  # bytes of path and query
VERSION: Final = "v1"
INDENT: Final = 4
METHODS: Final = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS")
NOBODY: Final = Principal(name="anybody")
EXPOSED: Final = "ETag, Gateway-Lag-Ms, Last-Modified, Mxs-Warning, Retry-After"
ALLOWED: Final = (
    "Authorization, Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Unmodified-Since,"
    " X-HTTP-Method-Override, X-Requested-With"
)
ALWAYS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "same-origin",
    "Vary": "Authorization, Cookie, Origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "Deny",
    "X-XSS-Protection": "1",
}

log = logging.getLogger(__name__)


class Call(Struct, frozen=True, kw_only=True):
    """A request in which everything has been checked that can be without its session.

    Args:
        context: The node and its surroundings.
        access: Logs in and issues tokens.
        seen: Dates of what was shown.
        principal: Who asks.
        names: The variable parts of the path, in order.
        query: The parameters.
        headers: Names in lower case; repeated ones joined by commas.
        body: As it came.
        scene: What renderings depend on.
        scope: The ASGI scope, for what is not here.
    """

    context: Context
    access: Access
    seen: Seen
    principal: Principal
    names: tuple[str, ...]
    query: Query
    headers: Mapping[str, str]
    body: bytes
    scene: Scene
    scope: AsgiScope

    @property
    def is_pretty(self) -> bool:
        """Whether the reply is indented; the seed's server did so only when asked."""
        return self.query.is_pretty(default=not self.scene.is_seed)

    def reply(self, value: object, extra: Mapping[str, str] | None = None) -> Response:
        """Return a document as a reply."""
        text = encode(value)
        body = indented(text, indent=INDENT) if self.is_pretty else text
        return Response(body, 200, dict(extra or {}), JSON)


Handler = Callable[[Call], Awaitable[Response]]


class Endpoint(Struct, frozen=True, kw_only=True):
    """One row of the table.

    Args:
        method: In capitals.
        path: Without the version; a part in braces takes any text.
        handler: Does it.
        summary: One line for people.
        returns: The Struct of the reply; ``None``: an empty one.
        body: The Struct of the body; ``None``: what comes is not read.
        scope: What the caller must have; ``None``: any login is enough.
        is_public: Whether nobody is asked who he is.
        is_conditional: Whether validators are sent, and judged.
        parameters: Of the query, with a line for people.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    returns: Any = None
    body: Any = None
    scope: Scope | None = None
    is_public: bool = False
    is_conditional: bool = False
    parameters: Mapping[str, str] = {}

    def names(self, parts: list[str]) -> tuple[str, ...] | None:
        """Return the variable parts of a path, ``None`` if this is not its endpoint."""
        own = self.path.split("/") if self.path else []
        if len(own) != len(parts):
            return None
        pairs = list(zip(own, parts, strict=True))
        if any(pattern != part for pattern, part in pairs if pattern[0] != "{"):
            return None
        return tuple(part for pattern, part in pairs if pattern[0] == "{")


class Door:
    """All addresses of the dialect, as an ASGI app."""

    def __init__(self, context: Context, endpoints: Iterable[Endpoint]) -> None:
        self._context = context
        self._endpoints = tuple(endpoints)
        self._access = Access(context)
        self._seen = Seen()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(scope, receive)
        self._finish(scope, response)
        if scope["method"] != "HEAD":
            await response(scope, receive, send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": response.raw_headers,
            }
        )
        await send({"type": "http.response.body"})

    async def _answer(self, scope: AsgiScope, receive: Receive) -> Response:
        try:
            return await self._handle(scope, receive)
        except GatewayError as error:
            return _refusal(scope, error)
        except Exception:  # the top of a request
            log.exception("a request failed")
            return told(500, "Internal error")

    async def _handle(self, scope: AsgiScope, receive: Receive) -> Response:
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > TARGET_MAX:
            raise UriTooLong
        method = (one_header(scope, b"x-http-method-override") or scope["method"]).upper()
        wanted = "GET" if method == "HEAD" else method
        parts = _parts(scope)
        is_versioned = parts[:1] == [VERSION]
        found = {
            endpoint.method: (endpoint, names)
            for endpoint in reversed(self._endpoints)  # of two that fit the first counts
            if (names := endpoint.names(parts[is_versioned:])) is not None
        }
        if found and method == "OPTIONS":
            return _options(found)
        endpoint, names = found.get(wanted, (None, ()))
        principal = NOBODY
        if endpoint is None or not endpoint.is_public:
            principal = await self._access.caller({**scope, "method": method})
        if method not in METHODS:
            raise MethodNotAllowed
        if endpoint is None:
            raise NotFound
        if endpoint.scope is not None:
            principal.require(endpoint.scope)
        call = Call(
            context=self._context,
            access=self._access,
            seen=self._seen,
            principal=principal,
            names=names,
            query=Query.parse(scope["query_string"]),
            headers=_by_name(scope),
            body=b"" if endpoint.body is None else await _read(scope, receive),
            scene=self._scene(scope, principal, is_versioned=is_versioned),
            scope=scope,
        )
        return await endpoint.handler(call)

    def _scene(self, scope: AsgiScope, principal: Principal, *, is_versioned: bool) -> Scene:
        settings = self._context.settings
        tls = client_address(scope, networks(settings.trusted_proxies)).tls
        host = one_header(scope, b"host") or "localhost"  # HTTP/1.0 needs none
        root = f"{'https' if tls else 'http'}://{host}{scope.get('root_path', '')}/"
        return Scene(
            base=f"{root}{VERSION}/" if is_versioned else root,
            now_ms=self._context.node.clock.now_ms(),
            is_seed=settings.maxscale_generation == "seed",
            is_full=principal.is_full,
        )

    def _finish(self, scope: AsgiScope, response: Response) -> None:
        """Add what every reply says."""
        said = response.headers
        for name, value in ALWAYS.items():
            said.setdefault(name, value)
        if (lag_ms := self._context.node.replicator.lag_ms()) > 0:
            said["Gateway-Lag-Ms"] = str(lag_ms)
            said["Mxs-Warning"] = f"This is {lag_ms} ms old: the store does not answer"
        if len(headers(scope, b"origin")) != 1:
            return  # not a page of another origin, or nobody's page
        origin = cors_origin(scope, origins(self._context.settings.allowed_origins))
        if origin is not None:
            said["Access-Control-Allow-Origin"] = origin
            said["Access-Control-Allow-Credentials"] = "true"
            said["Access-Control-Expose-Headers"] = EXPOSED
            if "Allow" in said:
                said["Access-Control-Allow-Methods"] = said["Allow"]
                said["Access-Control-Allow-Headers"] = ALLOWED


def _options(found: Iterable[str]) -> Response:
    """Return what may be done here; MaxScale tells it in a header named ``Accept``."""
    methods = {*found, "OPTIONS"} | ({"HEAD"} if "GET" in found else set())
    text = ", ".join(method for method in METHODS if method in methods)
    return Response(status_code=200, headers={"Accept": text, "Allow": text})


def _refusal(scope: AsgiScope, error: GatewayError) -> Response:
    """Return what MaxScale would say."""
    match error:
        case Unauthorized():
            response = told(401, "Access denied")
            # A page that asks by script shows a login of its own, not the browser's.
            if "XMLHttpRequest" not in headers(scope, b"x-requested-with"):
                response.headers["WWW-Authenticate"] = 'Basic realm="maxscale"'
        case Forbidden():
            response = told(403, "Administrative access required", error.detail)
        case SessionClosed():
            response = told(404, error.detail)
        case Invalid():
            response = told(400, error.detail)
        case Draining():
            response = told(503, "MaxScale is shutting down")
        case _:
            response = told(error.status, error.detail)
    if isinstance(error, PayloadTooLarge):
        response.headers["Connection"] = "close"  # what is unread is not the next request
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def told(status: int, *details: str) -> Response:
    """Return a reply that tells what went wrong."""
    return Response(encode(error_document(*details)), status, media_type=JSON)


def _parts(scope: AsgiScope) -> list[str]:
    """Return the parts of the path below the mount, decoded one by one: a name may hold a slash.

    Raises:
        BadRequest: The path is not UTF-8.
    """
    root = scope.get("root_path", "")
    raw = (scope.get("raw_path") or b"").decode("latin-1")
    if not raw.startswith(root) or not raw:  # spelled otherwise, or a server that does not tell
        raw = quote(scope["path"])
    try:
        path = raw.removeprefix(root).strip("/")
        return [unquote(part, errors="strict") for part in path.split("/")] if path else []
    except UnicodeDecodeError as error:
        raise BadRequest("The path is not UTF-8.") from error


def _by_name(scope: AsgiScope) -> dict[str, str]:
    """Return the headers; lines of one name are one list (RFC 9110 section 5.3)."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


async def _read(scope: AsgiScope, receive: Receive) -> bytes:
    """Return the body.

    Raises:
        PayloadTooLarge: It is over 64 KiB.
        BadRequest: There is none, it did not come within 5 s, or the caller went away.
    """
    length = one_header(scope, b"content-length") or "0"
    if not length.isdecimal() or int(length[:9]) > DISCARD_MAX_BYTES:
        raise PayloadTooLarge
    body, size, more = bytearray(), 0, True
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            while more and size <= DISCARD_MAX_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BadRequest("The body ended too early.")
                chunk, more = message.get("body", b""), message.get("more_body", False)
                size += len(chunk)
                if size <= BODY_MAX_BYTES:
                    body += chunk
    except TimeoutError:
        raise BadRequest("The body did not come in time.") from None
    if size > BODY_MAX_BYTES:
        raise PayloadTooLarge
    if not body:
        raise BadRequest("Missing request body")
    return bytes(body)
