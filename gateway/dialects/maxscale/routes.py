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
    RateLimited,
    RevisionMismatch,
    Unauthorized,
)
from gateway.dialects.maxscale.access import Access
from gateway.dialects.maxscale.conditions import ValidatorCache
from gateway.dialects.maxscale.endpoints import Endpoints
from gateway.dialects.maxscale.schema import (
    CloseSessionQuery,
    CollectionQuery,
    ErrorDocument,
    FilterReferences,
    FormQuery,
    LoginDocument,
    LoginQuery,
    NamedResourceDocument,
    NamedResourceList,
    PartialDocument,
    Relationship,
    ResourceQuery,
    ServerDocument,
    SessionDocument,
    SessionResourceList,
)
from gateway.dialects.maxscale.style import MaxScaleStyle, status_of
from gateway.http.endpoint import AnyEndpoint, Endpoint
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
    failure=ErrorDocument,
    status_of=status_of,
)

_IF_CHANGED: Final = {304: None}
_WRITE_ERRORS: Final = (NotFound, Conflict, RevisionMismatch)


def endpoints(handlers: Endpoints) -> tuple[AnyEndpoint, ...]:
    """Return the table."""
    get = partial(Endpoint, method="GET", errors=(NotFound,))
    change = partial(Endpoint, scope=Scope.WRITE, consumes=(), returns={200: None})
    named = [
        row
        for kind in ("services", "filters")
        for row in (
            get(
                path=f"/v1/{kind}",
                handler=partial(handlers.list_named, kind),
                name=f"list_{kind}",
                summary=f"List the {kind} of sessions",
                query=CollectionQuery,
                returns={200: NamedResourceList, **_IF_CHANGED},
            ),
            get(
                path=f"/v1/{kind}/{{id}}",
                handler=partial(handlers.get_named, kind),
                name=f"get_{kind.removesuffix('s')}",
                summary=f"Look at a {kind.removesuffix('s')}",
                query=ResourceQuery,
                returns={200: NamedResourceDocument},
            ),
        )
    ]
    return (
        get(path="/v1", handler=handlers.ping, summary="Health check", returns={200: None}),
        get(
            path="/v1/auth",
            handler=handlers.log_in,
            summary="Log in by Basic, or log out",
            query=LoginQuery,
            returns={200: LoginDocument, 204: None},
            is_public=True,
            errors=(Unauthorized, Forbidden, RateLimited),
        ),
        get(
            path="/v1/maxscale",
            handler=handlers.get_server,
            summary="Look at the server",
            query=FormQuery,
            returns={200: ServerDocument},
        ),
        get(
            path="/v1/sessions",
            handler=handlers.list_sessions,
            summary="List sessions",
            query=CollectionQuery,
            returns={200: SessionResourceList, **_IF_CHANGED},
        ),
        change(
            method="POST",
            path="/v1/sessions/restart",
            handler=handlers.restart_sessions,
            summary="Ask for a restart of all sessions",
        ),
        get(
            path="/v1/sessions/{id}",
            handler=handlers.get_session,
            summary="Look at a session",
            query=ResourceQuery,
            returns={200: SessionDocument, **_IF_CHANGED},
        ),
        change(
            method="PATCH",
            path="/v1/sessions/{id}",
            handler=handlers.patch_session,
            summary="Change a session's log switches and filters",
            body=PartialDocument,
            errors=_WRITE_ERRORS,
        ),
        Endpoint(
            method="DELETE",
            path="/v1/sessions/{id}",
            handler=handlers.delete_session,
            summary="Close a session, now or later",
            query=CloseSessionQuery,
            returns={200: None},
            scope=Scope.CLOSE,
            errors=_WRITE_ERRORS,
        ),
        change(
            method="POST",
            path="/v1/sessions/{id}/restart",
            handler=handlers.restart_session,
            summary="Ask for a restart of a session",
            errors=_WRITE_ERRORS,
        ),
        get(
            path="/v1/sessions/{id}/relationships/services",
            handler=handlers.get_services,
            summary="Look at a session's service",
            query=FormQuery,
            returns={200: Relationship},
        ),
        get(
            path="/v1/sessions/{id}/relationships/filters",
            handler=handlers.get_filters,
            summary="Look at a session's filters",
            query=FormQuery,
            returns={200: Relationship},
        ),
        change(
            method="PATCH",
            path="/v1/sessions/{id}/relationships/filters",
            handler=handlers.patch_filters,
            summary="Change a session's filters",
            body=FilterReferences,
            errors=_WRITE_ERRORS,
        ),
        *named,
    )


def application(context: Context, root: str) -> Application:
    """Return what serves MaxScale's API, mounted at *root*."""
    access = Access(context)
    table = described(endpoints(Endpoints(access, ValidatorCache())), ABOUT, root)
    return Application(http=Pipeline(context, MaxScaleStyle(context, access, table)))
