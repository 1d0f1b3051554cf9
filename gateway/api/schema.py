"""Schema: the types of requests and replies of the REST API, besides the public session.

Types of requests refuse unknown members; types of replies leave out unset ones. ``openapi`` is made
from these types.

Not here: the public session and its parts (``core.public``), the endpoints (``endpoints_*``).
"""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.core.model import (
    CLOSE_AFTER_MAX_S,
    AmountMs,
    DurationMs,
    Key,
    LabelName,
    Labels,
    LabelValue,
    Members,
    Name,
    Object,
    Profile,
    SessionId,
    State,
    Text,
)
from gateway.core.protocol import ClientChanges
from gateway.core.public import PublicEvent, PublicRow, PublicSession, PublicStream, Time
from gateway.core.query import LIMIT_DEFAULT, LIMIT_MAX, Filter, Sort

CloseAfterS = Annotated[
    float, Meta(ge=0, le=CLOSE_AFTER_MAX_S, description="Seconds from now; 0 is now.")
]
Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="At most this many.")]
Cursor = Annotated[
    str, Meta(min_length=1, max_length=1024, description="`next` of the page before.")
]
Moment = Annotated[datetime, Meta(tz=True)]
Fields = Annotated[
    str,
    Meta(
        pattern=f"^(?:{'|'.join(PublicSession.__struct_fields__)})"
        f"(?:,(?:{'|'.join(PublicSession.__struct_fields__)}))*$(?!\\n)",
        description="Only these members, separated by commas.",
    ),
]


def _values(name: str) -> Meta:
    return Meta(
        extra_json_schema={"additionalProperties": {"$ref": f"#/components/schemas/{name}"}}
    )


Content = Annotated[Object, _values("Value")]
ContentPatch = Annotated[Object, _values("PatchValue")]

T = TypeVar("T")


def given(value: T | UnsetType) -> T | None:
    """Return *value*, ``None`` if it was not given."""
    return None if value is UNSET else value


