"""Operations: the table of the REST API, and the one way every request takes through it.

An :class:`Operation` says what is read, who may ask, what comes back and what may go wrong;
:func:`routes` serves the table and ``openapi`` describes it, so that the two cannot differ. A
handler gets a :class:`Call`, in which everything has been checked, and returns a reply or raises a
``GatewayError``.

Every request: address, method, token, scope, media type, query, position (``at``), body, handler.
Not here: what the operations do (``sessions``, ``reads``, …).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct
from msgspec.json import Decoder, encode
from msgspec.json import format as indented
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.api.problems import new_request_id, problem, unforeseen
from gateway.api.reading import (
    Nothing,
    check_json,
    check_target,
    choose_media,
    has_body,
    read_bytes,
    read_flag,
    read_json,
    read_pairs,
    read_path,
    read_query,
)
from gateway.auth.credentials import (
    check_same_site,
    cors_origin,
    credential,
    networks,
    one_header,
    origins,
)
from gateway.auth.principals import Principal, Scope
from gateway.context import Context, caller_key
from gateway.core.errors import (
    BadPosition,
    BadRequest,
    CloseCode,
    Draining,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    OutcomeUnknown,
)
from gateway.core.position import Position
from gateway.core.query import Filter, View
from gateway.node import Node

JSON: Final = "application/json"
PREFLIGHT_AGE_S: Final = 600  # what Chromium takes at most is 7200; settings change sooner
EXPOSED: Final = "ETag, Gateway-Lag-Ms, Gateway-Position, Location, Retry-After"
ALLOWED: Final = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID"
)
_READ: Final = "gateway.body_read"  # in the scope: nothing of the body is left on the connection
_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"vary", b"Accept, Authorization, Cookie, Origin"),
)
NOBODY: Final = Principal(name="anybody")

Q = TypeVar("Q")
B = TypeVar("B")
Headers = Mapping[str, str]


class Call(Struct, Generic[Q, B], frozen=True, kw_only=True):
    """A request in which everything has been checked that can be without its session.

    Args:
        context: The node and its surroundings.
        principal: Who asks.
        path: The parameters of the path.
        query: The parameters of the query.
        body: The body; ``Nothing()`` where there is none.
        media: The media type to answer with, one of the operation's ``produces``.
        raw_body: The body as it came.
        scope: The ASGI scope, for what is not here.
    """

    context: Context
    principal: Principal
    path: dict[str, str]
    query: Q
    body: B
    media: str
    raw_body: bytes
    scope: AsgiScope

    @property
    def node(self) -> Node:
        """This node."""
        return self.context.node

    def header(self, name: str) -> str | None:
        """Return the value of a header, its name in lower case.

        Raises:
            BadRequest: It came more than once.
        """
        return one_header(self.scope, name.encode())

    def view(self, wanted: Filter) -> View:
        """Return what the caller sees of what it asks for.

        Raises:
            Forbidden: It filters by what it is not shown.
        """
        if wanted.node is not None and not self.principal.is_full:
            raise Forbidden("Only those who may write see nodes.")
        return View(
            filter=wanted, visibility=self.principal.visibility(), full=self.principal.is_full
        )


Handler = Callable[[Call[Q, B]], Awaitable[Response]]


class Operation(Struct, Generic[Q, B], frozen=True, kw_only=True):
    """One row of the table.

    Args:
        method: In capitals.
        path: As Starlette writes it; its parameters are those of ``reading.PATH_TYPES``.
        handler: Does it.
        query: Struct of the query's parameters; ``Nothing`` if there are none.
        body: Struct of the JSON body; ``Nothing``: a body is refused.
        returns: Type of the reply's JSON by status; ``None``: no body.
        summary: One line for people.
        tag: Chapter of the documentation.
        errors: What it raises besides what its other fields bring about.
        scope: What the caller must have; ``None``: any token is enough.
        is_public: Whether no token is asked for.
        token_in_query: Whether ``?token=`` is taken, as browsers' event streams need it.
        produces: Media types of the reply, the default first; JSON is indented by ``pretty``.
        consumes: Media types of the body.
        headers: Request headers that it reads, for the documentation.
    """

    method: str
    path: str
    handler: Handler[Q, B]
    query: type[Q]
    body: type[B]
    returns: Mapping[int, Any]
    summary: str
    tag: str
    errors: tuple[type[GatewayError], ...] = ()
    scope: Scope | None = None
    is_public: bool = False
    token_in_query: bool = False
    produces: tuple[str, ...] = (JSON,)
    consumes: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()


AnyOperation = Operation[Any, Any]


def takes_position(operation: AnyOperation) -> bool:
    """Whether ``at`` makes the operation wait until this node has seen a position."""
    return operation.method == "GET" and not operation.is_public


def routes(operations: Iterable[AnyOperation]) -> list[Route]:
    """Return what serves *operations*; each path answers for all of its methods."""
    paths: dict[str, list[AnyOperation]] = {}
    for operation in operations:
        paths.setdefault(operation.path, []).append(operation)
    return [Route(path, Door(found)) for path, found in paths.items()]


async def not_found(scope: AsgiScope, receive: Receive, send: Send) -> None:
    """Answer for an address that nobody serves (an ASGI app: a router's ``default``)."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": CloseCode.BAD_REQUEST})
        return
    response = problem(NotFound(), new_request_id())
    _finish(scope, response)
    await response(scope, receive, send)


def reply(value: object, status: int = 200, headers: Headers | None = None) -> Response:
    """Return *value* as a JSON reply."""
    return raw_reply(encode(value), status, headers)


def raw_reply(body: bytes, status: int = 200, headers: Headers | None = None) -> Response:
    """Return JSON text as a reply."""
    return Response(body, status, dict(headers or {}), JSON)


class Door:
    """All operations of one path, as an ASGI app."""

    def __init__(self, operations: Iterable[AnyOperation]) -> None:
        self._operations = {operation.method: operation for operation in operations}
        self._decoders = {
            method: Decoder(operation.body) for method, operation in self._operations.items()
        }
        methods = {*self._operations, "OPTIONS"} | ({"HEAD"} & _heads(self._operations))
        self._allow = ", ".join(sorted(methods))

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        context: Context = scope["app"].state.context
        response = await self._answer(context, scope, receive)
        _finish(scope, response, self._allow)
        if scope["method"] != "HEAD":
            await response(scope, receive, send)
            return
        start = {"type": "http.response.start", "status": response.status_code}
        await send({**start, "headers": response.raw_headers})
        await send({"type": "http.response.body"})

    async def _answer(self, context: Context, scope: AsgiScope, receive: Receive) -> Response:
        method = scope["method"]
        operation = self._operations.get("GET" if method == "HEAD" else method)
        principal: Principal | None = None
        try:
            check_target(scope)
            if operation is None:
                if method == "OPTIONS":
                    return Response(status_code=204, headers={"Allow": self._allow})
                raise MethodNotAllowed
            principal = await self._caller(context, scope, operation)
            return await operation.handler(
                await self._call(context, scope, receive, operation, principal)
            )
        except GatewayError as error:
            response = problem(error, new_request_id(), principal)
            if isinstance(error, MethodNotAllowed):
                response.headers["Allow"] = self._allow
            if has_body(scope) and _READ not in scope:
                response.headers["Connection"] = "close"  # what is unread is not the next request
            return response
        except asyncio.CancelledError:  # the server stops, and gave this request its time
            late = Draining() if method in ("GET", "HEAD") else OutcomeUnknown()
            return problem(late, new_request_id(), principal)
        except Exception as error:  # noqa: BLE001 - the top of a request; logged with its traceback
            return unforeseen(error, new_request_id())

    async def _caller(
        self, context: Context, scope: AsgiScope, operation: AnyOperation
    ) -> Principal:
        """Return who sends a request, and count it."""
        settings = context.settings
        shown = credential(scope, in_query=operation.token_in_query)
        if operation.is_public:
            return NOBODY
        trusted = networks(settings.trusted_proxies)
        check_same_site(scope, shown, trusted)
        return await context.counted(scope, context.principal_of(shown), caller_key)

    async def _call(
        self,
        context: Context,
        scope: AsgiScope,
        receive: Receive,
        operation: AnyOperation,
        principal: Principal,
    ) -> Call[Any, Any]:
        if operation.scope is not None:
            principal.require(operation.scope)
        media = choose_media(scope, operation.produces)
        path = read_path(scope["path_params"])
        read = _asked.__wrapped__ if operation.token_in_query else _asked  # tokens are not kept
        kind: type[Struct] = operation.query
        query, at = read(scope["query_string"], kind, takes_position=takes_position(operation))
        if at is not None:
            await _reach(context.node, at)
        body: object = Nothing()
        raw_body = b""
        if operation.body is not Nothing:
            check_json(scope, operation.consumes)
            raw_body = await read_bytes(scope, receive)
            scope[_READ] = True
            body = read_json(raw_body, self._decoders[operation.method])
        elif has_body(scope):
            raise BadRequest("This request takes no body.")
        return Call(
            context=context,
            principal=principal,
            path=path,
            query=query,
            body=body,
            media=media,
            raw_body=raw_body,
            scope=scope,
        )


@lru_cache(maxsize=256)  # of 8 KiB at most; pollers ask the same thing over and over
def _asked(
    query_string: bytes, kind: type[Struct], *, takes_position: bool
) -> tuple[Struct, str | None]:
    """Return what a query asks for, and the position to wait for."""
    pairs = read_pairs({"query_string": query_string})
    universal = ("pretty", "at") if takes_position else ("pretty",)
    query = read_query(pairs, kind, universal)
    read_flag(pairs, "pretty")
    return query, dict(pairs).get("at") if takes_position else None


def _finish(scope: AsgiScope, response: Response, allow: str = "") -> None:
    """Add what every reply says."""
    context: Context = scope["app"].state.context
    raw = response.raw_headers  # each look through ``headers`` costs as much as all of this
    raw.append((b"gateway-position", str(context.node.mirror.position()).encode()))
    if (lag_ms := context.node.feed.lag_ms()) > 0:
        raw.append((b"gateway-lag-ms", str(lag_ms).encode()))
    if all(name != b"cache-control" for name, _ in raw):
        raw.append((b"cache-control", b"private, no-cache"))
    raw += _ALWAYS
    headers = response.headers
    if (origin := _origin(scope, context.settings.allowed_origins)) is not None:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
        headers["Access-Control-Expose-Headers"] = EXPOSED
        if scope["method"] == "OPTIONS":
            headers["Access-Control-Allow-Methods"] = allow
            headers["Access-Control-Allow-Headers"] = ALLOWED
            headers["Access-Control-Max-Age"] = str(PREFLIGHT_AGE_S)
    if b"pretty" in scope["query_string"] and "json" in headers.get("Content-Type", ""):
        _indent(scope, response)


def _origin(scope: AsgiScope, allowed: tuple[str, ...]) -> str | None:
    try:
        return cors_origin(scope, origins(allowed))
    except BadRequest:  # two of them: nobody is allowed
        return None


def _heads(operations: Mapping[str, AnyOperation]) -> set[str]:
    return {"HEAD"} if "GET" in operations else set()


def _indent(scope: AsgiScope, response: Response) -> None:
    body = getattr(response, "body", b"")
    try:
        wanted = read_flag(read_pairs(scope), "pretty")
    except BadRequest:
        return
    if wanted and body:
        response.body = indented(bytes(body), indent=2)
        response.headers["Content-Length"] = str(len(response.body))


async def _reach(node: Node, text: str) -> None:
    position = Position.parse(text)
    if len(position.offsets) != len(node.mirror.offsets):
        raise BadPosition
    await node.reached(position)
