"""Facts: what a producer tells of a session in MaxScale's words, under ``attributes.maxscale``.

A database proxy knows of queries, memory and backends; a session of another door knows nothing of
them. Both are shown, so every fact has the neutral value that MaxScale shows when there is nothing
to tell. Anybody who may write a session may write nonsense here: a fact that is not of its type is
as if it had not been told.

Names and types: MaxScale REST API, *Session Resource*, 24.02.
"""

from contextlib import suppress
from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert
from msgspec.structs import fields

from gateway.core.model import END, Session

NAME: Final = "maxscale"  # the member of a session's attributes that is ours

Amount = Annotated[int, Meta(ge=0, le=2**63 - 1)]
FilterName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+" + END)]


class Answer(Struct, frozen=True, kw_only=True):
    """What one server did for a query; ``duration`` is in milliseconds."""

    server: str = ""
    duration: Amount = 0


class Query(Struct, frozen=True, kw_only=True):
    """One of the last statements; without ``completed`` it is still running."""

    command: str | UnsetType = UNSET
    statement: str | UnsetType = UNSET
    received: str = ""
    completed: str | UnsetType = UNSET
    responses: tuple[Answer, ...] = ()


class Buffers(Struct, frozen=True, kw_only=True):
    """Bytes of one connection's buffers."""

    readq: Amount = 0
    writeq: Amount = 0
    misc: Amount = 0
    total: Amount = 0


class ConnectionBuffers(Struct, frozen=True, kw_only=True):
    """Bytes of all connections of a session."""

    total: Amount = 0
    client: Buffers = Buffers()
    backends: dict[str, Buffers] = {}


class Memory(Struct, frozen=True, kw_only=True):
    """Bytes that a session takes."""

    connection_buffers: ConnectionBuffers = ConnectionBuffers()
    sescmd_history: Amount = 0
    exec_metadata: Amount = 0
    last_queries: Amount = 0
    variables: Amount = 0
    total: Amount = 0


class Parameters(Struct, frozen=True, kw_only=True):
    """What is logged of a session."""

    log_info: bool = False
    log_notice: bool = False
    log_warning: bool = False
    log_error: bool = False


class ClientFacts(Struct, frozen=True, kw_only=True):
    """The client's side; an empty ``cipher`` is plain text."""

    cipher: str = ""
    connection_attributes: dict[str, str] | None = None
    sescmd_history_len: Amount | UnsetType = UNSET
    sescmd_history_stored_responses: Amount | UnsetType = UNSET
    sescmd_history_stored_metadata: Amount | UnsetType = UNSET


class Backend(Struct, frozen=True, kw_only=True):
    """What a stream of kind ``backend`` tells in its data."""

    server: str = ""
    connection_id: Amount = 0
    cipher: str = ""


class Facts(Struct, frozen=True, kw_only=True):
    """Everything that can be told."""

    remote: str | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    io_activity: Amount = 0
    thread: Amount = 0
    client: ClientFacts = ClientFacts()
    queries: tuple[Query, ...] = ()
    log: tuple[str, ...] = ()
    memory: Memory = Memory()
    parameters: Parameters = Parameters()
    filters: tuple[FilterName, ...] = ()


_NOTHING: Final = Facts()
_TYPES: Final = {info.name: info.type for info in fields(Facts)}


def facts_of(session: Session) -> Facts:
    """Return what is told of *session*; whatever is no such fact is left out."""
    told = session.attributes.get(NAME)
    if not isinstance(told, dict):
        return _NOTHING
    try:
        return convert(told, Facts)
    except ValidationError:
        good = {}
        for name, kind in _TYPES.items():
            with suppress(KeyError, ValidationError):
                good[name] = convert(told[name], kind)
        return Facts(**good)


def backend_of(data: dict[str, object]) -> Backend:
    """Return what a backend stream tells of itself."""
    try:
        return convert(data, Backend)
    except ValidationError:
        return Backend()
