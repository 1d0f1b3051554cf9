"""Routes: the table of what is served of MaxScale's REST API (24.02), and its description.

Of the two ways to write an address the table has the one with the version, of the two forms of a
session the description has the current one.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from starlette.responses import Response

from gateway.auth.principals import Scope
from gateway.context import Context
from gateway.core.errors import (
    Conflict,
    Forbidden,
    NotFound,
    RevisionMismatch,
    Unauthorized,
)
from gateway.dialects.maxscale import schema
from gateway.dialects.maxscale.access import MaxScaleLogins
from gateway.dialects.maxscale.collection import ApiCall
from gateway.dialects.maxscale.conditions import ValidatorCache
from gateway.dialects.maxscale.endpoints import Endpoints, Named
from gateway.dialects.maxscale.style import MaxScaleStyle, status_of
from gateway.http.endpoint import AnyEndpoint, Endpoint, EndpointTable, Nothing
from gateway.http.openapi import Description, described
from gateway.http.pipeline import Application, Pipeline

ABOUT: Final = Description(
    title="MaxScale REST API",
    text="Sessions as MariaDB MaxScale's REST API (24.02) shows them, in JSON:API.",
    security_schemes={
        "basic": {"type": "http", "scheme": "basic"},
        "token": {"type": "http", "scheme": "bearer"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": "token_sig"},
    },
    failure=schema.ErrorDocument,
    status_of=status_of,
)

SESSION: Final = "/v1/sessions/{id}"

Handler = Callable[[ApiCall], Awaitable[Response]]


def _get(
    path: str,
    handler: Handler,
    query: type[Struct] = Nothing,
    returns: type[Struct] | None = None,
) -> AnyEndpoint:
    is_conditional = path == SESSION or query is schema.CollectionQuery
    return Endpoint(
        "GET",
        path,
        handler,
        query=query,
        returns={200: returns, **({304: None} if is_conditional else {})},
        errors=((NotFound,) if "{" in path else ())
        + ((RevisionMismatch,) if is_conditional else ()),
    )


def _change(
    method: str,
    path: str,
    handler: Handler,
    *,
    query: type[Struct] = Nothing,
    body: type[Struct] = Nothing,
    scope: Scope = Scope.WRITE,
) -> AnyEndpoint:
    return Endpoint(
        method,
        path,
        handler,
        query=query,
        body=body,
        returns={200: None},
        scope=scope,
        consumes=(),
        errors=(NotFound, Conflict, RevisionMismatch) if "{" in path else (),
    )


def _named(do: Endpoints, kind: Named) -> tuple[AnyEndpoint, ...]:
    """Return the rows of services or filters."""
    listed, one = partial(do.list_named, kind), partial(do.get_named, kind)
    rows = _get(f"/v1/{kind}", listed, schema.CollectionQuery, schema.NamedResourceList)
    row = _get(f"/v1/{kind}/{{id}}", one, schema.ResourceQuery, schema.NamedResourceDocument)
    return replace(rows, name=f"list_{kind}"), replace(row, name=f"get_{kind.removesuffix('s')}")


def endpoints(do: Endpoints) -> tuple[AnyEndpoint, ...]:
    """Return the table."""
    filters, services = f"{SESSION}/relationships/filters", f"{SESSION}/relationships/services"
    login = replace(
        _get("/v1/auth", do.log_in, schema.LoginQuery),
        returns={200: schema.LoginDocument, 204: None},
        is_public=True,
        errors=(Unauthorized, Forbidden),
    )
    return (
        _get("/v1", do.ping),
        login,
        _get("/v1/maxscale", do.get_server, schema.FormQuery, schema.ServerDocument),
        _get("/v1/sessions", do.list_sessions, schema.CollectionQuery, schema.SessionResourceList),
        _change("POST", "/v1/sessions/restart", do.restart_sessions),
        _get(SESSION, do.get_session, schema.ResourceQuery, schema.SessionDocument),
        _change("PATCH", SESSION, do.patch_session, body=schema.PartialDocument),
        _change(
            "DELETE", SESSION, do.delete_session, query=schema.CloseSessionQuery, scope=Scope.CLOSE
        ),
        _change("POST", f"{SESSION}/restart", do.restart_session),
        _get(services, do.get_services, schema.FormQuery, schema.Relationship),
        _get(filters, do.get_filters, schema.FormQuery, schema.Relationship),
        _change("PATCH", filters, do.patch_filters, body=schema.FilterReferences),
        *_named(do, "services"),
        *_named(do, "filters"),
    )


def application(context: Context, root: str) -> Application:
    """Return what serves MaxScale's API, mounted at *root*."""
    access = MaxScaleLogins(context)
    table = described(endpoints(Endpoints(access, ValidatorCache())), ABOUT, root)
    return Application(http=Pipeline(context, MaxScaleStyle(access, EndpointTable(table))))
