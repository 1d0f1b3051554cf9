"""Replica: everything open, indexed, at a position; equal to the fold of the log."""

import random
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from gateway.core import command as c
from gateway.core.document import Document
from gateway.core.event import ActiveEntry, DocumentEntry, RowErasedEntry
from gateway.core.model import Connection, Session, State, Stream, Watch
from gateway.core.query import Filter, View, Visibility
from gateway.core.session import decide
from gateway.live import replica as replica_module
from gateway.live.replica import Replica, Tombstone
from tests.live.logbook import Log
from tests.nodes import blank


def random_command(luck: random.Random, session: Session | None, number: int) -> c.AnyCommand:
    """Return a command that is legal for *session*."""
    if session is None:
        return c.Open(
            session=blank(
                "",
                number=number,
                workspace=luck.choice(["w1", "w2", None]),
                account=luck.choice(["ann", "bob", None]),
                service=luck.choice(["s1", None]),
                labels=luck.choice([{}, {"env": "prod"}, {"env": "test", "tier": "1"}]),
            )
        )
    return luck.choice(
        [
            c.Connect(connection=Connection(id=f"c{number}", node="n:1", connected_at=1)),
            c.Disconnect(connection=session.connection.id, cause="lost")
            if session.connection and session.is_connected
            else c.Join(members=("cy",)),
            c.StartWatch(watch=Watch(key=f"m{number}")),
            c.Update(labels={"env": luck.choice(["prod", "test"])}, name=luck.choice("xyz")),
            c.StartStream(stream=Stream(key=f"k{number % 3}", kind="t", data={"n": number})),
            c.Join(members=(luck.choice(["dan", "eve"]),)),
            c.RequestClose(at=100_000 + number % 50),
            c.Close(reason="enough"),
        ]
    )


def scramble(log: Log, luck: random.Random, steps: int) -> None:
    """Append random commits of up to forty sessions at a time."""
    for number in range(len(log.entries), len(log.entries) + steps):
        open_now = list(log.sessions)
        opens = not open_now or (len(open_now) < 40 and luck.random() < 0.4)
        session_id = f"s{number}-{log.now_ms}" if opens else luck.choice(open_now)
        session = log.sessions.get(session_id)
        command = random_command(luck, session, number)
        if isinstance(command, c.Open):
            command = c.Open(session=replace(command.session, id=session_id))
        if isinstance(command, c.Connect) and session and session.closing:
            command = c.CancelClose()
        log.now_ms += luck.randrange(2)
        before = len(log.entries)
        events = decide(session, command, log.now_ms + 1)
        if events:
            log.do(session_id, command)
            assert len(log.entries) == before + 1


def check(replica: Replica, log: Log) -> None:
    """Check the replica against the fold of the log, its indexes against a walk over all."""
    assert replica.sessions == log.sessions
    assert set(replica.gone) == set(log.gone)
    assert sum(replica.nodes.values()) == sum(
        session.is_connected for session in log.sessions.values()
    )
    assert 0 not in replica.nodes.values()
    for view in views():
        expected = sorted(
            (session for session in log.sessions.values() if view.matches(session)),
            key=lambda session: (session.created_at, session.id),
        )
        assert replica.all_in(view) == expected
        assert replica.count(view) == len(expected)


def views() -> Iterator[View]:
    """Every kind of filter, alone and combined, under each visibility."""
    filters = [
        Filter(),
        Filter(workspace="w1"),
        Filter(account="ann", workspace="w2"),
        Filter(service="s1"),
        *(Filter(state=state) for state in State),
        Filter(connected=True),
        Filter(watching=False, workspace="w1"),
        Filter(node="n"),
        Filter(member="eve"),
        Filter(labels={"env": "prod"}),
        Filter(labels={"env": "test", "tier": "1"}, state=State.IDLE),
        Filter(q="S1"),
        Filter(q="x", member="dan"),
    ]
    for wanted in filters:
        yield View(filter=wanted, visibility=Visibility(by="all"))
        yield View(filter=wanted, visibility=Visibility(by="workspace", value="w2"))
    yield View(visibility=Visibility(by="account", value="bob"))
    yield View(visibility=Visibility(by="session", value="s0-1000"))
    yield View(visibility=Visibility())


