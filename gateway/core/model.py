"""The stored records: a session and its parts.

Records are immutable; every change goes through :mod:`gateway.core.session`. Times are
integers: milliseconds of Redis time since the Unix epoch; relative ones end in ``_ms``. Fields may
be added with a default, never re-typed (msgspec, *Schema Evolution*); fields that a newer version
wrote are carried along untouched.
"""

from enum import StrEnum
from itertools import compress
from operator import is_not
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, ValidationError, convert, to_builtins
from msgspec.json import Decoder, encode
from msgspec.structs import astuple, replace

from gateway.core.errors import Invalid

SCHEMA: Final = 1  # raised when a record's meaning changes; a newer store refuses the start
OPS_KEPT: Final = 8  # operations a record remembers, so that a repeated command changes nothing
STREAMS_MAX: Final = 32  # streams a session
MEMBERS_MAX: Final = 256  # members a session
LABELS_MAX: Final = 32  # labels a session
RECORD_MAX_BYTES: Final = 16 * 1024  # a record as text; see record_codec.encode_checked
ATTRIBUTES_MAX_BYTES: Final = 4 * 1024  # a session's attributes as text
DEPTH_MAX: Final = 32  # nested maps and lists; the code that walks them is recursive
CLOSE_AFTER_MAX_S: Final = 86_400  # a delayed close is at most a day away
DURATION_MAX_MS: Final = 366 * 86_400_000  # any relative time in a record: at most a leap year
SERVER_LINGER_MS: Final = 60_000  # a session whose socket the gateway ended waits at least so long
WORKING_PHASES: Final = frozenset(  # phases of a process that has begun its work and is not over
    {"running", "restarting", "draining", "shuttingdown", "server_unreachable"}
)

END: Final = r"$(?!\n)"  # Python's $ also matches before a last newline; documents show it as $
_CLEAN: Final = r"^[^\x00]*$"  # NUL is legal JSON; terminals, C libraries and logs cut text there

Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=_CLEAN)]
# Neither "." nor "..": clients resolve such a segment of a path (RFC 3986 section 5.2.4).
SessionId = Annotated[
    str,
    Meta(
        max_length=128,
        pattern=r"^(\.{0,2}[A-Za-z0-9_:\-]|\.{3})[A-Za-z0-9_.:\-]*" + END,
        description="Never reused.",
    ),
]
IdName = Annotated[  # a name that some door takes for an id in its paths
    str, Meta(min_length=1, max_length=256, pattern=r"^(\.{0,2}[^.\x00]|\.{3})[^\x00]*$")
]
Text = Annotated[str, Meta(max_length=1024, pattern=_CLEAN)]
Key = Annotated[str, Meta(min_length=1, max_length=128, pattern=_CLEAN)]
LabelName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:/\-]+" + END)]
LabelValue = Annotated[str, Meta(max_length=256, pattern=_CLEAN)]
Labels = Annotated[dict[LabelName, LabelValue], Meta(max_length=LABELS_MAX)]
Members = Annotated[tuple[Name, ...], Meta(max_length=MEMBERS_MAX)]
DurationMs = Annotated[int, Meta(ge=0, le=DURATION_MAX_MS, description="Milliseconds.")]
AmountMs = Annotated[int, Meta(ge=0, le=2**53 - 1, description="Milliseconds.")]
Object = dict[str, Any]


class State(StrEnum):
    """What a session is doing; derived from its record."""

    IDLE = "idle"
    CONNECTED = "connected"
    AWAY = "away"
    CLOSING = "closing"
    CLOSED = "closed"


class Deadline(StrEnum):
    """The deadlines a record can hold; see :func:`deadlines`."""

    CLOSING = "closing"
    LINGER = "linger"
    SETTLE = "settle"
    KEEPALIVE = "keepalive"
    TTL = "ttl"
    START = "start"


Cause = Literal["clean", "lost", "server", "kicked"]
Outcome = Literal["closed", "saved", "left", "lost", "unsaved", "expired"]


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of what is stored: immutable, by name, unset fields left out."""


class Profile(Record, omit_defaults=False, frozen=True):
    """What the client may do, with the fields of neko's member profile; always rendered whole."""

    name: Text = ""
    is_admin: bool = False
    can_login: bool = False
    can_connect: bool = False
    can_watch: bool = False
    can_host: bool = False
    can_share_media: bool = False
    can_access_clipboard: bool = False
    sends_inactive_cursor: bool = False
    can_see_inactive_cursors: bool = False
    plugins: Object = {}


