"""Shapes: a session as MaxScale's REST API shows it, and the documents around it (JSON:API).

Pure. Two generations: the *current* one (24.02) and the *seed* (the API as it was first described,
2017-05), which knows five attributes, dates without a zone and other links and state names.

Where a session has what MaxScale has not, the nearest word is taken: one that is away is still
started, a pending close shows as stopping. What MaxScale has and a session has not is in ``facts``.
A session without a service is one of the service :data:`NO_SERVICE`: there always is one.

Facts: MaxScale REST API, *Resources* and *Session Resource*; JSON:API 1.1.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final, Literal
from urllib.parse import quote

from msgspec import UNSET, Struct, UnsetType

from gateway.core.model import Session, State, Stream
from gateway.dialects.maxscale.documents import (
    Attributes,
    BackendConnection,
    ErrorDocument,
    Identifier,
    Link,
    NamedAttributes,
    NamedResource,
    Problem,
    Relationship,
    RelationshipLinks,
    Relationships,
    Resource,
    SeedAttributes,
    SeedResource,
    SeedSessionDocument,
    SessionDocument,
    Type,
)
from gateway.dialects.maxscale.facts import ClientFacts, Facts, backend_of, facts_of

NO_SERVICE: Final = "default"  # the service of a session that was opened on none
BACKEND: Final = "backend"  # the kind of a stream that is a connection to a server
UNNAMED_CIPHER: Final = "TLS"  # encrypted; which cipher it is we are not told

_STATES: Final[Mapping[State, str]] = {
    State.IDLE: "Session created",
    State.CONNECTED: "Session started",
    State.AWAY: "Session started",
    State.CLOSING: "Stopping session",
    State.CLOSED: "Freed session",
}
_SEED_STATES: Final[Mapping[str, str]] = {
    "Session created": "Session Allocated",
    "Session started": "Session ready for routing",
}


class Scene(Struct, frozen=True, kw_only=True):
    """What a rendering depends on besides its session.

    Args:
        base: Start of every link: scheme, host, mount and version, with a slash at the end.
        now_ms: Milliseconds of Redis time.
        is_seed: Whether the seed's form is spoken.
        is_full: Whether the caller sees addresses.
    """

    base: str
    now_ms: int
    is_seed: bool = False
    is_full: bool = False

    def collection(self, kind: Type) -> str:
        """Return the address of a collection."""
        return f"{self.base}{kind}/"

    def one(self, kind: Type, name: str) -> str:
        """Return the address of one resource; the seed wrote no slash at its end."""
        return f"{self.base}{kind}/{quote(name, safe='')}{'' if self.is_seed else '/'}"


def error_document(*details: str) -> ErrorDocument:
    """Return the document that tells *details*."""
    return ErrorDocument(errors=tuple(Problem(detail=detail) for detail in details))


def resource(session: Session, active_at: int | None, scene: Scene) -> Resource | SeedResource:
    """Return a session as a resource.

    Args:
        session: An open session.
        active_at: When its client was last heard of, as the mirror knows.
        scene: For whom, where and when.
    """
    facts = facts_of(session)
    relationships = Relationships(
        services=service_of(session, scene),
        filters=_filters(session, facts, scene) if facts.filters else UNSET,
    )
    name = str(session.number)
    links = Link(self_=scene.one("sessions", name))
    idle = _idle(session, active_at, facts, scene)
    user = session.account or session.name or UNSET
    connection = session.connection if scene.is_full else None
    remote = (connection.address if connection else None) or facts.remote or UNSET
    began_at = session.connected_at or session.created_at
    if scene.is_seed:
        state = _state(session)
        seed_attributes = SeedAttributes(
            state=_SEED_STATES.get(state, state),
            connected=_time(began_at).ctime(),
            user=user,
            remote=remote,
            idle=idle,
        )
        return SeedResource(
            id=name, attributes=seed_attributes, relationships=relationships, links=links
        )
    attributes = Attributes(
        state=_state(session),
        user=user,
        remote=remote,
        port=_port(session, facts, scene),
        connected=format_datetime(_time(began_at), usegmt=True),
        seconds_alive=max(scene.now_ms - began_at, 0) / 1000,
        idle=idle,
        io_activity=facts.io_activity,
        thread=facts.thread,
        client=_client(session, facts),
        connections=tuple(map(_backend, backends(session))),
        queries=facts.queries,
        log=facts.log,
        memory=facts.memory,
        parameters=facts.parameters,
    )
    return Resource(id=name, attributes=attributes, relationships=relationships, links=links)


def document(
    session: Session, active_at: int | None, scene: Scene
) -> SessionDocument | SeedSessionDocument:
    """Return the reply to a GET of *session*; see :func:`resource`."""
    data = resource(session, active_at, scene)
    if isinstance(data, SeedResource):
        return SeedSessionDocument(data=data, links=data.links)
    return SessionDocument(data=data, links=data.links)


def named(
    kind: Literal["services", "filters"], name: str, count: int, scene: Scene
) -> NamedResource:
    """Return a service or filter that *count* sessions refer to, as a resource."""
    return NamedResource(
        id=name,
        type=kind,
        attributes=NamedAttributes(connections=count),
        links=Link(self_=scene.one(kind, name)),
    )


def heard_at(session: Session, active_at: int | None) -> int | None:
    """Return when the client was last heard of; ``None`` if it never was.

    Args:
        session: Any.
        active_at: Its last message, as the mirror knows.
    """
    since = session.connection.connected_at if session.connection else None
    return max(since or 0, active_at or 0) or None


def service_name(session: Session) -> str:
    """Return the service that a session belongs to."""
    return session.service or NO_SERVICE


def service_of(session: Session, scene: Scene) -> Relationship:
    """Return the relationship of a session to its one service."""
    return _relationship("services", (service_name(session),), session, scene)


def filters_of(session: Session, scene: Scene) -> Relationship:
    """Return the relationship of a session to its filters, in order."""
    return _filters(session, facts_of(session), scene)


def backends(session: Session) -> tuple[Stream, ...]:
    """Return the streams that are connections to servers, oldest first."""
    return tuple(stream for stream in session.streams if stream.kind == BACKEND)


def _filters(session: Session, facts: Facts, scene: Scene) -> Relationship:
    return _relationship("filters", facts.filters, session, scene)


def _relationship(
    kind: Literal["services", "filters"], names: tuple[str, ...], session: Session, scene: Scene
) -> Relationship:
    related = scene.collection(kind)
    if scene.is_seed:
        links = RelationshipLinks(self_=related)
    else:
        own = f"{scene.one('sessions', str(session.number))}relationships/{kind}/"
        links = RelationshipLinks(self_=own, related=related)
    data = tuple(Identifier(id=name, type=kind) for name in names)
    return Relationship(data=data, links=links)


def _state(session: Session) -> str:
    if session.state is State.IDLE and session.is_at_work:
        return _STATES[State.CONNECTED]  # reported by its producer: no socket, yet it works
    return _STATES[session.state]


def _idle(session: Session, active_at: int | None, facts: Facts, scene: Scene) -> float | UnsetType:
    if any(query.completed is UNSET for query in facts.queries):
        return 0.0
    heard = heard_at(session, active_at)
    return UNSET if heard is None else max(scene.now_ms - heard, 0) // 100 / 10


def _port(session: Session, facts: Facts, scene: Scene) -> int | UnsetType:
    """Return the port that belongs to the address that is shown."""
    connection = session.connection
    shown = connection.port if scene.is_full and connection and connection.address else facts.port
    return UNSET if shown is None else shown


def _client(session: Session, facts: Facts) -> ClientFacts:
    told, client = facts.client, session.client
    described = {
        "_client_name": client and client.product,
        "_client_version": client and client.version,
        "_platform": client and client.platform,
        "program_name": session.name,
    }
    known = {name: text for name, text in described.items() if text}
    is_encrypted = session.connection is not None and session.connection.tls
    return ClientFacts(
        cipher=told.cipher or (UNNAMED_CIPHER if is_encrypted else ""),
        connection_attributes=told.connection_attributes or known or None,
        sescmd_history_len=told.sescmd_history_len,
        sescmd_history_stored_responses=told.sescmd_history_stored_responses,
        sescmd_history_stored_metadata=told.sescmd_history_stored_metadata,
    )


def _backend(stream: Stream) -> BackendConnection:
    told = backend_of(stream.data)
    return BackendConnection(
        server=told.server or stream.key, connection_id=told.connection_id, cipher=told.cipher
    )


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, UTC)
