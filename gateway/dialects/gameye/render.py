"""Render: our sessions in the words of the Gameye Session API 1.2.1 (https://docs.gameye.com).

Pure. What Gameye knows of a session and we do not is in ``attributes.gameye``
(:class:`ContainerFacts`). A session that came through another door gets neutral values, so that it
can be listed all the same. Gameye's documents show ``port`` and ``labels`` as objects and as
strings that hold JSON; both can be had, and an object is what its own client reads.
"""

from typing import Any, Final

from msgspec import Struct, ValidationError, convert
from msgspec.json import encode

from gateway.core.model import Deadline, Key, Name, Session
from gateway.core.public import rfc3339
from gateway.dialects.gameye.schema import (
    JoinedPlayers,
    PortMapping,
    SessionDescription,
    SessionListEntry,
    StartedSession,
    Status,
)

ATTRIBUTE: Final = "gameye"  # the member of a session's attributes that is Gameye's
LOCATION: Final = "local"  # the region of a session that nobody placed anywhere
TAG: Final = "latest"  # the build of a session of which no build is known
IMAGE: Final = "session"  # the image of a session that was opened on nothing
SHUTTING_DOWN_MS: Final = 3_000  # before the end, when a client gets its last warning
FIELDS: Final = frozenset({"id", "image", "tag", "location", "region", "host", "status"})
ENDED: Final = frozenset({Status.EXITED, Status.DEAD})

_STATUSES: Final = frozenset(Status)
_SILENT: Final = frozenset({Deadline.KEEPALIVE, Deadline.START})  # the host was never heard again


class ContainerFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a session keeps for Gameye, in its attributes."""

    image: Name | None = None
    tag: Name | None = None
    location: Name | None = None
    host: Name | None = None
    ports: tuple[PortMapping, ...] | None = None
    args: tuple[str, ...] = ()
    restart: bool = False
    external_id: Key | None = None


class HomeAddress(Struct, frozen=True):
    """The gateway's own address and port, for sessions of which no other is known."""

    host: str
    port: int


class GameSession(Struct, frozen=True, kw_only=True):
    """A session in Gameye's words, before it is encoded; filters look at this."""

    session: Session
    image: str
    tag: str
    location: str
    host: str
    ports: tuple[PortMapping, ...]
    status: Status

    @property
    def is_ended(self) -> bool:
        """Whether it runs no more; lists leave it out unless asked."""
        return self.status in ENDED

    def field(self, name: str) -> str | None:
        """Return the value of one of :data:`FIELDS`, which a filter may name beside labels."""
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


def game_session(session: Session, home: HomeAddress, now_ms: int) -> GameSession:
    """Return *session*, which may have ended, in Gameye's words."""
    facts = container_facts(session)
    client = session.client
    image = facts.image or session.service or (client and client.product)
    tag = facts.tag or (client and client.version)
    at_home = (PortMapping("tcp", home.port, home.port),)
    return GameSession(
        session=session,
        image=image or IMAGE,
        tag=tag or TAG,
        location=facts.location or LOCATION,
        host=facts.host or home.host,
        ports=at_home if facts.ports is None else facts.ports,
        status=status(session, now_ms),
    )


def container_facts(session: Session) -> ContainerFacts:
    """Return what a session keeps for Gameye; nothing if it is not of that form.

    Whoever may write to the session may write anything there.
    """
    try:
        return convert(session.attributes.get(ATTRIBUTE, {}), ContainerFacts)
    except ValidationError:
        return ContainerFacts()


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


def listed(seen: GameSession, *, as_text: bool = False) -> SessionListEntry:
    """Return a session as lists show it."""
    return SessionListEntry(
        **_common(seen, as_text=as_text), player_count=len(seen.session.members)
    )


def description(seen: GameSession, *, as_text: bool = False) -> SessionDescription:
    """Return a session as it is shown alone."""
    members = seen.session.members
    players = JoinedPlayers(joined=members, joined_count=len(members))
    return SessionDescription(**_common(seen, as_text=as_text), players=players)


def started(seen: GameSession) -> StartedSession:
    """Return the reply to the start of a session."""
    return StartedSession(id=seen.session.id, host=seen.host, ports=seen.ports)


def timestamp(at: int) -> str:
    """Return a time (milliseconds since the Unix epoch) as Gameye writes it: whole seconds."""
    return f"{rfc3339(at)[:19]}Z"


def _common(seen: GameSession, *, as_text: bool) -> dict[str, Any]:
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


def _port(seen: GameSession) -> dict[str, int]:
    return {f"{port.container}/{port.type}": port.host for port in seen.ports}


def _labels(seen: GameSession) -> dict[str, str]:
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
