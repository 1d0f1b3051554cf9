"""Events by WebSocket: a snapshot or what was missed, then what happens, on any node."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from gateway.api.codec import heartbeat_message
from gateway.core.command import Close, Update
from gateway.core.query import Filter, View, Visibility
from gateway.settings import Settings
from tests.server.conftest import Gateway, serving
from tests.server.talk import Json, dial, fold, named, opened, snapshot

PATH = "/v1/events"
EVERYTHING = View(filter=Filter(), visibility=Visibility(by="all"), full=True)  # what an admin sees


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Gateway]:
    """A second node on the same data."""
    async with serving(replace(settings, node_name="node-b")) as found:
        yield found


async def test_observer_sees_all_and_then_what_happens(gateway: Gateway) -> None:
    """Hello, the snapshot, and every change: folded they are what REST shows."""
    await opened(gateway, "a")
    async with await dial(gateway, PATH) as watcher, gateway.http() as http:
        hello = await watcher.hear("hello")
        assert (hello["mode"], hello["node"]) == ("snapshot", "node-a")
        sessions = await snapshot(watcher)
        assert [session["id"] for session in sessions] == ["a"]
        await opened(gateway, "b")
        await named(gateway, "a", "Ann")
        await gateway.node.apply("b", Close())
        events = await watcher.until("session.closed")
        shown = (await http.get("/v1/sessions")).json()

        assert list(fold(sessions, events).values()) == shown["sessions"]
        assert watcher.heard[-1]["position"] == shown["position"]


async def test_snapshot_comes_in_pages(gateway: Gateway) -> None:
    """A snapshot comes in pages of 200, all at one place; only the last one's leads on."""
    await asyncio.gather(*(opened(gateway, f"s{n}") for n in range(450)))
    async with await dial(gateway, PATH) as watcher:
        await watcher.hear("hello")
        sessions = await snapshot(watcher)

        assert {session["id"] for session in sessions} == {f"s{n}" for n in range(450)}
        assert len(sessions) == 450
        pages = [page for page in watcher.heard if page["type"] == "snapshot"]
        assert [len(page["sessions"]) for page in pages] == [200, 200, 50]
        epoch, view, offset = pages[-1]["position"].split("-")
        assert view != "00000000"
        within = f"{epoch}-00000000-{offset}"
        assert [page["position"] for page in pages[:-1]] == [within, within]


async def test_who_stops_within_a_snapshot_gets_it_again(gateway: Gateway) -> None:
    """No position told before a snapshot's end skips the rest of it; each is good for ``at=``."""
    await asyncio.gather(*(opened(gateway, f"s{n}") for n in range(201)))
    async with await dial(gateway, PATH) as watcher:
        told = [await watcher.hear("hello"), await watcher.hear("snapshot")]
        assert told[-1]["more"]
    with gateway.node.subscribe(EVERYTHING) as subscription:
        subscription.take()
        beat = heartbeat_message(gateway.node, subscription)
        subscription.take()
        whole = heartbeat_message(gateway.node, subscription)
    async with gateway.http() as http:
        for position in (*(message["position"] for message in told), beat.position):
            async with await dial(gateway, PATH, since=position) as watcher:
                hello = await watcher.hear("hello")
                assert (hello["mode"], hello["reason"]) == ("snapshot", "other view")
                assert len(await snapshot(watcher)) == 201
            assert (await http.get("/v1/sessions", params={"at": position})).status_code == 200
    async with await dial(gateway, PATH, since=whole.position) as watcher:
        assert (await watcher.hear("hello"))["mode"] == "resume"


