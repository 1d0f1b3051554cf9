"""What is pushed, by WebSocket and by server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.core.command import (
    Close,
    EndStream,
    Progress,
    StartStream,
    StartWatch,
    Unwatch,
    Update,
    UpdateStream,
)
from gateway.core.model import Client, Stream, Watch
from gateway.core.query import View, Visibility
from gateway.dialects.plex import codec as live
from gateway.dialects.plex.state import Plex as Shared
from gateway.live.channel import Subscription
from gateway.live.outbound import Restart
from tests.dialects.plex.conftest import ADMIN, Plex
from tests.nodes import blank
from tests.support import S, eventually

FILM = Watch(key="/library/metadata/101", state="playing", position_ms=1_000, duration_ms=90_000)
SOCKET = "/:/websockets/notifications"
STREAM = "/:/eventsource/notifications"


@asynccontextmanager
async def listening(
    plex: Plex, query: str = "", token: str = ADMIN, path: str = SOCKET
) -> AsyncIterator[ClientConnection]:
    """Open the WebSocket as Plex's clients do: the token in the query."""
    url = plex.url.replace("http", "ws") + f"{path}?X-Plex-Token={token}{query}"
    async with connect(url) as socket:
        yield socket


async def heard(socket: ClientConnection) -> tuple[str, dict[str, Any]]:
    """Return type and payload of the next push."""
    async with asyncio.timeout(2 * S):
        container = json.loads(await socket.recv())["NotificationContainer"]
    kind = container.pop("type")
    assert container.pop("size") == 1
    ((name, payload),) = container.items()
    assert name == ("PlaySessionStateNotification" if kind == "playing" else "TranscodeSession")
    (item,) = payload
    return kind, item


async def test_life_of_a_playback_is_told_in_order(plex: Plex) -> None:
    """Playing, its transcode, changes, the transcode's end, and then exactly one stop."""
    async with listening(plex) as socket:
        opened = await plex.play("s-1", FILM, client=Client(key="dev-1"), account="ann")
        stream = Stream(key="t1", kind="transcode", data={"progress": 1})
        await plex.node.apply("s-1", StartStream(stream=stream))
        await plex.node.apply("s-1", StartStream(stream=Stream(key="db", kind="backend")))
        await plex.node.apply("s-1", Progress(position_ms=2_000, state="paused"))
        await plex.node.apply("s-1", Update(name="Ann"))
        update = Stream(key="t1", kind="transcode", data={"progress": 2})
        await plex.node.apply("s-1", UpdateStream(stream=update))
        await plex.node.apply("s-1", Close(reason="Enough"))
        await plex.play("s-2", FILM)
        told = [await heard(socket) for _ in range(7)]

    assert [kind for kind, _ in told] == [
        *("playing", "transcodeSession.start", "playing", "transcodeSession.update"),
        *("transcodeSession.end", "playing", "playing"),
    ]
    assert [item["state"] for kind, item in told if kind == "playing"] == [
        *("playing", "paused", "stopped", "playing")
    ]
    first, paused, stopped = told[0][1], told[2][1], told[5][1]
    assert first == {
        "sessionKey": str(opened.number),
        "clientIdentifier": "dev-1",
        "guid": "",
        "ratingKey": "101",
        "url": "",
        "key": "/library/metadata/101",
        "viewOffset": 1_000,
        "state": "playing",
    }
    assert (paused["viewOffset"], paused["transcodeSession"]) == (2_000, "t1")
    assert (stopped["sessionKey"], stopped["viewOffset"]) == (first["sessionKey"], 2_000)
    assert told[3][1]["progress"] == 2.0
    assert told[4][1]["key"] == "/transcode/sessions/t1"


async def test_next_item_is_a_stop_and_a_start(plex: Plex) -> None:
    """Another item under the same key ends the one before it; a watch may also just end."""
    async with listening(plex) as socket:
        await plex.play("s-1", FILM)
        await plex.node.apply("s-1", StartWatch(watch=Watch(key="/library/metadata/102")))
        await plex.node.apply("s-1", Unwatch())
        told = [item for _, item in [await heard(socket) for _ in range(4)]]

    assert [(item["ratingKey"], item["state"]) for item in told] == [
        *(("101", "playing"), ("101", "stopped"), ("102", "playing"), ("102", "stopped"))
    ]


