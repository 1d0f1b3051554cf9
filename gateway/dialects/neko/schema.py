"""neko's schema: what its API and its WebSocket show and take, as types. Pure.

The facts are those of neko v3 (its OpenAPI file of version 3.0.0 and the server it belongs to,
eight commits after v3.1.5). ``plugins`` is an empty object where neko shows null, which its clients
accept. Of what clients send, unknown names are ignored, as neko does; where neko takes null for a
value it is refused here, because its own document says that there is none.

Not here: how a session becomes one of them (``render``).
"""

from typing import Annotated, Any, Final, Literal, TypeVar

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, convert, field
from msgspec.structs import asdict, replace

from gateway.core.model import Profile, check_object
from gateway.core.public import Time

HEARTBEAT_INTERVAL_S: Final = 10  # what clients are told; neko's default since v3.0.9
BATCH_MAX: Final = 100  # requests in a batch
BULK_MAX: Final = 1_000  # members in one bulk request

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Whole = TypeVar("Whole", Profile, "NekoSettings")
Text = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00]*$")]


class Shape(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of rendered objects; unset members are left out."""


# --- sessions


class SessionState(Shape, frozen=True, kw_only=True):
    """Whether somebody is there and whether they watch, and since when that is so."""

    is_connected: bool
    connected_since: Time | None = None
    not_connected_since: Time | None = None
    is_watching: bool
    watching_since: Time | None = None
    not_watching_since: Time | None = None


class MemberData(Shape, frozen=True, kw_only=True):
    """One member."""

    id: str
    profile: Profile


class SessionData(MemberData, frozen=True, kw_only=True):
    """One session."""

    state: SessionState


class SessionLoginResponse(SessionData, frozen=True, kw_only=True):
    """One session and, unless a cookie carries it, its token: shown here and nowhere else."""

    token: str | None = None


# --- the room


class NekoSettings(Struct, frozen=True, kw_only=True):
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


class NekoStats(ControlStatus, frozen=True, kw_only=True):
    """Counts; ``…_left_at`` only while nobody of that class is there."""

    server_started_at: Time
    total_users: int
    last_user_left_at: Time | None = None
    total_admins: int
    last_admin_left_at: Time | None = None


class ScreenConfiguration(Struct, frozen=True, kw_only=True):
    """A screen; there is none behind the gateway, so it is always neko's default one."""

    width: int = 1280
    height: int = 720
    rate: int = 30


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
    """The body of every error: the HTTP status again, and a sentence."""

    code: int
    message: str


# --- payloads of events


class Init(Struct, frozen=True, kw_only=True):
    """``system/init``: everything a new client has to know."""

    session_id: str
    control_host: dict[str, Any]
    screen_size: ScreenConfiguration
    sessions: dict[str, SessionData]
    settings: NekoSettings
    touch_events: bool = False
    screencast_enabled: bool = False
    webrtc: dict[str, Any] = field(default_factory=lambda: {"videos": []})


class Said(Struct, frozen=True):
    """``send/unicast``, and ``send/broadcast``, which has no receiver."""

    sender: str
    subject: str
    body: Any
    receiver: str | UnsetType = UNSET


# --- what clients send


class SettingsChange(Struct, frozen=True, kw_only=True):
    """A change of settings: those that are given, and of ``plugins`` those that are named."""

    private_mode: bool | UnsetType = UNSET
    locked_logins: bool | UnsetType = UNSET
    locked_controls: bool | UnsetType = UNSET
    control_protection: bool | UnsetType = UNSET
    implicit_hosting: bool | UnsetType = UNSET
    inactive_cursors: bool | UnsetType = UNSET
    merciful_reconnect: bool | UnsetType = UNSET
    heartbeat_interval: Int32 | UnsetType = UNSET
    plugins: dict[str, Any] | UnsetType = UNSET


class SessionLoginRequest(Struct, frozen=True):
    """A name and a password."""

    username: str = ""
    password: str = ""


class ProfileChange(Struct, frozen=True, kw_only=True):
    """A partial profile; members that are left out keep their value."""

    name: Text | UnsetType = UNSET
    is_admin: bool | UnsetType = UNSET
    can_login: bool | UnsetType = UNSET
    can_connect: bool | UnsetType = UNSET
    can_watch: bool | UnsetType = UNSET
    can_host: bool | UnsetType = UNSET
    can_share_media: bool | UnsetType = UNSET
    can_access_clipboard: bool | UnsetType = UNSET
    sends_inactive_cursor: bool | UnsetType = UNSET
    can_see_inactive_cursors: bool | UnsetType = UNSET
    plugins: dict[str, Any] | UnsetType = UNSET


class MemberCreate(SessionLoginRequest, frozen=True):
    """A new member; what the profile leaves out is allowed, but for being an admin."""

    profile: ProfileChange = ProfileChange()


class MemberPassword(Struct, frozen=True):
    """A new password."""

    password: str = ""


class MemberBulkDelete(Struct, frozen=True):
    """Many members."""

    ids: Annotated[tuple[str, ...], Meta(max_length=BULK_MAX)] = ()


class MemberBulkUpdate(MemberBulkDelete, frozen=True):
    """The same change for many members."""

    profile: ProfileChange = ProfileChange()


class BatchRequest(Struct, frozen=True):
    """One request of a batch."""

    path: str = ""
    method: Literal["GET", "POST", "DELETE"] = "GET"
    body: Raw | UnsetType = UNSET


class BroadcastRequest(Struct, frozen=True):
    """Where to broadcast to."""

    url: str = ""


class ScreenRequest(Struct, frozen=True):
    """A screen that is wanted."""

    width: int = 0
    height: int = 0
    rate: int = 0


class Spoken(Struct, frozen=True):
    """The payload of ``send/unicast``, and of ``send/broadcast``, which has no receiver."""

    subject: str = ""
    body: Any = None
    receiver: str = ""


class ClientEvent(Struct, frozen=True):
    """A message of a client's socket."""

    event: str
    payload: Raw = Raw()


class LogLine(Struct, frozen=True):
    """A line of a client's log."""

    message: str = ""
    level: str = "info"


Batch = Annotated[list[BatchRequest], Meta(max_length=BATCH_MAX)]


class BatchResponse(Struct, frozen=True, omit_defaults=True):
    """The result of one request of a batch; ``body`` only if the reply was JSON."""

    path: str
    method: str
    status: int
    body: Any = None


class MembersQuery(Struct, frozen=True):
    """A page of the members; 0 is no limit."""

    offset: int = 0
    limit: int = 0


NEW_PROFILE: Final = convert(
    {name: True for name in Profile.__struct_fields__ if name.startswith(("can_", "sends_"))},
    Profile,
)
"""The profile of a new member: everything but being an admin."""


def merged(whole: Whole, change: Struct, *, nulls: bool = False) -> Whole:
    """Return *whole* with what *change* names; of the plugins' settings those that it names.

    Args:
        whole: A profile, or settings.
        change: The same fields, each of which may be unset.
        nulls: Whether the plugins' settings may hold null.

    Raises:
        Invalid: The plugins' settings cannot be kept.
    """
    given = {name: value for name, value in asdict(change).items() if value is not UNSET}
    plugins = given.get("plugins", {})
    check_object(plugins, "plugins", nulls=nulls)
    return replace(whole, **{**given, "plugins": {**whole.plugins, **plugins}})
