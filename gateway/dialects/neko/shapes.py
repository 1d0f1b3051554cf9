"""What neko shows: sessions, events, settings and errors, in its own words.

Pure. The facts are those of neko v3 (its OpenAPI file of version 3.0.0 and the server it belongs
to, eight commits after v3.1.5). Two things are better here, both within what its clients accept:
``plugins`` is an empty object where neko shows null, and a time says when something happened, not
when it was announced.

A session that was opened through another door has no profile of neko's; it is shown with a neutral
one: it may log in, connect and watch, and has no say in the room.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Raw, Struct
from msgspec.json import encode
from msgspec.structs import asdict, replace

from gateway.core.model import Profile, Session
from gateway.core.public import Time, rfc3339

VIRTUAL_NAME: Final = "API Session"
HEARTBEAT_INTERVAL_S: Final = 10  # what clients are told; neko's default since v3.0.9
SCREEN_WIDTH, SCREEN_HEIGHT, SCREEN_RATE = 1280, 720, 30  # neko's own default screen
VIRTUAL_ID: Final = "API"  # who shows a key instead of logging in, as neko's ``session.api_token``

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class Shape(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of what is shown; what is unset is left out."""


# --- sessions


class SessionState(Shape, frozen=True, kw_only=True):
    """Whether somebody is there and whether they watch, and since when that is so."""

    is_connected: bool
    connected_since: Time | None = None
    not_connected_since: Time | None = None
    is_watching: bool
    watching_since: Time | None = None
    not_watching_since: Time | None = None


class SessionData(Shape, frozen=True, kw_only=True):
    """One session."""

    id: str
    profile: Profile
    state: SessionState


class SessionLoginResponse(SessionData, frozen=True, kw_only=True):
    """One session and, unless a cookie carries it, its token: shown here and nowhere else."""

    token: str | None = None


class MemberData(Shape, frozen=True, kw_only=True):
    """One member."""

    id: str
    profile: Profile


# --- the room


class Settings(Struct, frozen=True, kw_only=True):
    """How the room is run; always shown whole."""

    private_mode: bool = False
    locked_logins: bool = False
    locked_controls: bool = False
    control_protection: bool = False
    implicit_hosting: bool = False
    inactive_cursors: bool = False
    merciful_reconnect: bool = True
    heartbeat_interval: Int32 = HEARTBEAT_INTERVAL_S
    plugins: dict[str, Any] = {}


class ControlStatus(Shape, frozen=True, kw_only=True):
    """Who has control."""

    has_host: bool
    host_id: str | None = None


class Stats(Shape, frozen=True, kw_only=True):
    """Counts; ``…_left_at`` only while nobody of that class is there."""

    has_host: bool
    host_id: str | None = None
    server_started_at: Time
    total_users: int
    last_user_left_at: Time | None = None
    total_admins: int
    last_admin_left_at: Time | None = None


class ScreenConfiguration(Struct, frozen=True, kw_only=True):
    """A screen; there is none behind the gateway, so it is always neko's default one."""

    width: int = SCREEN_WIDTH
    height: int = SCREEN_HEIGHT
    rate: int = SCREEN_RATE


class BroadcastStatus(Shape, frozen=True, kw_only=True):
    """Nothing is ever broadcast."""

    is_active: bool
    url: str | None = None


class ClipboardText(Struct, frozen=True):
    """An empty clipboard."""

    text: str = ""
    html: str = ""


class KeyboardMap(Struct, frozen=True):
    """A keyboard of which nothing is known."""

    layout: str = ""
    variant: str = ""


class KeyboardModifiers(Struct, frozen=True):
    """No key is held."""

    shift: bool = False
    capslock: bool = False
    control: bool = False
    alt: bool = False
    numlock: bool = False
    meta: bool = False
    super: bool = False
    altgr: bool = False


class ErrorMessage(Struct, frozen=True):
    """Every error: the HTTP status again, and a sentence."""

    code: int
    message: str


# --- payloads of events