class Client(Record, frozen=True):
    """The program at the other end, as it describes itself."""

    key: Text | None = None
    product: Text | None = None
    version: Text | None = None
    platform: Text | None = None
    device: Text | None = None
    model: Text | None = None


class Connection(Record, frozen=True):
    """The WebSocket a session is attached to; the last one is kept while the session is away."""

    id: str
    node: str
    connected_at: int
    address: str | None = None
    port: int | None = None
    tls: bool = False
    user_agent: str | None = None
    ended_at: int | None = None


class Watch(Record, frozen=True):
    """What a session watches or plays; ``position_ms`` was true at ``position_at``."""

    key: Key
    title: Text | None = None
    kind: Key | None = None
    state: Key | None = None
    position_ms: AmountMs | None = None
    position_at: int | None = None
    duration_ms: AmountMs | None = None
    bandwidth: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None
    item: Object | None = None


class Stream(Record, frozen=True):
    """A related job or backend connection of a session: a transcode, a database connection."""

    key: Key
    kind: Key
    state: Key | None = None
    data: Object = {}


class Closing(Record, frozen=True):
    """A pending delayed close; the extension budget counts from ``first_at``."""

    at: int
    first_at: int
    requested_at: int
    reason: Text | None = None
    by: str | None = None
    extend_max_ms: int = 0
    readmit: bool = False
    saving_at: int | None = None


class Closure(Record, frozen=True):
    """How a session ended."""

    at: int
    outcome: Outcome
    code: int = 4500
    reason: Text | None = None
    by: str | None = None


class Private(Record, frozen=True):
    """Hashes and secrets; no door renders them."""

    token_hash: str | None = None
    environment: dict[str, str] | None = None


class Session(Record, frozen=True, forbid_unknown_fields=True):
    """One session's record; ``…_at`` is an absolute time in milliseconds, ``…_ms`` a duration.

    :func:`decode_session` puts fields that this version does not know into ``unknown``, and
    :func:`encode_session` writes them back. The bounds of the known fields are checked once,
    before the record is written; see :class:`Bounded`.
    """

    id: str
    number: int
    revision: int
    created_at: int
    name: str | None = None
    account: str | None = None
    workspace: str | None = None
    service: str | None = None
    labels: dict[str, str] = {}
    attributes: Object = {}
    profile: Profile | None = None
    client: Client | None = None
    members: tuple[str, ...] = ()
    phase: str | None = None
    linger_ms: int | None = None
    grace_ms: int | None = None
    keepalive_ms: int | None = None
    ttl_ms: int | None = None
    start_within_ms: int | None = None  # from ``created_at``; unset once work has begun
    connection: Connection | None = None
    watch: Watch | None = None
    streams: tuple[Stream, ...] = ()
    closing: Closing | None = None
    closed: Closure | None = None
    connected_at: int | None = None
    disconnected_at: int | None = None
    watching_since: int | None = None
    unwatched_at: int | None = None
    linger_at: int | None = None
    settles_at: int | None = None
    keepalive_at: int | None = None
    ttl_at: int | None = None
    private: Private = Private()
    ops: tuple[str, ...] = ()
    schema: int = SCHEMA
    unknown: Object = {}

    @property
    def state(self) -> State:
        """The state of the session; where several apply, the first of this list counts."""
        if self.closed:
            return State.CLOSED
        if self.closing:
            return State.CLOSING
        if self.is_connected:
            return State.CONNECTED
        return State.AWAY if self.connection else State.IDLE

    @property
    def is_connected(self) -> bool:
        """Whether a live connection is attached."""
        return self.connection is not None and self.connection.ended_at is None

    @property
    def is_watching(self) -> bool:
        """Whether the session watches something."""
        return self.watch is not None

    @property
    def is_at_work(self) -> bool:
        """Whether work has begun here, whatever door it came through.

        It has once a client was attached or something was watched, while there are streams or
        members, and when the producer's phase says that a process runs.
        """
        return (
            self.connection is not None
            or self.watch is not None
            or self.unwatched_at is not None
            or bool(self.streams)
            or bool(self.members)
            or self.phase in WORKING_PHASES
        )

    @property
    def closed_at(self) -> int | None:
        """When the session ended."""
        return self.closed.at if self.closed else None

    @property
    def closes_at(self) -> int | None:
        """When the pending close is due."""
        return self.closing.at if self.closing else None


