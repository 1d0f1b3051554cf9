"""Routes: Plex's paths, who may use them, and what serves them."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Scope as ScopeOfRequest

from gateway.auth.credentials import Credential
from gateway.auth.principals import Scope
from gateway.context import Context, caller_key
from gateway.core.errors import GatewayError, NotFound
from gateway.core.query import View
from gateway.dialects.plex import codec, schema
from gateway.dialects.plex.codec import DIALECT, PushCodec, Renderer, wanted
from gateway.dialects.plex.endpoints_history import HistoryEndpoints, LibraryEndpoints
from gateway.dialects.plex.endpoints_sessions import SessionEndpoints
from gateway.dialects.plex.endpoints_timeline import TimelineEndpoints
from gateway.dialects.plex.query import (
    Paged,
    PlayedQuery,
    PushQuery,
    TerminateQuery,
    TimelineQuery,
)
from gateway.dialects.plex.schema import reply_of
from gateway.dialects.plex.state import Plex
from gateway.dialects.plex.style import (
    METADATA,
    XML,
    PlexCall,
    PlexStyle,
    error_codes,
    principal_in,
    refusal,
    takes_json,
)
from gateway.http.endpoint import JSON, AnyEndpoint, Endpoint, EndpointTable
from gateway.http.openapi import Description, described
from gateway.http.pipeline import Application, Pipeline
from gateway.http.request import Request, check_target, read_pairs
from gateway.realtime.codec import HeartbeatRule
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.handshake import Admission, WebSocketEndpoint, check_admissible
from gateway.realtime.subscriber import ObserverSocket

SOCKETS: Final = ("/:/websockets/notifications", "/:/websocket/notifications")
BOTH: Final = (JSON, XML.partition(";")[0])  # what every reply comes as, by ``Accept``

_EMPTY: Final = reply_of("EmptyReply", schema.Container)
_ITEMS: Final = reply_of("ItemList", schema.LibraryContainer, METADATA, schema.LibraryItem)
_HISTORY: Final = reply_of("HistoryList", schema.Container, METADATA, schema.HistoryItem)
_SECTIONS: Final = reply_of("SectionList", schema.LibraryContainer, "Directory", schema.Section)
_ACCOUNTS: Final = reply_of("AccountList", schema.Container, "Account", schema.Account)
_DEVICES: Final = reply_of("DeviceList", schema.Container, "Device", schema.Device)
_PLAYER: Final = reply_of("ReportReply", schema.TimelineContainer)
_ROOT: Final = reply_of("RootReply", schema.Root)
_IDENTITY: Final = reply_of("IdentityReply", schema.Identity)
_LIBRARY: Final = reply_of("LibraryReply", schema.LibraryContainer)
_SESSIONS: Final = reply_of("SessionList", schema.Container, METADATA, schema.Metadata)
_TRANSCODES: Final = reply_of(
    "TranscodeList", schema.Container, "TranscodeSession", schema.TranscodeSession
)

Handler = Callable[[PlexCall], Awaitable[Response]]

ABOUT: Final = Description(
    title="Plex dialect of the Session Gateway",
    text=(
        "The session API of Plex Media Server 1.42 over the gateway's sessions: what plays, what "
        "was played, players that report, pushes by WebSocket and server-sent events. There is no "
        "library of its own. Every reply is XML unless `Accept` names JSON."
    ),
    security_schemes={
        "token": {"type": "apiKey", "in": "header", "name": "X-Plex-Token"},
        "tokenInQuery": {"type": "apiKey", "in": "query", "name": "X-Plex-Token"},
    },
    failure=schema.Errors,
    failure_media=(JSON, "text/html"),
    status_of=lambda error: error_codes(error)[0],
    code_of=lambda error: str(error_codes(error)[1]),
)


def endpoints(plex: Plex) -> list[AnyEndpoint]:
    """Return all endpoints of the dialect."""
    sessions, history = SessionEndpoints(plex), HistoryEndpoints(plex)
    library, timeline = LibraryEndpoints(plex), TimelineEndpoints(plex)
    list_of = {"query": Paged}
    readable = {"query": Paged, "scope": Scope.READ}
    one_of = {"errors": (NotFound,)}
    found = [
        _row("GET /", sessions.root, "What this server can do", _ROOT),
        _row("GET /identity", sessions.identity, "Which it is", _IDENTITY, is_public=True),
        _row("GET /status/sessions", sessions.list_sessions, "What plays", _SESSIONS, **readable),
        _row(
            "GET /status/sessions/history/all",
            history.list_history,
            "What was played",
            _HISTORY,
            query=PlayedQuery,
        ),
        _row(
            "GET /status/sessions/history/{id}",
            history.history_row,
            "One row of the history",
            _HISTORY,
            **one_of,
        ),
        _row(
            "DELETE /status/sessions/history/{id}",
            history.delete_history,
            "Delete a row of the history for good",
            _EMPTY,
            scope=Scope.WRITE,
            **one_of,
        ),
        _row(
            "GET /transcode/sessions",
            sessions.list_transcodes,
            "The transcodes of all sessions",
            _TRANSCODES,
            **readable,
        ),
        _row(
            "DELETE /transcode/sessions/{key:path}",
            sessions.stop_transcode,
            "End a transcode",
            None,
            returns={204: None},
            scope=Scope.CLOSE,
            **one_of,
        ),
        _row(
            "GET /:/eventsource/notifications",
            sessions.events,
            "What happens, as server-sent events",
            str,
            query=PushQuery,
            produces=("text/event-stream",),
        ),
        _row("GET /library", library.library, "Whether there is a library", _LIBRARY),
        _row(
            "GET /library/sections/{id}/all",
            library.section,
            "What plays and was played in a section",
            _ITEMS,
            **list_of,
            **one_of,
        ),
        _row(
            "GET /library/metadata/{ids}",
            library.metadata,
            "Items that play or were played, by their numbers",
            _ITEMS,
            **list_of,
            **one_of,
        ),
        _row("GET /accounts", sessions.list_accounts, "People", _ACCOUNTS, **readable),
        _row("GET /accounts/{id}", sessions.account, "A person", _ACCOUNTS, **readable, **one_of),
        _row("GET /devices", sessions.list_devices, "Players", _DEVICES, **readable),
        _row("GET /devices/{id}", sessions.device, "A player", _DEVICES, **readable, **one_of),
        _row("DELETE /activities/{id}", sessions.unknown, "", None, is_hidden=True),
        *(_row(f"GET {path}", sessions.upgrade, "", None, is_hidden=True) for path in SOCKETS),
    ]
    for name, path in (("sections", ""), ("all_sections", "/all")):
        summary = "The sections: workspaces in which something plays or was played"
        target = f"GET /library/sections{path}"
        found.append(_row(target, library.sections, summary, _SECTIONS, name=name, **list_of))
    for name, path in (
        ("background", "/status/sessions/background"),
        ("recorders", "/livetv/dvrs"),
        ("clients", "/clients"),
        ("activities", "/activities"),
    ):
        summary = "What this server never has: an empty list"
        found.append(_row(f"GET {path}", sessions.empty, summary, _EMPTY, name=name))
    for method in ("GET", "POST"):
        found.append(
            _row(
                f"{method} /status/sessions/terminate",
                sessions.terminate,
                "End a session; its client is told the reason",
                None,
                name=f"terminate_{method.lower()}",
                query=TerminateQuery,
                scope=Scope.CLOSE,
                **one_of,
            )
        )
        found.extend(
            _row(
                f"{method} /:/{name}",
                timeline.report,
                "A player reports how it does",
                _PLAYER,
                name=f"{name}_{method.lower()}",
                query=TimelineQuery,
            )
            for name in ("timeline", "progress")
        )
    return found


def _row(target: str, handler: Handler, summary: str, reply: Any, **more: Any) -> AnyEndpoint:  # noqa: ANN401
    """Return a row of the table.

    Args:
        target: Method and path.
        handler: Does it.
        summary: One line for people.
        reply: Type of the reply.
        more: Further fields of the row.
    """
    method, _, path = target.partition(" ")
    fields = {"returns": {200: reply}, "consumes": (), "produces": BOTH, "tag": "Plex", **more}
    return Endpoint(method=method, path=path, handler=handler, summary=summary, **fields)


def application(context: Context, root: str) -> Application:
    """Return what serves this dialect.

    Args:
        context: The node and its surroundings.
        root: The path that it is mounted at; empty at the root.
    """
    plex = Plex(context)
    context.node.hub.register(DIALECT, Renderer(plex))
    style = PlexStyle(context, EndpointTable(described(endpoints(plex), ABOUT, root)))
    notifications = WebSocketEndpoint(context, partial(_admit, plex), _refuse)
    sockets = {form: notifications for path in SOCKETS for form in (path, f"{path}/")}
    return Application(http=Pipeline(context, style), sockets=sockets)


async def _admit(plex: Plex, scope: ScopeOfRequest) -> Admission[None]:
    """Let in who has a good token; a real server refuses the others before the upgrade."""
    context = plex.context
    check_target(Request({**scope, "method": "GET"}))
    asking = principal_in(context, scope)
    principal = await context.rate_limited(scope, asking, caller_key)
    check_admissible(context, scope, Credential())
    wants = wanted(read_pairs(scope))

    async def serve(connection: WebSocketConnection[None]) -> None:
        observer = ObserverSocket(context.node, connection)
        view = View(visibility=principal.visibility(), dialect=DIALECT)
        observer.subscriber.start_here(view)
        connection.expire_at(principal.expires_at, context.wall_ms)
        connection.bind(observer)
        connection.start()

    return Admission(
        codec=lambda connection: PushCodec(plex, wants, connection.too_slow),
        serve=serve,
        heartbeat=HeartbeatRule(interval_s=codec.PING_S, in_silence=False),
    )


def _refuse(error: GatewayError, scope: ScopeOfRequest) -> Response:
    return refusal(error, as_json=takes_json(scope))
