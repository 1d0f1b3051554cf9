"""Renders sessions, events and errors in neko's form. Pure.

As in neko, a time is when something happened, not when it was announced. A session of another door
has no neko profile and gets a neutral one: it may log in, connect and watch, but has no rights in
the room. An error is ``{"code": <status>, "message": <sentence>}``: one table maps the gateway's
errors to neko's, and a sentence of ours is used only where neko has none.
"""

from typing import Any, Final, Literal

from msgspec import Struct, to_builtins
from msgspec.json import encode
from msgspec.structs import replace
from starlette.responses import Response

from gateway.core import errors
from gateway.core.errors import GatewayError
from gateway.core.model import Profile, Session, new_session
from gateway.core.public import rfc3339
from gateway.dialects.neko import schema
from gateway.http.endpoint import reply

VIRTUAL_NAME: Final = "API Session"
VIRTUAL_ID: Final = "API"  # of a caller that shows a key: neko's ``session.api_token``

EventName = Literal[
    "system/init", "system/admin", "system/settings", "system/disconnect",
    "session/created", "session/deleted", "session/profile", "session/state",
    "control/host", "control/request", "send/unicast", "send/broadcast",
    "chat/init", "filetransfer/update", "openinapp/init",
]  # fmt: skip

HEARTBEAT: Final = b'{"event":"system/heartbeat"}\n'  # the one event without a payload


def event(name: EventName, payload: Struct | dict[str, Any]) -> bytes:
    """Return a message of the server; neko ends each with a newline."""
    return encode({"event": name, "payload": payload}) + b"\n"


def about(shown_id: str, payload: Struct) -> dict[str, Any]:
    """Return a payload with the id of the session that it is about, or that caused it."""
    return {"id": shown_id, **to_builtins(payload)}


FOR_ADMINS: Final = event(
    "system/admin",
    {
        "screen_sizes_list": [schema.ScreenConfiguration()],
        "broadcast_status": schema.BroadcastStatus(is_active=False),
    },
)
PLUGINS: Final = (
    event("chat/init", {"enabled": False}),
    event("filetransfer/update", {"enabled": False, "root_dir": "", "files": []}),
    event("openinapp/init", {"enabled": False}),
)
"""The messages to a new client about plugins, of which there are none."""


# --- rendering


def is_there(session: Session) -> bool:
    """Whether *session* counts as connected: attached, or lost within the grace period."""
    is_kept = session.is_connected or session.settles_at is not None
    return is_kept and not session.closed


def profile_of(session: Session) -> Profile:
    """Return the profile of *session*; one of another door gets a neutral one."""
    profile = session.profile
    if profile is None:
        name = session.name or session.id
        return Profile(name=name, can_login=True, can_connect=True, can_watch=True)
    return replace(profile, name=session.name or profile.name)


def state_of(session: Session, watched: Session | None = None) -> schema.SessionState:
    """Return the state of a session: whether it is connected and watching.

    Args:
        session: The record, which may be closed.
        watched: The record to take the state of watching from, if it is another one.
    """
    is_connected, seen, held = is_there(session), watched or session, session.connection
    left_at = session.disconnected_at or session.closed_at
    return schema.SessionState(
        is_connected=is_connected,
        connected_since=_time(held.connected_at if held and is_connected else None),
        not_connected_since=_time(left_at if held and not is_connected else None),
        is_watching=seen.is_watching,
        watching_since=_time(seen.watching_since),
        not_watching_since=None if seen.is_watching else _time(seen.unwatched_at),
    )


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


NEVER_CONNECTED: Final = schema.SessionState(is_connected=False, is_watching=False)


def session_data(shown_id: str, session: Session) -> schema.SessionData:
    """Return *session* as it is listed."""
    return schema.SessionData(id=shown_id, profile=profile_of(session), state=state_of(session))


def control(host_id: str | None) -> schema.ControlStatus:
    """Return who has control."""
    return schema.ControlStatus(has_host=host_id is not None, host_id=host_id)


def told(shown_id: str, before: Session | None, after: Session) -> tuple[list[bytes], list[bytes]]:
    """Return the events of one commit: those before the room's events, and those after them.

    neko's order is: the profile, the host, the settings, connected, watching, and at last the end
    of the session.

    Args:
        shown_id: The id of the session in neko.
        before: The session before it; ``None`` if it was opened by it.
        after: The session after it.
    """
    profile = profile_of(after)
    if before is None:
        created = schema.SessionData(id=shown_id, profile=profile, state=NEVER_CONNECTED)
        first = [event("session/created", created)]
    elif profile != profile_of(before):
        first = [event("session/profile", about(shown_id, profile))]
    else:
        first = []
    seen = NEVER_CONNECTED if before is None else state_of(before)
    last: list[bytes] = []
    for state in (state_of(after, before or new_session("-")), state_of(after)):
        if state != seen:
            last.append(event("session/state", about(shown_id, state)))
            seen = state
    if after.closed:
        last.append(event("session/deleted", {"id": shown_id}))
    return first, last


# --- errors

NO_DATA: Final = "no data provided"
UNREADABLE: Final = "unable to parse provided data"
NO_SESSION: Final = "session not found"

_TABLE: Final[tuple[tuple[type[GatewayError], int, str | None], ...]] = (  # the first that fits
    (errors.Unauthorized, 401, "Unauthorized"),
    (errors.Forbidden, 403, None),
    (errors.SessionClosed, 404, NO_SESSION),
    (errors.NotFound, 404, NO_SESSION),
    (errors.BadRequest, 400, UNREADABLE),
    (errors.Invalid, 400, UNREADABLE),
    (errors.PayloadTooLarge, 400, UNREADABLE),  # as neko, which stops reading
    (errors.UriTooLong, 414, None),
    (errors.UnsupportedMediaType, 415, None),
    (errors.RateLimited, 429, None),
    (errors.LimitExceeded, 422, None),
    (errors.Conflict, 503, None),
    (errors.Unavailable, 503, None),
    (GatewayError, 500, "Internal Server Error"),
)


class Refused(GatewayError):
    """A request that neko refuses in its own words.

    Args:
        answered: The HTTP status.
        message: What neko says.
    """

    def __init__(self, answered: int, message: str) -> None:
        super().__init__(message)
        self.answered = answered


def status_of(kind: type[GatewayError]) -> int:
    """Return the status that an error of *kind* becomes."""
    return next(status for known, status, _ in _TABLE if issubclass(kind, known))


def refusal(error: GatewayError) -> Response:
    """Return the answer that tells *error*."""
    if isinstance(error, Refused):
        return failure(error.answered, error.detail)
    status, message = next(
        (status, message) for kind, status, message in _TABLE if isinstance(error, kind)
    )
    return failure(status, message or error.detail)


def failure(status: int, message: str) -> Response:
    """Return an error as neko answers it."""
    return reply(schema.ErrorMessage(status, message), status)
