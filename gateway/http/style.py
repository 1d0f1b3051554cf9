"""The port of a product's HTTP API: its style, and the data of its exceptions.

The pipeline calls a style to match a target, authenticate the caller, read the request, render an
error, and finish a reply. Everything else is the same at every door. Each exception of a product is
a field of :class:`Traits`, which the style sets beside the reason for it.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Protocol, TypeVar

from msgspec import Struct
from starlette.responses import Response

from gateway import context
from gateway.auth.principals import Principal
from gateway.core.errors import GatewayError
from gateway.http.endpoint import AnyEndpoint, EndpointTable, Match
from gateway.http.request import Request

BODY_MAX_BYTES: Final = 64 * 1024  # four records of the largest size

C = TypeVar("C")


def require_scope(caller: Any, endpoint: AnyEndpoint) -> None:  # noqa: ANN401 - a style's caller
    """Raise if the caller's principal lacks the endpoint's scope.

    Raises:
        Forbidden: It lacks the scope.
    """
    if endpoint.scope is not None:
        principal_of(caller).require(endpoint.scope)


def principal_of(caller: Any) -> Principal:  # noqa: ANN401 - a style's caller
    """Return the principal of a caller: itself, or its field of that name."""
    found: Principal = caller if isinstance(caller, Principal) else caller.principal
    return found


def caller_key(caller: Any) -> Hashable:  # noqa: ANN401 - a style's caller
    """Return the key of a caller for the rate limit."""
    return context.caller_key(principal_of(caller))


class Traits(Struct, frozen=True, kw_only=True):
    """The data of a style; a product overrides a default only where it behaves differently.

    Args:
        nobody: The caller of a public endpoint.
        authorize: Refuses a caller who may not use an endpoint.
        rate_key: Returns the key of a caller for the rate limit.
        counts_callers: Whether the pipeline counts callers; else ``credential`` does, because it
            may check a password, which is counted before it is hashed.
        credential_first: Whether only a known caller gets 404 and 405.
        body_max_bytes: A longer body is refused (413).
        body_discard_bytes: So many bytes of a body that is too long are read, so that a client that
            writes before it reads gets the error; 0: the connection is closed.
        refuses_body: Whether a body is refused where an endpoint has none; else it is not read.
        options_status: The status of the answer to OPTIONS.
        exposes: Headers that pages of other origins may read.
        allows: Headers that pages of other origins may send; ``None``: whatever they ask for.
        challenge: ``WWW-Authenticate`` of a 401 (RFC 9110 section 11.6.1); ``None``: the style's.
        vary: Request headers that a reply depends on.
        cache_control: The default of ``Cache-Control``.
        tells_position: Whether replies have ``Gateway-Position``.
    """

    nobody: Any = Principal(name="anybody")
    authorize: Callable[[Any, AnyEndpoint], None] = require_scope
    rate_key: Callable[[Any], Hashable] = caller_key
    counts_callers: bool = True
    credential_first: bool = False
    body_max_bytes: int = BODY_MAX_BYTES
    body_discard_bytes: int = 0
    refuses_body: bool = False
    options_status: int = 204
    exposes: str = "ETag, Gateway-Lag-Ms, Location, Retry-After, X-Request-Id"
    allows: str | None = "Accept, Authorization, Content-Type"
    challenge: str | None = "Bearer"
    vary: str = "Accept, Authorization, Cookie, Origin"
    cache_control: str = "private, no-cache"
    tells_position: bool = False


class Reading(Struct, frozen=True):
    """The content of a request, as types.

    Args:
        query: The parameters.
        body: The body.
        media: The media type of the reply.
    """

    query: Any
    body: Any
    media: str = "application/json"


class Style(Protocol[C]):
    """The style of one product's API; implementations have no state but caches."""

    traits: Traits

    def match(self, request: Request) -> Match:
        """Return the endpoint of the target, and the effective method.

        Raises:
            GatewayError: The target cannot be read.
        """
        ...

    async def credential(self, request: Request, endpoint: AnyEndpoint | None) -> C:
        """Return the caller; the pipeline counts it.

        Raises:
            Unauthorized: There is no valid credential.
            GatewayError: The credential cannot be checked, or may not be used here.
        """
        ...

    async def read(
        self, endpoint: AnyEndpoint, request: Request, names: Mapping[str, str]
    ) -> Reading:
        """Return the content of the request, or raise one error for everything that is wrong.

        Raises:
            GatewayError: Media type, query, position or body are not acceptable.
        """
        ...

    def refuse(self, error: GatewayError, request: Request, caller: C | None) -> Response:
        """Return the product's reply for *error*."""
        ...

    def finish(self, request: Request, response: Response) -> None:
        """Add what the product has in every reply."""
        ...


class TableStyle(Style[C]):
    """The plain way: paths as the table has them, and nothing to add to a reply.

    Args:
        table: The endpoints.
    """

    def __init__(self, table: EndpointTable) -> None:
        self._table = table

    def match(self, request: Request) -> Match:
        """Return the endpoint of a target."""
        return self._table.match(request.path, request.method)

    def finish(self, request: Request, response: Response) -> None:
        """Add nothing."""
