"""Event application: the half of the state machine that turns events into records.

:func:`evolve` is total and refuses nothing, because :mod:`gateway.core.session` has decided what
may happen and an event in the log has happened. From the same events every node gets the same
record, whatever its version.
"""

from typing import Final, assert_never

from msgspec import UNSET
from msgspec.structs import astuple, replace

from gateway.core.errors import NotFound
from gateway.core.event import (
    AnyEvent,
    CloseCancelled,
    CloseExtended,
    ClosingScheduled,
    Connected,
    Disconnected,
    Opened,
    SessionEnded,
    Settled,
    StreamStarted,
    StreamStopped,
    StreamUpdated,
    Unwatched,
    Updated,
    Watching,
)
from gateway.core.model import OPS_KEPT, SERVER_LINGER_MS, Closure, Deadline, Outcome, Session

SKEW_MAX_MS: Final = 1_000  # by which the clocks of two nodes may differ


def later(at: int, after_ms: int | None) -> int | None:
    """Return the time *after_ms* milliseconds after *at*, or ``None`` if *after_ms* is unset."""
    return None if after_ms is None else at + after_ms


def unwatched(session: Session, position_ms: int | None, at: int) -> list[AnyEvent]:
    """Return the events that end what *session* watches, none if it watches nothing.

    Args:
        session: The session.
        position_ms: Where the watch ended, if that is known; its history row says so.
        at: When, in milliseconds of Redis time.
    """
    watch = session.watch
    if watch is None:
        return []
    if position_ms is None or position_ms == watch.position_ms:
        return [Unwatched()]
    ended = replace(watch, position_ms=position_ms, position_at=at)
    return [Updated(watch=ended), Unwatched()]


def ended(
    session: Session,
    now_ms: int,
    *,
    outcome: Outcome,
    reason: str | None = None,
    by: str | None = None,
    code: int = 4500,
    position_ms: int | None = None,
) -> list[AnyEvent]:
    """Return the events that end *session*, and what it watches with it."""
    closed = Closure(at=now_ms, outcome=outcome, reason=reason, by=by, code=code)
    return [*unwatched(session, position_ms, now_ms), SessionEnded(closed=closed)]


def happens_at(session: Session | None, now_ms: int) -> int:
    """Return when a command that is decided at *now_ms* happens: not before what happened already.

    Each node estimates Redis time by itself, and its estimate gets better as it goes: the node
    that decides may be some milliseconds behind the one that decided before, or behind itself.
    More than ``SKEW_MAX_MS`` is a step of Redis' clock, which no time of a record holds up.

    Args:
        session: The record as it is, or ``None`` when there is none.
        now_ms: Redis time in milliseconds, as this node knows it.
    """
    if session is None:
        return now_ms
    held, closing = session.connection, session.closing
    latest = max(
        session.created_at,
        session.disconnected_at or 0,
        session.watching_since or 0,
        session.unwatched_at or 0,
        held.connected_at if held else 0,
        closing.requested_at if closing else 0,
        (closing.saving_at or 0) if closing else 0,
    )
    return latest if now_ms < latest <= now_ms + SKEW_MAX_MS else now_ms


def evolve(session: Session | None, event: AnyEvent, at: int) -> Session:
    """Return the session after *event*, which happened at *at* (milliseconds of Redis time)."""
    after = _evolve(session, event, at)
    if after.start_within_ms is not None and after.is_at_work:
        return replace(after, start_within_ms=None)  # for good: a pause is no late start
    return after


