"""Routes: the table of Webida's endpoints, and the socket.

Webida's RESTful API, generation A (0.2.0 to 0.5.0) by default and C (0.8.0 and 0.8.1, npm package
``webida-restful-api``) by setting, as far as it is about sessions. Its file systems, workspaces and
processes are not here, and neither is generation B, which lived for two weeks.
"""

from typing import Final

from gateway.context import Context
from gateway.dialects.webida import endpoints_sessions
from gateway.dialects.webida.access import Access
from gateway.dialects.webida.endpoints_auth import AuthEndpoints
from gateway.dialects.webida.session_socket import answer_polling, endpoint
from gateway.dialects.webida.style import ABOUT, WebidaStyle
from gateway.http.endpoint import AnyEndpoint, Endpoint, EndpointTable
from gateway.http.openapi import described
from gateway.http.pipeline import Application, Pipeline

SOCKETS: Final = ("/socket.io/", "/socket.io")
POLLING_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def application(context: Context, root: str) -> Application:
    """Return the application of this dialect.

    Args:
        context: The node and its surroundings.
        root: The path that it is mounted at; empty at the root.
    """
    access = Access(context)
    endpoints = described(
        [
            *endpoints_sessions.table(context.settings.webida_generation),
            *AuthEndpoints(access).table(),
            *_polling(),
        ],
        ABOUT,
        root,
    )
    return Application(
        http=Pipeline(context, WebidaStyle(access, EndpointTable(endpoints))),
        sockets=dict.fromkeys(SOCKETS, endpoint(context, access)),
    )


def _polling() -> list[AnyEndpoint]:
    """Return the rows that refuse long polling to clients of Engine.IO."""
    return [
        Endpoint(method, path, answer_polling, is_public=True, is_hidden=True, consumes=())
        for path in SOCKETS
        for method in POLLING_METHODS
    ]
