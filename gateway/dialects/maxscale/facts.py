"""Facts: what a producer reports of a session in MaxScale's words, under ``attributes.maxscale``.

A database proxy reports queries, memory and backends; a session of another door has none of them.
Both are shown, so every fact has the neutral value that MaxScale shows where there is nothing to
report. Whoever may write a session may write nonsense here: a fact that is not of its type is
ignored.

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


class StatementResponse(Struct, frozen=True, kw_only=True):
    """What one server did for a query; ``duration`` is in milliseconds."""

    server: str = ""
    duration: Amount = 0


class Statement(Struct, frozen=True, kw_only=True):
    """One of the last statements; without ``completed`` it is still running."""

    command: str | UnsetType = UNSET
    statement: str | UnsetType = UNSET
    received: str = ""
    completed: str | UnsetType = UNSET
    responses: tuple[StatementResponse, ...] = ()


class BufferSizes(Struct, frozen=True, kw_only=True):
    """Bytes of one connection's buffers."""

    readq: Amount = 0
    writeq: Amount = 0
    misc: Amount = 0
    total: Amount = 0


class ConnectionBuffers(Struct, frozen=True, kw_only=True):
    """Bytes of all connections of a session."""

    total: Amount = 0
    client: BufferSizes = BufferSizes()
    backends: dict[str, BufferSizes] = {}


class MemoryUse(Struct, frozen=True, kw_only=True):
    """Bytes that a session takes."""

    connection_buffers: ConnectionBuffers = ConnectionBuffers()
    sescmd_history: Amount = 0
    exec_metadata: Amount = 0
    last_queries: Amount = 0
    variables: Amount = 0
    total: Amount = 0


class LogSwitches(Struct, frozen=True, kw_only=True):
    """Which levels are logged of a session."""

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


class BackendFacts(Struct, frozen=True, kw_only=True):
    """What a stream of kind ``backend`` has in its data."""

    server: str = ""
    connection_id: Amount = 0
    cipher: str = ""


class ProxyFacts(Struct, frozen=True, kw_only=True):
    """Everything that can be reported."""

    remote: str | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    io_activity: Amount = 0
    thread: Amount = 0
    client: ClientFacts = ClientFacts()
    queries: tuple[Statement, ...] = ()
    log: tuple[str, ...] = ()
    memory: MemoryUse = MemoryUse()
    parameters: LogSwitches = LogSwitches()
    filters: tuple[FilterName, ...] = ()


_NOTHING: Final = ProxyFacts()
_TYPES: Final = {info.name: info.type for info in fields(ProxyFacts)}


def proxy_facts(session: Session) -> ProxyFacts:
    """Return what is reported of *session*; whatever is no such fact is left out."""
    reported = session.attributes.get(NAME)
    if not isinstance(reported, dict):
        return _NOTHING
    try:
        return convert(reported, ProxyFacts)
    except ValidationError:
        good = {}
        for name, kind in _TYPES.items():
            with suppress(KeyError, ValidationError):
                good[name] = convert(reported[name], kind)
        return ProxyFacts(**good)


def backend_facts(data: dict[str, object]) -> BackendFacts:
    """Return what the data of a backend stream say."""
    try:
        return convert(data, BackendFacts)
    except ValidationError:
        return BackendFacts()