@pytest.mark.parametrize("seed", range(4))
def test_log_applied_is_its_fold(seed: int) -> None:
    """After every prefix of a log the replica is its fold, in all indexes."""
    log, replica, luck = Log(), Replica(1), random.Random(seed)
    for _ in range(6):
        done = len(log.entries)
        scramble(log, luck, 60)
        log.play(replica, done)

        check(replica, log)


@pytest.mark.parametrize("seed", range(6))
def test_load_at_any_moment_plus_replay_is_the_fold(seed: int) -> None:
    """A load that saw each record at another moment, and the log from before it, is the fold."""
    luck = random.Random(seed)
    log = Log()
    scramble(log, luck, 100)
    noted = len(log.entries)
    pictures = []
    for _ in range(5):
        scramble(log, luck, 20)
        pictures.append((dict(log.sessions), dict(log.gone)))
    *early, (_, gone) = pictures
    seen: dict[str, Session] = {}
    for picture, _ in early:  # a scan meets each record at some moment; live before gone
        for session_id, session in picture.items():
            if luck.random() < 0.5 or session_id not in seen:
                seen[session_id] = session
    replica = Replica(1)
    log.play(replica)  # what was there before the load must not matter
    replica.reload(
        0,
        list(seen.values()),
        [Tombstone.of(session) for session in gone.values()],
        [],
        [],
        is_here=lambda _: True,
    )
    replica.offsets[0] = noted
    log.play(replica, noted)

    check(replica, log)
    assert str(replica.position()).endswith(f"-{len(log.entries)}")


def test_known_entries_change_nothing() -> None:
    """An entry that is older than what is known says nothing to anybody."""
    log, replica = Log(), Replica(1)
    log.open("s")
    log.do("s", c.Update(name="Ann"))
    log.play(replica)

    assert replica.apply(0, 2, log.entries[1][0]) is None
    assert replica.apply(0, 1, log.entries[0][0]) is None
    assert replica.sessions["s"].name == "Ann"


def test_reload_replaces_one_partition_only() -> None:
    """What belongs to other partitions stays."""
    log, replica = Log(), Replica(2)
    log.open("a1")
    log.open("b1")
    log.do("a1", c.StartWatch(watch=Watch(key="m")))
    log.do("a1", c.Unwatch())
    log.open("a2")
    log.do("a2", c.Close())
    log.play(replica)
    replica.put_document(Document(kind="b", key="1", revision=1, body={"x": 1}))
    replica.put_document(Document(kind="a", key="1", revision=1, body={"x": 1}))
    replica.reload(1, [], [], [], [], is_here=lambda key: key.startswith("b"))

    assert set(replica.sessions) == {"a1"}
    assert set(replica.gone) == {"a2"}
    assert set(replica.documents) == {"a/1"}
    assert [row.kind for row in replica.rows("watch")] == ["watch"]

    replica.reload(0, [], [], [], [], is_here=lambda key: key.startswith("a"))

    assert (replica.sessions, replica.gone, replica.documents, list(replica.history)) == (
        {},
        {},
        {},
        [],
    )