async def test_who_drops_gets_what_it_missed_on_the_other_node(
    gateway: Gateway, other: Gateway
) -> None:
    """With since= exactly what was missed comes, on any node, and then goes on."""
    await opened(gateway, "a")
    async with await dial(gateway, PATH) as watcher:
        await watcher.hear("hello")
        position = (await watcher.hear("snapshot"))["position"]
    names = [f"n{n}" for n in range(50)]
    for name in names:
        await named(gateway, "a", name)
    for node in (other, gateway):
        async with await dial(node, PATH, since=position) as watcher:
            hello = await watcher.hear("hello")
            assert hello["mode"] == "resume"
            assert "reason" not in hello
            events: list[Json] = []
            while len(events) < len(names):
                events += await watcher.events()
            assert [event["changes"]["name"] for event in events] == names
            live = f"live on {node.node.name}"
            await named(gateway, "a", live)
            assert (await watcher.events())[0]["changes"]["name"] == live
            await watcher.nothing()
        names.append(live)


@pytest.mark.parametrize("kind", ["other filter", "other epoch", "future", "nonsense"])
async def test_useless_position_gets_a_snapshot_and_why(gateway: Gateway, kind: str) -> None:
    """A position of another view, epoch or time is told so and followed by a snapshot."""
    await opened(gateway, "a")
    async with await dial(gateway, PATH, workspace="ws-1") as watcher:
        await watcher.hear("hello")
        position = (await watcher.hear("snapshot"))["position"]
    epoch, view, offset = position.split("-")
    since, reason = {
        "other filter": (f"{epoch}-00000001-{offset}", "other view"),
        "other epoch": (f"0{epoch}-{view}-{offset}"[:60], "history lost"),
        "future": (f"{epoch}-{view}-{int(offset) + 9}", "ahead"),
        "nonsense": ("yesterday", ""),
    }[kind]
    async with await dial(gateway, PATH, workspace="ws-1", since=since) as watcher:
        if kind == "nonsense":
            bye = await watcher.bye()
            assert (bye["code"], bye["reason"]) == (4503, "bad_position")
            return
        hello = await watcher.hear("hello")
        assert (hello["mode"], hello["reason"]) == ("snapshot", reason)
        assert [session["id"] for session in await snapshot(watcher)] == ["a"]


async def test_sessions_enter_and_leave_a_filter(gateway: Gateway) -> None:
    """A session that starts or stops to match is told whole, or gone."""
    await opened(gateway, "a")
    async with await dial(gateway, PATH, label__x="1") as watcher:
        await watcher.hear("hello")
        assert await snapshot(watcher) == []
        await named(gateway, "a", "unseen")
        await gateway.node.apply("a", Update(labels={"x": "1"}))
        (entered,) = await watcher.events()
        assert entered["type"] == "session.enter"
        assert entered["session"]["name"] == "unseen"
        await gateway.node.apply("a", Update(labels={}))
        assert await watcher.events() == [{"type": "session.exit", "session_id": "a"}]


@pytest.mark.parametrize(
    "token, seen",
    [("ws-1", ["a"]), ("ws-2", ["b"]), ("reader", ["a", "b"]), ("ann", []), ("writer", ["a", "b"])],
)
async def test_observer_sees_only_its_own(gateway: Gateway, token: str, seen: list[str]) -> None:
    """Neither snapshot nor events show a session outside the caller's view."""
    await opened(gateway, "a", "ws-1")
    await opened(gateway, "b", "ws-2")
    async with await dial(gateway, PATH, token=token) as watcher:
        await watcher.hear("hello")
        sessions = await snapshot(watcher)
        assert [session["id"] for session in sessions] == seen
        for session_id in ("a", "b"):
            await named(gateway, session_id, "x")
        for session_id in seen:
            assert [event["session_id"] for event in await watcher.events()] == [session_id]
        await watcher.nothing()
        assert ("profile" in json.dumps(sessions)) is False


async def test_reader_may_not_filter_by_node(gateway: Gateway) -> None:
    """What a caller is not shown is no filter either: 4507."""
    async with await dial(gateway, PATH, token="reader", node="node-a") as watcher:
        assert (await watcher.bye())["code"] == 4507