async def test_stop_tells_where_it_ended(plex: Plex) -> None:
    """A progress that was held back comes with the end: one stop, at the last position."""
    async with listening(plex) as socket:
        await plex.play("s-1", FILM)
        for position_ms in (2_000, 88_000):
            await plex.node.report("s-1", Progress(position_ms=position_ms))
        await plex.node.apply("s-1", Unwatch())
        await plex.play("s-2", FILM)
        told = [item for _, item in [await heard(socket) for _ in range(4)]]

    assert [(item["state"], item["viewOffset"]) for item in told] == [
        *(("playing", 1_000), ("playing", 2_000), ("stopped", 88_000), ("playing", 1_000))
    ]


async def test_transcode_that_stops_is_told(plex: Plex) -> None:
    """A transcode may end before its session does; what is none is never told."""
    await plex.play("s-1", FILM)
    async with listening(plex) as socket:
        for key, kind in (("db", "backend"), ("t1", "transcode")):
            await plex.node.apply("s-1", StartStream(stream=Stream(key=key, kind=kind)))
        for key in ("db", "t1"):
            await plex.node.apply("s-1", EndStream(key=key))
        told = [await heard(socket) for _ in range(2)]

    assert [kind for kind, _ in told] == ["transcodeSession.start", "transcodeSession.end"]


async def test_push_agrees_with_what_is_read(plex: Plex, http: httpx2.AsyncClient) -> None:
    """Consumers re-read at once: an item that never was shown has its number in the push."""
    async with listening(plex) as one, listening(plex) as two:
        await plex.play("s-1", Watch(key="lesson/3"))
        _, first = await heard(one)
        _, second = await heard(two)
    (entry,) = (await http.get("/status/sessions")).json()["MediaContainer"]["Metadata"]

    assert first == second
    assert first["ratingKey"] == entry["ratingKey"]
    assert first["key"] == entry["key"] == f"/library/metadata/{first['ratingKey']}"


@pytest.mark.parametrize("token, number", [("films", 0), ("music", 1), ("bob", 1)])
async def test_only_what_may_be_seen_is_pushed(plex: Plex, token: str, number: int) -> None:
    """A section's reader hears of the section, a player of itself."""
    async with listening(plex, token=token) as socket:
        opened = [
            await plex.play("a", FILM, workspace="films", account="ann"),
            await plex.play("b", FILM, workspace="music", account="bob"),
        ]
        _, item = await heard(socket)

    assert item["sessionKey"] == str(opened[number].number)


async def test_what_the_client_says_is_not_listened_to(plex: Plex) -> None:
    """Some clients beat with text frames; that means nothing."""
    async with listening(plex, path="/:/websocket/notifications/") as socket:
        await socket.send("beat")
        await socket.send(b"\x00beat")
        await plex.play("s-1", FILM)

        assert (await heard(socket))[0] == "playing"


@pytest.mark.parametrize(
    "query, wants, rest",
    [
        ("", {"playing", "transcodeSession.start"}, set()),
        ("filters=-log", {"playing", "transcodeSession.start"}, {"log"}),
        ("filter=playing", {"playing"}, {"transcodeSession.start"}),
        ("filters=transcodeSession,playing", {"playing", "transcodeSession.end"}, {"activity"}),
        ("filters=transcodeSession.end", {"transcodeSession.end"}, {"transcodeSession.start"}),
        ("filters=-playing", {"transcodeSession.start"}, {"playing"}),
        ("filters=", {"playing"}, set()),
    ],
)
def test_filters_choose_what_is_pushed(query: str, wants: set[str], rest: set[str]) -> None:
    """Named types only, or all but those with a minus; both spellings of the parameter."""
    pairs = [tuple(part.split("=")) for part in query.split("&") if part]
    choose = live.wanted(pairs)  # type: ignore[arg-type]

    assert all(map(choose, wants))
    assert not any(map(choose, rest))


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_stranger_is_refused_before_the_upgrade(plex: Plex, token: str) -> None:
    """HTTP 401: clients that hear it stop trying."""
    with pytest.raises(InvalidStatus) as refused:
        async with listening(plex, token=token):
            pass

    assert refused.value.response.status_code == 401
    async with plex.http(None) as http:
        assert (await http.get(STREAM)).status_code == 401


async def test_page_of_another_origin_is_refused(plex: Plex) -> None:
    """A browser says whose page opens the socket; ours and listed ones may."""
    url = plex.url.replace("http", "ws") + f"{SOCKET}?X-Plex-Token={ADMIN}"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, origin="https://evil.example").__aenter__()  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403

    async with connect(url, origin=plex.url):  # type: ignore[arg-type]
        pass


