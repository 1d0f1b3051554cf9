"""Webida's paths: the table that is served and described.

Webida's RESTful API, generation A (0.2.0 to 0.5.0) by default and C (0.8.0 and 0.8.1, npm package
``webida-restful-api``) by setting, as far as it is about sessions. Its file systems, workspaces and
processes are not here, and neither is generation B, which lived for two weeks.
"""

from typing import Any, Final

from starlette.routing import BaseRoute, Route, WebSocketRoute

from gateway.context import Context
from gateway.core.errors import BadRequest, Conflict, NotFound
from gateway.dialects.webida.access import Access
from gateway.dialects.webida.door import Door, Operation
from gateway.dialects.webida.people import TokenType, get_info, issue_token, login
from gateway.dialects.webida.reading import Credential
from gateway.dialects.webida.sessions import close_sessions, find_sessions, get_session
from gateway.dialects.webida.shapes import RestOK, SessionA, SessionC, Token, User
from gateway.dialects.webida.socket import SocketDoor

SOCKET: Final = "/socket.io/"
BASE: Final = "/api"

_WORKSPACE: Final[tuple[str, Any, bool]] = ("workspaceId", str, False)

OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/sessions",
        handler=find_sessions,
        summary="List sessions, of one workspace or all",
        returns=(list[SessionA], list[SessionC]),
        parameters=(_WORKSPACE,),
        errors=(BadRequest,),
    ),
    Operation(
        method="GET",
        path="/sessions/{sessionId}",
        handler=get_session,
        summary="Look at a session; in generation C a list of it, and `*` is all of a workspace",
        returns=(SessionA, list[SessionC]),
        parameters=(_WORKSPACE,),
        errors=(BadRequest, NotFound),
    ),
    Operation(
        method="DELETE",
        path="/sessions/{sessionId}",
        handler=close_sessions,
        summary="Close a session after a while; in generation C `*` closes all of a workspace",
        returns=(RestOK,),
        parameters=(("closeAfter", int, True), _WORKSPACE),
        errors=(BadRequest, NotFound, Conflict),
    ),
    Operation(
        method="POST",
        path="/auth/login",
        handler=login,
        summary="Log in with an id and a password, or with a MASTER token",
        returns=(Token,),
        body=Credential,
        is_public=True,
        errors=(BadRequest,),
    ),
    Operation(
        method="GET",
        path="/auth/info",
        handler=get_info,
        summary="Who is logged in",
        returns=(User,),
    ),
    Operation(
        method="POST",
        path="/auth/token",
        handler=issue_token,
        summary="Make another token of this one",
        returns=(Token,),
        parameters=(("type", TokenType, True), _WORKSPACE),
        errors=(BadRequest,),
    ),
)


def routes(context: Context) -> list[BaseRoute]:
    """Return what serves this dialect; the last one answers for every other path."""
    access = Access(context)
    socket = SocketDoor(context, access)
    paths: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        paths.setdefault(BASE + operation.path, {})[operation.method] = operation
    return [
        *(form for path in (SOCKET, SOCKET.rstrip("/")) for form in _both(path, socket)),
        *(Route(path, Door(context, access, methods)) for path, methods in paths.items()),
        Route("/{path:path}", Door(context, access, {})),
    ]


def _both(path: str, socket: SocketDoor) -> list[BaseRoute]:
    return [WebSocketRoute(path, socket), Route(path, socket)]
