"""neko's style: where its tokens stand, who may do what, and how it refuses.

An admin's right comes before whether the thing exists. A path that is not there is plain text, a
method that is not there has no body, as neko answers them.

Not here: what an endpoint does.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from typing import Any, Final, TypeVar, get_args, get_type_hints
from urllib.parse import parse_qsl

from msgspec import UNSET, MsgspecError
from msgspec.json import decode
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import Credential, check_same_site, cookie_value, networks, one_header
from gateway.core.errors import GatewayError, MethodNotAllowed, Unauthorized
from gateway.dialects.neko.members import NekoCaller, caller_key
from gateway.dialects.neko.render import NO_DATA, UNREADABLE, Refused, refusal, status_of
from gateway.dialects.neko.schema import ErrorMessage, MembersQuery, SessionLoginRequest
from gateway.dialects.neko.service import Service, service_of
from gateway.http.endpoint import AnyCall, AnyEndpoint, Call, Endpoint, EndpointTable, Nothing
from gateway.http.openapi import Description
from gateway.http.pipeline import NoSuchPath
from gateway.http.request import Request
from gateway.http.style import Reading, TableStyle, Traits

COOKIE: Final = "NEKO_SESSION"
PARAMETERS_MAX: Final = 64  # in one query; neko knows four
BODY_MAX_BYTES: Final = 256 * 1024  # of a request; a batch holds many small ones
BODY_DISCARD_BYTES: Final = 1024 * 1024  # clients hear a refusal after they have written
ADMIN: Final = "admin"  # the mark of endpoints that only admins may use

T = TypeVar("T")

Handler = Callable[[Service, Any], Awaitable[Response | None]]
NekoCall = Call[NekoCaller, Nothing, T]

ABOUT: Final = Description(
    title="neko",
    text="The sessions of this gateway as neko's API tells them, with its members and its room.",
    security_schemes={
        "token": {"type": "http", "scheme": "bearer"},
        "query": {"type": "apiKey", "in": "query", "name": "token"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    },
    failure=ErrorMessage,
    status_of=status_of,
    code_of=lambda error: str(status_of(error)),
)


def row(
    method: str,
    path: str,
    do: Handler,
    returns: Any = UNSET,  # noqa: ANN401
    **facts: Any,  # noqa: ANN401
) -> AnyEndpoint:
    """Return an endpoint of neko's; its clients may say any media type, or none.

    Args:
        method: The method.
        path: The path.
        do: Handles the call; what returns nothing is answered by 204. The types of query and body
            are those of its parameter ``call``.
        returns: What it shows: a type, ``None`` for nothing, or both by status; unset: it refuses.
        facts: The other fields of :class:`Endpoint`.
    """

    @wraps(do)
    async def handle(call: AnyCall) -> Response:
        return await do(service_of(call.context), call) or Response(status_code=204)

    call = get_type_hints(do, include_extras=True).get("call", AnyCall)
    _, query, body = (Nothing if part is Any else part for part in get_args(call))
    shown = returns if isinstance(returns, dict) else {200 if returns else 204: returns}
    return Endpoint(
        method=method,
        path=path,
        handler=handle,
        query=query,
        body=body,
        returns={} if returns is UNSET else shown,
        tag="neko",
        consumes=(),
        **facts,
    )


admin_row: Final = partial(row, extra=ADMIN)
"""Returns an endpoint that only admins may use."""


def authorize(caller: NekoCaller | None, endpoint: AnyEndpoint) -> None:
    """Refuse a member who may not log in any more, and one who is no admin where that is needed.

    Raises:
        Refused: It may not.
    """
    if caller is None:
        return
    if not caller.profile.can_login:
        raise Refused(403, "login is disabled for this session")
    if endpoint.extra == ADMIN and not caller.profile.is_admin:
        raise Refused(403, "session is not admin")


class NekoStyle(TableStyle[NekoCaller]):
    """How neko's API is spoken; see :class:`gateway.http.style.Style`.

    Args:
        service: neko on this node.
        table: The endpoints.
    """

    traits = Traits(
        nobody=None,
        authorize=authorize,  # rights are those of a member's profile, not scopes
        rate_key=caller_key,
        body_max_bytes=BODY_MAX_BYTES,
        body_discard_bytes=BODY_DISCARD_BYTES,
        vary="Authorization, Cookie, Origin",  # there is one media type only
    )

    def __init__(self, service: Service, table: EndpointTable) -> None:
        self._service = service
        super().__init__(table)

    async def credential(self, request: Request, endpoint: AnyEndpoint | None) -> NekoCaller:  # noqa: ARG002
        """Return the caller of a request.

        Raises:
            Unauthorized: Nobody who is known.
            Forbidden: Another site's page asked with our cookie.
        """
        settings = self._service.context.settings
        shown = credential_of(request.scope, cookie=settings.neko_cookie)
        if shown.token is None:
            raise Unauthorized
        check_same_site(request.scope, shown, networks(settings.trusted_proxies))
        return await self._service.caller(shown.token)

    async def read(
        self,
        endpoint: AnyEndpoint,
        request: Request,
        names: Mapping[str, str],  # noqa: ARG002 - a name that cannot be one is nobody's
    ) -> Reading:
        """Return the query and the body, whatever its media type is said to be.

        Raises:
            Refused: There is no body, or it says something else.
            Unauthorized: A login says ``null``.
        """
        query: object = Nothing()
        if endpoint.query is MembersQuery:
            given = query_of(request.scope)
            query = MembersQuery(_number(given.get("offset")), _number(given.get("limit")))
        if endpoint.body is Nothing:
            return Reading(query, Nothing())
        body = await request.read_body()
        if endpoint.body is SessionLoginRequest and body.strip() == b"null":
            raise Unauthorized  # neko takes it for nobody
        if not body.strip():
            raise Refused(400, NO_DATA)
        try:
            return Reading(query, decode(body, type=endpoint.body))
        except (MsgspecError, ValueError, RecursionError):
            raise Refused(400, UNREADABLE) from None

    def refuse(
        self,
        error: GatewayError,
        request: Request,
        caller: NekoCaller | None,  # noqa: ARG002
    ) -> Response:
        """Return the answer that tells *error*; a cookie that is no good is taken back."""
        if isinstance(error, NoSuchPath):
            return PlainTextResponse("404 page not found\n", 404)
        if isinstance(error, MethodNotAllowed):
            return Response(status_code=405)
        response = refusal(error)
        has_cookie = self._service.context.settings.neko_cookie
        if isinstance(error, Unauthorized) and has_cookie and cookie_value(request.scope, COOKIE):
            response.delete_cookie(COOKIE, **cookie_form(request))
        return response


def credential_of(scope: AsgiScope, *, cookie: bool) -> Credential:
    """Return the token that is shown: a cookie, where they are used, a header, or a parameter.

    Raises:
        BadRequest: There is more than one header.
    """
    if cookie and (value := cookie_value(scope, COOKIE)):
        return Credential(token=value, source="cookie")
    header = one_header(scope, b"authorization") or ""
    if header.startswith("Bearer "):
        return Credential(token=header.removeprefix("Bearer "), source="header")
    return Credential(token=query_of(scope).get("token") or None, source="query")


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


def _number(text: str | None) -> int:
    """Return a number of a query; what cannot be read is 0, as neko takes it."""
    if text is None or not text.isascii() or not text.isdigit():
        return 0
    return int(text[:9])


def cookie_form(request: Request) -> Mapping[str, Any]:
    """Return how the login cookie is set: for this API alone, also in pages of other sites."""
    return {"path": f"{request.root}/api", "httponly": True, "secure": True, "samesite": "none"}
