"""Render: sessions as resources of MaxScale's REST API, and the documents around them (JSON:API).

Pure. There are two generations: the *current* one (24.02) and the *seed* (the API as it was first
described, 2017-05), which has five attributes, dates without a zone, and other links and states.

Where a session has what MaxScale does not know, the nearest word is taken: a session that is away
is still started, a pending close shows as stopping. What MaxScale has and a session has not is in
``facts``. A session without a service belongs to the service :data:`NO_SERVICE`, because MaxScale's
sessions always have one.

Facts: MaxScale REST API, *Resources* and *Session Resource*; JSON:API 1.1.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final, Literal
from urllib.parse import quote

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from gateway.core.model import Session, State, Stream
from gateway.dialects.maxscale import schema
from gateway.dialects.maxscale.facts import ClientFacts, ProxyFacts, backend_facts, proxy_facts

NO_SERVICE: Final = "default"  # the service of a session that was opened on none
BACKEND: Final = "backend"  # the kind of a stream that is a connection to a server
UNNAMED_CIPHER: Final = "TLS"  # encrypted; which cipher it is we are not told

_STARTED: Final = ("Session started", "Session ready for routing")
_STATES: Final[Mapping[State, tuple[str, str]]] = {  # in the current form and in the seed's
    State.IDLE: ("Session created", "Session Allocated"),
    State.CONNECTED: _STARTED,
    State.AWAY: _STARTED,
    State.CLOSING: ("Stopping session", "Stopping session"),
    State.CLOSED: ("Freed session", "Freed session"),
}


class RenderContext(Struct, frozen=True, kw_only=True):
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

    def collection(self, kind: schema.ResourceType) -> str:
        """Return the address of a collection."""
        return f"{self.base}{kind}/"

    def one(self, kind: schema.ResourceType, name: str) -> str:
        """Return the address of one resource; the seed wrote no slash at its end."""
        return f"{self.base}{kind}/{quote(name, safe='')}{'' if self.is_seed else '/'}"


def error_document(*details: str) -> schema.ErrorDocument:
    """Return the document that tells *details*."""
    return schema.ErrorDocument(
        errors=tuple(schema.ErrorObject(detail=detail) for detail in details)
    )


def resource(
    session: Session, active_at: int | None, context: RenderContext
) -> schema.SessionResource | schema.SeedResource:
    """Return an open session as a resource; the client's last message was at *active_at*."""
    facts = proxy_facts(session)
    relationships = schema.Relationships(
        services=service_of(session, context),
        filters=_relationship("filters", facts.filters, session, context)
        if facts.filters
        else UNSET,
    )
    name = str(session.number)
    links = schema.SelfLink(self_=context.one("sessions", name))
    idle = _idle(session, active_at, facts, context)
    user = session.account or session.name or UNSET
    connection = session.connection if context.is_full else None
    remote = (connection.address if connection else None) or facts.remote or UNSET
    began_at = session.connected_at or session.created_at
    if context.is_seed:
        seed_attributes = schema.SeedAttributes(
            state=_state(session, context),
            connected=_time(began_at).ctime(),
            user=user,
            remote=remote,
            idle=idle,
        )
        return schema.SeedResource(
            id=name, attributes=seed_attributes, relationships=relationships, links=links
        )
    attributes = schema.SessionAttributes(
        state=_state(session, context),
        user=user,
        remote=remote,
        port=_port(session, facts, context),
        connected=format_datetime(_time(began_at), usegmt=True),
        seconds_alive=max(context.now_ms - began_at, 0) / 1000,
        idle=idle,
        io_activity=facts.io_activity,
        thread=facts.thread,
        client=_client(session, facts),
        connections=tuple(_backend(one) for one in session.streams if one.kind == BACKEND),
        queries=facts.queries,
        log=facts.log,
        memory=facts.memory,
        parameters=facts.parameters,
    )
    return schema.SessionResource(
        id=name, attributes=attributes, relationships=relationships, links=links
    )


def document(
    session: Session, active_at: int | None, context: RenderContext
) -> schema.ResourceDocument[schema.SessionResource | schema.SeedResource]:
    """Return the reply to a GET of *session*; see :func:`resource`."""
    data = resource(session, active_at, context)
    return schema.ResourceDocument(data=data, links=data.links)


def named(
    kind: Literal["services", "filters"], name: str, count: int, context: RenderContext
) -> schema.NamedResource:
    """Return a service or filter that *count* sessions refer to, as a resource."""
    return schema.NamedResource(
        id=name,
        type=kind,
        attributes=schema.NamedAttributes(connections=count),
        links=schema.SelfLink(self_=context.one(kind, name)),
    )


def heard_at(session: Session, active_at: int | None) -> int | None:
    """Return when the client was last heard of; ``None`` if it never was."""
    since = session.connection.connected_at if session.connection else None
    return max(since or 0, active_at or 0) or None


def service_name(session: Session) -> str:
    """Return the service that a session belongs to."""
    return session.service or NO_SERVICE


def service_of(session: Session, context: RenderContext) -> schema.Relationship:
    """Return the relationship of a session to its one service."""
    return _relationship("services", (service_name(session),), session, context)


def filters_of(session: Session, context: RenderContext) -> schema.Relationship:
    """Return the relationship of a session to its filters, in order."""
    return _relationship("filters", proxy_facts(session).filters, session, context)


def _relationship(
    kind: Literal["services", "filters"],
    names: tuple[str, ...],
    session: Session,
    context: RenderContext,
) -> schema.Relationship:
    related = context.collection(kind)
    if context.is_seed:
        links = schema.RelationshipLinks(self_=related)
    else:
        own = f"{context.one('sessions', str(session.number))}relationships/{kind}/"
        links = schema.RelationshipLinks(self_=own, related=related)
    data = tuple(schema.ResourceIdentifier(id=name, type=kind) for name in names)
    return schema.Relationship(data=data, links=links)


def _state(session: Session, context: RenderContext) -> str:
    # A session that its producer reports has no socket, yet it works.
    works = session.state is State.IDLE and session.is_at_work
    current, seed = _STARTED if works else _STATES[session.state]
    return seed if context.is_seed else current


def _idle(
    session: Session, active_at: int | None, facts: ProxyFacts, context: RenderContext
) -> float | UnsetType:
    if any(query.completed is UNSET for query in facts.queries):
        return 0.0
    heard = heard_at(session, active_at)
    return UNSET if heard is None else max(context.now_ms - heard, 0) // 100 / 10


def _port(session: Session, facts: ProxyFacts, context: RenderContext) -> int | UnsetType:
    """Return the port that belongs to the address that is shown."""
    connection = session.connection
    shown = connection.port if context.is_full and connection and connection.address else facts.port
    return UNSET if shown is None else shown


def _client(session: Session, facts: ProxyFacts) -> ClientFacts:
    told, client = facts.client, session.client
    described = {
        "_client_name": client and client.product,
        "_client_version": client and client.version,
        "_platform": client and client.platform,
        "program_name": session.name,
    }
    known = {name: text for name, text in described.items() if text}
    is_encrypted = session.connection is not None and session.connection.tls
    return replace(
        told,
        cipher=told.cipher or (UNNAMED_CIPHER if is_encrypted else ""),
        connection_attributes=told.connection_attributes or known or None,
    )


def _backend(stream: Stream) -> schema.BackendConnection:
    told = backend_facts(stream.data)
    return schema.BackendConnection(
        server=told.server or stream.key, connection_id=told.connection_id, cipher=told.cipher
    )


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, UTC)
