"""Every command in every state, races by revision, and the operations a record remembers."""

from collections.abc import Callable

import pytest
from msgspec.json import encode
from msgspec.structs import replace

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
    GatewayError,
    IdUnavailable,
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
    ClosingScheduled,
    Connected,
    Disconnected,
    Opened,
    SessionEnded,
    Settled,
    StreamStarted,
    Updated,
    Watching,
)
from gateway.core.model import (
    OPS_KEPT,
    Deadline,
    Session,
    Stream,
)
from gateway.core.model import Watch as Watched
from gateway.core.session import advance, decide, evolve
from tests.core.build import (
    NOW,
    SECOND,
    applied,
    at,
    away,
    busy,
    closed,
    closing,
    connected,
    connection,
    ended,
    fresh,
    idle,
)

Expected = type[GatewayError] | list[type[AnyEvent]]

STATES: dict[str, Callable[[], Session | None]] = {
    "none": lambda: None,
    "idle": idle,
    "connected": connected,
    "away": away,
    "closing": closing,
    "closing, away": lambda: closing(away()),
    "closed": closed,
}


def every(command: AnyCommand, *expected: Expected) -> list[tuple[AnyCommand, str, Expected]]:
    """Return one case a state; a single expectation holds for all open states."""
    if len(expected) == 1:
        expected = (NotFound, *expected * 5, SessionClosed)
    return [(command, state, want) for state, want in zip(STATES, expected, strict=True)]


C2 = connection(2)
STREAM = Stream(key="t1", kind="transcode")
OPEN_ONLY: list[Expected] = [[Opened], *[IdUnavailable] * 6]
CASES = [
    *every(Open(session=fresh()), *OPEN_ONLY),
    *every(
        Connect(connection=C2),
        NotFound, [Connected], [Connected], [Connected], SessionClosing, SessionClosing,
        SessionClosed,
    ),
    *every(
        Connect(connection=C2, displace=False),
        NotFound, [Connected], AlreadyConnected, [Connected], SessionClosing, SessionClosing,
        SessionClosed,
    ),
    *every(
        Connect(connection=C2, readmit=True),
        NotFound, [Connected], [Connected], [Connected], SessionClosing, [Connected],
        SessionClosed,
    ),
    *every(
        Connect(connection=connection(1)),
        NotFound, [Connected], [], [Connected], [], SessionClosing, SessionClosed,
    ),
    *every(
        Disconnect(connection="c1", cause="clean"),
        [], [], [Disconnected], [], [SessionEnded], [], [],
    ),
    *every(
        Disconnect(connection="c1", cause="server"),
        [], [], [Disconnected], [], [Disconnected], [], [],
    ),
    *every(Disconnect(connection="c2", cause="lost"), [], [], [], [], [], [], []),
    *every(
        Kick(),
        NotFound, NotConnected, [Disconnected], NotConnected, [Disconnected], NotConnected,
        SessionClosed,
    ),
    *every(StartWatch(watch=Watched(key="k")), [Watching]),
    *every(Progress(position_ms=1), NotWatching),
    *every(Unwatch(), []),
    *every(Report(), []),
    *every(Update(name="Ann"), [Updated]),
    *every(Update(), []),
    *every(Update(revision=99, name="Ann"), RevisionMismatch),
    *every(RequestClose(revision=99, at=NOW + 5), RevisionMismatch),
    *every(Close(revision=99), RevisionMismatch),
    *every(Update(patch={"name": "Ann"}), [Updated]),
    *every(StartStream(stream=STREAM), [StreamStarted]),
    *every(UpdateStream(stream=STREAM), UnknownStream),
    *every(EndStream(key="t1"), UnknownStream),
    *every(Join(members=("ann",)), [Updated]),
    *every(Leave(members=("ann",)), UnknownMember),
    *every(RequestClose(at=NOW + 1), [ClosingScheduled]),
    *every(RequestClose(at=NOW), [SessionEnded]),
    *every(
        ExtendClose(at=NOW + 1),
        NotFound, NotClosing, NotClosing, NotClosing, [], [], SessionClosed,
    ),
    *every(
        ExtendClose(at=NOW + 31 * SECOND),
        NotFound, NotClosing, NotClosing, NotClosing, ExtensionRefused, ExtensionRefused,
        SessionClosed,
    ),
    *every(
        CancelClose(),
        NotFound, NotClosing, NotClosing, NotClosing, [CloseCancelled], [CloseCancelled],
        SessionClosed,
    ),
    *every(
        Saving(),
        NotFound, NotClosing, NotClosing, NotClosing, [Updated], [Updated], SessionClosed,
    ),
    *every(
        Saved(),
        NotFound, NotClosing, NotClosing, NotClosing, [SessionEnded], [SessionEnded],
        SessionClosed,
    ),
    *every(
        Expire(kind=Deadline.CLOSING, at=NOW + 30 * SECOND), [], [], [], [], [], [], []
    ),
    *every(Expire(kind=Deadline.LINGER, at=NOW), [], [], [], [], [], [], []),
    *every(Close(), [SessionEnded]),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{type(case[0]).__name__}, {case[1]}, {n}" for n, case in enumerate(CASES)]
)
def test_command_in_a_state_does_what_the_table_says(
    case: tuple[AnyCommand, str, Expected],
) -> None:
    """A command leads to its events or is refused, and a refusal changes nothing."""
    command, state, expected = case
    session = STATES[state]()
    kept = encode(session)

    if isinstance(expected, list):
        events = decide(session, command, NOW)
        assert [type(event) for event in events] == expected
        if events:
            after = advance(session, events, "op", NOW)
            assert after.revision == (session.revision if session else 0) + 1
            assert after.ops[-1] == "op"
    else:
        with pytest.raises(GatewayError) as caught:
            decide(session, command, NOW)
        assert type(caught.value) is expected
    assert encode(session) == kept