def _evolve(session: Session | None, event: AnyEvent, at: int) -> Session:
    if isinstance(event, Opened):
        return event.session
    if session is None:
        raise NotFound
    match event:
        case Connected():
            return replace(
                session,
                connection=event.connection,
                connected_at=session.connected_at or event.connection.connected_at,
                disconnected_at=None,
                linger_at=None,
                settles_at=None,
                keepalive_at=None,
                closing=replace(session.closing, readmit=False) if session.closing else None,
            )
        case Disconnected():
            return replace(
                session,
                connection=replace(session.connection, ended_at=at) if session.connection else None,
                disconnected_at=at,
                linger_at=event.linger_at,
                settles_at=event.settles_at,
                keepalive_at=later(at, session.keepalive_ms),
                closing=replace(session.closing, readmit=True)
                if session.closing and event.cause == "server"
                else session.closing,
            )
        case Settled():
            return replace(session, settles_at=None)
        case Watching():
            return _renewed(
                replace(session, watch=event.watch, watching_since=at, unwatched_at=None), at
            )
        case Unwatched():
            return _renewed(replace(session, watch=None, watching_since=None, unwatched_at=at), at)
        case Updated():
            fields = zip(event.__struct_fields__, astuple(event), strict=True)
            changes = {name: value for name, value in fields if value is not UNSET}
            return _renewed(replace(session, **changes), at)
        case ClosingScheduled() | CloseExtended():
            return replace(session, closing=event.closing, linger_at=None)
        case CloseCancelled():
            linger_at = None if session.is_connected else later(at, session.linger_ms)
            return replace(session, closing=None, linger_at=linger_at)
        case SessionEnded():
            ended = session.connection
            if ended and session.is_connected:
                ended = replace(ended, ended_at=at)
            return replace(
                session,
                closed=event.closed,
                connection=ended,
                closing=None,
                linger_at=None,
                settles_at=None,
                keepalive_at=None,
                ttl_at=None,
            )
        case StreamStarted():
            return _renewed(replace(session, streams=(*session.streams, event.stream)), at)
        case StreamUpdated():
            stream = event.stream
            streams = tuple(
                stream if known.key == stream.key else known for known in session.streams
            )
            return _renewed(replace(session, streams=streams), at)
        case StreamStopped():
            streams = tuple(known for known in session.streams if known.key != event.key)
            return _renewed(replace(session, streams=streams), at)
    assert_never(event)


def _renewed(session: Session, at: int) -> Session:
    if session.keepalive_ms is None and session.keepalive_at is None:
        return session
    return replace(
        session, keepalive_at=None if session.is_connected else later(at, session.keepalive_ms)
    )


def advance(session: Session | None, events: list[AnyEvent], op: str, now_ms: int) -> Session:
    """Return the record after one commit: *events* applied, one revision on, *op* remembered."""
    after = session
    for event in events:
        after = evolve(after, event, now_ms)
    if after is None:
        raise NotFound
    revision = (session.revision if session else 0) + 1
    return replace(after, revision=revision, ops=(*after.ops, op)[-OPS_KEPT:])


def deadlines(session: Session) -> list[tuple[Deadline, int, int]]:
    """Return the live deadlines as ``(kind, at, duration_ms)``.

    An outage of all nodes postpones a deadline: it takes effect at the earliest ``duration_ms``
    after the gateway is up again. The duration is 0 for deadlines that no outage postpones: a
    delayed close and the maximum lifetime.
    """
    if session.closed:
        return []
    found: list[tuple[Deadline, int, int]] = []
    if session.closing:
        found.append((Deadline.CLOSING, session.closing.at, 0))
    else:
        if session.linger_at is not None:
            since = session.disconnected_at or session.created_at
            longest = max(
                session.linger_ms or 0, SERVER_LINGER_MS
            )  # a called-off close restarts it
            duration = min(session.linger_at - since, longest)
            found.append((Deadline.LINGER, session.linger_at, duration))
        if session.keepalive_at is not None:
            found.append((Deadline.KEEPALIVE, session.keepalive_at, session.keepalive_ms or 0))
        if session.start_within_ms is not None:
            start_at = session.created_at + session.start_within_ms
            found.append((Deadline.START, start_at, session.start_within_ms))
    if session.settles_at is not None:
        found.append((Deadline.SETTLE, session.settles_at, session.grace_ms or 0))
    if session.ttl_at is not None:
        found.append((Deadline.TTL, session.ttl_at, 0))
    return found
