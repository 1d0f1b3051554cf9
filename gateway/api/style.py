"""The native API's style: bearer tokens, strict queries, positions to wait for, and problems.

It has two exceptions from the common rules. A body is refused where an operation has none, because
its content would be lost. Every reply has the position of this node, so that a client can read its
own writes on another node.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct
from msgspec.json import Decoder
from msgspec.json import format as indented
from starlette.responses import Response

from gateway.api import endpoints_metrics
from gateway.auth.credentials import check_same_site, is_listed, networks, read_credential
from gateway.auth.principals import Principal, Scope
from gateway.context import Context
from gateway.core.errors import BadRequest, GatewayError
from gateway.core.model import Key, Name, SessionId
from gateway.core.position import Position
from gateway.http.endpoint import AnyEndpoint, EndpointTable, Nothing
from gateway.http.problems import problem
from gateway.http.request import (
    Request,
    check_json,
    check_path,
    choose_media,
    read_flag,
    read_json,
    read_pairs,
    read_query,
    without_token,
)
from gateway.http.style import Reading, TableStyle, Traits

PATH_TYPES: Final[Mapping[str, Any]] = {"id": SessionId, "key": Key, "name": Name}


def takes_position(endpoint: AnyEndpoint) -> bool:
    """Whether ``at`` makes the endpoint wait until this node has seen a position."""
    return endpoint.method == "GET" and not endpoint.is_public


class NativeStyle(TableStyle[Principal]):
    """The style of the native API; see :class:`gateway.http.style.Style`.

    Args:
        context: The node and its surroundings.
        table: The endpoints.
    """

    traits = Traits(
        refuses_body=True,
        exposes="ETag, Gateway-Lag-Ms, Gateway-Position, Location, Retry-After, X-Request-Id",
        allows=(
            "Accept, Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, "
            "Last-Event-ID"
        ),
        tells_position=True,
    )

    def __init__(self, context: Context, table: EndpointTable) -> None:
        self._context = context
        super().__init__(table)
        self._decoders: dict[Any, Decoder[Any]] = {
            endpoint.body: Decoder(endpoint.body) for endpoint in table.endpoints
        }

    async def credential(self, request: Request, endpoint: AnyEndpoint | None) -> Principal:
        """Return the principal of the token; a listed address needs none for the metrics."""
        settings = self._context.settings
        trusted = networks(settings.trusted_proxies)
        if endpoint is not None and endpoint.path == endpoints_metrics.PATH:
            listed = networks(settings.metrics_addresses)
            if is_listed(request.scope, listed, trusted):
                return Principal(name="metrics", scopes=frozenset({Scope.ADMIN}))
        in_query = endpoint is not None and endpoint.token_in_query
        shown = read_credential(request.scope, in_query=in_query)
        check_same_site(request.scope, shown, trusted)
        return await self._context.principal_of(shown)

    async def read(
        self, endpoint: AnyEndpoint, request: Request, names: Mapping[str, str]
    ) -> Reading:
        """Return media type, query and body; wait for the position that the query names."""
        media = choose_media(request.scope, endpoint.produces)
        check_path(names, PATH_TYPES)
        read = _read.__wrapped__ if endpoint.token_in_query else _read  # tokens are not kept
        kind: type[Struct] = endpoint.query
        query, at = read(request.query_string, kind, takes_position=takes_position(endpoint))
        if at is not None:
            await self._context.node.wait_for_position(Position.parse(at))
        if endpoint.body is Nothing:
            return Reading(query, Nothing(), media)
        check_json(request.scope, endpoint.consumes)
        body = await request.read_body()
        return Reading(query, read_json(body, self._decoders[endpoint.body]), media)

    def refuse(self, error: GatewayError, request: Request, caller: Principal | None) -> Response:
        """Return the problem reply for *error* (RFC 9457)."""
        return problem(error, request.id, caller, root=request.root)

    def finish(self, request: Request, response: Response) -> None:
        """Indent JSON if the query has ``pretty``."""
        if b"pretty" not in request.query_string:
            return
        headers = response.headers
        body: bytes = getattr(response, "body", b"")
        if (
            not body
            or "json" not in headers.get("content-type", "")
            or "content-encoding" in headers
        ):
            return
        try:
            wanted = read_flag(read_pairs(request.scope), "pretty")
        except BadRequest:
            return
        if wanted:
            response.body = indented(bytes(body), indent=2)
            headers["Content-Length"] = str(len(response.body))


@lru_cache(maxsize=256)  # of 8 KiB at most; pollers repeat the same query
def _read(
    query_string: bytes, kind: type[Struct], *, takes_position: bool
) -> tuple[Struct, str | None]:
    """Return the query and the position to wait for."""
    pairs = without_token(read_pairs({"query_string": query_string}))
    universal = ("pretty", "at") if takes_position else ("pretty",)
    query = read_query(pairs, kind, universal)
    read_flag(pairs, "pretty")
    return query, dict(pairs).get("at") if takes_position else None
