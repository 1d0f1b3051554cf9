"""Gameye's words for our sessions: the Gameye Session API 1.2.1 (https://docs.gameye.com), pure.

What Gameye knows and a session does not stands in ``attributes.gameye`` (:class:`Facts`); a session
that came through another door gets neutral values instead, so that it can be listed all the same.
Gameye's documents show ``port`` and ``labels`` as objects and as strings that hold JSON; both can
be had, an object is what its own client reads.

Not here: reading requests (``reading``), which error is which status (``errors``).
"""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert
from msgspec.json import encode

from gateway.core.model import Deadline, Key, Name, Session
from gateway.core.public import rfc3339

ATTRIBUTE: Final = "gameye"  # where in a session's attributes Gameye's facts stand
LOCATION: Final = "local"  # the region of what nobody placed anywhere
TAG: Final = "latest"  # the build of what nobody said a build of
IMAGE: Final = "session"  # the image of what was opened on nothing
SHUTTING_DOWN_MS: Final = 3_000  # before the end, when a client gets its last warning
VIOLATIONS_MAX: Final = 32  # in one answer; more help nobody

Transport = Literal["tcp", "udp"]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]


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


ENDED: Final = frozenset({Status.EXITED, Status.DEAD})


class Port(Struct, frozen=True):
    """A port of the container, and where on the host it is reached."""

    type: Transport
    container: PortNumber
    host: PortNumber


class Facts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a session keeps for Gameye, in its attributes."""

    image: Name | None = None
    tag: Name | None = None
    location: Name | None = None
    host: Name | None = None
    ports: tuple[Port, ...] | None = None
    args: tuple[str, ...] = ()
    restart: bool = False
    external_id: Key | None = None


class Home(Struct, frozen=True):
    """Where a session is that says nothing of it: the gateway's own address and port."""

    host: str
    port: int


class Shown(Struct, frozen=True, kw_only=True):
    """A session as Gameye sees it, before it is written down; filters look at this."""

    session: Session
    image: str
    tag: str
    location: str
    host: str
    ports: tuple[Port, ...]
    status: Status

    @property
    def is_ended(self) -> bool:
        """Whether it does not run any more; lists leave it out unless asked."""
        return self.status in ENDED

    def field(self, name: str) -> str | None:
        """Return what a filter may compare by name besides the labels."""
        match name:
            case "id":
                return self.session.id
            case "image" | "tag" | "location" | "host":
                return str(getattr(self, name))
            case "region":
                return self.location
            case "status":
                return self.status.value
        return None


FIELDS: Final = frozenset({"id", "image", "tag", "location", "region", "host", "status"})
"""The names that :meth:`Shown.field` knows."""


def shown(session: Session, home: Home, now_ms: int) -> Shown:
    """Return *session* in Gameye's words.

    Args:
        session: An open one, or the final record of one that ended.
        home: For what it does not say of itself.
        now_ms: Redis time in milliseconds.
    """
    facts = facts_of(session)
    client = session.client
    image = facts.image or session.service or (client and client.product)
    tag = facts.tag or (client and client.version)
    ports = facts.ports
    if ports is None:
        ports = (Port("tcp", home.port, home.port),)
    return Shown(
        session=session,
        image=image or IMAGE,
        tag=tag or TAG,
        location=facts.location or LOCATION,
        host=facts.host or home.host,
        ports=ports,
        status=status(session, now_ms),
    )


def facts_of(session: Session) -> Facts:
    """Return what a session keeps for Gameye; nothing, if it is not what it should be.

    Attributes are anybody's to write who may write to the session, in whatever form.
    """
    try:
        return convert(session.attributes.get(ATTRIBUTE, {}), Facts)
    except ValidationError:
        return Facts()


