"""The routes of the native API: operations, sockets and the documents of both."""

from typing import Final

from msgspec.structs import replace

from gateway.api import (
    asyncapi,
    connect,
    endpoints_closings,
    endpoints_health,
    endpoints_history,
    endpoints_lists,
    endpoints_messages,
    endpoints_metrics,
    endpoints_sessions,
    endpoints_subresources,
    events,
    pages,
    web,
)
from gateway.api.description import ABOUT
from gateway.api.style import NativeStyle
from gateway.api.websockets import native_socket
from gateway.context import Context
from gateway.http.endpoint import AnyEndpoint, EndpointTable
from gateway.http.openapi import described
from gateway.http.pipeline import Application, Pipeline

ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    *endpoints_sessions.ENDPOINTS,
    *endpoints_subresources.ENDPOINTS,
    *endpoints_closings.ENDPOINTS,
    *endpoints_lists.ENDPOINTS,
    *endpoints_history.ENDPOINTS,
    *endpoints_messages.ENDPOINTS,
    *events.ENDPOINTS,
    *connect.ENDPOINTS,
    *endpoints_health.ENDPOINTS,
    *endpoints_metrics.ENDPOINTS,
)


def application(context: Context, root: str) -> Application:
    """Return the native API as an application.

    Args:
        context: The node and its surroundings.
        root: The path that it is mounted at; empty at the root.
    """
    documents = (*web.endpoints(), *pages.endpoints(), asyncapi.endpoint(root))
    endpoints = described([*ENDPOINTS, *documents], ABOUT, root)
    return Application(
        http=Pipeline(context, NativeStyle(context, EndpointTable(endpoints))),
        sockets={
            "/v1/connect": native_socket(context, connect.connect),
            "/v1/events": native_socket(context, events.observe),
        },
    )


def operations(context: Context) -> Application:
    """Return what machines ask a node on a private way: metrics and health, by anybody."""
    rows = (*endpoints_health.ENDPOINTS, *endpoints_metrics.ENDPOINTS)
    table = EndpointTable(replace(row, is_public=True, scope=None) for row in rows)
    return Application(http=Pipeline(context, NativeStyle(context, table)))


def beside_product(context: Context, root: str) -> Application:
    """Return what answers at the root where a product has it: probes, and the way to the dashboard.

    Args:
        context: The node and its surroundings.
        root: The path that the native API is mounted at.
    """
    table = EndpointTable((*endpoints_health.ENDPOINTS, web.way_to(root)))
    return Application(http=Pipeline(context, NativeStyle(context, table)))