def test_tombstones_have_an_age_and_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tombstones go after their time, and the oldest first when there are too many."""
    monkeypatch.setattr(replica_module, "GONE_AGE_MS", 1_000)
    monkeypatch.setattr(replica_module, "GONE_MAX", 3)
    log, replica = Log(), Replica(1)
    for number in range(5):
        log.open(f"s{number}")
        log.do(f"s{number}", c.Close())
    log.play(replica)

    assert replica.forget_gone(log.now_ms) == ["s0", "s1"]
    assert replica.forget_gone(log.now_ms) == []
    assert replica.forget_gone(log.now_ms + 2_000) == ["s2", "s3", "s4"]
    assert replica.gone == {}


def test_id_that_became_free_in_the_store_can_be_opened_again() -> None:
    """A node that forgets a tombstone later than the others still sees the new session."""
    log, replica = Log(), Replica(1)
    log.open("s")
    log.do("s", c.Close())
    log.play(replica)
    del log.gone["s"]
    log.now_ms += 100_000
    log.open("s")
    log.play(replica)

    assert replica.sessions == log.sessions
    assert replica.gone == {}


def test_documents_follow_their_revision() -> None:
    """A newer document replaces, an older one does not, an empty one removes."""
    replica = Replica(1)
    steps = [(1, {"a": 1}), (3, {"a": 3}), (2, {"a": 2})]
    told = [
        replica.apply(
            0,
            offset,
            DocumentEntry(
                at=1, op="o", document=Document(kind="k", key="x", revision=revision, body=body)
            ),
        )
        is not None
        for offset, (revision, body) in enumerate(steps, 1)
    ]

    assert told == [True, True, False]
    assert replica.documents["k/x"].body == {"a": 3}

    replica.put_document(Document(kind="k", key="x", revision=4))

    assert replica.documents == {}


def test_activity_is_kept_for_open_sessions_only() -> None:
    """When a client last spoke is known while its session is open."""
    log, replica = Log(), Replica(1)
    log.open("s")
    log.play(replica)
    replica.apply(0, 2, ActiveEntry(at=5, active={"s": 5, "other": 5}))

    assert replica.active == {"s": 5}

    log.do("s", c.Close())
    log.play(replica, 1)

    assert replica.active == {}


def test_history_rows_are_numbered_by_their_commit() -> None:
    """Rows are known newest first, once, with the number and key that Redis gave them."""
    log, replica = Log(), Replica(1)
    log.open("s")
    log.do("s", c.StartWatch(watch=Watch(key="m1")))
    log.do("s", c.StartWatch(watch=Watch(key="m2")))
    log.do("s", c.Close(reason="enough"))
    log.play(replica)

    assert [(row.number, row.watch and row.watch.key) for row in replica.rows("watch")] == [
        (2, "m2"),
        (1, "m1"),
    ]
    assert [(row.number, row.reason) for row in replica.rows("session")] == [(3, "enough")]
    rows = list(replica.history)
    replica.reload(0, [], [], [], rows, is_here=lambda _: True)
    log.play(replica)
    assert list(replica.history) == rows


def test_deleted_row_is_dropped_and_stays_so() -> None:
    """A row that was deleted is in no list any more, also when its commit is read again."""
    log, replica = Log(), Replica(1)
    log.open("s")
    log.do("s", c.StartWatch(watch=Watch(key="m1")))
    log.do("s", c.StartWatch(watch=Watch(key="m2")))
    log.do("s", c.Close())
    log.play(replica)
    for _ in range(2):  # twice is no error
        assert replica.apply(0, 5, RowErasedEntry(at=5, number=1)) is None

    assert [row.number for row in replica.history] == [2, 3]
    assert replica.erased_rows == 1
    log.play(replica)
    assert [row.number for row in replica.history] == [2, 3]


def test_loaded_history_is_in_the_order_of_the_log() -> None:
    """A load puts rows where a follower has them, also when a later one was decided earlier."""
    log, replica = Log(), Replica(1)
    for session_id in ("a", "b", "c"):
        log.open(session_id)
        log.do(session_id, c.Close())
    log.play(replica)
    rows = [replace(row, at=5_000 - row.at) for row in replica.history]
    replica.reload(0, [], [], [], rows, is_here=lambda _: True)

    assert [row.number for row in replica.history] == [1, 2, 3]
