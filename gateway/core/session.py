"""The state machine of a session: which events follow from a command.

A caller asks for a change with a :mod:`command <gateway.core.command>`. :func:`decide` returns the
events that follow, or raises and changes nothing; :func:`evolve` applies one event. Both are pure:
``now_ms`` is Redis time, and every deadline is absolute.

States are derived, never stored::

    idle ──Connect──▶ connected ──Disconnect──▶ away
                          ◀────────Connect────────┘
    any of the three ──RequestClose──▶ closing ──CancelClose──▶ what it was
    any of the four ──▶ closed (final)

Watching is independent of the state and legal in every open one. Any report of its producer renews
a session that has a ``keepalive_ms`` and no socket.

Not here: writing (``store``), rendering (``public``), timers (``live.deadlines``), rights
(``api``).
"""

from typing import assert_never

from msgspec.structs import replace

from gateway.core import model
from gateway.core.command import (
    AnyCommand,
    CancelClose,
    Close,
    Connect,
    Disconnect,
    EndStream,
    Expire,
    ExtendClose,
    Join,
    Kick,
    Leave,
    Open,
    Progress,
    Report,
    RequestClose,
    Saved,
    Saving,
    StartStream,
    StartWatch,
    Unwatch,
    Update,
    UpdateStream,
)
from gateway.core.errors import (
    AlreadyConnected,
    ExtensionRefused,
    IdUnavailable,
    LimitExceeded,
    NotClosing,
    NotConnected,
    NotFound,
    NotWatching,
    RevisionMismatch,
    SessionClosed,
    SessionClosing,
    UnknownMember,
    UnknownStream,
)
from gateway.core.event import (
    AnyEvent,
    CloseCancelled,
    CloseExtended,
    ClosingScheduled,
    Connected,
    Disconnected,
    Opened,
    Settled,
    StreamStarted,
    StreamStopped,
    StreamUpdated,
    Unwatched,
    Updated,
    Watching,
)
from gateway.core.evolve import advance, deadlines, ended, evolve, later, unwatched
from gateway.core.model import (
    MEMBERS_MAX,
    SERVER_LINGER_MS,
    STREAMS_MAX,
    Cause,
    Closing,
    Deadline,
    Outcome,
    Session,
    Stream,
    same_json,
)
from gateway.core.validation import check_content, patched_fields

__all__ = ["advance", "deadlines", "decide", "evolve"]


def decide(session: Session | None, command: AnyCommand, now_ms: int) -> list[AnyEvent]:
    """Return the events that follow from *command*, none if it changes nothing.

    Args:
        session: The record as it is, or ``None`` when there is none.
        command: What is asked for.
        now_ms: Redis time in milliseconds.

    Raises:
        GatewayError: The command is refused; see each command. Nothing happened.
    """
    if session is None:
        if isinstance(command, Open):
            return _open(command, now_ms)
        if isinstance(command, Disconnect | Expire):
            return []
        raise NotFound
    if isinstance(command, Open):
        raise IdUnavailable
    if session.closed:
        if isinstance(command, Disconnect | Expire):
            return []
        raise SessionClosed(record=session)
    if command.via is not None and not _holds(session, command.via):
        raise NotConnected
    if command.revision not in (None, session.revision):
        raise RevisionMismatch
    match command:
        case Connect():
            return _connect(session, command, now_ms)
        case Disconnect():
            return _disconnect(session, command, now_ms)
        case Kick():
            if not session.is_connected:
                raise NotConnected
            return [_disconnected(session, "kicked", now_ms)]
        case StartWatch():
            return _watch(session, command.watch, now_ms)
        case Progress():
            return _progress(session, command, now_ms)
        case Unwatch():
            return unwatched(session, command.position_ms, now_ms) or _alive(session)
        case Report():
            return _alive(session)
        case Update():
            return _update(session, command)
        case StartStream():
            return _start_stream(session, command.stream)
        case UpdateStream():
            return _update_stream(session, command.stream)
        case EndStream():
            if not any(stream.key == command.key for stream in session.streams):
                raise UnknownStream
            return [StreamStopped(key=command.key)]
        case Join():
            return _join(session, command)
        case Leave():
            return _leave(session, command)
        case RequestClose():
            return _request_close(session, command, now_ms)
        case ExtendClose():
            return _extend_close(session, command)
        case CancelClose():
            _pending(session)
            return [CloseCancelled()]
        case Saving():
            closing = _pending(session)
            if closing.saving_at:
                return []
            return [Updated(closing=replace(closing, saving_at=now_ms))]
        case Saved():
            closing = _pending(session)
            return ended(session, now_ms, outcome="saved", reason=closing.reason, by=closing.by)
        case Expire():
            return _expire(session, command, now_ms)
        case Close():
            return ended(
                session,
                now_ms,
                outcome=command.outcome,
                reason=command.reason,
                by=command.by,
                code=command.code,
                position_ms=command.position_ms,
            )
    assert_never(command)