class Identified(Struct, frozen=True):
    """Whom an event is about."""

    id: str


class StateOf(SessionState, frozen=True, kw_only=True):
    """``session/state``."""

    id: str


class ProfileOf(Profile, frozen=True, kw_only=True):
    """``session/profile``."""

    id: str


class SettingsBy(Settings, frozen=True, kw_only=True):
    """``system/settings``: who changed them, and all of them."""

    id: str


class ControlHost(ControlStatus, frozen=True, kw_only=True):
    """``control/host``: who did it, and who has control now."""

    id: str


class WebRtc(Struct, frozen=True):
    """No video is offered."""

    videos: list[str] = []


class Init(Struct, frozen=True, kw_only=True):
    """``system/init``: everything a new client has to know."""

    session_id: str
    control_host: ControlHost
    screen_size: ScreenConfiguration
    sessions: dict[str, SessionData]
    settings: Settings
    touch_events: bool = False
    screencast_enabled: bool = False
    webrtc: WebRtc = WebRtc()


class Admin(Struct, frozen=True, kw_only=True):
    """``system/admin``: what only admins hear."""

    screen_sizes_list: tuple[ScreenConfiguration, ...] = (ScreenConfiguration(),)
    broadcast_status: BroadcastStatus


class Unicast(Struct, frozen=True):
    """``send/unicast``."""

    sender: str
    receiver: str
    subject: str
    body: Any


class Broadcast(Struct, frozen=True):
    """``send/broadcast``."""

    sender: str
    subject: str
    body: Any


class Notice(Struct, frozen=True):
    """``system/disconnect``."""

    message: str


class Enabled(Struct, frozen=True):
    """What a plugin says that is not there."""

    enabled: bool = False


class Files(Struct, frozen=True):
    """What the file transfer says that is not there."""

    enabled: bool = False
    root_dir: str = ""
    files: list[str] = []


class Event(Struct, frozen=True):
    """One message of the server."""

    event: str
    payload: Any


EventName = Literal[
    "system/init", "system/admin", "system/settings", "system/disconnect",
    "session/created", "session/deleted", "session/profile", "session/state",
    "control/host", "control/request", "send/unicast", "send/broadcast",
    "chat/init", "filetransfer/update", "openinapp/init",
]  # fmt: skip

HEARTBEAT: Final = b'{"event":"system/heartbeat"}\n'  # the one event without a payload


def event(name: EventName, payload: Struct) -> bytes:
    """Return a message of the server; neko ends each with a newline."""
    return encode(Event(name, Raw(encode(payload)))) + b"\n"


PLUGINS: Final = (
    event("chat/init", Enabled()),
    event("filetransfer/update", Files()),
    event("openinapp/init", Enabled()),
)
"""What a new client hears of the plugins of an installation that has none."""


# --- rendering


def is_there(session: Session) -> bool:
    """Whether *session* counts as connected: attached, or lost so lately that nobody was told."""
    if session.closed:
        return False
    return session.is_connected or session.settles_at is not None


def profile_of(session: Session) -> Profile:
    """Return what *session* may do here; a name that was given elsewhere shows as well."""
    profile = session.profile
    if profile is None:
        name = session.name or session.id
        return Profile(name=name, can_login=True, can_connect=True, can_watch=True)
    return replace(profile, name=session.name or profile.name)


def state_of(session: Session, watched: Session | None = None) -> SessionState:
    """Return whether somebody is there.

    Args:
        session: The record, which may be closed.
        watched: Take what is told of watching from this record instead.
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


def settings_by(by: str, settings: Settings) -> SettingsBy:
    """Return the payload of ``system/settings``."""
    return SettingsBy(id=by, **asdict(settings))


def told(shown_id: str, before: Session | None, after: Session) -> tuple[list[bytes], list[bytes]]:
    """Return what one commit of a session means: what comes before the room's news, and after it.

    neko's order is: the profile, who has control, the settings, whether somebody is there, whether
    that one watches, and at last that the session is gone.

    Args:
        shown_id: What the session is called here.
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
