"""Events of a session, and the log entries that carry them to every node.

A commit is one log entry. It holds the events in order, the operation that caused them, the record
after the commit and the former values of the fields that changed. So a node can tell every watcher
what changed even if it has not seen the past.
"""

from typing import Any, Final, Literal

from msgspec import UNSET, Raw, Struct, UnsetType, ValidationError
from msgspec.json import Decoder, decode, encode
from msgspec.structs import replace

from gateway.core.document import Document, Message
from gateway.core.model import (
    Cause,
    Client,
    Closing,
    Closure,
    Connection,
    Object,
    Outcome,
    Profile,
    Session,
    Stream,
    Watch,
    decode_session,
    encode_session,
    session_from,
    session_to,
)

HISTORY_ROW_MAX_BYTES: Final = 1024  # a row of the history stream


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="type"):
    """Base of all events; an event happened at the ``at`` of its log entry."""


class Opened(Event, tag="session.opened", frozen=True):
    """The session was opened; ``session`` is the whole record without its first connection."""

    session: Session


class Connected(Event, tag="session.connected", frozen=True):
    """A socket was attached; ``replaced`` says that it took the place of a live one."""

    connection: Connection
    replaced: bool = False


class Disconnected(Event, tag="session.disconnected", frozen=True):
    """The socket ended; the session waits until ``linger_at``, announced at ``settles_at``."""

    cause: Cause
    linger_at: int | None = None
    settles_at: int | None = None


class Settled(Event, tag="session.settled", frozen=True):
    """The loss of the socket was not made good within the grace period: announce it."""


class Watching(Event, tag="session.watching", frozen=True):
    """The session watches something new."""

    watch: Watch


class Unwatched(Event, tag="session.unwatched", frozen=True):
    """The session has stopped watching."""


class Updated(Event, tag="session.updated", frozen=True):
    """Fields with their new values; ``None`` is unset."""

    name: str | UnsetType | None = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    attributes: Object | UnsetType = UNSET
    profile: Profile | UnsetType | None = UNSET
    client: Client | UnsetType | None = UNSET
    members: tuple[str, ...] | UnsetType = UNSET
    phase: str | UnsetType | None = UNSET
    linger_ms: int | UnsetType | None = UNSET
    grace_ms: int | UnsetType | None = UNSET
    keepalive_ms: int | UnsetType | None = UNSET
    ttl_ms: int | UnsetType | None = UNSET
    watch: Watch | UnsetType = UNSET
    closing: Closing | UnsetType = UNSET
    linger_at: int | UnsetType | None = UNSET
    ttl_at: int | UnsetType | None = UNSET


class ClosingScheduled(Event, tag="session.closing", frozen=True):
    """A close is pending, for the first time or with a new deadline."""

    closing: Closing


class CloseExtended(Event, tag="session.close_extended", frozen=True):
    """The client got more time."""

    closing: Closing


class CloseCancelled(Event, tag="session.close_cancelled", frozen=True):
    """The pending close was called off."""


class SessionEnded(Event, tag="session.closed", frozen=True):
    """The session is closed, for good."""

    closed: Closure


class StreamStarted(Event, tag="stream.started", frozen=True):
    """The session has a new stream, the last of its list."""

    stream: Stream


class StreamUpdated(Event, tag="stream.updated", frozen=True):
    """The stream of this key has changed to this."""

    stream: Stream


class StreamStopped(Event, tag="stream.stopped", frozen=True):
    """The stream of this key has ended."""

    key: str


AnyEvent = (
    Opened | Connected | Disconnected | Settled | Watching | Unwatched | Updated | ClosingScheduled
    | CloseExtended | CloseCancelled | SessionEnded | StreamStarted | StreamUpdated | StreamStopped
)  # fmt: skip


# --- the log -----------------------------------------------------------------


class LogEntry(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="kind"):
    """Base of all log entries; ``at`` is when it was decided, in milliseconds of Redis time."""

    at: int


class SessionEntry(LogEntry, tag="s", frozen=True):
    """One commit of a session.

    Args:
        op: The operation that caused it.
        events: What happened, in order.
        record: The session after it.
        before: The fields it changed with their former values, null for unset; ``None`` when there
            was no session.
    """

    op: str
    events: list[AnyEvent]
    record: Session
    before: dict[str, Any] | None = None


class DocumentEntry(LogEntry, tag="d", frozen=True):
    """One commit of a document; an empty body deletes it."""

    op: str
    document: Document


class MessageEntry(LogEntry, tag="m", frozen=True):
    """A message to live connections, delivered once."""

    message: Message


class ActiveEntry(LogEntry, tag="a", frozen=True):
    """When clients last spoke, by session id; one entry a node each 10 s."""

    active: dict[str, int]


class RowErasedEntry(LogEntry, tag="h", frozen=True):
    """The history row of this number was deleted; older versions ignore the entry."""

    number: int


class EpochEntry(LogEntry, tag="e", frozen=True):
    """History was lost before this entry: every position older than it is void."""

    epoch: str


AnyEntry = SessionEntry | DocumentEntry | MessageEntry | ActiveEntry | RowErasedEntry | EpochEntry


class _SessionText(
    Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="kind", tag="s"
):
    """A :class:`SessionEntry` to be written whose record is encoded already."""

    op: str
    events: list[Any]
    record: Raw
    before: dict[str, Any] | None = None
    at: int