class Bounded(Session, frozen=True):
    """A session's record with the bounds of its fields; the writer checks them."""

    id: SessionId
    name: Name | None = None
    account: Name | None = None
    workspace: Name | None = None
    service: Name | None = None
    labels: Labels = {}
    members: Members = ()
    phase: Key | None = None
    linger_ms: DurationMs | None = None
    grace_ms: DurationMs | None = None
    keepalive_ms: DurationMs | None = None
    ttl_ms: DurationMs | None = None
    start_within_ms: DurationMs | None = None


_session: Final = Decoder(Session)
_object: Final = Decoder(dict[str, Any])
_FIELDS: Final = Session.__struct_fields__
KNOWN: Final = frozenset(_FIELDS) - {"unknown"}  # the fields of a record that this version knows


def decode_session(data: bytes) -> Session:
    """Decode a session's record, and keep the fields that a newer version added.

    The decoder refuses unknown fields, so only a record that has some is decoded twice.

    Raises:
        msgspec.DecodeError: This is not a session's record.
    """
    try:
        return _session.decode(data)
    except ValidationError:
        return session_from(_object.decode(data))


def encode_session(session: Session) -> bytes:
    """Encode a session's record; :func:`decode_session` reads it."""
    return encode(session_to(session) if session.unknown else session)


def session_from(fields: Object) -> Session:
    """Return the session with these *fields*, null for unset, unknown ones kept.

    Raises:
        msgspec.ValidationError: A field is missing or of another type.
    """
    known = {name: value for name, value in fields.items() if name in KNOWN and value is not None}
    unknown = {name: value for name, value in fields.items() if name not in KNOWN}
    return convert({**known, "unknown": unknown}, Session)


def session_to(session: Session) -> Object:
    """Return the fields of *session* that are set; the inverse of :func:`session_from`."""
    fields: Object = to_builtins(replace(session, unknown={}))
    return {**session.unknown, **fields}


def touched(before: Session, after: Session) -> tuple[str, ...]:
    """Return the names of the fields that are not the same object in both records of a session.

    Records evolve by ``replace``, so these are the candidates for a change; a value may be equal.
    """
    return tuple(compress(_FIELDS, map(is_not, astuple(before), astuple(after))))


def same_json(one: object, other: object) -> bool:
    """Whether two values are equal as JSON, where true is not 1 and 1.0 is not 1."""
    if one is other:
        return True
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same_json(value, other[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return all(map(same_json, one, other))
    if isinstance(one, Struct) and isinstance(other, Struct):
        return all(map(same_json, astuple(one), astuple(other)))
    return True


_LEAVES: Final = frozenset({str, int, float, bool, type(None)})


def check_object(value: object, name: str, *, nulls: bool = False) -> None:
    """Raise if the gateway cannot store and show this JSON.

    Args:
        value: Maps, lists and what they hold.
        name: What it is, for the message.
        nulls: Whether maps may hold null, as patches do to remove a member.

    Raises:
        Invalid: It is nested deeper than :data:`DEPTH_MAX`, or a map in it holds null.
        TypeError: A JSON decoder never returns such a value, so the node that wrote it would hold
            something else than the nodes that read it.
    """
    level = [value]
    for _ in range(DEPTH_MAX + 1):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                if not nulls and None in item.values():
                    raise Invalid(f"A map in `{name}` holds null: leave the member out.")
                inner.extend(item.values())
            elif isinstance(item, list) or (nulls and isinstance(item, tuple)):
                inner.extend(item)
            elif type(item) not in _LEAVES and not nulls:
                raise TypeError(f"`{name}` holds a {type(item).__name__}, which is no JSON")
        if not inner:
            return
        level = inner
    raise Invalid(f"`{name}` is nested deeper than {DEPTH_MAX} levels.")


def new_session(session_id: str, **fields: Any) -> Session:  # noqa: ANN401 - fields of Session
    """Return a session that is not opened yet; opening assigns number, revision and time."""
    return Session(id=session_id, number=0, revision=0, created_at=0, **fields)
