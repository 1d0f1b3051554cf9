"""Schema: the replies, bodies and query parameters of the Gameye Session API 1.2.1, as types.

``render`` fills the replies; ``coerce`` and ``query`` read requests.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.core.errors import Invalid
from gateway.core.model import MEMBERS_MAX, Key, Labels, Name, SessionId

VIOLATIONS: Final = "violations"  # in an error's ``extra``
VIOLATIONS_MAX: Final = 32  # in one reply; more help nobody

_CLEAN: Final = r"^[^\x00]*$"  # no process takes NUL in its arguments or environment

Encoding = Annotated[
    Literal["object", "string"], Meta(description="How `port` and `labels` are sent")
]
PlayerNames = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MEMBERS_MAX)]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Ttl = Annotated[
    str | int, Meta(description="`30m`, `2h`, `2h30m`; a plain number is of seconds; at least 1 m.")
]
Value = Annotated[str, Meta(min_length=1, max_length=4096, pattern=_CLEAN)]
Variable = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00=]+$")]


class Status(StrEnum):
    """What Gameye says a session does."""

    CREATED = "created"
    RUNNING = "running"
    RESTARTING = "restarting"
    DRAINING = "draining"
    SHUTTING_DOWN = "shuttingdown"
    EXITED = "exited"
    DEAD = "dead"
    SERVER_UNREACHABLE = "server_unreachable"


# --- replies


class Reply(Struct, frozen=True, rename="camel"):
    """Base of what is sent, in Gameye's names."""


class PortMapping(Struct, frozen=True):
    """A port of the container, and where on the host it is reached."""

    type: Literal["tcp", "udp"]
    container: PortNumber
    host: PortNumber


class SessionFields(Reply, frozen=True, kw_only=True):
    """A session; ``port`` and ``labels`` are objects, or strings that hold JSON."""

    id: str
    image: str
    tag: str
    location: str
    host: str
    created: Annotated[int, Meta(description="Milliseconds since the Unix epoch.")]
    port: dict[str, int] | str
    status: Status
    labels: dict[str, str] | str


class SessionListEntry(SessionFields, frozen=True, kw_only=True):
    """A session in a list."""

    player_count: int


class JoinedPlayers(Reply, frozen=True, kw_only=True):
    """The players of a session."""

    joined: tuple[str, ...]
    joined_count: int


class SessionDescription(SessionFields, frozen=True, kw_only=True):
    """One session alone: it has its players instead of their number."""

    players: JoinedPlayers


class SessionList(Reply, frozen=True, kw_only=True):
    """The reply to a list."""

    sessions: tuple[SessionListEntry, ...]


class StartedSession(Reply, frozen=True, kw_only=True):
    """The reply to a start: here the ports are a list, and plural."""

    id: str
    host: str
    ports: tuple[PortMapping, ...]


class Roster(Reply, frozen=True, kw_only=True):
    """The reply to players who join or leave."""

    count: int
    players: tuple[str, ...]


class Location(Reply, frozen=True, kw_only=True):
    """A region and the addresses of its machines."""

    id: str
    ips: tuple[str, ...]


class LocationList(Reply, frozen=True, kw_only=True):
    """The regions where an image may be started."""

    locations: tuple[Location, ...]


class BuildFound(Reply, frozen=True, kw_only=True):
    """Whether a build of an image may be started in a region."""

    exists: bool


class HealthReply(Reply, frozen=True, kw_only=True):
    """The gateway serves."""

    status: Literal["ok"] = "ok"


class Violation(Reply, frozen=True, kw_only=True):
    """What is wrong with one field of a request."""

    field: str
    description: str


class Failure(Reply, frozen=True, kw_only=True):
    """Every error.

    Args:
        status_code: That of the HTTP reply.
        code: For programs.
        message: One sentence for people.
        details: What to do about it, or what exactly was wrong.
        path: Of the request, without its query.
        timestamp: RFC 3339 UTC in seconds.
        identifier: Finds the request in the gateway's log.
        violations: What is wrong with which field.
    """

    status_code: int
    code: str
    message: str
    details: str
    path: str
    timestamp: str
    identifier: str
    violations: tuple[Violation, ...] | UnsetType = UNSET


# --- bodies


class StartBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to start. ``ttl`` is its longest life."""

    location: Name
    image: Name
    id: SessionId | UnsetType = UNSET
    version: Name | UnsetType = UNSET
    env: Annotated[dict[Variable, Value], Meta(max_length=256)] | UnsetType = UNSET
    args: Annotated[tuple[Value, ...], Meta(max_length=256)] | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    restart: bool | UnsetType = UNSET
    ttl: Ttl | UnsetType = UNSET
    external_id: Key | UnsetType = UNSET


class JoinBody(Struct, frozen=True, kw_only=True):
    """The players who join a session."""

    session: str
    players: PlayerNames


class LeaveBody(Struct, frozen=True, kw_only=True):
    """The players who leave; without ``session`` they leave every one they are in."""

    players: PlayerNames
    session: str | UnsetType = UNSET


# --- parameters of queries; ``query`` reads them


class EncodingParameters(Struct, frozen=True, kw_only=True):
    """The parameter of one session."""

    encoding: Encoding = "object"


class ListParameters(Struct, frozen=True, kw_only=True):
    """The parameters of the list, but for those in brackets."""

    all: Annotated[bool, Meta(description="Also what ended, the newest 1000 of it")] = False
    location: Annotated[str | None, Meta(description="Exactly this region")] = None
    image: Annotated[str | None, Meta(description="Exactly this image")] = None
    tag: Annotated[str | None, Meta(description="Exactly this build")] = None
    host: Annotated[str | None, Meta(description="Exactly this machine")] = None
    encoding: Encoding = "object"


class LogParameters(Struct, frozen=True, kw_only=True):
    """The parameters of a log."""

    id: Annotated[str, Meta(description="The session")]
    follow: Annotated[bool, Meta(description="Go on until the session ends")] = False


class ArtifactParameters(Struct, frozen=True, kw_only=True):
    """The parameters of artifacts."""

    session: Annotated[str, Meta(description="The session")]
    path: Annotated[str, Meta(description="File or folder")]


def violated(*violations: Violation) -> Invalid:
    """Return the error that says what is wrong with which field."""
    return Invalid("See the violations.", extra={VIOLATIONS: violations[:VIOLATIONS_MAX]})


def wrong(field: str, description: str) -> Invalid:
    """Return the error that says what is wrong with one field."""
    return violated(Violation(field=field, description=description))
