"""Hearing: somebody who listens to each live channel that tells of all sessions."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.dialects.house import PASSWORD, PREFIXES, House, shown
from tests.dialects.neko.client import Neko
from tests.server.conftest import ADMIN
from tests.support import S, eventually

Json = Any


class Ear:
    """Somebody who listens to a live channel, and keeps what is said."""

    def __init__(self, socket: ClientConnection) -> None:
        self.heard: list[Json] = []
        self._socket = socket

    async def listen(self) -> None:
        """Keep what is said until the channel ends."""
        try:
            async for text in self._socket:
                message = json.loads(text)
                self.heard.extend(message.get("events") or [message])
        except ConnectionClosed:
            return

    async def hears(self, which: Callable[[Json], bool]) -> Json:
        """Return the first message of which this is true, once it came."""
        return await eventually(lambda: next(filter(which, self.heard), None))


@asynccontextmanager
async def ear(url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Ear]:
    """Listen to a channel from now on."""
    address = url.replace("http", "ws", 1)
    async with connect(
        address, additional_headers=headers, proxy=None, max_size=None, close_timeout=S
    ) as socket:
        found = Ear(socket)
        listening = asyncio.create_task(found.listen())
        try:
            await eventually(lambda: found.heard or "notifications" in url)
            yield found
        finally:
            await socket.close()
            await listening


@dataclass(frozen=True)
class Ears:
    """One listener for each live channel that tells of all sessions."""

    native: Ear
    neko: Ear
    plex: Ear


@asynccontextmanager
async def all_ears(house: House) -> AsyncIterator[Ears]:
    """Listen everywhere: as an observer, as a member of neko, as a client of Plex."""
    url = house.gateway.url
    watcher = Neko(url + PREFIXES["neko"])
    status, found = await watcher.post("/api/login", username="root", password=PASSWORD)
    assert status == 200, found
    async with (
        ear(f"{url}/v1/events", shown("native", ADMIN)) as native,
        ear(f"{url}/neko/api/ws?token={found['token']}") as neko_ear,
        ear(f"{url}/plex/:/websockets/notifications?X-Plex-Token={ADMIN}") as plex_ear,
    ):
        yield Ears(native, neko_ear, plex_ear)
