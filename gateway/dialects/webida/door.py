"""Door: how a request of a Webida client is read and answered, whatever it asks.

Who asks comes first: a request without a good token is told so before anything is said of its
parameters. Every end of a handler becomes an answer here, also those nobody foresaw.

Not here: what the paths do (``sessions``, ``people``).
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.json import encode
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import cors_origin, one_header, origins
from gateway.auth.principals import Principal
from gateway.context import Context, caller_key
from gateway.core.errors import GatewayError, MethodNotAllowed
from gateway.dialects.webida.access import Access, Caller
from gateway.dialects.webida.errors import JSON, NoSuchPath, failed
from gateway.dialects.webida.reading import Pairs, read_pairs
from gateway.node import Node

PREFLIGHT_AGE_S: Final = 600  # how long a browser may remember what it may send
ALLOWED_HEADERS: Final = "Authorization, Content-Type, Accept"
NOBODY: Final = Caller(principal=Principal(name="anybody"))

log = logging.getLogger(__name__)


class Call(Struct, frozen=True, kw_only=True):
    """One request.

    Args:
        context: The node and its surroundings.
        access: Tokens.
        caller: Who asks; nobody where no token is needed.
        path: The parameters of the path.
        pairs: The parameters of the query, in order.
        scope: The ASGI scope, for the body.
        receive: The same.
    """

    context: Context
    access: Access
    caller: Caller
    path: Mapping[str, str]
    pairs: Pairs
    scope: AsgiScope
    receive: Receive

    @property
    def node(self) -> Node:
        """This node."""
        return self.context.node

    @property
    def principal(self) -> Principal:
        """What the caller may do."""
        return self.caller.principal

    @property
    def is_c(self) -> bool:
        """Whether generation C is spoken."""
        return self.context.settings.webida_generation == "C"


Handler = Callable[[Call], Awaitable[Response]]


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path.

    Args:
        method: In capitals.
        path: As Starlette writes it.
        handler: Does it.
        summary: One line for people.
        returns: What a success may hold, as types; the second one is generation C's.
        parameters: Of the query: name, type, whether it is required.
        body: What the request holds, as a type.
        is_public: Whether it needs no token.
        errors: What it answers besides what every request may.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    returns: tuple[Any, ...]
    parameters: tuple[tuple[str, Any, bool], ...] = ()
    body: Any = None
    is_public: bool = False
    errors: tuple[type[GatewayError], ...] = ()


def reply(value: object) -> Response:
    """Return *value* as an answer; a success is always 200 with JSON."""
    return Response(encode(value), media_type=JSON)


class Door:
    """All operations of one path, as an ASGI app; without any, a path that does not exist.

    Args:
        context: The node and its surroundings.
        access: Tokens.
        operations: By method.
    """

    def __init__(
        self, context: Context, access: Access, operations: Mapping[str, Operation]
    ) -> None:
        self._context = context
        self._access = access
        self._operations = operations
        methods = {*operations, "OPTIONS", *(["HEAD"] if "GET" in operations else [])}
        self._allow = ", ".join(sorted(methods))

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(scope, receive)
        headers = response.headers
        headers.setdefault("Cache-Control", "private, no-cache")
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Vary"] = "Authorization, Origin"
        if (lag_ms := self._context.node.replicator.lag_ms()) > 0:
            headers["Gateway-Lag-Ms"] = str(lag_ms)
        self._allow_page(scope, response)
        await response(scope, receive, send)

    async def _answer(self, scope: AsgiScope, receive: Receive) -> Response:
        try:
            return await self._done(scope, receive)
        except MethodNotAllowed as error:
            response = failed(error)
            response.headers["Allow"] = self._allow
            return response
        except GatewayError as error:
            return failed(error)
        except Exception:
            log.exception("a request failed")
            return failed(GatewayError())

    async def _done(self, scope: AsgiScope, receive: Receive) -> Response:
        if not self._operations:
            raise NoSuchPath
        method = scope["method"]
        if method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._allow})
        operation = self._operations.get("GET" if method == "HEAD" else method)
        if operation is None:
            raise MethodNotAllowed(f"{method[:16]} is not allowed")
        caller = NOBODY
        if not operation.is_public:
            asking = self._access.caller(one_header(scope, b"authorization"))
            caller = await self._context.rate_limited(
                scope, asking, lambda caller: caller_key(caller.principal)
            )
        return await operation.handler(
            Call(
                context=self._context,
                access=self._access,
                caller=caller,
                path=scope["path_params"],
                pairs=read_pairs(scope),
                scope=scope,
                receive=receive,
            )
        )

    def _allow_page(self, scope: AsgiScope, response: Response) -> None:
        """Tell a browser that the page that asks may read the answer, if it may."""
        try:
            allowed = origins(self._context.settings.allowed_origins)
            origin = cors_origin(scope, allowed)
        except GatewayError:  # two origins: nobody's page
            return
        if origin is not None:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            if scope["method"] == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = self._allow
                response.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
                response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_AGE_S)
