"""One way for every request to Gameye's paths, and the shape of the table that lists them.

Address, method, token, scope, body, handler; whatever goes wrong is told in Gameye's one shape of
an error. Gameye's scopes are ours: ``session:start`` and players are ``write``, ``session:stop`` is
``close``, and everything that reads shows what the token may see through any door.
Not here: which paths there are (``routes``), what they do (``sessions``, ``players``, ``places``).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct
from msgspec.json import encode
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import one_header
from gateway.auth.principals import Principal, Scope
from gateway.context import Context, caller_key
from gateway.core.errors import (
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
)
from gateway.dialects.gameye.errors import failed
from gateway.dialects.gameye.reading import read_body, read_bytes, read_pairs
from gateway.dialects.gameye.shapes import Home
from gateway.node import Node

JSON: Final = "application/json"
PORT: Final = 443  # of a gateway on a free port; Gameye's client reads the first one of any list
NOBODY: Final = Principal(name="anybody")

B = TypeVar("B")


class Call(Struct, Generic[B], frozen=True, kw_only=True):
    """A request that may be served.

    Args:
        context: The node and its surroundings.
        principal: Who asks.
        path: The parameters of the path.
        pairs: The parameters of the query, in order.
        body: The body; ``None`` where there is none.
        root: What stands before Gameye's own paths.
    """

    context: Context
    principal: Principal
    path: dict[str, str]
    pairs: list[tuple[str, str]]
    body: B
    root: str = ""

    @property
    def node(self) -> Node:
        """This node."""
        return self.context.node

    @property
    def home(self) -> Home:
        """Where a session is that says nothing of it."""
        settings = self.context.settings
        return Home(settings.gameye_host, settings.port or PORT)


class Parameter(Struct, frozen=True):
    """A parameter of a query, for the documentation."""

    name: str
    kind: Any
    description: str
    required: bool = False


class Operation(Struct, Generic[B], frozen=True, kw_only=True):
    """One row of the table.

    Args:
        method: In capitals.
        path: As Starlette writes it.
        handler: Does it.
        summary: One line for people.
        status: Of a success.
        returns: What a success holds: a Struct, a media type, or nothing.
        scope: What the caller must have; ``None``: not even a token.
        body: Struct of the body, or ``None``.
        parameters: Of the query.
        errors: What it answers besides what every request may.
    """

    method: str
    path: str
    handler: Callable[[Call[B]], Awaitable[Response]]
    summary: str
    status: int = 200
    returns: type[Struct] | str | None = None
    scope: Scope | None = Scope.READ
    body: type[B] | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[type[GatewayError], ...] = ()


AnyOperation = Operation[Any]


def reply(value: Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return *value* as a JSON answer."""
    return Response(encode(value), status, dict(headers or {}), JSON)


class Door:
    """All operations of one path, as an ASGI app; without any, a path that does not exist."""

    def __init__(self, context: Context, operations: Iterable[AnyOperation] = ()) -> None:
        self._context = context
        self._operations = {operation.method: operation for operation in operations}
        methods = {*self._operations, "OPTIONS"}
        self._allow = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(scope, receive)
        response.headers.setdefault("Cache-Control", "private, no-cache")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Vary"] = "Authorization"
        await response(scope, receive, send)

    async def _answer(self, scope: AsgiScope, receive: Receive) -> Response:
        try:
            return await self._done(scope, receive)
        except GatewayError as error:
            response = failed(error, scope, self._context.wall_ms())
            if isinstance(error, MethodNotAllowed):
                response.headers["Allow"] = self._allow
            return response
        except Exception as error:  # noqa: BLE001 - the top of a request; logged with its traceback
            return failed(GatewayError(), scope, self._context.wall_ms(), error)

    async def _done(self, scope: AsgiScope, receive: Receive) -> Response:
        if not self._operations:
            raise NotFound("There is no such path.")
        method = scope["method"]
        if method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._allow})
        operation = self._operations.get("GET" if method == "HEAD" else method)
        if operation is None:
            raise MethodNotAllowed(f"Allowed are {self._allow}.")
        pairs = read_pairs(scope)
        principal = NOBODY
        if operation.scope is not None:
            principal = await _caller(self._context, scope)
            _check_scope(principal, operation.scope)
        body = None
        if operation.body is not None:
            body = read_body(await read_bytes(scope, receive), operation.body)
        return await operation.handler(
            Call(
                context=self._context,
                principal=principal,
                path=scope["path_params"],
                pairs=pairs,
                body=body,
                root=scope.get("root_path", ""),
            )
        )


async def _caller(context: Context, scope: AsgiScope) -> Principal:
    """Return who sends a request: a bearer token in the header, and nowhere else.

    Raises:
        Unauthorized: There is none, or none that is good.
        RateLimited: It asks too often.
    """
    kind, _, token = (one_header(scope, b"authorization") or "").partition(" ")
    if kind.lower() != "bearer":
        raise Unauthorized("Send a token as Authorization: Bearer.")
    asking = context.authenticator.authenticate(token.strip(), context.wall_ms())
    return await context.rate_limited(scope, asking, caller_key)


def _check_scope(principal: Principal, scope: Scope) -> None:
    """Refuse who may not do that; who sees anything at all may read.

    Raises:
        Forbidden: The token lacks the scope.
    """
    if scope is not Scope.READ:
        principal.require(scope)
    elif principal.visibility().by == "nothing":
        raise Forbidden("The scope read is needed.")