def status(session: Session, now_ms: int) -> Status:
    """Return what *session* does.

    A pending close is ``draining``, towards its end or once the client saves ``shuttingdown``.
    Otherwise the producer knows best (``phase``); without its word a session runs as soon as it is
    at work (:attr:`~gateway.core.model.Session.is_at_work`).
    """
    closed, closing = session.closed, session.closing
    if closed:
        # A stop that somebody asked for is an orderly end, whatever state the client was in.
        crashed = closed.outcome == "lost" and closed.by is None
        silent = closed.outcome == "expired" and closed.reason in _SILENT
        is_dead = crashed or silent or session.phase == Status.DEAD
        return Status.DEAD if is_dead else Status.EXITED
    if closing:
        last_ms = min(SHUTTING_DOWN_MS, (closing.at - closing.requested_at) // 2)
        is_late = now_ms >= closing.at - last_ms
        return Status.SHUTTING_DOWN if is_late or closing.saving_at else Status.DRAINING
    if session.phase in _STATUSES:
        return Status(session.phase)
    return Status.RUNNING if session.is_at_work else Status.CREATED


_STATUSES: Final = frozenset(Status)
_SILENT: Final = frozenset({Deadline.KEEPALIVE, Deadline.START})  # the host was never heard again


# --- what is answered


class Answer(Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of what is sent: Gameye's names."""


class Entry(Answer, frozen=True, kw_only=True):
    """A session in a list; ``port`` and ``labels`` as objects, or as strings that hold JSON."""

    id: str
    image: str
    tag: str
    location: str
    host: str
    created: Annotated[int, Meta(description="Milliseconds since the Unix epoch.")]
    port: dict[str, int] | str
    status: Status
    labels: dict[str, str] | str
    player_count: int


class Players(Answer, frozen=True, kw_only=True):
    """Who plays."""

    joined: tuple[str, ...]
    joined_count: int


class Description(Answer, frozen=True, kw_only=True):
    """One session, looked at alone: with its players instead of their number."""

    id: str
    image: str
    tag: str
    location: str
    host: str
    created: Annotated[int, Meta(description="Milliseconds since the Unix epoch.")]
    port: dict[str, int] | str
    status: Status
    labels: dict[str, str] | str
    players: Players


class SessionList(Answer, frozen=True, kw_only=True):
    """The answer to a list."""

    sessions: tuple[Entry, ...]


class Started(Answer, frozen=True, kw_only=True):
    """The answer to a start: here the ports are a list, and plural."""

    id: str
    host: str
    ports: tuple[Port, ...]


class Roster(Answer, frozen=True, kw_only=True):
    """The answer to players who join or leave."""

    count: int
    players: tuple[str, ...]


class Location(Answer, frozen=True, kw_only=True):
    """A region and the addresses of its machines."""

    id: str
    ips: tuple[str, ...]


class LocationList(Answer, frozen=True, kw_only=True):
    """Where an image may be started."""

    locations: tuple[Location, ...]


class TagFound(Answer, frozen=True, kw_only=True):
    """Whether a build of an image may be started in a region."""

    exists: bool


class Health(Answer, frozen=True, kw_only=True):
    """That the gateway serves."""

    status: Literal["ok"] = "ok"


class Violation(Answer, frozen=True, kw_only=True):
    """What is wrong with one field of a request."""

    field: str
    description: str


class Failure(Answer, frozen=True, kw_only=True):
    """Every error.

    Args:
        status_code: That of the HTTP answer.
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


def entry(seen: Shown, *, as_text: bool = False) -> Entry:
    """Return a session as lists show it."""
    return Entry(**_common(seen, as_text=as_text), player_count=len(seen.session.members))


def description(seen: Shown, *, as_text: bool = False) -> Description:
    """Return a session as it is shown alone."""
    members = seen.session.members
    players = Players(joined=members, joined_count=len(members))
    return Description(**_common(seen, as_text=as_text), players=players)


def started(seen: Shown) -> Started:
    """Return what is told of a session that was started."""
    return Started(id=seen.session.id, host=seen.host, ports=seen.ports)


def timestamp(at: int) -> str:
    """Return a time (milliseconds since the Unix epoch) as Gameye writes it: whole seconds."""
    return f"{rfc3339(at)[:19]}Z"


def _common(seen: Shown, *, as_text: bool) -> dict[str, Any]:
    port, labels = _port(seen), _labels(seen)
    return {
        "id": seen.session.id,
        "image": seen.image,
        "tag": seen.tag,
        "location": seen.location,
        "host": seen.host,
        "created": seen.session.created_at,
        "port": _text({"port": port}) if as_text else port,
        "status": seen.status,
        "labels": _text({"labels": labels}) if as_text else labels,
    }


def _port(seen: Shown) -> dict[str, int]:
    return {f"{port.container}/{port.type}": port.host for port in seen.ports}


def _labels(seen: Shown) -> dict[str, str]:
    """Return the groups of labels, each a string that holds JSON.

    ``env`` has only what Gameye itself sets: what the caller gave may be secret.
    """
    session = seen.session
    environment = {"GAMEYE_SESSION_ID": session.id, "GAMEYE_HOST": seen.host}
    environment |= {
        f"GAMEYE_PORT_{port.type.upper()}_{port.container}": str(port.host) for port in seen.ports
    }
    platform = {
        "organization": session.workspace or "",
        "session": session.id,
        "image": seen.image,
        "region": seen.location,
        "tag": seen.tag,
        "enableMetrics": False,
    }
    groups = {"env": environment, "gameye": platform, "tags": session.labels}
    return {name: _text(group) for name, group in groups.items()}


def _text(value: object) -> str:
    return encode(value).decode()
