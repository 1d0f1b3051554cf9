"""Operation: one request of neko's REST API, from its bytes to its answer, the same way for all.

Credentials, rights, body, handler, errors: in neko's order (an admin's right comes before whether
the thing exists). One table of operations makes the routes and their description. A path that is
not there is plain text, a method that is not there has no body, as neko answers them.

Not here: what an operation does.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl

from msgspec import Struct
from msgspec.json import encode
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import Credential, check_same_site, headers, networks
from gateway.core.errors import GatewayError, Unauthorized
from gateway.dialects.neko.bodies import parse, read_bytes
from gateway.dialects.neko.errors import Refused, failure, refusal
from gateway.dialects.neko.login import Caller, caller_key
from gateway.dialects.neko.service import Service

COOKIE: Final = "NEKO_SESSION"
PARAMETERS_MAX: Final = 64  # in one query; neko knows four
LOGIN_DISABLED: Final = "login is disabled for this session"

T = TypeVar("T")
Who = Literal["public", "session", "admin"]

log = logging.getLogger(__name__)


class Answer(Struct, frozen=True):
    """What an operation answers: a status, JSON if it has any, and headers."""

    status: int
    body: object = None
    headers: dict[str, str] = {}


class Call(Struct, frozen=True):
    """One request.

    Args:
        service: neko on this node.
        request: The request.
        who: Who asks; ``None`` for what is public.
    """

    service: Service
    request: Request
    who: Caller | None

    @property
    def caller(self) -> Caller:
        """Who asks.

        Raises:
            Unauthorized: Nobody; it is public.
        """
        if self.who is None:
            raise Unauthorized
        return self.who

    @property
    def id(self) -> str:
        """The id in the path."""
        found: str = self.request.path_params["id"]
        return found

    async def read(self, kind: type[T]) -> T:
        """Return the body.

        Raises:
            Refused: It cannot be read.
        """
        return parse(await read_bytes(self.request.stream()), kind)


Handler = Callable[[Call], Awaitable[Answer | Response]]


class Operation(Struct, frozen=True, kw_only=True):
    """One operation.

    Args:
        method: The HTTP method.
        path: The path, with ``{id}`` where a name stands.
        name: As neko's OpenAPI file calls it.
        handler: Does it.
        summary: One line for people.
        who: Who may.
        body: What it takes.
        returns: What it answers by status; ``None`` is no JSON.
        errors: Other statuses than those that everything may have.
    """

    method: str
    path: str
    name: str
    handler: Handler
    summary: str
    who: Who = "session"
    body: Any = None
    returns: dict[int, Any]
    errors: tuple[int, ...] = ()


# --- credentials


def token_of(scope: AsgiScope, *, cookie: bool) -> tuple[str | None, bool]:
    """Return the token that is shown, and whether a cookie carried it.

    A cookie, where they are used at all, beats a header, and that beats the query.
    """
    if cookie:
        for header in headers(scope, b"cookie"):
            for pair in header.split(";"):
                name, _, value = pair.strip().partition("=")
                if name == COOKIE and value:
                    return value, True
    for header in headers(scope, b"authorization"):
        if header.startswith("Bearer "):
            return header.removeprefix("Bearer "), False
    return query_of(scope).get("token") or None, False


def query_of(scope: AsgiScope) -> dict[str, str]:
    """Return the first value of each parameter; none if the query cannot be read."""
    query: bytes = scope.get("query_string", b"")
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=PARAMETERS_MAX
        )
    except ValueError:
        return {}
    return dict(reversed(pairs))


async def caller_of(service: Service, request: Request) -> Caller:
    """Return who sent a request.

    Raises:
        Unauthorized: Nobody who is known.
        Forbidden: Another site's page asked with our cookie.
        Refused: Somebody who may not log in.
    """
    settings = service.context.settings
    token, is_cookie = token_of(request.scope, cookie=settings.neko_cookie)
    if token is None:
        raise Unauthorized
    if is_cookie:
        shown = Credential(token=token, source="cookie")
        check_same_site(request.scope, shown, networks(settings.trusted_proxies))
    asking = service.caller(token)
    caller = await service.context.rate_limited(request.scope, asking, caller_key)
    if not caller.profile.can_login:
        raise Refused(403, LOGIN_DISABLED)
    return caller


# --- serving


class Resource:
    """What stands at one path: an ASGI application over its operations."""

    def __init__(self, service: Service, operations: Iterable[Operation]) -> None:
        self._service = service
        self._operations = {operation.method: operation for operation in operations}

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        operation = self._operations.get(scope["method"])
        if operation is None:
            allowed = {"Allow": ", ".join(sorted(self._operations))}
            response: Response = Response(status_code=405, headers=allowed)
        else:
            response = await self._answer(operation, Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, operation: Operation, request: Request) -> Response:
        try:
            call = await self._call(operation, request)
            found = await operation.handler(call)
        except Refused as error:
            return self._failed(request, error.status, failure(error.status, error.message))
        except GatewayError as error:
            return self._failed(request, error.status, refusal(error))
        except Exception:
            log.exception("%s failed", operation.name)
            return failure(500, "Internal Server Error")
        if isinstance(found, Response):
            return found
        return answer(found)

    async def _call(self, operation: Operation, request: Request) -> Call:
        if operation.who == "public":
            return Call(self._service, request, None)
        caller = await caller_of(self._service, request)
        if operation.who == "admin" and not caller.profile.is_admin:
            raise Refused(403, "session is not admin")
        return Call(self._service, request, caller)

    def _failed(self, request: Request, status: int, response: Response) -> Response:
        """Take a cookie back that is not good any more."""
        if (
            status == 401  # noqa: PLR2004
            and self._service.context.settings.neko_cookie
            and COOKIE in request.cookies
        ):
            response.delete_cookie(COOKIE, **cookie_form(request))
        return response


def cookie_form(request: Request) -> Mapping[str, Any]:
    """Return how the login cookie is set: for this API alone, also in pages of other sites."""
    path = f"{request.scope.get('root_path', '')}/api"
    return {"path": path, "httponly": True, "secure": True, "samesite": "none"}


def answer(found: Answer) -> Response:
    """Return the response of what an operation answers."""
    if found.status == 204:  # noqa: PLR2004
        return Response(status_code=204, headers=found.headers)
    body = encode(found.body)
    return Response(body, found.status, found.headers, media_type="application/json")


async def not_found(scope: AsgiScope, receive: Receive, send: Send) -> None:
    """Answer for a path that is not there."""
    await PlainTextResponse("404 page not found\n", 404)(scope, receive, send)
