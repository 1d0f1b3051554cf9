"""Routes: the table of Plex's endpoints, with their scopes and handlers."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import Credential
from gateway.auth.principals import Scope
from gateway.context import Context, caller_key
from gateway.core.errors import GatewayError, NotFound
from gateway.dialects.plex import codec, query, schema
from gateway.dialects.plex import style as plex_style
from gateway.dialects.plex.codec import PushCodec, pushes_of, wanted
from gateway.dialects.plex.endpoints_history import HistoryEndpoints, LibraryEndpoints
from gateway.dialects.plex.endpoints_sessions import SessionEndpoints
from gateway.dialects.plex.endpoints_timeline import TimelineEndpoints
from gateway.dialects.plex.query import Paged
from gateway.dialects.plex.schema import Container, LibraryContainer, reply_of
from gateway.dialects.plex.state import DIALECT, Plex
from gateway.dialects.plex.style import METADATA, XML, PlexCall, PlexStyle, error_codes
from gateway.http.endpoint import JSON, AnyEndpoint, Endpoint, EndpointTable
from gateway.http.openapi import Description, described
from gateway.http.pipeline import Application, Pipeline
from gateway.http.request import Request, check_target, read_pairs
from gateway.realtime.codec import HeartbeatRule
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.handshake import Admission, WebSocketEndpoint, check_admissible
from gateway.realtime.subscriber import ObserverSocket

SOCKETS: Final = ("/:/websockets/notifications", "/:/websocket/notifications")
HISTORY: Final = "/status/sessions/history"
BOTH: Final = (JSON, XML.partition(";")[0])  # what every reply comes as, by ``Accept``
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

Handler = Callable[[PlexCall], Awaitable[Response]]

_PAGED: Final[dict[str, Any]] = {"query": Paged}
_READS: Final[dict[str, Any]] = {"scope": Scope.READ, "query": Paged}
_ONE: Final[dict[str, Any]] = {"errors": (NotFound,)}
_WRITES: Final[dict[str, Any]] = {"scope": Scope.WRITE, **_ONE}
_CLOSES: Final[dict[str, Any]] = {"scope": Scope.CLOSE, **_ONE}
_STOPS: Final[dict[str, Any]] = {"returns": {204: None}, **_CLOSES}
_PUBLIC: Final[dict[str, Any]] = {"is_public": True}
_HISTORY: Final[dict[str, Any]] = {"query": query.PlayedQuery}
_STREAM: Final[dict[str, Any]] = {"query": query.PushQuery, "produces": ("text/event-stream",)}


def endpoints(plex: Plex) -> list[AnyEndpoint]:
    """Return all endpoints of the dialect."""
    sessions, timeline = SessionEndpoints(plex), TimelineEndpoints(plex)
    history, library = HistoryEndpoints(plex), LibraryEndpoints(plex)
    nothing, people = reply_of(Container), reply_of(Container, "Account", schema.Account)
    plays = reply_of(Container, METADATA, schema.Metadata)
    played = reply_of(Container, METADATA, schema.HistoryItem)
    jobs = reply_of(Container, "TranscodeSession", schema.TranscodeSession)
    players = reply_of(Container, "Device", schema.Device)
    items = reply_of(LibraryContainer, METADATA, schema.LibraryItem)
    sections = reply_of(LibraryContainer, "Directory", schema.Section)
    get, delete = partial(_row, "GET"), partial(_row, "DELETE")
    row, shelf = f"{HISTORY}/{{id}}", {**_PAGED, **_ONE}
    found = [
        get("/", sessions.root, "What this server can do", reply_of(schema.Root)),
        get("/identity", sessions.identity, "Which it is", reply_of(schema.Identity), **_PUBLIC),
        get("/status/sessions", sessions.list_sessions, "What plays now", plays, **_READS),
        get(f"{HISTORY}/all", history.list_history, "What was played", played, **_HISTORY),
        get(row, history.history_row, "One row of the history", played, **_ONE),
        delete(row, history.delete_history, "Delete it for good", nothing, **_WRITES),
        get("/transcode/sessions", sessions.list_transcodes, "Transcodes", jobs, **_READS),
        delete("/transcode/sessions/{key:path}", sessions.stop_transcode, "End one", **_STOPS),
        get("/:/eventsource/notifications", sessions.events, "What happens", str, **_STREAM),
        get("/library", library.library, "Whether it is there", reply_of(LibraryContainer)),
        get("/library/metadata/{ids}", library.metadata, "What plays or did", items, **shelf),
        get("/library/sections/{id}/all", library.section, "The same by section", items, **shelf),
        delete("/activities/{id}", sessions.unknown, is_hidden=True),
        *(get(path, sessions.upgrade, is_hidden=True) for path in SOCKETS),
    ]
    workspaces = "Workspaces in which something plays or was played"
    for name, path in (
        ("sections", "/library/sections"),
        ("shelves", "/library/sections/all"),
    ):
        found.append(get(path, library.sections, workspaces, sections, name=name, **_PAGED))
    for one, name, handler, reply in (
        ("account", "accounts", sessions.accounts, people),
        ("device", "devices", sessions.devices, players),
    ):
        found.append(get(f"/{name}", handler, f"All {name}", reply, name=name, **_READS))
        more = {"name": one, **_READS, **_ONE}
        found.append(get(f"/{name}/{{id}}", handler, f"One {one}", reply, **more))
    for name, path in (
        ("background", "/status/sessions/background"),
        ("recorders", "/livetv/dvrs"),
        ("clients", "/clients"),
        ("activities", "/activities"),
    ):
        found.append(get(path, sessions.empty, "What is never there", nothing, name=name))
    for method in ("GET", "POST"):
        end: dict[str, Any] = {"name": f"terminate_{method.lower()}", "query": query.TerminateQuery}
        path, summary = "/status/sessions/terminate", "End a session; its client is told the reason"
        found.append(_row(method, path, sessions.terminate, summary, **end, **_CLOSES))
        for what in ("timeline", "progress"):
            more = {"name": f"{what}_{method.lower()}", "query": query.TimelineQuery}
            reply = reply_of(schema.TimelineContainer)
            found.append(_row(method, f"/:/{what}", timeline.report, "A report", reply, **more))
    return found


def _row(
    method: str,
    path: str,
    handler: Handler,
    summary: str = "",
    reply: Any = None,  # noqa: ANN401 - a type
    **more: Any,  # noqa: ANN401 - other fields of the row
) -> AnyEndpoint:
    """Return a row of the table; *reply* is the type of a good one."""
    fields = {"returns": {200: reply}, "consumes": (), "produces": BOTH, "tag": "Plex", **more}
    return Endpoint(method, path, handler, summary, **fields)


def application(context: Context, root: str) -> Application:
    """Return the application of this dialect."""
    plex = Plex(context)
    context.node.register(DIALECT, partial(pushes_of, plex))
    style = PlexStyle(context, EndpointTable(described(endpoints(plex), ABOUT, root)))
    notifications = WebSocketEndpoint(context, partial(_admit, plex), _refuse)
    sockets = {form: notifications for path in SOCKETS for form in (path, f"{path}/")}
    return Application(http=Pipeline(context, style), sockets=sockets)


async def _admit(plex: Plex, scope: AsgiScope) -> Admission[None]:
    """Admit callers with a valid token; a real server refuses others before the upgrade."""
    context = plex.context
    check_admissible(context, scope, Credential())
    check_target(Request({**scope, "method": "GET"}))
    caller = await context.rate_limited(scope, plex_style.principal_in(context, scope), caller_key)
    wants = wanted(read_pairs(scope))

    async def serve(connection: WebSocketConnection[None]) -> None:
        observer = ObserverSocket(context.node, connection)
        observer.subscriber.start_here(plex.pushes_to(caller))
        connection.expire_at(caller.expires_at, context.wall_ms)
        connection.bind(observer)
        connection.start()

    return Admission(
        codec=lambda connection: PushCodec(plex, wants, connection.too_slow),
        serve=serve,
        heartbeat=HeartbeatRule(interval_s=codec.PING_S, in_silence=False),
    )


def _refuse(error: GatewayError, scope: AsgiScope) -> Response:
    return plex_style.refusal(error, as_json=plex_style.takes_json(scope))
