"""The public form of a session, and the merge patch (RFC 7396) between two of them.

Unset fields are left out, never null; times are RFC 3339 UTC with milliseconds. The *full* level,
for callers who may write, adds where a client comes from and what it may do. A session with the
``changes`` of an event merged in and the ``revision`` of the event is the session after it.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.core.event import HistoryRow
from gateway.core.model import (
    Client,
    Closing,
    Closure,
    Connection,
    Object,
    Outcome,
    Profile,
    Session,
    State,
    Stream,
    Watch,
    same_json,
)

Time = Annotated[
    str,
    Meta(description="RFC 3339 UTC with milliseconds.", extra_json_schema={"format": "date-time"}),
]


class Public(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of all public forms."""


class PublicConnection(Public, frozen=True):
    """A session's WebSocket, the last one while it is away; from ``node`` on at full level only."""

    id: str
    connected_at: Time
    ended_at: Time | None = None
    node: str | None = None
    address: str | None = None
    port: int | None = None
    tls: bool | None = None
    user_agent: str | None = None


class PublicWatch(Public, frozen=True):
    """What a session looks at or plays."""

    key: str
    title: str | None = None
    kind: str | None = None
    state: str | None = None
    position_ms: int | None = None
    position_at: Time | None = None
    duration_ms: int | None = None
    bandwidth: int | None = None
    item: Object | None = None


class PublicStream(Public, frozen=True):
    """A related job or backend connection."""

    key: str
    kind: str
    data: Object
    state: str | None = None


class PublicClosing(Public, frozen=True):
    """A pending delayed close."""

    at: Time
    requested_at: Time
    extend_max_ms: int
    reason: str | None = None
    by: str | None = None
    saving_at: Time | None = None


class PublicClosed(Public, frozen=True):
    """How a session ended."""

    at: Time
    outcome: Outcome
    code: int
    reason: str | None = None
    by: str | None = None


class PublicSession(Public, frozen=True):
    """A session as it is shown."""

    id: str
    number: int
    revision: int
    state: State
    is_connected: bool
    is_watching: bool
    created_at: Time
    name: str | None = None
    account: str | None = None
    workspace: str | None = None
    service: str | None = None
    labels: dict[str, str] = {}
    attributes: Object = {}
    profile: Profile | None = None
    client: Client | None = None
    members: tuple[str, ...] = ()
    phase: str | None = None
    linger_ms: int | None = None
    grace_ms: int | None = None
    keepalive_ms: int | None = None
    ttl_ms: int | None = None
    connected_at: Time | None = None
    disconnected_at: Time | None = None
    watching_since: Time | None = None
    unwatched_at: Time | None = None
    closes_at: Time | None = None
    closed_at: Time | None = None
    connection: PublicConnection | None = None
    watch: PublicWatch | None = None
    streams: tuple[PublicStream, ...] = ()
    closing: PublicClosing | None = None
    closed: PublicClosed | None = None


class PublicEvent(Public, frozen=True):
    """One thing that happened to a session in view.

    Args:
        type: What: ``session.…`` or ``stream.…``. ``session.enter`` and ``session.exit``: the
            session started or stopped to match the filter.
        session_id: The session.
        revision: The session's revision after it; not for ``session.exit`` and ``session.enter``.
        at: When; not for ``session.exit`` and ``session.enter``.
        changes: The merge patch (RFC 7396) of the session; for ``session.opened`` all of it.
        session: The session whole, for ``session.enter``.
    """

    type: str
    session_id: str
    revision: int | UnsetType = UNSET
    at: Time | UnsetType = UNSET
    changes: Object | UnsetType = UNSET
    session: PublicSession | UnsetType = UNSET


class PublicRow(Public, frozen=True):
    """A closed session (``kind`` session) or a finished watch."""

    number: int
    kind: Literal["session", "watch"]
    session_id: str
    session_number: int
    started_at: Time
    at: Time
    name: str | None = None
    account: str | None = None
    workspace: str | None = None
    service: str | None = None
    labels: dict[str, str] = {}
    client: Client | None = None
    watch: PublicWatch | None = None
    outcome: Outcome | None = None
    reason: str | None = None


@lru_cache(maxsize=8192)
def rfc3339(at: int) -> str:
    """Return the time *at* (milliseconds since the Unix epoch) as RFC 3339 UTC text."""
    return f"{_second(at // 1000)}.{at % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


