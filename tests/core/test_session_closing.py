"""Delayed closes: deadlines, extensions, who may come back, and how a session ends."""

import pytest

from gateway.core.command import (
    AnyCommand,
    CancelClose,
    Close,
    Connect,
    Disconnect,
    Expire,
    ExtendClose,
    Kick,
    RequestClose,
    Saved,
    Saving,
)
from gateway.core.errors import (
    ExtensionRefused,
    SessionClosing,
)
from gateway.core.event import (
    CloseExtended,
    SessionEnded,
    Unwatched,
)
from gateway.core.model import (
    SERVER_LINGER_MS,
    Closure,
    Deadline,
    Outcome,
    State,
)
from gateway.core.session import deadlines, decide
from tests.core.build import (
    NOW,
    SECOND,
    applied,
    away,
    busy,
    closing,
    connection,
    ended,
    idle,
)

C2 = connection(2)


def test_pending_close_stops_the_linger_and_calling_it_off_restarts_it() -> None:
    """While a close is pending its deadline alone counts; afterwards the wait begins anew."""
    lost = away(linger_ms=15_000)
    pending = closing(lost)
    cancelled = applied(pending, CancelClose(), NOW + 5000)[1]

    assert [kind for kind, _, _ in deadlines(pending)] == [Deadline.CLOSING]
    assert cancelled.state is State.AWAY
    assert deadlines(cancelled) == [(Deadline.LINGER, NOW + 20_000, 20_000)]
    assert deadlines(applied(closing(), CancelClose())[1]) == []


def test_linger_after_a_long_pending_close_is_not_prolonged_by_it() -> None:
    """After an outage a session waits its linger again, not the time the close was pending too."""
    pending = closing(away(linger_ms=15_000), after_ms=3600 * SECOND)
    cancelled = applied(pending, CancelClose(), NOW + 1800 * SECOND)[1]

    assert deadlines(cancelled) == [(Deadline.LINGER, NOW + 1815 * SECOND, SERVER_LINGER_MS)]


def test_new_request_moves_the_deadline_and_the_budget() -> None:
    """A second request counts from itself, earlier or later; the client's answer is kept."""
    first = applied(closing(budget_ms=10 * SECOND), Saving(), NOW + 1)[1]
    moved = applied(first, RequestClose(at=NOW + 5 * SECOND, extend_max_ms=SECOND), NOW + 2)[1]

    assert moved.closing is not None
    assert (moved.closing.at, moved.closing.first_at) == (NOW + 5 * SECOND,) * 2
    assert (moved.closing.requested_at, moved.closing.saving_at) == (NOW + 2, NOW + 1)
    assert applied(moved, ExtendClose(at=NOW + 60 * SECOND))[1].closes_at == NOW + 6 * SECOND


def test_extension_is_granted_up_to_the_budget() -> None:
    """More time is given up to the first deadline plus the budget, then refused."""
    session = closing(budget_ms=10 * SECOND)
    some, later = applied(session, ExtendClose(at=NOW + 34 * SECOND))
    rest, last = applied(later, ExtendClose(at=NOW + 90 * SECOND))

    assert [type(event) for event in [*some, *rest]] == [CloseExtended, CloseExtended]
    assert (later.closes_at, last.closes_at) == (NOW + 34 * SECOND, NOW + 40 * SECOND)
    with pytest.raises(ExtensionRefused):
        decide(last, ExtendClose(at=NOW + 90 * SECOND), NOW)
    assert decide(last, ExtendClose(at=NOW + 40 * SECOND), NOW) == []


@pytest.mark.parametrize(
    "command, outcome",
    [
        (Saved(), "saved"),
        (Disconnect(connection="c1", cause="clean"), "left"),
        (Disconnect(connection="c1", cause="lost"), "lost"),
        (Expire(kind=Deadline.CLOSING, at=NOW + 30 * SECOND), "unsaved"),
    ],
    ids=["saved", "left", "lost", "unsaved"],
)
def test_pending_close_ends_as_the_client_ends_it(command: AnyCommand, outcome: Outcome) -> None:
    """Saving, leaving, getting lost and doing nothing differ in outcome, not in reason."""
    events, after = applied(closing(busy()), command, NOW + 30 * SECOND)

    assert [type(event) for event in events] == [Unwatched, SessionEnded]
    assert ended(events) == Closure(
        at=NOW + 30 * SECOND, outcome=outcome, reason="maintenance", by="admin"
    )
    assert after.closing is None
    assert deadlines(after) == []
    assert after.connection is not None
    assert after.connection.ended_at == NOW + 30 * SECOND


def test_pending_close_without_a_client_ends_as_lost() -> None:
    """At the deadline a session without a client could not have saved."""
    expire = Expire(kind=Deadline.CLOSING, at=NOW + 30 * SECOND)

    assert ended(decide(closing(away()), expire, NOW + 30 * SECOND)).outcome == "lost"


def test_client_that_heard_the_warning_is_recorded_once() -> None:
    """``saving`` is kept with its time; saying it again changes nothing."""
    session = applied(closing(), Saving(), NOW + 5)[1]

    assert session.closing is not None
    assert session.closing.saving_at == NOW + 5
    assert decide(session, Saving(), NOW + 6) == []


def test_client_is_let_in_once_when_it_was_away_or_cut_off_by_us() -> None:
    """A pending close admits its own client once, if it had no chance to hear of it."""
    own = Connect(connection=C2, readmit=True)
    for pending in (
        closing(away()),
        applied(closing(), Disconnect(connection="c1", cause="server"))[1],
    ):
        back = applied(pending, own)[1]
        kicked = applied(back, Kick())[1]

        assert (back.state, back.is_connected) == (State.CLOSING, True)
        assert back.closes_at == NOW + 30 * SECOND
        with pytest.raises(SessionClosing):
            decide(back, Connect(connection=connection(3), readmit=True), NOW)
        with pytest.raises(SessionClosing):
            decide(kicked, Connect(connection=connection(3), readmit=True), NOW)
    with pytest.raises(SessionClosing):
        decide(applied(closing(), Kick())[1], own, NOW)


def test_moved_close_admits_whom_the_first_one_did() -> None:
    """Moving a pending close neither opens nor shuts the door."""
    move = RequestClose(at=NOW + 60 * SECOND)
    own = Connect(connection=C2, readmit=True)

    assert decide(applied(closing(away()), move)[1], own, NOW) != []
    with pytest.raises(SessionClosing):
        decide(applied(closing(), move)[1], own, NOW)


def test_close_says_what_it_was_told() -> None:
    """Outcome, reason, who and the close code come from the command."""
    events = decide(idle(), Close(outcome="left", reason="bye", by="ann", code=4501), NOW)

    assert ended(events) == Closure(at=NOW, outcome="left", reason="bye", by="ann", code=4501)
    assert ended(decide(idle(), RequestClose(at=NOW - 1, reason="r", by="b"), NOW)) == Closure(
        at=NOW, outcome="closed", reason="r", by="b"
    )