class Incoming(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of what is read."""


class Outgoing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of what is answered."""


class WatchBody(Incoming, frozen=True, kw_only=True):
    """What a session looks at or plays."""

    key: Key
    title: Text | UnsetType = UNSET
    kind: Key | UnsetType = UNSET
    state: Key | UnsetType = UNSET
    position_ms: AmountMs | UnsetType = UNSET
    duration_ms: AmountMs | UnsetType = UNSET
    bandwidth: Annotated[int, Meta(ge=0, le=2**53 - 1)] | UnsetType = UNSET
    item: Content | UnsetType = UNSET


class StreamBody(Incoming, frozen=True, kw_only=True):
    """A related job or backend connection; its key is in the path."""

    kind: Key
    state: Key | UnsetType = UNSET
    data: Content = {}


class NewStream(StreamBody, frozen=True, kw_only=True):
    """A stream that is there from the start."""

    key: Key


class NewClient(Incoming, frozen=True, kw_only=True):
    """The program at the other end."""

    key: Text | UnsetType = UNSET
    product: Text | UnsetType = UNSET
    version: Text | UnsetType = UNSET
    platform: Text | UnsetType = UNSET
    device: Text | UnsetType = UNSET
    model: Text | UnsetType = UNSET


class NewProfile(Profile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the client may do; what is left out it may not."""

    plugins: Content = {}  # noqa: RUF012 - msgspec copies it


class ProfilePatch(Incoming, frozen=True, kw_only=True):
    """What the client may do from now on; what is left out stays, null is no."""

    name: Text | UnsetType | None = UNSET
    is_admin: bool | UnsetType | None = UNSET
    can_login: bool | UnsetType | None = UNSET
    can_connect: bool | UnsetType | None = UNSET
    can_watch: bool | UnsetType | None = UNSET
    can_host: bool | UnsetType | None = UNSET
    can_share_media: bool | UnsetType | None = UNSET
    can_access_clipboard: bool | UnsetType | None = UNSET
    sends_inactive_cursor: bool | UnsetType | None = UNSET
    can_see_inactive_cursors: bool | UnsetType | None = UNSET
    plugins: ContentPatch | UnsetType | None = UNSET


class NewSession(Incoming, frozen=True, kw_only=True):
    """A session to open; a caller with ``write`` may set all of it."""

    id: SessionId | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    account: Name | UnsetType = UNSET
    workspace: Name | UnsetType = UNSET
    service: Name | UnsetType = UNSET
    labels: Labels = {}
    attributes: Content = {}
    profile: NewProfile | UnsetType = UNSET
    client: NewClient | UnsetType = UNSET
    members: Members = ()
    phase: Key | UnsetType = UNSET
    linger_ms: DurationMs | UnsetType = UNSET
    grace_ms: DurationMs | UnsetType = UNSET
    keepalive_ms: DurationMs | UnsetType = UNSET
    ttl_ms: DurationMs | UnsetType = UNSET
    watch: WatchBody | UnsetType = UNSET
    streams: tuple[NewStream, ...] = ()


class SessionPatch(Incoming, frozen=True, kw_only=True):
    """A merge patch (RFC 7396) of a session: null removes."""

    name: Name | UnsetType | None = UNSET
    labels: dict[LabelName, LabelValue | None] | UnsetType | None = UNSET
    attributes: ContentPatch | UnsetType | None = UNSET
    client: ClientChanges | UnsetType | None = UNSET
    profile: ProfilePatch | UnsetType | None = UNSET
    members: Members | UnsetType | None = UNSET
    phase: Key | UnsetType | None = UNSET
    linger_ms: DurationMs | UnsetType | None = UNSET
    grace_ms: DurationMs | UnsetType | None = UNSET
    keepalive_ms: DurationMs | UnsetType | None = UNSET
    ttl_ms: DurationMs | UnsetType | None = UNSET


class ClosingBody(Incoming, frozen=True, kw_only=True):
    """A close to schedule or to move."""

    after_s: CloseAfterS
    reason: Text | UnsetType = UNSET
    extend_max_s: Annotated[
        CloseAfterS, Meta(description="How much more the client may ask for, in seconds.")
    ] = 0


class Addressees(Incoming, frozen=True, kw_only=True):
    """Who hears a message: one session, a workspace, or everybody (neither)."""

    session: SessionId | UnsetType = UNSET
    workspace: Name | UnsetType = UNSET


class MessageBody(Incoming, frozen=True, kw_only=True):
    """Something to be said once to live connections; the body is at most 4 KiB."""

    topic: Key
    to: Addressees = Addressees()
    body: Annotated[Any, Meta(extra_json_schema={"$ref": "#/components/schemas/Payload"})] = None


class SessionQuery(Filter, frozen=True, kw_only=True):
    """Which sessions, in which order, how many, how much of each."""

    sort: Sort = Sort.CREATED_AT
    limit: Limit = LIMIT_DEFAULT
    cursor: Cursor | None = None
    fields: Fields | None = None


class StreamQuery(Filter, frozen=True, kw_only=True):
    """The streams of which sessions, how many."""

    limit: Limit = LIMIT_DEFAULT
    cursor: Cursor | None = None


class HistoryQuery(Incoming, frozen=True, kw_only=True):
    """Which closed sessions or finished watches, the newest first."""

    kind: Literal["session", "watch"] = "session"
    workspace: Name | None = None
    account: Name | None = None
    service: Name | None = None
    labels: Labels = {}
    q: Annotated[Name, Meta(description="The session's id or name contains this.")] | None = None
    since: Annotated[Moment, Meta(description="Ended at this time or later.")] | None = None
    until: Annotated[Moment, Meta(description="Ended before this time.")] | None = None
    limit: Limit = LIMIT_DEFAULT
    cursor: Cursor | None = None


class PastQuery(Incoming, frozen=True, kw_only=True):
    """Which page of the events of a session."""

    limit: Limit = LIMIT_DEFAULT
    cursor: Cursor | None = None


class PastPage(Outgoing, frozen=True, kw_only=True):
    """Events of one session, the newest first."""

    events: list[PublicEvent]
    since: Annotated[Time, Meta(description="From when on nothing is missing.")]
    is_whole: Annotated[bool, Meta(description="Whether they reach back to its beginning.")]
    next: str | None = None


class CloseQuery(Incoming, frozen=True, kw_only=True):
    """When to close and why."""

    close_after: CloseAfterS = 0
    reason: Text | None = None


class OpenedSession(PublicSession, frozen=True, kw_only=True):
    """A session that was just opened; its token is told this once."""

    session_token: Annotated[str, Meta(description="`<id>.<256 random bits>`: how to attach.")]


class ListedSession(PublicSession, frozen=True, kw_only=True):
    """A session in a list: whole, or only the members that ``fields`` names."""

    id: str = ""
    number: int = 0
    revision: int = 0
    state: State = State.IDLE
    is_connected: bool = False
    is_watching: bool = False
    created_at: Time = ""


class SessionPage(Outgoing, frozen=True, kw_only=True):
    """A page of open sessions; with ``fields`` each has only those members.

    There may be more although it is short: follow ``next``.
    """

    sessions: tuple[ListedSession, ...]
    position: Annotated[str, Meta(description="For `since` of `/v1/events` with the same filter.")]
    next: str | None = None


class SessionStream(PublicStream, frozen=True, kw_only=True):
    """A live stream and whose it is."""

    session_id: str


class StreamPage(Outgoing, frozen=True, kw_only=True):
    """A page of live streams; there may be more although it is short: follow ``next``."""

    streams: tuple[SessionStream, ...]
    next: str | None = None


class HistoryPage(Outgoing, frozen=True, kw_only=True):
    """A page of the history; there may be more although it is short: follow ``next``."""

    history: tuple[PublicRow, ...]
    next: str | None = None
