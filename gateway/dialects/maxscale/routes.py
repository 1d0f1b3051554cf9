"""Routes: the table of what this dialect serves of MaxScale's REST API (24.02).

What every request goes through is in ``door``, what is done in ``sessions`` and ``server``.
"""

from functools import partial
from typing import Final

from starlette.routing import BaseRoute, Route

from gateway.auth.principals import Scope
from gateway.context import Context
from gateway.dialects.maxscale.bodies import FilterList, PartialDocument
from gateway.dialects.maxscale.documents import (
    GatewayDocument,
    NamedDocument,
    NamedsDocument,
    Relationship,
    SessionDocument,
    SessionsDocument,
    TokenDocument,
)
from gateway.dialects.maxscale.door import Door, Endpoint
from gateway.dialects.maxscale.server import get_gateway, get_named, list_named, log_in, ping
from gateway.dialects.maxscale.sessions import (
    delete_session,
    get_filters,
    get_services,
    get_session,
    list_sessions,
    patch_filters,
    patch_session,
    restart_session,
    restart_sessions,
)

_FORM: Final = {"pretty": "Whether the reply is indented; it is, unless this is false, off, no, 0."}
_FIELDS: Final = {
    "fields[TYPE]": "Comma-separated paths of attributes and relationships to keep of that type."
}
_ONE: Final = {**_FORM, **_FIELDS}
_LIST: Final = {
    **_ONE,
    "filter": 'JSON pointer, equals sign, expression: `/attributes/user="ann"`.',
    "filter[PATH]": "Expression for the values at a JSON path: `gt(60)`.",
    "page[size]": "Resources a page.",
    "page[number]": "Which page, from 0.",
}

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(method="GET", path="", handler=ping, summary="Health check"),
    Endpoint(
        method="GET",
        path="auth",
        handler=log_in,
        summary="Log in by Basic, or log out",
        returns=TokenDocument,
        is_public=True,
        parameters={
            **_FORM,
            "max-age": "Seconds that the token is good for: 28 800, 86 400 at most.",
            "persist": "`yes`: the token comes as a cookie.",
            "logout": "`yes`: the cookie is removed.",
        },
    ),
    Endpoint(
        method="GET",
        path="maxscale",
        handler=get_gateway,
        summary="Look at the server",
        returns=GatewayDocument,
        parameters=_FORM,
    ),
    Endpoint(
        method="GET",
        path="sessions",
        handler=list_sessions,
        is_conditional=True,
        summary="List sessions",
        returns=SessionsDocument,
        parameters=_LIST,
    ),
    Endpoint(
        method="POST",
        path="sessions/restart",
        handler=restart_sessions,
        summary="Ask for a restart of all sessions",
        scope=Scope.WRITE,
    ),
    Endpoint(
        method="GET",
        path="sessions/{id}",
        handler=get_session,
        is_conditional=True,
        summary="Look at a session",
        returns=SessionDocument,
        parameters=_ONE,
    ),
    Endpoint(
        method="PATCH",
        path="sessions/{id}",
        handler=patch_session,
        is_conditional=True,
        summary="Change a session's log switches and filters",
        body=PartialDocument,
        scope=Scope.WRITE,
    ),
    Endpoint(
        method="DELETE",
        path="sessions/{id}",
        handler=delete_session,
        is_conditional=True,
        summary="Close a session, now or later",
        scope=Scope.CLOSE,
        parameters={"ttl": "Seconds until then."},
    ),
    Endpoint(
        method="POST",
        path="sessions/{id}/restart",
        handler=restart_session,
        is_conditional=True,
        summary="Ask for a restart of a session",
        scope=Scope.WRITE,
    ),
    Endpoint(
        method="GET",
        path="sessions/{id}/relationships/services",
        handler=get_services,
        summary="Look at a session's service",
        returns=Relationship,
        parameters=_FORM,
    ),
    Endpoint(
        method="GET",
        path="sessions/{id}/relationships/filters",
        handler=get_filters,
        summary="Look at a session's filters",
        returns=Relationship,
        parameters=_FORM,
    ),
    Endpoint(
        method="PATCH",
        path="sessions/{id}/relationships/filters",
        handler=patch_filters,
        is_conditional=True,
        summary="Change a session's filters",
        body=FilterList,
        scope=Scope.WRITE,
    ),
    Endpoint(
        method="GET",
        path="services",
        handler=partial(list_named, "services"),
        is_conditional=True,
        summary="List the services of sessions",
        returns=NamedsDocument,
        parameters=_LIST,
    ),
    Endpoint(
        method="GET",
        path="services/{id}",
        handler=partial(get_named, "services"),
        summary="Look at a service",
        returns=NamedDocument,
        parameters=_ONE,
    ),
    Endpoint(
        method="GET",
        path="filters",
        handler=partial(list_named, "filters"),
        is_conditional=True,
        summary="List the filters of sessions",
        returns=NamedsDocument,
        parameters=_LIST,
    ),
    Endpoint(
        method="GET",
        path="filters/{id}",
        handler=partial(get_named, "filters"),
        summary="Look at a filter",
        returns=NamedDocument,
        parameters=_ONE,
    ),
)


def routes(context: Context) -> list[BaseRoute]:
    """Return what serves the dialect: one door for all addresses, the unknown ones too."""
    return [Route("/{path:path}", Door(context, ENDPOINTS))]
