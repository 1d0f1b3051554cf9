"""Documents: MaxScale's resources and the JSON:API documents around them, as types.

They are rendered by ``shapes`` and described by ``describe``. Pure.
Names and types: MaxScale REST API, 24.02; the seed's: its first description, 2017-05.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

from gateway.dialects.maxscale.facts import ClientFacts, Memory, Parameters, Query

Type = Literal["sessions", "services", "filters"]


class Shape(Struct, frozen=True):
    """Base of what is sent: only what is ``UNSET`` is left out."""


class Link(Shape, frozen=True, kw_only=True):
    """Where a resource is."""

    self_: str = field(name="self")


class PageLinks(Shape, frozen=True, kw_only=True):
    """Where a collection is, and its pages if it has some."""

    self_: str = field(name="self")
    first: str | UnsetType = UNSET
    prev: str | UnsetType = UNSET
    next: str | UnsetType = UNSET
    last: str | UnsetType = UNSET


class RelationshipLinks(Shape, frozen=True, kw_only=True):
    """``self`` is the relationship; in the seed it is what ``related`` is now."""

    self_: str = field(name="self")
    related: str | UnsetType = UNSET


class Identifier(Shape, frozen=True, kw_only=True):
    """Names a resource."""

    id: str
    type: Type


class Relationship(Shape, frozen=True, kw_only=True):
    """What a session belongs to; also a document of its own."""

    data: tuple[Identifier, ...]
    links: RelationshipLinks


class Relationships(Shape, frozen=True, kw_only=True):
    """The service always, filters if there are any, in their order."""

    services: Relationship
    filters: Relationship | UnsetType = UNSET


class BackendConnection(Shape, frozen=True, kw_only=True):
    """A connection to a server; ``connection_id`` is the server's name for it, 0 if unknown."""

    server: str
    connection_id: int
    cipher: str


class Attributes(Shape, frozen=True, kw_only=True):
    """A session in the current form; times in seconds, ``connected`` an HTTP date."""

    state: str
    user: str | UnsetType = UNSET
    remote: str | UnsetType = UNSET
    port: int | UnsetType = UNSET
    connected: str
    seconds_alive: float
    idle: float | UnsetType = UNSET
    io_activity: int
    thread: int
    client: ClientFacts
    connections: tuple[BackendConnection, ...]
    queries: tuple[Query, ...]
    log: tuple[str, ...]
    memory: Memory
    parameters: Parameters


class SeedAttributes(Shape, frozen=True, kw_only=True):
    """A session in the seed's form; ``connected`` as C's ``asctime`` writes it, in UTC."""

    state: str
    connected: str
    user: str | UnsetType = UNSET
    remote: str | UnsetType = UNSET
    idle: float | UnsetType = UNSET


class Resource(Shape, frozen=True, kw_only=True):
    """A session."""

    id: str
    type: Literal["sessions"] = "sessions"
    attributes: Attributes
    relationships: Relationships
    links: Link


class SeedResource(Shape, frozen=True, kw_only=True):
    """A session in the seed's form."""

    id: str
    type: Literal["sessions"] = "sessions"
    attributes: SeedAttributes
    relationships: Relationships
    links: Link


class NamedAttributes(Shape, frozen=True, kw_only=True):
    """How many of the sessions that the caller sees refer to it."""

    state: Literal["Started"] = "Started"
    connections: int


class NamedResource(Shape, frozen=True, kw_only=True):
    """A service or a filter: all that is known of it is that sessions refer to it."""

    id: str
    type: Literal["services", "filters"]
    attributes: NamedAttributes
    links: Link


class SessionDocument(Shape, frozen=True, kw_only=True):
    """The reply to a GET of one session."""

    data: Resource
    links: Link


class SeedSessionDocument(Shape, frozen=True, kw_only=True):
    """The same in the seed's form."""

    data: SeedResource
    links: Link


class NamedDocument(Shape, frozen=True, kw_only=True):
    """The reply to a GET of one service or filter."""

    data: NamedResource
    links: Link


class Total(Shape, frozen=True, kw_only=True):
    """How many resources there are on all pages together."""

    total: int


class SessionsDocument(Shape, frozen=True, kw_only=True):
    """The reply to a GET of all sessions."""

    data: tuple[Resource, ...]
    links: PageLinks
    meta: Total | UnsetType = UNSET


class NamedsDocument(Shape, frozen=True, kw_only=True):
    """The reply to a GET of all services or filters."""

    data: tuple[NamedResource, ...]
    links: PageLinks
    meta: Total | UnsetType = UNSET


class GatewayParameters(Shape, frozen=True, kw_only=True):
    """What MaxCtrl looks at before it lists queries: how many are kept of each session."""

    retain_last_statements: int = 1


class GatewayAttributes(Shape, frozen=True, kw_only=True):
    """This server."""

    version: str
    parameters: GatewayParameters = GatewayParameters()


class GatewayResource(Shape, frozen=True, kw_only=True):
    """The resource that stands for this server."""

    id: Literal["maxscale"] = "maxscale"
    type: Literal["maxscale"] = "maxscale"
    attributes: GatewayAttributes


class GatewayDocument(Shape, frozen=True, kw_only=True):
    """The reply to a GET of the server itself."""

    data: GatewayResource
    links: Link


class Token(Shape, frozen=True, kw_only=True):
    """A JSON Web Token."""

    token: str


class TokenDocument(Shape, frozen=True, kw_only=True):
    """The reply to a login."""

    meta: Token


class Problem(Shape, frozen=True, kw_only=True):
    """One error; ``detail`` is all that MaxScale tells."""

    detail: str


class ErrorDocument(Shape, frozen=True, kw_only=True):
    """The reply to what went wrong."""

    errors: tuple[Problem, ...]