def _open(command: Open, now_ms: int) -> list[AnyEvent]:
    session = command.session
    check_content(session.attributes, session.profile, session.watch, *session.streams)
    opened = replace(
        session,
        revision=0,
        created_at=now_ms,
        connection=None,
        watch=None,
        linger_at=later(now_ms, session.linger_ms),
        keepalive_at=later(now_ms, session.keepalive_ms),
        ttl_at=later(now_ms, session.ttl_ms),
    )
    events: list[AnyEvent] = [Opened(session=opened)]
    if session.connection:
        events.append(Connected(connection=replace(session.connection, connected_at=now_ms)))
    if session.watch:
        events.append(Watching(watch=_placed(session.watch, now_ms)))
    return events


def _holds(session: Session, connection: str) -> bool:
    held = session.connection if session.is_connected else None
    return held is not None and held.id == connection


def _alive(session: Session) -> list[AnyEvent]:
    """Return an event without changes, which renews the keepalive of the producer."""
    return [] if session.keepalive_at is None else [Updated()]


def _connect(session: Session, command: Connect, now_ms: int) -> list[AnyEvent]:
    held, wanted = session.connection, command.connection
    if _holds(session, wanted.id):
        return []
    is_own = held is not None and held.id == wanted.id
    if command.again and not is_own:
        raise AlreadyConnected
    if session.closing and not (session.closing.readmit and command.readmit):
        raise SessionClosing
    if session.is_connected and not command.displace:
        raise AlreadyConnected
    since = held.connected_at if held is not None and is_own else now_ms
    connection = replace(wanted, connected_at=since)
    return [Connected(connection=connection, replaced=session.is_connected)]


def _disconnect(session: Session, command: Disconnect, now_ms: int) -> list[AnyEvent]:
    if not _holds(session, command.connection):
        return []
    closing = session.closing
    outcome: Outcome = "left" if command.cause == "clean" else "lost"
    if closing and command.cause in ("clean", "lost"):
        return ended(session, now_ms, outcome=outcome, reason=closing.reason, by=closing.by)
    disconnected = _disconnected(session, command.cause, now_ms)
    if disconnected.linger_at is not None and disconnected.linger_at <= now_ms:
        return [disconnected, *ended(session, now_ms, outcome=outcome)]
    return [disconnected]


def _disconnected(session: Session, cause: Cause, now_ms: int) -> Disconnected:
    linger_ms = session.linger_ms
    if cause == "server" and linger_ms is not None:
        linger_ms = max(linger_ms, SERVER_LINGER_MS)
    return Disconnected(
        cause=cause,
        linger_at=None if session.closing else later(now_ms, linger_ms),
        settles_at=later(now_ms, session.grace_ms or None if cause in ("lost", "server") else None),
    )


def _placed(watch: model.Watch, now_ms: int) -> model.Watch:
    if watch.position_ms is None or watch.position_at is not None:
        return watch
    return replace(watch, position_at=now_ms)


def _watch(session: Session, wanted: model.Watch, now_ms: int) -> list[AnyEvent]:
    check_content(wanted)
    watch = _placed(wanted, now_ms)
    if same_json(session.watch, watch):
        return _alive(session)
    if session.watch and session.watch.key == watch.key:
        return [Updated(watch=watch)]
    events: list[AnyEvent] = [Unwatched()] if session.watch else []
    return [*events, Watching(watch=watch)]


