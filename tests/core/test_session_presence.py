"""Opening, connecting, watching and reporting: what makes a session be there."""

from typing import Final

import pytest
from msgspec.structs import replace

from gateway.core.command import (
    AnyCommand,
    Close,
    Connect,
    Disconnect,
    EndStream,
    Expire,
    Join,
    Leave,
    Open,
    Progress,
    Report,
    Saved,
    StartStream,
    StartWatch,
    Unwatch,
    Update,
    UpdateStream,
)
from gateway.core.errors import (
    AlreadyConnected,
    NotConnected,
)
from gateway.core.event import (
    Connected,
    Disconnected,
    Opened,
    SessionEnded,
    Unwatched,
    Updated,
    Watching,
)
from gateway.core.model import (
    SERVER_LINGER_MS,
    Cause,
    Deadline,
    Outcome,
    State,
    Stream,
)
from gateway.core.model import Watch as Watched
from gateway.core.session import deadlines, decide
from tests.core.build import (
    NOW,
    applied,
    at,
    away,
    busy,
    closing,
    connected,
    connection,
    ended,
    fresh,
    idle,
)

C2 = connection(2)
STREAM = Stream(key="t1", kind="transcode")


def test_opening_sets_deadlines_from_now() -> None:
    """Linger, keepalive and the longest life of a session without a socket run from its opening."""
    session = idle(linger_ms=1000, keepalive_ms=2000, ttl_ms=3000)

    assert session.created_at == NOW
    assert deadlines(session) == [
        (Deadline.LINGER, NOW + 1000, 1000),
        (Deadline.KEEPALIVE, NOW + 2000, 2000),
        (Deadline.TTL, NOW + 3000, 0),
    ]
    assert deadlines(idle()) == []


WORK: Final[list[AnyCommand]] = [
    Connect(connection=connection()),
    StartWatch(watch=Watched(key="k")),
    StartStream(stream=STREAM),
    Join(members=("ann",)),
    Update(phase="running"),
]


@pytest.mark.parametrize("command", WORK, ids=lambda command: type(command).__name__)
def test_first_work_ends_the_wait_for_a_start(command: AnyCommand) -> None:
    """A session that has begun its work is not given up for a late start, even if it pauses."""
    session = idle(start_within_ms=1000)
    assert deadlines(session) == [(Deadline.START, NOW + 1000, 1000)]

    begun = applied(session, command)[1]
    assert at(begun, Deadline.START) is None
    if isinstance(command, Join):
        begun = applied(begun, Leave(members=("ann",)))[1]
        assert not begun.is_at_work
        assert at(begun, Deadline.START) is None


def test_session_that_is_renamed_is_not_started() -> None:
    """What is no work, as a new name or phase ``created``, does not end the wait for a start."""
    session = idle(start_within_ms=1000)
    renamed = applied(session, Update(name="Ann", phase="created", attributes={"a": 1}))[1]

    assert at(renamed, Deadline.START) == NOW + 1000


def test_closing_session_does_not_end_for_a_late_start() -> None:
    """A close that is pending has its own deadline."""
    assert at(closing(idle(start_within_ms=1000)), Deadline.START) is None


def test_opening_with_a_socket_attaches_it_in_the_same_commit() -> None:
    """A session opened by a socket is connected at its first revision, and nothing runs out."""
    opening = Open(session=fresh(connection=connection(), linger_ms=1000, keepalive_ms=1000))
    events, session = applied(None, opening)

    assert [type(event) for event in events] == [Opened, Connected]
    assert isinstance(events[0], Opened)
    assert events[0].session.state is State.IDLE
    assert (session.revision, session.state) == (1, State.CONNECTED)
    assert session.connected_at == NOW
    assert deadlines(session) == []


def test_opening_with_a_watch_starts_it_in_the_same_commit() -> None:
    """A session opened by a player watches from its first revision, since then."""
    watch = Watched(key="k", position_ms=5)
    events, session = applied(None, Open(session=fresh(watch=watch)))

    assert [type(event) for event in events] == [Opened, Watching]
    assert session.watch == replace(watch, position_at=NOW)
    assert session.watching_since == NOW


