"""The audit: content with a gateway that keeps its promises, it sees each way to break one."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from gateway.audit.checker import GHOST_MS, FeedCheck, PromiseChecker
from gateway.audit.probes import sse_items
from gateway.client import Changes, Gateway, Heartbeat, Item, Resync, Snapshot, connect
from gateway.core.public import rfc3339
from tests.server.command import KEY, Served, run, serve
from tests.support import MS

# --- the checker alone


def at(offset: int) -> str:
    """A position."""
    return f"e-00000001-{offset}"


def session(session_id: str = "s1", revision: int = 1, **facts: object) -> dict[str, Any]:
    """A session as a feed shows it."""
    return {"id": session_id, "revision": revision, "is_connected": False, **facts}


def snapshot(offset: int, *sessions: dict[str, Any]) -> Snapshot:
    """A whole snapshot."""
    return Snapshot(sessions=list(sessions), first=True, more=False, position=at(offset))


def event(kind: str, session_id: str, number: int, /, **changes: object) -> dict[str, Any]:
    """An event of a session."""
    return {
        "type": f"session.{kind}",
        "session_id": session_id,
        "revision": number,
        "at": rfc3339(0),
        "changes": changes,
    }


def changes(offset: int, *events: dict[str, Any]) -> Changes:
    """What happened at once."""
    return Changes(events=list(events), position=at(offset))


def closed(session_id: str, revision: int, at_ms: int, outcome: str) -> dict[str, Any]:
    """The event that ends a session."""
    return event("closed", session_id, revision, closed={"at": rfc3339(at_ms), "outcome": outcome})


def heard(*items: Item, checker: PromiseChecker | None = None) -> tuple[PromiseChecker, FeedCheck]:
    """A checker that heard a feed."""
    checker = checker or PromiseChecker()
    feed = checker.feed(f"feed {len(checker.feeds)}")
    for item in items:
        feed.hear(item)
    return checker, feed


def broken(checker: PromiseChecker) -> dict[int, int]:
    """How often each promise was broken."""
    return {n: finding.violations for n, finding in checker.findings.items() if finding.violations}


def test_feed_that_keeps_its_promises_satisfies() -> None:
    """A snapshot and its changes, a resync and a heartbeat are nothing to complain about."""
    checker, feed = heard(
        snapshot(1, session()),
        changes(
            3, event("updated", "s1", 2, name="Ann"), event("opened", "s2", 1, **session("s2"))
        ),
        Heartbeat(position=at(5), at=rfc3339(0)),
        Resync(reason="slow"),
        snapshot(4, session("s2")),
    )

    assert checker.is_satisfied
    assert feed.restarts == {"slow": 1}
    assert checker.findings[2].checked == {"events": 2}


def test_gap_and_repetition_break_the_second_promise() -> None:
    """A revision that is skipped or told twice, and a position that goes back, are seen."""
    skipped, _ = heard(snapshot(1, session()), changes(2, event("updated", "s1", 3)))
    doubled, _ = heard(
        snapshot(1, session(revision=2)), changes(2, event("updated", "s1", 2, name="Ann"))
    )
    back, _ = heard(snapshot(5, session()), Heartbeat(position=at(4), at=rfc3339(0)))

    assert broken(skipped) == broken(doubled) == broken(back) == {2: 1}
    assert "revision 3 after 1" in skipped.findings[2].told[0]


def test_two_who_show_another_session_break_the_first_promise() -> None:
    """One revision of a session is one content, whoever shows it and whenever."""
    checker, _ = heard(snapshot(1, session(name="Ann")), changes(2, event("updated", "s1", 2)))
    checker.shows("REST", session(revision=1, name="Ann"))
    checker.shows("REST", session(revision=2, name="Ann"))
    assert checker.is_satisfied

    checker.shows("REST", session(revision=2, name="Bob"))
    checker.shows("Redis", session(revision=2), session(revision=2, name="Ann", profile={}))

    assert broken(checker) == {1: 2}
    assert checker.findings[1].told[0].endswith("REST and feed 0 differ in name")


def test_redis_is_compared_at_either_level() -> None:
    """A record may be shown plain or in full: what the token sees decides, not the audit."""
    checker, _ = heard(snapshot(1, session(name="Ann")))

    checker.shows("Redis", session(name="Ann"), session(name="Ann", profile={}))

    assert checker.is_satisfied


def test_disagreement_of_two_looks_breaks_the_first_promise() -> None:
    """A list that lacks a session, or has one too many, in two looks in a row, is wrong."""
    checker, feed = heard(snapshot(1, session("s1"), session("s2")))

    checker.look({"REST": {"s1": 1, "s3": 1}}, sees_all=True)
    assert checker.is_satisfied, "who was asked first may know less"
    checker.look({"REST": {"s1": 1, "s3": 1}}, sees_all=True)
    assert broken(checker) == {1: 2}

    checker, feed = heard(snapshot(1, session("s1")))
    checker.look({"REST": {}}, sees_all=True)
    feed.hear(changes(2, event("updated", "s1", 2)))
    checker.look({"REST": {"s1": 1}}, sees_all=True)
    assert checker.is_satisfied, "both moved meanwhile"


def test_feed_with_a_filter_must_show_what_matches() -> None:
    """A filtered feed is held against what the reference has, as far as it matches."""
    checker, _ = heard(snapshot(1, session("s1", is_connected=True), session("s2")))
    filtered = checker.feed("connected", lambda one: bool(one["is_connected"]))
    filtered.hear(snapshot(1, session("s1", is_connected=True)))
    for _ in range(2):
        checker.look({}, sees_all=True)
    assert checker.is_satisfied

    filtered.hear(changes(2, {"type": "session.exit", "session_id": "s1"}))
    for _ in range(2):
        checker.look({}, sees_all=True)
    assert broken(checker) == {1: 1}


def test_session_out_of_view_is_no_disagreement_with_redis() -> None:
    """Redis has sessions that a token of little right does not see."""
    checker, _ = heard(snapshot(1))
    for _ in range(2):
        checker.look({"Redis": {"s1": 1}}, sees_all=False)
    assert checker.is_satisfied
    for _ in range(2):
        checker.look({"Redis": {"s1": 1}}, sees_all=True)
    assert broken(checker) == {1: 1}


def test_close_before_its_deadline_breaks_the_third_promise() -> None:
    """A connected session is not closed early; one whose client was lost may be."""
    closing = {"at": rfc3339(1000)}

    early, _ = heard(
        snapshot(1, session(closing=closing)), changes(2, closed("s1", 2, 999, "unsaved"))
    )
    lost, _ = heard(snapshot(1, session(closing=closing)), changes(2, closed("s1", 2, 500, "lost")))

    assert broken(early) == {3: 1}
    assert lost.is_satisfied
    assert early.findings[3].checked["closes"] == 1


def test_late_close_breaks_the_third_promise() -> None:
    """One close in a hundred may be 100 ms late or more, not two; a moved deadline is the one."""
    checker, feed = heard(
        snapshot(1, *(session(f"s{n}", closing={"at": rfc3339(1000)}) for n in range(200)))
    )
    feed.hear(changes(2, *(closed(f"s{n}", 2, 1003, "unsaved") for n in range(197))))
    feed.hear(
        changes(
            3,
            event("closing", "s197", 2, closing={"at": rfc3339(9000)}),
            closed("s197", 3, 9001, "unsaved"),
        )
    )
    feed.hear(changes(4, *(closed(f"s{n}", 2, 1100, "lost") for n in (198, 199))))
    checker.conclude()
    assert checker.is_satisfied
    assert checker.findings[3].checked["ms late (p99)"] == 3

    checker, feed = heard(snapshot(1, session(closing={"at": rfc3339(1000)})))
    feed.hear(changes(2, closed("s1", 2, 1100, "unsaved")))
    checker.conclude()
    assert broken(checker) == {3: 1}


def test_second_close_and_return_are_seen() -> None:
    """After its end a session is neither closed again nor opened, listed or told of."""
    twice, feed = heard(snapshot(1, session()), changes(2, closed("s1", 2, 0, "left")))
    feed.hear(changes(3, closed("s1", 3, 0, "left")))
    assert 3 in broken(twice)

    back, feed = heard(snapshot(1, session()), changes(2, closed("s1", 2, 0, "left")))
    feed.hear(changes(3, event("opened", "s1", 3, **session(revision=3))))
    assert 4 in broken(back)

    listed, _ = heard(snapshot(1, session()), changes(2, closed("s1", 2, 0, "left")))
    listed.look({"REST": {"s1": 1}}, sees_all=True)
    assert listed.is_satisfied, "it may have been read before the close"
    listed.look({"REST": {"s1": 1}}, sees_all=True)
    assert broken(listed) == {4: 1}


def test_session_of_a_silent_node_breaks_the_fifth_promise() -> None:
    """A connected session needs a node that renewed its lease, or an outage that excuses it."""
    checker, now_ms = PromiseChecker(), 1_000_000
    checker.leases({"s1": "a:1"}, {"a:1": now_ms - GHOST_MS}, 0, now_ms)
    checker.leases({"s1": "a:1"}, {"a:1": 5}, now_ms - GHOST_MS, now_ms)
    checker.leases({"s2": "b:1"}, {"a:1": now_ms}, 0, now_ms)
    assert checker.is_satisfied

    checker.leases({"s1": "a:1"}, {"a:1": now_ms - GHOST_MS - 1}, 0, now_ms)
    checker.leases({"s2": "b:1"}, {"a:1": now_ms}, 0, now_ms + GHOST_MS + 1)
    assert broken(checker) == {5: 2}


async def test_event_stream_is_read_in_any_pieces() -> None:
    """Items are the same however the stream is cut; a line separator in a name is no line end."""
    opened = event("opened", "s1", 1, **session(name="a\u2028b"))
    text = b"".join(
        (
            b"event: hello\ndata: {}\n\n",
            b'id: e-0-1\nevent: snapshot\ndata: {"sessions":[],"position":"e-0-1"}\n\n',
            b"event: session.opened\ndata: " + msgspec.json.encode(opened) + b"\n\n",
            b"id: e-0-2\nevent: session.watching\ndata: "
            + msgspec.json.encode(event("watching", "s1", 1))
            + b"\n\n",
            b"retry: 5\n",
            b'event: bye\ndata: {"code":4001}\n\n',
        )
    )

    for size in (1, 7, len(text)):

        async def pieces(size: int = size) -> AsyncIterator[bytes]:
            for start in range(0, len(text), size):
                yield text[start : start + size]

        items = [item async for item in sse_items(pieces(), resumed=False)]

        assert [item.position for item in items] == ["e-0-1", "e-0-2"]
        assert isinstance(items[1], Changes)
        assert items[1].events[0] == opened
        assert len(items[1].events) == 2


# --- a whole gateway


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with a Valkey of its own."""
    with serve(tmp_path_factory.mktemp("audited"), "--admin-key", KEY) as running:
        yield running


