"""The client that follows sessions: nothing missing, nothing twice, and starting over is told."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from gateway.client import (
    Changes,
    Filter,
    Fold,
    GatewayError,
    Heartbeat,
    Item,
    Resync,
    Snapshot,
    errors,
    events,
)
from gateway.core.model import State
from tests.server.scripted import Peer, scripted

AT = "2026-01-02T03:04:05.678Z"


def session(session_id: str, revision: int = 1, **fields: object) -> dict[str, Any]:
    """A public session."""
    return {"id": session_id, "revision": revision, "state": "idle", **fields}


def changed(session_id: str, revision: int, **changes: object) -> dict[str, Any]:
    """A public event that changes a session."""
    return {
        "type": "session.updated",
        "session_id": session_id,
        "revision": revision,
        "at": AT,
        "changes": changes,
    }


async def hello(peer: Peer, mode: str, position: str = "p0", reason: str | None = None) -> None:
    """Greet an observer."""
    await peer.say(
        "hello", mode=mode, position=position, reason=reason, heartbeat_ms=15000, node="n1"
    )


async def page(peer: Peer, position: str, *sessions: dict[str, Any], more: bool = False) -> None:
    """Send a page of a snapshot."""
    await peer.say("snapshot", sessions=sessions, position=position, more=more)


async def tell(peer: Peer, position: str, *told: dict[str, Any]) -> None:
    """Send what happened."""
    await peer.say("events", events=told, position=position)


async def whole(peer: Peer) -> None:
    """Be a gateway with one session, then drop the observer after one event."""
    await hello(peer, "snapshot")
    await page(peer, "p1", session("a"))
    await tell(peer, "p2", changed("a", 2, name="Ann"))
    await peer.bye(4002)


@asynccontextmanager
async def following(url: str, **options: Any) -> AsyncIterator[AsyncIterator[Item]]:  # noqa: ANN401
    """A feed that is closed with its block."""
    async with aclosing(events(url, **options)) as feed:
        yield feed


async def take(feed: AsyncIterator[Item], count: int) -> list[Item]:
    """The next items of a feed."""
    return [await anext(feed) for _ in range(count)]


async def test_snapshot_comes_in_pages_then_events() -> None:
    """A snapshot's pages say where it begins and ends; only its last has a position."""

    async def script(peer: Peer) -> None:
        await hello(peer, "snapshot")
        await page(peer, "p1", session("a"), more=True)
        await page(peer, "p1", session("b"))
        await tell(peer, "p2", changed("a", 2, name="Ann"), changed("b", 2, name="Bo"))
        await peer.say("from_the_future")
        await peer.say("heartbeat", position="p3", at=AT)
        await peer.stay()

    wanted = Filter(workspace="ws 7", state=State.AWAY, connected=False, labels={"env": "a&b"})
    async with (
        scripted(script) as gateway,
        following(gateway.url, token="T", filter=wanted) as feed,
    ):
        assert await take(feed, 4) == [
            Snapshot(sessions=[session("a")], first=True, more=True, position=None),
            Snapshot(sessions=[session("b")], first=False, more=False, position="p1"),
            Changes(
                events=[changed("a", 2, name="Ann"), changed("b", 2, name="Bo")], position="p2"
            ),
            Heartbeat(position="p3", at=AT),
        ]
        assert gateway.peers[0].path == "/v1/events"
        assert gateway.peers[0].authorization == "Bearer T"
        assert gateway.peers[0].query == {
            "workspace": "ws 7",
            "state": "away",
            "connected": "false",
            "label.env": "a&b",
        }


async def test_dropped_feed_resumes_where_it_was() -> None:
    """After a drop the feed asks for what comes after its last position and says nothing of it."""

    async def resume(peer: Peer) -> None:
        await hello(peer, "resume", "p2")
        await tell(peer, "p3", changed("a", 3))
        await peer.say("heartbeat", position="p4", at=AT)
        peer.drop()

    async def again(peer: Peer) -> None:
        await hello(peer, "resume", "p4")
        await tell(peer, "p5", changed("a", 4))
        await peer.stay()

    async with (
        scripted(whole, resume, again) as gateway,
        following(gateway.url, filter=Filter(q="a")) as feed,
    ):
        kinds = [(item.kind, item.position) for item in await take(feed, 5)]
        assert kinds == [
            ("snapshot", "p1"),
            ("events", "p2"),
            ("events", "p3"),
            ("heartbeat", "p4"),
            ("events", "p5"),
        ]
        assert [peer.query for peer in gateway.peers] == [
            {"q": "a"},
            {"q": "a", "since": "p2"},
            {"q": "a", "since": "p4"},
        ]


async def test_position_of_another_time_starts_over() -> None:
    """If the gateway cannot resume, a resync with its reason comes before the new snapshot."""

    async def start_over(peer: Peer) -> None:
        await hello(peer, "snapshot", reason="epoch")
        await page(peer, "q1", session("b"))
        await peer.stay()

    async with scripted(start_over) as gateway, following(gateway.url, since="p9") as feed:
        assert await take(feed, 2) == [
            Resync(reason="epoch"),
            Snapshot(sessions=[session("b")], first=True, more=False, position="q1"),
        ]
        assert gateway.peers[0].query == {"since": "p9"}


