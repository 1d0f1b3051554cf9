"""A monitoring program that logs what is played, by the requests that Tautulli 2.17 makes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree as ET

import httpx2
import pytest
import websocket
from msgspec.structs import replace
from websockets.asyncio.client import connect

from gateway.app import running
from gateway.core.command import Close, Progress, StartWatch, Unwatch
from gateway.core.model import Watch
from gateway.settings import Settings
from tests.dialects.plex.conftest import ADMIN, Plex, serving
from tests.dialects.plex.test_timeline import Player
from tests.nodes import blank
from tests.support import S, eventually

WATCHED_PERCENT: Final = 98
LOGGED_TYPES: Final = ("movie", "episode", "track")
LENGTH_MS: Final = 90_000


@dataclass
class Play:
    """What the monitor knows of one playback."""

    rating_key: str
    media_type: str
    duration: int
    state: str
    is_watched: bool = False


@dataclass
class Monitor:
    """Follows the notifications and asks for what they are about; strict as the original is.

    It never heard of a position but those of notifications, takes the length from the looked-up
    item, compares it as a number, and logs no clips.
    """

    http: httpx2.AsyncClient
    log: list[tuple[str, str]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    plays: dict[str, Play] = field(default_factory=dict)

    async def xml(self, path: str) -> ET.Element:
        """Return a document of the server."""
        reply = await self.http.get(path)
        assert reply.status_code == 200, path
        return ET.fromstring(reply.text)  # noqa: S314 - our own

    async def hear(self, told: dict[str, Any]) -> None:
        """Take one notification."""
        play = self.plays.get(told["sessionKey"])
        if play is None:
            if told["state"] != "buffering":
                await self._start(told)
            return
        if not play.is_watched and play.duration > 0:
            play.is_watched = told["viewOffset"] * 100 >= play.duration * WATCHED_PERCENT
            if play.is_watched:
                self.log.append(("watched", play.rating_key))
        if told["state"] != play.state:
            play.state = told["state"]
            self.log.append((play.state, play.rating_key))
            if play.state == "stopped":
                await self._stop(told, play)

    async def _start(self, told: dict[str, Any]) -> None:
        for entry in await self.xml("/status/sessions"):
            if entry.get("sessionKey") != told["sessionKey"]:
                continue
            assert entry.find("User") is not None
            assert entry.find("Player") is not None
            assert entry.find("Media/Part") is not None
            item = await self._look_up(entry.get("ratingKey") or "")
            if item.get("live") == "1":
                assert (await self.xml("/livetv/dvrs")).get("size") == "0"
            play = Play(
                item.get("ratingKey") or "",
                item.get("type") or "",
                int(item.get("duration") or ""),
                told["state"],
            )
            assert play.rating_key == told["ratingKey"]
            self.plays[told["sessionKey"]] = play
            self.log.append(("started", play.rating_key))

    async def _stop(self, told: dict[str, Any], play: Play) -> None:
        item = await self._look_up(play.rating_key)
        if play.media_type in LOGGED_TYPES:
            self.rows.append({"title": item.get("title"), "at": told["viewOffset"]})
        del self.plays[told["sessionKey"]]

    async def _look_up(self, rating_key: str) -> ET.Element:
        assert rating_key.isdigit()
        root = await self.xml(f"/library/metadata/{rating_key}?includeMarkers=1")
        (item,) = root
        section = root.get("librarySectionID")
        assert section == item.get("librarySectionID")
        if section:
            sections = await self.xml("/library/sections")
            assert section in [directory.get("key") for directory in sections]
        return item


@asynccontextmanager
async def monitoring(plex: Plex) -> AsyncIterator[Monitor]:
    """Let a monitor follow the gateway; its token is a header of the handshake."""
    async with plex.http(accept="*/*") as http:
        monitor = Monitor(http)
        url = plex.url.replace("http", "ws") + "/:/websockets/notifications"
        async with connect(url, additional_headers={"X-Plex-Token": ADMIN}) as socket:

            async def follow() -> None:
                async for text in socket:
                    told = json.loads(text)["NotificationContainer"]
                    if told["type"] == "playing":
                        await monitor.hear(told["PlaySessionStateNotification"][0])

            task = asyncio.create_task(follow())
            try:
                yield monitor
                await eventually(lambda: not monitor.plays or task.done(), within=4 * S)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def logged(monitor: Monitor, what: str) -> None:
    """Wait until the monitor has logged *what*."""
    await eventually(lambda: any(line[0] == what for line in monitor.log), within=4 * S)


Steps = Callable[[Monitor], Awaitable[None]]


def reported(plex: Plex) -> Steps:
    """Return a playback by a player of Plex, which reports."""

    async def play(monitor: Monitor) -> None:
        async with plex.http("ann") as http:
            player = Player(http)
            await player.report("playing", 0, title="A film")  # type: ignore[arg-type]
            await logged(monitor, "started")
            await player.report("paused", 40_000)
            await logged(monitor, "paused")
            await player.report("playing", 40_000)
            await logged(monitor, "playing")
            await player.report("stopped", 89_000)

    return play


def native(plex: Plex, *, by_close: bool) -> Steps:
    """Return a playback by a client of any other door."""

    async def play(monitor: Monitor) -> None:
        watch = Watch(key="films/7", title="A film", state="playing", position_ms=0)
        node = plex.node
        await node.open(blank("s-1", account="ann", workspace="films"))
        watched = Watch(**{**_fields(watch), "duration_ms": LENGTH_MS})
        await node.apply("s-1", StartWatch(watch=watched))
        await logged(monitor, "started")
        await node.apply("s-1", Progress(position_ms=40_000, state="paused"))
        await logged(monitor, "paused")
        await node.apply("s-1", Progress(state="playing"))
        await logged(monitor, "playing")
        await node.report("s-1", Progress(position_ms=89_000))
        await node.apply("s-1", Close(outcome="left") if by_close else Unwatch())

    return play


def _fields(watch: Watch) -> dict[str, Any]:
    return {name: getattr(watch, name) for name in watch.__struct_fields__}


@pytest.mark.parametrize("by", ["a report", "a close", "an end of the watch"])
async def test_monitor_logs_a_whole_playback(plex: Plex, by: str) -> None:
    """Start, pause, resume, 98 % watched and stop of a film, whichever door it came by."""
    steps = reported(plex) if by == "a report" else native(plex, by_close=by == "a close")
    async with monitoring(plex) as monitor:
        await steps(monitor)

    kinds = [kind for kind, _ in monitor.log]
    assert kinds == ["started", "paused", "playing", "watched", "stopped"]
    assert len({key for _, key in monitor.log}) == 1
    assert monitor.rows == [{"title": "A film", "at": 89_000}]


async def test_monitor_logs_a_watch_without_a_length(plex: Plex) -> None:
    """What has no end is a live film: logged when it stops, and never as watched."""
    async with monitoring(plex) as monitor:
        await plex.play("s-1", Watch(key="channel/9", title="News"), workspace="films")
        await logged(monitor, "started")
        await plex.node.apply("s-1", Close())

    assert [kind for kind, _ in monitor.log] == ["started", "stopped"]
    assert [row["title"] for row in monitor.rows] == ["News"]


async def test_monitor_whose_pongs_echo_nothing_stays(settings: Settings) -> None:
    """Tautulli answers every ping with ``Hi!``: any frame proves that it is there."""
    hasty = replace(settings, heartbeat_s=0.05, pong_s=0.05)
    async with running(hasty) as context, serving(context) as url:
        header = [f"X-Plex-Token: {ADMIN}"]
        address = url.replace("http", "ws") + "/:/websockets/notifications"
        socket = await asyncio.to_thread(websocket.create_connection, address, header=header)
        plex, pings = Plex(url, context), 0
        try:
            while True:
                heard = await asyncio.to_thread(socket.recv_frame)
                if heard.opcode == websocket.ABNF.OPCODE_PING:
                    await asyncio.to_thread(socket.pong, "Hi!")
                    pings += 1
                    if pings == 5:
                        await plex.play("s-1", Watch(key="channel/9"))
                    continue
                told = json.loads(heard.data)["NotificationContainer"]
                break
        finally:
            await asyncio.to_thread(socket.close)

    assert pings >= 5
    assert told["type"] == "playing"