class _LooseEntry(Struct):
    """An entry with parts that may be newer than this version; each part is decoded by itself."""

    kind: str
    at: int
    op: str = ""
    events: list[Raw] = []
    record: Raw = Raw()
    before: dict[str, Any] | None = None


class _Typed(Struct):
    type: str


_entry: Final[Decoder[AnyEntry]] = Decoder(AnyEntry)
_event: Final[Decoder[AnyEvent]] = Decoder(AnyEvent)
_loose_entry: Final = Decoder(_LooseEntry)
_ENTRIES: Final = frozenset(kind.__struct_config__.tag for kind in LogEntry.__subclasses__())
_EVENTS: Final = {kind.__struct_config__.tag: kind for kind in Event.__subclasses__()}


def decode_entry(data: bytes) -> AnyEntry:
    """Decode a log entry, even one that a newer version wrote.

    Unknown events are left out, unknown fields of the record are kept (see
    :func:`~gateway.core.model.decode_session`), and an entry of an unknown kind becomes one
    without events: the record and its former fields hold all that this version can tell.

    Raises:
        msgspec.DecodeError: This is not a log entry.
    """
    try:
        return _entry.decode(data)
    except ValidationError:
        loose = _loose_entry.decode(data)
        if loose.kind not in _ENTRIES:
            return ActiveEntry(at=loose.at, active={})
        if loose.kind != SessionEntry.__struct_config__.tag:
            raise
    record = decode_session(bytes(loose.record))
    events = [event for raw in loose.events if (event := _known_event(raw)) is not None]
    return SessionEntry(at=loose.at, op=loose.op, events=events, record=record, before=loose.before)


def _known_event(raw: Raw) -> AnyEvent | None:
    kind = _EVENTS.get(decode(raw, type=_Typed).type)
    if kind is Opened:
        return Opened(session=session_from(decode(raw, type=dict[str, Any])["session"]))
    return _event.decode(raw) if kind else None


def encode_entry(entry: AnyEntry, record: bytes | None = None) -> bytes:
    """Encode a log entry; :func:`decode_entry` reads it.

    Args:
        entry: What is written.
        record: The encoded record of the entry, if the caller has it.
    """
    if not isinstance(entry, SessionEntry):
        return encode(entry)
    text = Raw(record or encode_session(entry.record))
    events: list[Any] = entry.events
    if entry.record.unknown:
        events = [
            {"type": event.__struct_config__.tag, "session": session_to(event.session)}
            if isinstance(event, Opened)
            else event
            for event in events
        ]
    return encode(
        _SessionText(op=entry.op, events=events, record=text, before=entry.before, at=entry.at)
    )


class HistoryRow(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A closed session or a finished watch.

    It is at most 1 KiB unless the names of its owners alone are longer: the item is left out first,
    then labels and client, and texts are cut. ``number`` is never reused; it and ``key`` (the row's
    place in Redis) are given by the commit.
    """

    kind: Literal["session", "watch"]
    session_id: str
    session_number: int
    at: int
    started_at: int
    number: int = 0
    key: str = ""
    name: str | None = None
    account: str | None = None
    workspace: str | None = None
    service: str | None = None
    labels: dict[str, str] = {}
    client: Client | None = None
    watch: Watch | None = None
    outcome: Outcome | None = None
    reason: str | None = None


def disconnect_cause(events: list[AnyEvent]) -> Cause | None:
    """Return how the connection ended, if one of *events* says so."""
    return next((event.cause for event in events if isinstance(event, Disconnected)), None)


def history_rows(
    before: Session | None, events: list[AnyEvent], after: Session, at: int
) -> list[HistoryRow]:
    """Return the history rows of a commit: one for a finished watch, one for a closed session."""
    rows: list[HistoryRow] = []
    watch, since = (before.watch, before.watching_since) if before else (None, None)
    for event in events:
        match event:
            case Watching():
                watch, since = event.watch, at
            case Updated() if event.watch is not UNSET:
                watch = event.watch
            case Unwatched() if watch:
                rows.append(_row(after, "watch", since or at, at, watch=watch))
                watch, since = None, None
            case SessionEnded():
                rows.append(_row(after, "session", after.created_at, at, closed=event.closed))
            case _:
                pass
    return rows


def _row(
    session: Session,
    kind: Literal["session", "watch"],
    started_at: int,
    at: int,
    *,
    watch: Watch | None = None,
    closed: Closure | None = None,
) -> HistoryRow:
    row = HistoryRow(
        kind=kind,
        session_id=session.id,
        session_number=session.number,
        at=at,
        started_at=started_at,
        name=session.name,
        account=session.account,
        workspace=session.workspace,
        service=session.service,
        labels=session.labels,
        client=session.client,
        watch=watch,
        outcome=closed.outcome if closed else None,
        reason=closed.reason if closed else None,
    )
    if _fits(row):
        return row
    if watch:
        watch = replace(watch, item=None)
        row = replace(row, watch=watch)
        if _fits(row):
            return row
        watch = replace(watch, title=_cut(watch.title))
    name, reason = _cut(row.name), _cut(row.reason)
    return replace(row, labels={}, client=None, name=name, reason=reason, watch=watch)


def _fits(row: HistoryRow) -> bool:
    return len(encode(row)) <= HISTORY_ROW_MAX_BYTES


def _cut(text: str | None) -> str | None:
    return text[:64] if text else None
