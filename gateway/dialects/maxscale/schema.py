"""Schema: MaxScale's resources, the JSON:API documents around them, and what requests hold.

Everything here is a type: ``render`` fills those that are sent, the pipeline reads the others, and
the description is made of both. Of the log switches in a body only those that exist and are on or
off are taken; ``id`` and ``type`` are not looked at, as MaxCtrl leaves the one out and sends a
wrong other.

Names and types: MaxScale REST API, 24.02; the seed's: its first description, 2017-05.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct, field

from gateway.core.model import Object
from gateway.dialects.maxscale.facts import ClientFacts, LogSwitches, MemoryUse, Statement

ResourceType = Literal["sessions", "services", "filters"]
References = Annotated[tuple[Object, ...], Meta(max_length=256)]
R = TypeVar("R", bound="JsonApiObject")


class JsonApiObject(Struct, frozen=True):
    """Base of what is sent; only what is ``UNSET`` is left out."""


# --- parts of documents


class SelfLink(JsonApiObject, frozen=True, kw_only=True):
    """Where a resource is."""

    self_: str = field(name="self")


class PageLinks(JsonApiObject, frozen=True, kw_only=True):
    """Where a collection is, and its pages if it has some."""

    self_: str = field(name="self")
    first: str | UnsetType = UNSET
    prev: str | UnsetType = UNSET
    next: str | UnsetType = UNSET
    last: str | UnsetType = UNSET


class RelationshipLinks(JsonApiObject, frozen=True, kw_only=True):
    """``self`` is the relationship; in the seed it is what ``related`` is now."""

    self_: str = field(name="self")
    related: str | UnsetType = UNSET


class ResourceIdentifier(JsonApiObject, frozen=True, kw_only=True):
    """The name of a resource."""

    id: str
    type: ResourceType


class Relationship(JsonApiObject, frozen=True, kw_only=True):
    """What a session belongs to; also a document of its own."""

    data: tuple[ResourceIdentifier, ...]
    links: RelationshipLinks


class Relationships(JsonApiObject, frozen=True, kw_only=True):
    """The service always, filters if there are any, in their order."""

    services: Relationship
    filters: Relationship | UnsetType = UNSET


class BackendConnection(JsonApiObject, frozen=True, kw_only=True):
    """A connection to a server; ``connection_id`` is the server's name for it, 0 if unknown."""

    server: str
    connection_id: int
    cipher: str


class Total(JsonApiObject, frozen=True, kw_only=True):
    """How many resources there are on all pages together."""

    total: int


# --- resources


class SessionAttributes(JsonApiObject, frozen=True, kw_only=True):
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
    queries: tuple[Statement, ...]
    log: tuple[str, ...]
    memory: MemoryUse
    parameters: LogSwitches


class SeedAttributes(JsonApiObject, frozen=True, kw_only=True):
    """A session in the seed's form; ``connected`` as C's ``asctime`` writes it, in UTC."""

    state: str
    connected: str
    user: str | UnsetType = UNSET
    remote: str | UnsetType = UNSET
    idle: float | UnsetType = UNSET


class SessionResource(JsonApiObject, frozen=True, kw_only=True):
    """A session."""

    id: str
    type: Literal["sessions"] = "sessions"
    attributes: SessionAttributes
    relationships: Relationships
    links: SelfLink


class SeedResource(JsonApiObject, frozen=True, kw_only=True):
    """A session in the seed's form."""

    id: str
    type: Literal["sessions"] = "sessions"
    attributes: SeedAttributes
    relationships: Relationships
    links: SelfLink


class NamedAttributes(JsonApiObject, frozen=True, kw_only=True):
    """How many of the sessions that the caller sees refer to it."""

    state: Literal["Started"] = "Started"
    connections: int


class NamedResource(JsonApiObject, frozen=True, kw_only=True):
    """A service or a filter: all that is known of it is that sessions refer to it."""

    id: str
    type: Literal["services", "filters"]
    attributes: NamedAttributes
    links: SelfLink


class ServerParameters(JsonApiObject, frozen=True, kw_only=True):
    """What MaxCtrl looks at before it lists queries: how many are kept of each session."""

    retain_last_statements: int = 1