def render_session(session: Session, *, full: bool = False) -> PublicSession:
    """Return *session* as it is shown at the plain or the *full* level."""
    return PublicSession(
        id=session.id,
        number=session.number,
        revision=session.revision,
        state=session.state,
        is_connected=session.is_connected,
        is_watching=session.is_watching,
        created_at=rfc3339(session.created_at),
        name=session.name,
        account=session.account,
        workspace=session.workspace,
        service=session.service,
        labels=session.labels,
        attributes=session.attributes,
        profile=session.profile if full else None,
        client=session.client,
        members=session.members,
        phase=session.phase,
        linger_ms=session.linger_ms,
        grace_ms=session.grace_ms,
        keepalive_ms=session.keepalive_ms,
        ttl_ms=session.ttl_ms,
        connected_at=_time(session.connected_at),
        disconnected_at=_time(session.disconnected_at),
        watching_since=_time(session.watching_since),
        unwatched_at=_time(session.unwatched_at),
        closes_at=_time(session.closes_at),
        closed_at=_time(session.closed_at),
        connection=render_connection(session.connection, full=full) if session.connection else None,
        watch=render_watch(session.watch) if session.watch else None,
        streams=tuple(map(render_stream, session.streams)),
        closing=render_closing(session.closing) if session.closing else None,
        closed=render_closed(session.closed) if session.closed else None,
    )


def render_connection(connection: Connection, *, full: bool) -> PublicConnection:
    """Return *connection* as it is shown at the plain or the *full* level."""
    shown = PublicConnection(
        id=connection.id,
        connected_at=rfc3339(connection.connected_at),
        ended_at=_time(connection.ended_at),
    )
    if not full:
        return shown
    return PublicConnection(
        id=shown.id,
        connected_at=shown.connected_at,
        ended_at=shown.ended_at,
        node=connection.node.partition(":")[0],
        address=connection.address,
        port=connection.port,
        tls=connection.tls,
        user_agent=connection.user_agent,
    )


def render_watch(watch: Watch) -> PublicWatch:
    """Return *watch* as it is shown."""
    return PublicWatch(
        key=watch.key,
        title=watch.title,
        kind=watch.kind,
        state=watch.state,
        position_ms=watch.position_ms,
        position_at=_time(watch.position_at),
        duration_ms=watch.duration_ms,
        bandwidth=watch.bandwidth,
        item=watch.item,
    )


def render_stream(stream: Stream) -> PublicStream:
    """Return *stream* as it is shown."""
    return PublicStream(key=stream.key, kind=stream.kind, state=stream.state, data=stream.data)


def render_closing(closing: Closing) -> PublicClosing:
    """Return *closing* as it is shown."""
    return PublicClosing(
        at=rfc3339(closing.at),
        requested_at=rfc3339(closing.requested_at),
        extend_max_ms=closing.extend_max_ms,
        reason=closing.reason,
        by=closing.by,
        saving_at=_time(closing.saving_at),
    )


def render_closed(closed: Closure) -> PublicClosed:
    """Return *closed* as it is shown."""
    return PublicClosed(
        at=rfc3339(closed.at),
        outcome=closed.outcome,
        code=closed.code,
        reason=closed.reason,
        by=closed.by,
    )


def render_row(row: HistoryRow) -> PublicRow:
    """Return a history row as it is shown."""
    return PublicRow(
        number=row.number,
        kind=row.kind,
        session_id=row.session_id,
        session_number=row.session_number,
        started_at=rfc3339(row.started_at),
        at=rfc3339(row.at),
        name=row.name,
        account=row.account,
        workspace=row.workspace,
        service=row.service,
        labels=row.labels,
        client=row.client,
        watch=render_watch(row.watch) if row.watch else None,
        outcome=row.outcome,
        reason=row.reason,
    )


def diff(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the merge patch (RFC 7396) from *before* to *after*; no map in them may hold null."""
    patch: dict[str, Any] = {}
    for name, new in after.items():
        old = before.get(name)
        if old is new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            if inner := diff(old, new):
                patch[name] = inner
        elif not same_json(old, new):
            patch[name] = new
    for name in before:
        if name not in after:
            patch[name] = None
    return patch


def merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return *target* with the merge patch applied (RFC 7396 section 2); neither is touched."""
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            old = merged.get(name)
            merged[name] = merge(old if isinstance(old, dict) else {}, value)
        else:
            merged[name] = value
    return merged
