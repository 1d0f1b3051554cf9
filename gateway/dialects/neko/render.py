"""Renders sessions and events in neko's form. Pure.

As in neko, a time is when something happened, not when it was announced. A session of another door
has no neko profile and gets a neutral one: it may log in, connect and watch, but has no rights in
the room.
"""

from typing import Final, Literal

from msgspec import Raw, Struct
from msgspec.json import encode
from msgspec.structs import asdict, replace

from gateway.core.model import Profile, Session
from gateway.core.public import rfc3339
from gateway.dialects.neko.schema import (
    ControlHost,
    ControlStatus,
    Enabled,
    Files,
    Identified,
    NekoEvent,
    NekoSettings,
    ProfileOf,
    SessionData,
    SessionState,
    SettingsBy,
    StateOf,
)

VIRTUAL_NAME: Final = "API Session"
VIRTUAL_ID: Final = (
    "API"  # of a caller that shows a key instead of logging in: ``session.api_token``
)

EventName = Literal[
    "system/init", "system/admin", "system/settings", "system/disconnect",
    "session/created", "session/deleted", "session/profile", "session/state",
    "control/host", "control/request", "send/unicast", "send/broadcast",
    "chat/init", "filetransfer/update", "openinapp/init",
]  # fmt: skip

HEARTBEAT: Final = b'{"event":"system/heartbeat"}\n'  # the one event without a payload


def event(name: EventName, payload: Struct) -> bytes:
    """Return a message of the server; neko ends each with a newline."""
    return encode(NekoEvent(name, Raw(encode(payload)))) + b"\n"


PLUGINS: Final = (
    event("chat/init", Enabled()),
    event("filetransfer/update", Files()),
    event("openinapp/init", Enabled()),
)
"""The messages to a new client about plugins, of which there are none."""


# --- rendering


def is_there(session: Session) -> bool:
    """Whether *session* counts as connected: attached, or lost within the grace period."""
    if session.closed:
        return False
    return session.is_connected or session.settles_at is not None


def profile_of(session: Session) -> Profile:
    """Return the profile of *session*; one of another door gets a neutral one."""
    profile = session.profile
    if profile is None:
        name = session.name or session.id
        return Profile(name=name, can_login=True, can_connect=True, can_watch=True)
    return replace(profile, name=session.name or profile.name)


def state_of(session: Session, watched: Session | None = None) -> SessionState:
    """Return the state of a session: whether it is connected and watching.

    Args:
        session: The record, which may be closed.
        watched: The record to take the state of watching from, if it is another one.
    """
    since, not_since = None, None
    if is_there(session):
        since = session.connection.connected_at if session.connection else None
    elif session.connection:
        not_since = session.disconnected_at or session.closed_at
    seen = watched or session
    return SessionState(
        is_connected=is_there(session),
        connected_since=_time(since),
        not_connected_since=_time(not_since),
        is_watching=seen.is_watching,
        watching_since=_time(seen.watching_since),
        not_watching_since=None if seen.is_watching else _time(seen.unwatched_at),
    )


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


NEVER_CONNECTED: Final = SessionState(is_connected=False, is_watching=False)


def session_data(shown_id: str, session: Session) -> SessionData:
    """Return *session* as it is listed."""
    return SessionData(id=shown_id, profile=profile_of(session), state=state_of(session))


def control(host_id: str | None) -> ControlStatus:
    """Return who has control."""
    return ControlStatus(has_host=host_id is not None, host_id=host_id)


def control_host(by: str, host_id: str | None) -> ControlHost:
    """Return the payload of ``control/host``."""
    return ControlHost(id=by, has_host=host_id is not None, host_id=host_id)


def settings_by(by: str, settings: NekoSettings) -> SettingsBy:
    """Return the payload of ``system/settings``."""
    return SettingsBy(id=by, **asdict(settings))


def told(shown_id: str, before: Session | None, after: Session) -> tuple[list[bytes], list[bytes]]:
    """Return the events of one commit: those before the room's events, and those after them.

    neko's order is: the profile, the host, the settings, connected, watching, and at last the end
    of the session.

    Args:
        shown_id: The id of the session in neko.
        before: The session before it; ``None`` if it was opened by it.
        after: The session after it.
    """
    first: list[bytes] = []
    if before is None:
        profile = profile_of(after)
        created = SessionData(id=shown_id, profile=profile, state=NEVER_CONNECTED)
        first.append(event("session/created", created))
        seen = NEVER_CONNECTED
        between = state_of(after, _UNWATCHED)
    else:
        profile = profile_of(after)
        if profile != profile_of(before):
            first.append(event("session/profile", ProfileOf(id=shown_id, **asdict(profile))))
        seen = state_of(before)
        between = state_of(after, before)
    last: list[bytes] = []
    for state in (between, state_of(after)):
        if state != seen:
            last.append(event("session/state", StateOf(id=shown_id, **asdict(state))))
            seen = state
    if after.closed:
        last.append(event("session/deleted", Identified(shown_id)))
    return first, last


_UNWATCHED: Final = Session(id="-", number=0, revision=0, created_at=0)
