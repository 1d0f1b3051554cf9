"""What the browser client's feeds hold: at each batch the fold of the frames, at rest the list."""

import asyncio
import socket
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from gateway.live import channel
from gateway.settings import Settings
from gateway.store import log
from gateway.store.embedded import EmbeddedValkey
from tests.browser import Browser
from tests.server.conftest import ADMIN, serving
from tests.support import Link, Proxy, S, eventually
from tests.web.crowd import Crowd
from tests.web.oracle import Json
from tests.web.tabs import Tab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

FEEDS: Final[dict[str, Json]] = {
    "all": {},
    "red": {"label.color": "red"},
    "busy": {"workspace": "ws-1", "watching": "true"},
}
BULK: Final = 4_000  # characters of a change that fills buffers


class Narrow(Proxy):
    """A proxy that takes little from its server before it passes that on."""

    async def _connect(self) -> Link:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.setblocking(False)
        place = ("127.0.0.1", self._target.port)
        await asyncio.get_running_loop().sock_connect(server, place)
        return await asyncio.open_connection(sock=server)


async def test_map_is_the_fold_of_the_frames_after_10_000_random_events(
    settings: Settings,
    origin: str,
    window: Browser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Feeds hold what was told at every batch, through cuts, slow reading and lost history."""
    monkeypatch.setattr(channel, "RING_TICKS", 16)
    monkeypatch.setattr(log, "BLOCK_MS", 100)
    async with EmbeddedValkey(tmp_path) as server:
        settings = replace(settings, redis_url=server.url)
        async with (
            serving(settings) as gateway,
            gateway.http() as http,
            Narrow(gateway.url) as proxy,
        ):
            crowd = Crowd(gateway.node, seed=1)
            await crowd.act(600)
            tab = await Tab.open(window, origin, proxy.url, token=ADMIN, feeds=FEEDS)
            await tab.live(*FEEDS)

            await crowd.act(3_500)
            await crowd.mark()
            await tab.agrees(http)
            async with proxy.cut():
                await crowd.act(300)
            await crowd.act(2_000)
            await crowd.mark()
            await tab.agrees(http)
            assert tab.oracles["all"].resyncs == []
            async with proxy.stalled():
                await crowd.act(1_000, bulk=BULK)
            await crowd.act(2_000)
            await crowd.mark()
            await tab.agrees(http)
            assert "slow" in tab.oracles["all"].resyncs
            link = gateway.node.store.new_connection("test")
            await link.call("FLUSHALL")
            await link.close()
            await tab.until("told.some(({resync}) => resync === 'history lost')")
            crowd = Crowd(gateway.node, seed=2)
            await eventually(lambda: gateway.node.is_ready, within=5 * S)
            await crowd.act(3_500)
            await crowd.mark()
            await tab.agrees(http)

    assert tab.oracles["all"].events > 10_000
    assert tab.oracles["red"].events > 1_000
