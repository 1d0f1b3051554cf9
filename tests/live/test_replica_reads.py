"""Replica, read: pages in every order, how much is looked at for them, and what is shown."""

import random

import pytest
from msgspec.structs import replace

from gateway.core import command as c
from gateway.core.model import Connection, Session
from gateway.core.query import Filter, Page, Sort, View, Visibility, sort_key
from gateway.live.replica import Replica
from tests.live.logbook import Log
from tests.live.test_replica import scramble, views
from tests.nodes import blank

ALL = View(visibility=Visibility(by="all"))

SORTS = list(Sort)


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("seed", range(2))
def test_pages_are_the_sorted_list(sort: Sort, seed: int) -> None:
    """Pages of any size are the filtered, sorted list in pieces; so are offsets."""
    log, replica, luck = Log(), Replica(1), random.Random(seed)
    scramble(log, luck, 400)
    log.play(replica)
    for view in views():
        keyed = [
            (key, session)
            for session in log.sessions.values()
            if view.matches(session) and (key := sort_key(session, sort.field)) is not None
        ]
        expected = [session for _, session in sorted(keyed, key=lambda known: known[0])]
        if sort.descending:
            expected.reverse()
        limit = luck.randrange(1, 12)
        for looks in (None, 1, 7):
            found, after = [], None
            while True:
                page, after = replica.page(
                    view, Page(sort=sort, limit=limit, after=after, scan_limit=looks)
                )
                assert len(page) <= limit
                found += page
                if after is None:
                    break
                assert after[1] in {"", *(session.id for session in page)}

            assert found == expected
        assert replica.page(view, Page(sort=sort, limit=1000, offset=3))[0] == expected[3:]


@pytest.mark.parametrize("sort", [Sort.CREATED_AT, Sort.CREATED_AT_DESC, Sort.NUMBER])
def test_walk_misses_and_doubles_nothing_while_sessions_come_and_go(sort: Sort) -> None:
    """Who walks the pages meets every session that was there all the time, and none twice."""
    log, replica, luck = Log(), Replica(1), random.Random(1)
    for number in range(300):
        log.open(f"s{number}", number=number)
    log.play(replica)
    steady = set(log.sessions)
    met: list[str] = []
    page, after = replica.page(ALL, Page(sort=sort, limit=10))
    while after is not None:
        met += [session.id for session in page]
        done = len(log.entries)
        for _ in range(5):
            log.open(f"new{done}{_}", number=1_000 + done + _)
            leaver = luck.choice(list(log.sessions))
            steady.discard(leaver)
            log.do(leaver, c.Close())
        log.play(replica, done)
        page, after = replica.page(ALL, Page(sort=sort, limit=10, after=after))
    met += [session.id for session in page]

    assert len(met) == len(set(met))
    assert steady <= set(met)


class Looked(dict[str, Session]):
    """Sessions that count how often one was looked at."""

    times = 0

    def __getitem__(self, session_id: str) -> Session:
        self.times += 1
        return super().__getitem__(session_id)


@pytest.mark.parametrize(
    "view, sort, looks",
    [
        (Filter(workspace="w3", labels={"env": "prod"}), Sort.CREATED_AT, 10),
        (Filter(workspace="w3", account="ann"), Sort.CREATED_AT_DESC, 20),
        (Filter(workspace="w3", connected=True), Sort.CREATED_AT, 20),
        (Filter(workspace="w3"), Sort.NUMBER, 30),
        (Filter(account="ann"), Sort.NUMBER, 22),
        (Filter(account="ann"), Sort.CLOSES_AT, 0),
        (Filter(q="nobody"), Sort.CREATED_AT, 50),
    ],
)
def test_page_looks_at_few(view: Filter, sort: Sort, looks: int) -> None:
    """A page looks at the smallest set of who may be on it, and at no more than it was told."""
    replica = Replica(1)
    for number in range(200):
        session = blank(
            f"s{number}",
            number=number,
            created_at=number,
            workspace=f"w{number % 10}",
            account="ann" if number % 2 else "bob",
            labels={"env": "prod"},
        )
        replica.put(replace(session, revision=1))
    looked = replica.sessions = Looked(replica.sessions)
    replica.page(
        View(filter=view, visibility=Visibility(by="all")), Page(sort=sort, limit=10, scan_limit=50)
    )

    assert looked.times <= looks


def test_rendering_is_kept_until_the_session_changes() -> None:
    """The same record is encoded once, and never shown in an old form."""
    log, replica = Log(), Replica(1)
    log.open("s", name="Ann")
    log.play(replica)
    first = replica.rendered(replica.sessions["s"], full=False)

    assert replica.rendered(replica.sessions["s"], full=False) is first

    old = replica.sessions["s"]
    log.do("s", c.Update(name="Bob"))
    log.play(replica, 1)

    assert b"Bob" in replica.rendered(replica.sessions["s"], full=False)
    assert replica.rendered(old, full=False) == first


def test_digest_is_that_of_what_is_shown() -> None:
    """Every node makes the same digest of the same text, and another one of another text."""
    log, nodes = Log(), (Replica(1), Replica(1))
    log.open("s", name="Ann")
    for replica in nodes:
        log.play(replica)
    (one,), (same,), (full,) = (
        replica.renderings(replica.sessions.values(), full=full)
        for replica, full in ((nodes[0], False), (nodes[1], False), (nodes[1], True))
    )
    log.do("s", c.Connect(connection=Connection(id="c", node="n:1", connected_at=1, address="::1")))
    log.play(nodes[0], 1)
    plain, whole = (
        nodes[0].renderings(nodes[0].sessions.values(), full=level)[0] for level in (False, True)
    )

    assert one.digest == same.digest
    assert (one.digest == full.digest) is (one.text == full.text)
    assert (
        len({one.digest, plain.digest, whole.digest})
        == len({one.text, plain.text, whole.text})
        == 3
    )
