"""Routes: Plex's paths; each answers with and without a slash at its end."""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct
from starlette.routing import BaseRoute, Route, WebSocketRoute

from gateway.context import Context
from gateway.dialects.plex.door import Entrance, Handler
from gateway.dialects.plex.doors import Doors
from gateway.dialects.plex.history import History
from gateway.dialects.plex.library import Library
from gateway.dialects.plex.live import DIALECT, Notifications, Renderer
from gateway.dialects.plex.playback import Playbacks
from gateway.dialects.plex.state import Plex

SOCKETS: Final = ("/:/websockets/notifications", "/:/websocket/notifications")


class Endpoint(Struct, frozen=True):
    """One path: what each method does there, and whether that needs no token."""

    path: str
    handlers: Mapping[str, Handler]
    is_public: bool = False


def endpoints(plex: Plex) -> list[Endpoint]:
    """Return all paths of the dialect."""
    doors, history, playbacks = Doors(plex), History(plex), Playbacks(plex)
    library = Library(plex)
    report: Mapping[str, Handler] = {"GET": playbacks.report, "POST": playbacks.report}
    return [
        Endpoint("/", {"GET": doors.root}),
        Endpoint("/identity", {"GET": doors.identity}, is_public=True),
        Endpoint("/status/sessions", {"GET": doors.sessions}),
        Endpoint("/status/sessions/terminate", {"GET": doors.terminate, "POST": doors.terminate}),
        Endpoint("/status/sessions/background", {"GET": doors.empty}),
        Endpoint("/status/sessions/history/all", {"GET": history.all}),
        Endpoint("/status/sessions/history/{id}", {"GET": history.one, "DELETE": history.delete}),
        Endpoint("/library", {"GET": library.root}),
        Endpoint("/library/sections", {"GET": library.sections}),
        Endpoint("/library/sections/all", {"GET": library.sections}),
        Endpoint("/library/sections/{id}/all", {"GET": library.section}),
        Endpoint("/library/metadata/{ids}", {"GET": library.items}),
        Endpoint("/livetv/dvrs", {"GET": library.empty}),
        Endpoint("/transcode/sessions", {"GET": doors.transcodes}),
        Endpoint("/transcode/sessions/{key:path}", {"DELETE": doors.stop_transcode}),
        Endpoint("/:/timeline", report),
        Endpoint("/:/progress", report),
        Endpoint("/:/eventsource/notifications", {"GET": doors.events}),
        *(Endpoint(path, {"GET": doors.upgrade}) for path in SOCKETS),
        Endpoint("/accounts", {"GET": doors.accounts}),
        Endpoint("/accounts/{id}", {"GET": doors.account}),
        Endpoint("/devices", {"GET": doors.devices}),
        Endpoint("/devices/{id}", {"GET": doors.device}),
        Endpoint("/clients", {"GET": doors.empty}),
        Endpoint("/activities", {"GET": doors.empty}),
        Endpoint("/activities/{id}", {"DELETE": doors.unknown}),
    ]


def routes(context: Context) -> list[BaseRoute]:
    """Return what serves this dialect."""
    plex = Plex(context)
    context.node.hub.register(DIALECT, Renderer(plex))
    notifications = Notifications(plex)
    found: list[BaseRoute] = [WebSocketRoute(path, notifications) for path in _both(SOCKETS)]
    for endpoint in endpoints(plex):
        entrance = Entrance(context, endpoint.handlers, is_public=endpoint.is_public)
        found.extend(Route(path, entrance) for path in _both([endpoint.path]))
    nowhere = Entrance(context, {}, otherwise=Doors(plex).unknown)
    return [*found, Route("/{path:path}", nowhere)]


def _both(paths: Iterable[str]) -> list[str]:
    """Return each path with and without a slash at its end."""
    return [form for path in paths for form in dict.fromkeys((path, f"{path.rstrip('/')}/"))]