def test_connecting_ends_every_wait() -> None:
    """A session whose client is back neither lingers nor settles nor misses its keepalive."""
    lost = away(linger_ms=1000, grace_ms=500, keepalive_ms=2000)
    assert {kind for kind, _, _ in deadlines(lost)} == {
        Deadline.LINGER,
        Deadline.SETTLE,
        Deadline.KEEPALIVE,
    }

    back = applied(lost, Connect(connection=connection(2, at=NOW + 9)))[1]

    assert deadlines(back) == []
    assert back.disconnected_at is None
    assert back.connected_at == NOW  # the first time


def test_connection_begins_with_the_commit() -> None:
    """Whatever time a door named, a connection is as old as the commit that attached it."""
    back = applied(away(), Connect(connection=connection(2, at=NOW - 9)), NOW + 7)[1]

    assert back.connection is not None
    assert back.connection.connected_at == NOW + 7


def test_connection_ended_by_mistake_comes_back_as_what_it_was() -> None:
    """A connection that attaches again is the same one, and as old; after another one it cannot."""
    again = Connect(connection=connection(1, at=NOW + 9), displace=False, again=True)
    back = applied(away(), again, NOW + 9)[1]
    assert back.connection == connection(1)
    assert back.is_connected

    displaced = applied(connected(), Connect(connection=C2))[1]
    gone = applied(displaced, Disconnect(connection="c2", cause="lost"))[1]
    for session in (displaced, gone):
        with pytest.raises(AlreadyConnected):
            decide(session, again, NOW)


@pytest.mark.parametrize(
    "cause, linger_ms, settles",
    [
        ("clean", 15_000, False),
        ("lost", 15_000, True),
        ("server", SERVER_LINGER_MS, True),
        ("kicked", 15_000, False),
    ],
)
def test_session_waits_for_its_client_as_its_loss_deserves(
    cause: Cause, linger_ms: int, settles: bool
) -> None:
    """A clean end is announced at once, a loss after the grace; our own fault lingers longer."""
    session = connected(linger_ms=15_000, grace_ms=5000)
    _, lost = applied(session, Disconnect(connection="c1", cause=cause))

    assert lost.state is State.AWAY
    assert lost.connection is not None
    assert (lost.connection.ended_at, lost.disconnected_at) == (NOW, NOW)
    assert (Deadline.LINGER, NOW + linger_ms, linger_ms) in deadlines(lost)
    assert at(lost, Deadline.SETTLE) == (NOW + 5000 if settles else None)


def test_server_end_does_not_shorten_a_long_linger() -> None:
    """The gateway's own fault never costs a session time; one that stays for ever stays."""
    long, ever = connected(linger_ms=600_000), connected()
    end = Disconnect(connection="c1", cause="server")

    assert at(applied(long, end)[1], Deadline.LINGER) == NOW + 600_000
    assert at(applied(ever, end)[1], Deadline.LINGER) is None


@pytest.mark.parametrize("cause, outcome", [("clean", "left"), ("lost", "lost")])
def test_session_that_does_not_linger_ends_with_its_connection(
    cause: Cause, outcome: Outcome
) -> None:
    """With a linger of 0 the loss and the close are one commit."""
    session = connected(linger_ms=0)
    events, after = applied(session, Disconnect(connection="c1", cause=cause))

    assert [type(event) for event in events] == [Disconnected, SessionEnded]
    assert ended(events).outcome == outcome
    assert after.state is State.CLOSED


def test_displacing_names_what_it_replaced() -> None:
    """A second socket takes over in one commit, and the end of the first is then old news."""
    events, after = applied(connected(), Connect(connection=C2))

    assert events == [Connected(connection=C2, replaced=True)]
    assert decide(after, Disconnect(connection="c1", cause="clean"), NOW) == []
    assert decide(after, Disconnect(connection="c2", cause="clean"), NOW) != []


