"""Routes: the table of what is served of MaxScale's REST API (24.02), and its description.

Of the two ways to write an address the table has the one with the version, of the two forms of a
session the description has the current one.
"""

from functools import partial
from typing import Final

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
from gateway.dialects.maxscale.conditions import ValidatorCache
from gateway.dialects.maxscale.endpoints import Endpoints, Named
from gateway.dialects.maxscale.style import MaxScaleStyle, status_of
from gateway.http.endpoint import AnyEndpoint, Endpoint, EndpointTable
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
RELATED: Final = f"{SESSION}/relationships"

_CHANGED: Final = (NotFound, Conflict, RevisionMismatch)


def _named(do: Endpoints, kind: Named) -> tuple[AnyEndpoint, ...]:
    """Return the rows of services or filters."""
    return (
        Endpoint(
            "GET", f"/v1/{kind}", partial(do.list_named, kind), name=f"list_{kind}",
            query=schema.CollectionQuery, returns={200: schema.NamedResourceList, 304: None},
            errors=(RevisionMismatch,),
        ),
        Endpoint(
            "GET", f"/v1/{kind}/{{id}}", partial(do.get_named, kind),
            name=f"get_{kind.removesuffix('s')}", query=schema.ResourceQuery,
            returns={200: schema.NamedResourceDocument}, errors=(NotFound,),
        ),
    )  # fmt: skip


def endpoints(do: Endpoints) -> tuple[AnyEndpoint, ...]:
    """Return the table; media types of bodies are not looked at."""
    return (
        Endpoint("GET", "/v1", do.ping, returns={200: None}),
        Endpoint(
            "GET", "/v1/auth", do.log_in, query=schema.LoginQuery, is_public=True,
            returns={200: schema.LoginDocument, 204: None}, errors=(Unauthorized, Forbidden),
        ),
        Endpoint(
            "GET", "/v1/maxscale", do.get_server, query=schema.FormQuery,
            returns={200: schema.ServerDocument},
        ),
        Endpoint(
            "GET", "/v1/sessions", do.list_sessions, query=schema.CollectionQuery,
            returns={200: schema.SessionResourceList, 304: None}, errors=(RevisionMismatch,),
        ),
        Endpoint(
            "POST", "/v1/sessions/restart", do.restart_sessions, scope=Scope.WRITE,
            returns={200: None},
        ),
        Endpoint(
            "GET", SESSION, do.get_session, query=schema.ResourceQuery,
            returns={200: schema.SessionDocument, 304: None}, errors=(NotFound, RevisionMismatch),
        ),
        Endpoint(
            "PATCH", SESSION, do.patch_session, scope=Scope.WRITE, body=schema.PartialDocument,
            consumes=(), returns={200: None}, errors=_CHANGED,
        ),
        Endpoint(
            "DELETE", SESSION, do.delete_session, scope=Scope.CLOSE,
            query=schema.CloseSessionQuery, returns={200: None}, errors=_CHANGED,
        ),
        Endpoint(
            "POST", f"{SESSION}/restart", do.restart_session, scope=Scope.WRITE,
            returns={200: None}, errors=_CHANGED,
        ),
        Endpoint(
            "GET", f"{RELATED}/services", do.get_services, query=schema.FormQuery,
            returns={200: schema.Relationship}, errors=(NotFound,),
        ),
        Endpoint(
            "GET", f"{RELATED}/filters", do.get_filters, query=schema.FormQuery,
            returns={200: schema.Relationship}, errors=(NotFound,),
        ),
        Endpoint(
            "PATCH", f"{RELATED}/filters", do.patch_filters, scope=Scope.WRITE,
            body=schema.FilterReferences, consumes=(), returns={200: None}, errors=_CHANGED,
        ),
        *_named(do, "services"),
        *_named(do, "filters"),
    )  # fmt: skip


def application(context: Context, root: str) -> Application:
    """Return what serves MaxScale's API, mounted at *root*."""
    access = MaxScaleLogins(context)
    table = described(endpoints(Endpoints(access, ValidatorCache())), ABOUT, root)
    return Application(http=Pipeline(context, MaxScaleStyle(access, EndpointTable(table))))