async def test_drained_node_sends_sockets_away(plex: Plex) -> None:
    """A node that goes closes its sockets with a code, and takes no new ones."""
    async with listening(plex) as socket:
        plex.node.is_draining = True
        await plex.context.connections.drain(0.05)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4001
    assert plex.context.connections.count == 0

    with pytest.raises(InvalidStatus) as refused:
        async with listening(plex):
            pass
    assert refused.value.response.status_code == 503
    async with plex.http() as http:
        assert (await http.get(STREAM)).status_code == 503


async def test_reader_that_fell_behind_is_cut(plex: Plex, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be told in full is not told in part: the reader comes back and reads again."""
    monkeypatch.setattr(Subscription, "follow_ticks", lambda *_: False)
    monkeypatch.setattr(Subscription, "take", lambda _: Restart("slow"))
    async with listening(plex) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4002


async def test_playback_of_which_nothing_was_heard_is_told_again(
    plex: Plex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Monitors take a playback for dead of which they heard nothing for five minutes."""
    monkeypatch.setattr(live, "QUIET_MS", -1_000)
    monkeypatch.setattr(live, "PING_S", 0.01)
    async with listening(plex) as socket, listening(plex, "&filters=-playing") as deaf:
        await plex.play("s-1", FILM, workspace="films")
        told = [await heard(socket) for _ in range(3)]
        stream = Stream(key="t1", kind="transcode")
        await plex.node.apply("s-1", StartStream(stream=stream))
        assert (await heard(deaf))[0] == "transcodeSession.start"

    assert [kind for kind, _ in told] == ["playing"] * 3
    assert told[0][1] == told[1][1] == told[2][1]


async def test_playback_out_of_sight_is_not_told_again(
    plex: Plex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told again is what the caller sees, and not what was told just now."""
    monkeypatch.setattr(live, "PING_S", 0.01)
    await plex.play("a", FILM, workspace="films")
    await plex.play("b", FILM, workspace="music")
    asked = View(visibility=Visibility("workspace", "music"), dialect="plex")
    codec = live.PushCodec(Shared(plex.context), lambda _: True, live.too_slow)
    with plex.node.subscribe(asked, plex.node.replica.position(asked.hash32)) as subscription:
        fresh = [codec.heartbeat(subscription) for _ in range(live.TURNS)]
        monkeypatch.setattr(live, "QUIET_MS", -1_000)
        quiet = [codec.heartbeat(subscription) for _ in range(live.TURNS)]

    assert fresh == [b""] * live.TURNS
    number = plex.node.replica.sessions["b"].number
    assert [f'"sessionKey":"{number}"'.encode() in told for told in quiet if told] == [True]


# --- server-sent events


@asynccontextmanager
async def streaming(plex: Plex, query: str = "") -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """Read the event stream: types and data."""
    async with plex.http() as http, http.stream("GET", f"{STREAM}?{query}") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = reply.aiter_lines()

        async def events() -> AsyncIterator[tuple[str, Any]]:
            kind = ""
            async for line in lines:
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)

        stream = events()
        async with asyncio.timeout(4 * S):
            assert await anext(stream) == ("ping", {})
            yield stream


async def test_event_stream_tells_the_same_without_wrapping(plex: Plex) -> None:
    """One object an event, no container around it and no list."""
    async with streaming(plex) as events, listening(plex) as socket:
        await plex.play("s-1", Watch(key="lesson/3"))
        await plex.node.apply("s-1", StartStream(stream=Stream(key="t", kind="transcode")))
        for name in ("PlaySessionStateNotification", "TranscodeSession"):
            kind, item = await heard(socket)
            assert await anext(events) == (kind, {name: item})


async def test_event_stream_pings(plex: Plex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is broken by a ping."""
    monkeypatch.setattr(live, "PING_S", 0.01)
    async with streaming(plex) as events:
        assert await anext(events) == ("ping", {})


async def test_event_stream_ends_when_the_node_goes(plex: Plex) -> None:
    """A drained node ends the reply as it should be ended."""
    async with streaming(plex, "filters=playing") as events:
        await plex.context.connections.drain(0.05)

        assert [event async for event in events] == []


async def test_reader_that_leaves_is_forgotten(plex: Plex) -> None:
    """Nothing is kept for a stream that nobody reads."""
    async with streaming(plex):
        assert plex.context.connections.count == 1
    async with listening(plex):
        pass
    await eventually(lambda: plex.context.connections.count == 0)


async def test_session_that_nobody_may_watch_is_not_told(plex: Plex) -> None:
    """Sessions without a watch come and go unheard."""
    async with listening(plex) as socket:
        await plex.node.open(blank("s-1"))
        await plex.node.apply("s-1", Close())
        await plex.play("s-2", FILM)
        _, item = await heard(socket)

    assert item["state"] == "playing"