def _progress(session: Session, command: Progress, now_ms: int) -> list[AnyEvent]:
    watch = session.watch
    if not watch:
        raise NotWatching
    changed = watch
    if command.position_ms is not None:
        changed = replace(changed, position_ms=command.position_ms, position_at=now_ms)
    if command.state is not None:
        changed = replace(changed, state=command.state)
    if command.bandwidth is not None:
        changed = replace(changed, bandwidth=command.bandwidth)
    return _watch(session, changed, now_ms)


def _update(session: Session, command: Update) -> list[AnyEvent]:
    wanted = command.wanted
    if command.patch is not None:
        wanted |= patched_fields(session, command.patch)
    check_content(wanted.get("attributes"), wanted.get("profile"))
    changed = {
        name: value
        for name, value in wanted.items()
        if not same_json(value, getattr(session, name))
    }
    if not changed:
        return _alive(session)
    if "ttl_ms" in changed:
        changed["ttl_at"] = later(session.created_at, changed["ttl_ms"])
    if "linger_ms" in changed and not session.is_connected and not session.closing:
        since = session.disconnected_at or session.created_at
        changed["linger_at"] = later(since, changed["linger_ms"])
    return [Updated(**changed)]


def _start_stream(session: Session, stream: Stream) -> list[AnyEvent]:
    if any(known.key == stream.key for known in session.streams):
        return _update_stream(session, stream)
    if len(session.streams) >= STREAMS_MAX:
        raise LimitExceeded(f"A session has at most {STREAMS_MAX} streams.")
    check_content(stream)
    return [StreamStarted(stream=stream)]


def _update_stream(session: Session, stream: Stream) -> list[AnyEvent]:
    check_content(stream)
    for known in session.streams:
        if known.key == stream.key:
            return _alive(session) if same_json(known, stream) else [StreamUpdated(stream=stream)]
    raise UnknownStream


def _join(session: Session, command: Join) -> list[AnyEvent]:
    members = tuple(dict.fromkeys(session.members + command.members))
    if len(members) > MEMBERS_MAX:
        raise LimitExceeded(f"A session has at most {MEMBERS_MAX} members.")
    return _alive(session) if members == session.members else [Updated(members=members)]


def _leave(session: Session, command: Leave) -> list[AnyEvent]:
    gone = set(command.members)
    if gone.isdisjoint(session.members):
        raise UnknownMember
    return [Updated(members=tuple(member for member in session.members if member not in gone))]


def _pending(session: Session) -> Closing:
    if not session.closing:
        raise NotClosing
    return session.closing


def _request_close(session: Session, command: RequestClose, now_ms: int) -> list[AnyEvent]:
    if command.at <= now_ms:
        return ended(session, now_ms, outcome="closed", reason=command.reason, by=command.by)
    pending = session.closing
    return [
        ClosingScheduled(
            closing=Closing(
                at=command.at,
                first_at=command.at,
                requested_at=now_ms,
                reason=command.reason,
                by=command.by,
                extend_max_ms=command.extend_max_ms,
                readmit=pending.readmit if pending else not session.is_connected,
                saving_at=pending.saving_at if pending else None,
            )
        )
    ]


def _extend_close(session: Session, command: ExtendClose) -> list[AnyEvent]:
    closing = _pending(session)
    if command.at <= closing.at:
        return []
    granted = min(command.at, closing.first_at + closing.extend_max_ms)
    if granted <= closing.at:
        raise ExtensionRefused
    return [CloseExtended(closing=replace(closing, at=granted))]


def _expire(session: Session, command: Expire, now_ms: int) -> list[AnyEvent]:
    wanted = (command.kind, command.at)
    if now_ms < command.at or all((kind, at) != wanted for kind, at, _ in deadlines(session)):
        return []
    match command.kind:
        case Deadline.SETTLE:
            return [Settled()]
        case Deadline.CLOSING:
            closing = _pending(session)
            outcome: Outcome = "unsaved" if session.is_connected else "lost"
            return ended(session, now_ms, outcome=outcome, reason=closing.reason, by=closing.by)
        case Deadline.LINGER | Deadline.KEEPALIVE | Deadline.TTL | Deadline.START:
            return ended(session, now_ms, outcome="expired", reason=command.kind.value)
    assert_never(command.kind)