def test_table_has_every_command() -> None:
    """No command is left out of the table."""
    assert {type(command) for command, _, _ in CASES} == set(AnyCommand.__args__)


@pytest.mark.parametrize(
    "kind, session, ends",
    [
        (Deadline.LINGER, away(linger_ms=10), True),
        (Deadline.KEEPALIVE, idle(keepalive_ms=10), True),
        (Deadline.TTL, connected(ttl_ms=10), True),
        (Deadline.START, idle(start_within_ms=10), True),
        (Deadline.TTL, closing(connected(ttl_ms=10)), True),
        (Deadline.SETTLE, away(grace_ms=10), False),
        (Deadline.SETTLE, closing(away(grace_ms=10)), False),
    ],
    ids=[
        "linger",
        "keepalive",
        "ttl",
        "start",
        "ttl while closing",
        "settle",
        "settle while closing",
    ],
)
def test_deadline_holds_at_its_time_not_before(
    kind: Deadline, session: Session, ends: bool
) -> None:
    """A deadline does nothing a millisecond early; at its time it ends or settles the session."""
    expire = Expire(kind=kind, at=NOW + 10)

    assert decide(session, expire, NOW + 9) == []
    assert decide(session, replace(expire, at=NOW + 9), NOW + 10) == []
    events, after = applied(session, expire, NOW + 10)
    if ends:
        assert (ended(events).outcome, ended(events).reason) == ("expired", kind.value)
    else:
        assert events == [Settled()]
        assert at(after, Deadline.SETTLE) is None
        assert after.state is session.state


def test_late_expire_changes_nothing() -> None:
    """An Expire that somebody overtook finds the record changed and does nothing."""
    pending = closing(away(linger_ms=10), budget_ms=60 * SECOND)
    due = NOW + 30 * SECOND
    expire = Expire(kind=Deadline.CLOSING, at=due)

    for command in (
        CancelClose(),
        ExtendClose(at=due + 1),
        RequestClose(at=due + 1),
        Close(),
    ):
        assert decide(applied(pending, command)[1], expire, due) == []
    back = applied(away(linger_ms=10), Connect(connection=C2))[1]
    assert decide(back, Expire(kind=Deadline.LINGER, at=NOW + 10), NOW + 10) == []


def test_update_for_another_revision_is_refused() -> None:
    """Of two who saw the same revision the second hears that it came late."""
    session = idle()
    first = applied(session, Update(revision=1, name="a"))[1]

    with pytest.raises(RevisionMismatch):
        decide(first, Update(revision=1, name="b"), NOW)
    assert decide(first, Update(revision=2, name="b"), NOW) != []


def test_record_remembers_its_last_operations() -> None:
    """The newest operations are kept, in order, and no more than the bound."""
    session = idle()
    for number in range(OPS_KEPT + 3):
        events = decide(session, Update(name=f"n{number}"), NOW)
        session = advance(session, events, f"op{number}", NOW)

    assert session.ops == tuple(f"op{number}" for number in range(3, OPS_KEPT + 3))
    assert session.revision == OPS_KEPT + 4


def test_event_of_a_session_that_is_not_there_is_refused() -> None:
    """Only an opening makes a session out of nothing."""
    with pytest.raises(NotFound):
        evolve(None, Settled(), NOW)
    with pytest.raises(NotFound):
        advance(None, [], "op", NOW)


@pytest.mark.parametrize("command", [Close(position_ms=9), Unwatch(position_ms=9)])
def test_end_of_a_watch_may_say_where_it_was(command: Close | Unwatch) -> None:
    """The watch is placed where it ended before it ends; the same place again changes nothing."""
    events, _ = applied(busy(), command)
    again, _ = applied(applied(busy(), Progress(position_ms=9))[1], command)

    assert isinstance(events[0], Updated)
    assert isinstance(events[0].watch, Watched)
    assert (events[0].watch.position_ms, events[0].watch.position_at) == (9, NOW)
    assert events[1:] == again
    assert applied(idle(), command)[0] == applied(idle(), type(command)())[0]


def test_close_without_a_connection_leaves_none() -> None:
    """A session that never had a client is closed without one; a lost one keeps its last end."""
    lost = away()
    late = applied(lost, Close(), NOW + 5)[1]

    assert closed(idle()).connection is None
    assert late.connection == lost.connection
    assert late.closed_at == NOW + 5