async def test_observer_changes_its_subscription(gateway: Gateway) -> None:
    """An observer may ask for something else, or for nothing, and is no session."""
    await opened(gateway, "a", "ws-1")
    await opened(gateway, "b", "ws-2")
    async with await dial(gateway, PATH, workspace="ws-1") as watcher:
        await watcher.hear("hello")
        await snapshot(watcher)
        assert (await watcher.ask("subscribe", filter={"workspace": "ws-2"}))["type"] == "ack"
        await watcher.hear("hello")
        assert [session["id"] for session in await snapshot(watcher)] == ["b"]
        await watcher.ask("unsubscribe")
        await named(gateway, "b", "x")
        await watcher.nothing()
        assert (await watcher.ask("watch", key="m"))["code"] == "bad_request"


async def test_session_socket_subscribes_too(gateway: Gateway, other: Gateway) -> None:
    """A session's socket carries one subscription: acknowledged, greeted, told, resumed."""
    await opened(gateway, "a", "ws-1")
    async with await dial(gateway, token="ws-1", session="me") as me:
        await me.hear("hello")
        await me.say("subscribe", ref="s", filter={"workspace": "ws-1"})
        assert (await me.hear())["type"] == "ack"
        assert (await me.hear("hello"))["mode"] == "snapshot"
        assert [session["id"] for session in await snapshot(me)] == ["a", "me"]
        await me.say("watch", key="m")
        position = (await me.find("events"))["position"]
    await named(gateway, "a", "missed")
    async with await dial(other, token="ws-1", session="me") as me:
        await me.hear("hello")
        await me.say("subscribe", filter={"workspace": "ws-1"}, since=position)
        await me.hear("ack")
        assert (await me.hear("hello"))["mode"] == "resume"
        events: list[Json] = []
        while not any(event.get("changes", {}).get("name") == "missed" for event in events):
            events += await me.events()
        assert [event["revision"] for event in events if event["session_id"] == "a"] == [2]


async def test_client_of_one_session_sees_just_that(gateway: Gateway) -> None:
    """With the session's token alone a subscription shows the one session."""
    await opened(gateway, "a")
    async with await dial(gateway, session="me") as me:
        token = (await me.hear("hello"))["session_token"]
    async with await dial(gateway, token=None, session_token=token) as me:
        await me.hear("hello")
        await me.say("subscribe")
        await me.hear("ack")
        await me.hear("hello")
        assert [session["id"] for session in await snapshot(me)] == ["me"]


class TestHeartbeat:
    """A gateway whose heart beats ten times a second."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """A quick heart."""
        return replace(settings, heartbeat_s=0.1)

    @pytest.mark.parametrize("path", ["/v1/connect", PATH])
    async def test_silence_is_broken_by_heartbeats(self, gateway: Gateway, path: str) -> None:
        """A socket on which nothing happens says so, with a position and the time."""
        async with await dial(gateway, path) as talk:
            await talk.find("hello")
            beats = [await talk.hear("heartbeat", "snapshot", beats=True) for _ in range(3)][1:]
            assert [beat["type"] for beat in beats] == ["heartbeat"] * 2
            assert beats[0]["at"] < beats[1]["at"]

    async def test_heartbeat_moves_the_position(self, gateway: Gateway) -> None:
        """A watcher of a quiet filter may resume from a heartbeat's position."""
        await opened(gateway, "a", "ws-1")
        async with await dial(gateway, PATH, workspace="ws-2") as watcher:
            await watcher.hear("hello")
            start = (await watcher.hear("snapshot"))["position"]
            await named(gateway, "a", "x")
            position = start
            while position == start:  # of beats that left before the change had come
                position = (await watcher.hear("heartbeat", beats=True))["position"]
            assert position > start
        async with await dial(gateway, PATH, workspace="ws-2", since=position) as watcher:
            assert (await watcher.hear("hello"))["mode"] == "resume"