async def test_resync_on_the_open_socket_is_passed_on() -> None:
    """A resync of the gateway is told, and its snapshot begins anew."""

    async def script(peer: Peer) -> None:
        await hello(peer, "snapshot")
        await page(peer, "p1", session("a"))
        await peer.say("resync", reason="slow")
        await page(peer, "p2", session("b"))
        await peer.stay()

    fold = Fold()
    async with scripted(script) as gateway, following(gateway.url) as feed:
        for item in await take(feed, 2):
            assert fold.apply(item) == []
        assert (list(fold.sessions), fold.position) == (["a"], None)
        fold.apply(await anext(feed))

    assert (list(fold.sessions), fold.position) == (["b"], "p2")


async def test_half_a_snapshot_is_nothing_to_resume_from() -> None:
    """A drop between two pages asks for a whole snapshot, also if a heartbeat came in between."""

    async def half(peer: Peer) -> None:
        await hello(peer, "snapshot")
        await page(peer, "p1", session("a"), more=True)
        await peer.say("heartbeat", position="p1", at=AT)
        peer.drop()

    fold = Fold()
    async with scripted(half, whole, whole) as gateway, following(gateway.url) as feed:
        assert fold.apply(await anext(feed)) == []
        assert fold.sessions == {}
        for item in await take(feed, 2):
            assert fold.apply(item) == []
        assert fold.sessions == {"a": session("a", 2, name="Ann")}
        assert gateway.peers[1].query == {}


@pytest.mark.parametrize(
    "code,reason,kind",
    [
        (4502, "", errors.Unauthorized),
        (4503, "bad_position", errors.BadPosition),
        (4507, "forbidden", errors.Forbidden),
    ],
)
async def test_refused_feed_raises(code: int, reason: str, kind: type[GatewayError]) -> None:
    """What the gateway refuses for good is raised from the loop, once."""

    async def refuse(peer: Peer) -> None:
        await peer.bye(code, reason)

    async with scripted(refuse) as gateway, following(gateway.url) as feed:
        with pytest.raises(kind):
            await anext(feed)


async def test_gateway_that_is_gone_is_given_up() -> None:
    """A feed that cannot be opened in time raises Unavailable."""
    async with scripted() as gateway:
        pass
    async with following(gateway.url, open_within_s=0) as feed:
        with pytest.raises(errors.Unavailable):
            await anext(feed)


def test_fold_follows_sessions_in_and_out_of_view() -> None:
    """Opened and entering sessions come in, closed and leaving ones go, changes are merged."""
    fold = Fold()
    opened = {**changed("b", 1), "type": "session.opened", "changes": session("b")}
    told = [
        opened,
        changed("b", 2, name="Bo", labels={"x": "1"}),
        changed("b", 2, labels={"y": "2"}),
        {"type": "session.enter", "session_id": "c", "session": session("c", 7)},
        {"type": "session.exit", "session_id": "a"},
    ]
    assert fold.apply(Snapshot(sessions=[session("a")], first=True, more=False, position="1")) == []
    assert fold.apply(Changes(events=told, position="2")) == []
    assert fold.apply(Changes(events=[changed("b", 3, name=None)], position="3")) == []

    assert fold.position == "3"
    assert fold.sessions == {
        "b": session("b", 3, labels={"x": "1", "y": "2"}),
        "c": session("c", 7),
    }
    closed = {**changed("b", 4, state="closed"), "type": "session.closed"}
    assert fold.apply(Changes(events=[closed], position="4")) == []
    assert fold.apply(Heartbeat(position="5", at=AT)) == []
    assert (list(fold.sessions), fold.position) == (["c"], "5")


@pytest.mark.parametrize(
    "told,wrong",
    [
        (changed("a", 7), "session.updated of a has revision 7 after 5"),
        (changed("a", 5), "session.updated of a has revision 5 after 5"),
        (changed("a", 4), "session.updated of a has revision 4 after 5"),
        (changed("x", 2), "session.updated of x which is not known"),
        ({"type": "session.exit", "session_id": "x"}, "session.exit of x which is not known"),
        (
            {"type": "session.enter", "session_id": "a", "session": session("a", 5)},
            "session.enter of a which is known",
        ),
    ],
)
def test_fold_tells_what_a_feed_breaks(told: dict[str, Any], wrong: str) -> None:
    """A gap, a duplicate, an old revision and an unknown session are each said in words."""
    fold = Fold("p0", {"a": session("a", 5)})

    assert fold.apply(Changes(events=[told], position="p1")) == [wrong]


def test_fold_tells_a_session_that_a_snapshot_holds_twice() -> None:
    """A session on two pages of one snapshot is said in words."""
    fold = Fold()
    fold.apply(Snapshot(sessions=[session("a")], first=True, more=True))

    wrong = fold.apply(Snapshot(sessions=[session("a")], first=False, more=False, position="p"))

    assert wrong == ["a is in the snapshot twice"]