@pytest.mark.parametrize(
    "command", [Close(outcome="left", via="c1"), Unwatch(via="c1"), Saved(via="c1")]
)
def test_displaced_socket_cannot_speak_for_the_session(command: AnyCommand) -> None:
    """What a socket says counts only while the record names it as live."""
    replaced = applied(busy(), Connect(connection=C2))[1]

    for session in (replaced, away(), idle()):
        with pytest.raises(NotConnected):
            decide(session, command, NOW)
    assert decide(closing(busy()), command, NOW) != []


def test_same_key_updates_a_watch_and_another_ends_it() -> None:
    """A watch has one beginning and one end however often it is reported."""
    session = busy()
    same, changed = applied(
        session, StartWatch(watch=Watched(key="movie/1", state="paused")), NOW + 5
    )
    other, after = applied(changed, StartWatch(watch=Watched(key="movie/2")), NOW + 9)

    assert same == [Updated(watch=Watched(key="movie/1", state="paused"))]
    assert changed.watching_since == NOW
    assert [type(event) for event in other] == [Unwatched, Watching]
    assert (after.watching_since, after.unwatched_at) == (NOW + 9, None)
    assert decide(after, StartWatch(watch=Watched(key="movie/2")), NOW + 10) == []


def test_position_is_stamped_when_it_is_reported() -> None:
    """A position says when it was true, also if the door did not."""
    session = applied(busy(), Progress(position_ms=5, state="paused", bandwidth=7), NOW + 3)[1]

    assert session.watch == Watched(
        key="movie/1", state="paused", position_ms=5, position_at=NOW + 3, bandwidth=7
    )
    placed = applied(idle(), StartWatch(watch=Watched(key="k", position_ms=1, position_at=9)))[1]
    assert placed.watch is not None
    assert placed.watch.position_at == 9


def test_progress_of_nothing_changes_nothing() -> None:
    """A progress message without news makes no commit."""
    assert decide(busy(), Progress(), NOW) == []


def test_watch_and_connection_are_independent() -> None:
    """A lost client still watches; a session that was never connected may watch."""
    lost = applied(busy(), Disconnect(connection="c1", cause="lost"))[1]

    assert (lost.is_connected, lost.is_watching) == (False, True)
    assert applied(lost, Unwatch())[1].unwatched_at == NOW
    assert applied(idle(), StartWatch(watch=Watched(key="k")))[1].state is State.IDLE


@pytest.mark.parametrize(
    "command",
    [
        Report(),
        Unwatch(),
        Update(),
        Update(name="Ann"),
        Progress(position_ms=1),
        StartWatch(watch=Watched(key="movie/1", state="playing")),
        StartStream(stream=STREAM),
        UpdateStream(stream=STREAM),
        EndStream(key="t1"),
        Join(members=("ann",)),
        Leave(members=("ann",)),
    ],
)
def test_whatever_a_producer_reports_renews_its_keepalive(command: AnyCommand) -> None:
    """A session without a socket lives on with each report, even one that brings no news."""
    session = idle(keepalive_ms=1000, members=("ann",))
    session = applied(session, StartWatch(watch=Watched(key="movie/1", state="playing")))[1]
    session = applied(session, StartStream(stream=STREAM))[1]

    renewed = applied(session, command, NOW + 900)[1]

    assert at(renewed, Deadline.KEEPALIVE) == NOW + 1900
    assert decide(renewed, Expire(kind=Deadline.KEEPALIVE, at=NOW + 1000), NOW + 1000) == []


def test_keepalive_follows_its_setting() -> None:
    """Setting a keepalive starts it, unsetting it ends it, a socket needs none."""
    session = applied(idle(), Update(keepalive_ms=500), NOW + 1)[1]
    attached = applied(session, Update(name="x"), NOW)[1]

    assert at(session, Deadline.KEEPALIVE) == NOW + 501
    assert at(applied(session, Update(keepalive_ms=None))[1], Deadline.KEEPALIVE) is None
    assert at(applied(attached, Connect(connection=C2))[1], Deadline.KEEPALIVE) is None
    assert at(applied(connected(), Update(keepalive_ms=5))[1], Deadline.KEEPALIVE) is None