@contextmanager
def traffic(url: str) -> Iterator[None]:
    """Clients that come, do things, are closed and go, until the end of the block."""
    done = threading.Event()

    async def one(number: int) -> None:
        async with Gateway(url, token=KEY) as gateway:
            while not done.is_set():
                async with connect(url, token=KEY, name=f"client {number}\u2028") as me:
                    await me.watch("film", title="A film")
                    await asyncio.sleep(20 * MS)
                    await me.unwatch()
                    await gateway.close(me.id, after_s=0.05, reason="enough")
                    await me.wait_closed()

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, range(3)))

    thread = threading.Thread(target=asyncio.run, args=(all_of_them(),))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_audit_finds_nothing_wrong_with_a_gateway_in_use(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a gateway with clients every probe agrees, and the report says how much was checked."""
    with traffic(served.url):
        ran = run(
            capsys, *("audit", "--for", "2s", "--url", served.url, "--token", KEY, "--json"),
            *("--data-dir", str(served.data_dir)),
        )  # fmt: skip

    assert (ran.code, ran.err) == (0, "")
    told = ran.json
    assert told["ok"]
    assert "Redis" in told["witnesses"]
    checked = [invariant["checked"] for invariant in told["invariants"]]
    assert checked[0]["comparisons"] > 10
    assert checked[1]["log entries"] > 10
    assert checked[2]["deadlines"] > 1
    assert checked[3]["closed sessions asked for"] > 1
    assert checked[4]["leases looked at"] >= 1
    assert told["feeds"][2]["resumes"] >= 1
    assert not any(feed["restarts"] for feed in told["feeds"])


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_audit_sees_that_redis_has_something_else(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records changed, lost or risen behind the gateway's back are told, and the exit code is 1."""

    async def prepare() -> None:
        async with Gateway(served.url, token=KEY) as gateway:
            for name in ("changed", "lost", "risen"):
                await gateway.open({"id": name, "name": name})

    asyncio.run(prepare())
    with Redis(unix_socket_path=str(served.data_dir / "valkey.sock")) as redis:
        tag = "{gateway:0}"
        record: Any = redis.hget(f"{tag}:live", "changed")
        redis.hset(f"{tag}:live", "changed", record.replace(b'"name":"changed"', b'"name":"other"'))
        redis.hdel(f"{tag}:live", "lost")
        redis.hset(f"{tag}:gone", "risen", redis.hget(f"{tag}:live", "risen"))

    ran = run(
        capsys, *("audit", "--for", "4s", "--url", served.url, "--token", KEY),
        *("--data-dir", str(served.data_dir)),
    )  # fmt: skip

    assert ran.code == 1
    verdicts = [row[2].rpartition(" ")[2] for row in ran.rows]
    assert (verdicts[0], verdicts[3], verdicts[4]) == ("violations", "violations", "kept")
    # Nothing happens meanwhile, unless a node on a busy machine has to renew something.
    assert {*verdicts[1:3]} <= {"checked", "kept"}
    # Which probe is compared first is a matter of time.
    assert re.search(r"changed revision 1: Redis and \w+ differ in name", ran.err)
    assert re.search(r"lost: \w+ has revision 1, Redis has nothing", ran.err)
    assert "risen is open and closed at once" in ran.err


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_audit_of_another_gateways_redis_is_refused(
    served: Served, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Another gateway's Redis proves nothing, so it is an error to name one."""
    with serve(tmp_path, "--admin-key", KEY) as other:
        ran = run(
            capsys, *("audit", "--for", "1s", "--url", served.url, "--token", KEY),
            *("--data-dir", str(other.data_dir)),
        )  # fmt: skip

    assert (ran.code, ran.out) == (1, "")
    assert "does not hold the data of this gateway" in ran.err