class ServerAttributes(JsonApiObject, frozen=True, kw_only=True):
    """This server's version and parameters."""

    version: str
    parameters: ServerParameters = ServerParameters()


class ServerResource(JsonApiObject, frozen=True, kw_only=True):
    """The resource that stands for this server."""

    id: Literal["maxscale"] = "maxscale"
    type: Literal["maxscale"] = "maxscale"
    attributes: ServerAttributes


# --- documents


class ResourceDocument(JsonApiObject, Generic[R], frozen=True, kw_only=True):
    """The reply to a GET of one resource."""

    data: R
    links: SelfLink


class ResourceList(JsonApiObject, Generic[R], frozen=True, kw_only=True):
    """The reply to a GET of a collection."""

    data: tuple[R, ...]
    links: PageLinks
    meta: Total | UnsetType = UNSET


SessionDocument = ResourceDocument[SessionResource]
SessionResourceList = ResourceList[SessionResource]
NamedResourceDocument = ResourceDocument[NamedResource]
NamedResourceList = ResourceList[NamedResource]
ServerDocument = ResourceDocument[ServerResource]


class LoginToken(JsonApiObject, frozen=True, kw_only=True):
    """A JSON Web Token."""

    token: str


class LoginDocument(JsonApiObject, frozen=True, kw_only=True):
    """The reply to a login."""

    meta: LoginToken


class ErrorObject(JsonApiObject, frozen=True, kw_only=True):
    """One error; ``detail`` is all that MaxScale tells."""

    detail: str


class ErrorDocument(JsonApiObject, frozen=True, kw_only=True):
    """The reply to a request that was refused."""

    errors: tuple[ErrorObject, ...]


# --- bodies of requests


class FilterReferences(Struct, frozen=True, kw_only=True):
    """A session's filters, all of them, in order."""

    data: References


class PartialAttributes(Struct, frozen=True, kw_only=True):
    """The attributes that may be changed: the log switches."""

    parameters: dict[str, Any] = {}


class PartialRelationships(Struct, frozen=True, kw_only=True):
    """The relationships that may be changed: the filters."""

    filters: FilterReferences | UnsetType = UNSET


class PartialResource(Struct, frozen=True, kw_only=True):
    """A part of a session."""

    attributes: PartialAttributes = PartialAttributes()
    relationships: PartialRelationships = PartialRelationships()


class PartialDocument(Struct, frozen=True, kw_only=True):
    """The body of a PATCH of a session."""

    data: PartialResource


# --- parameters of queries, as they are described; ``query`` reads them


def _query(name: str, texts: Mapping[str, str]) -> type[Struct]:
    """Return a type that describes parameters, each by its text."""
    found = [
        (
            f"p{place}",
            Annotated[str | None, Meta(description=text)],
            field(name=known, default=None),
        )
        for place, (known, text) in enumerate(texts.items())
    ]
    return defstruct(name, found, frozen=True, kw_only=True)


_FORM: Final = {"pretty": "Whether the reply is indented: not if `false`, `off`, `no` or `0`."}
_ONE: Final = {**_FORM, "fields[TYPE]": "Comma-separated paths of what to keep of that type."}
_MANY: Final = {
    **_ONE,
    "filter": 'JSON pointer, equals sign, expression: `/attributes/user="ann"`.',
    "filter[PATH]": "Expression for the values at a JSON path: `gt(60)`.",
    "page[size]": "Resources a page.",
    "page[number]": "Which page, from 0.",
}
_LOGIN: Final = {
    **_FORM,
    "max-age": "Seconds that the token is good for: 28 800, 86 400 at most.",
    "persist": "`yes`: the token comes as a cookie.",
    "logout": "`yes`: the cookie is removed.",
}

FormQuery: Final = _query("FormQuery", _FORM)
ResourceQuery: Final = _query("ResourceQuery", _ONE)
CollectionQuery: Final = _query("CollectionQuery", _MANY)
LoginQuery: Final = _query("LoginQuery", _LOGIN)
CloseSessionQuery: Final = _query("CloseSessionQuery", {"ttl": "Seconds until then."})
