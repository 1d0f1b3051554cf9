"""A client of Socket.IO that knows only its protocol: says texts, keeps what it hears."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support import MS, S, eventually

NAMESPACES: Final = {"A": "/session", "C": ""}


class Client:
    """One connection."""

    def __init__(self, socket: ClientConnection, generation: str, query: str) -> None:
        self.socket = socket
        self.namespace = NAMESPACES[generation]
        self.query = query
        self.heard: list[str] = []
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(
        cls, url: str, generation: str, token: str | None, base: str = "/webida", **query: str
    ) -> Self:
        """Open a WebSocket as such a client does."""
        said = {**({"token": token} if token is not None else {}), **query}
        text = urlencode({"EIO": "3", "transport": "websocket", **said})
        socket = await connect(f"{url.replace('http', 'ws', 1)}{base}/socket.io/?{text}")
        return cls(socket, generation, urlencode(said))

    async def _read(self) -> None:
        try:
            async for text in self.socket:
                self.heard.append(str(text))
        except ConnectionClosed:
            return

    async def say(self, text: str) -> None:
        """Send a text of Engine.IO."""
        await self.socket.send(text)

    async def ask(self) -> None:
        """Ask for the namespace, if it is not the one that everybody is in."""
        if self.namespace:
            await self.say(f"40{self.namespace}?{self.query}")

    async def join(self) -> None:
        """Come into the session."""
        await self.ask()
        await self.hears(self.packet("0"))

    def packet(self, kind: str, data: object = None) -> str:
        """Return a packet of the client's namespace as the server says it."""
        place = f"{self.namespace}," if self.namespace else ""
        text = "" if data is None else json.dumps(data, separators=(",", ":"))
        return f"4{kind}{place}{text}"

    async def hears(self, text: str) -> None:
        """Wait until the server has said *text*."""
        await eventually(lambda: text in self.heard or None)

    @property
    def events(self) -> list[Any]:
        """What the server emitted."""
        start = self.packet("2")
        return [json.loads(text.removeprefix(start)) for text in self.heard if text[:2] == "42"]

    @property
    def opening(self) -> dict[str, Any]:
        """What the server said first."""
        assert self.heard[0].startswith("0")
        said: dict[str, Any] = json.loads(self.heard[0][1:])
        return said

    async def refused(self) -> str:
        """Return why the client may not come in; it is told to stay away."""
        await self.ask()
        await self.ended()
        start = self.packet("4")
        [said] = [text for text in self.heard if text.startswith(start)]
        assert self.is_dismissed
        reason: str = json.loads(said.removeprefix(start))
        return reason

    @property
    def is_dismissed(self) -> bool:
        """Whether the server told the client not to come back by itself."""
        return self.packet("1") in self.heard

    async def ended(self) -> int:
        """Wait for the end; return the close code."""
        async with asyncio.timeout(3 * S):
            await self.socket.wait_closed()
            await self._reader
        return self.socket.close_code or 0

    async def leave(self) -> None:
        """Disconnect as the client does when it is told to."""
        await self.say(self.packet("1").rstrip(","))
        await self.socket.close()

    async def drop(self) -> None:
        """Lose the network."""
        self.socket.transport.abort()
        await self._reader


@asynccontextmanager
async def keeping_alive(*clients: Client) -> AsyncIterator[None]:
    """Ping as often as clients of Socket.IO do, until they are gone."""

    async def ping(client: Client) -> None:
        with suppress(ConnectionClosed):
            while True:
                await client.say("2")
                await asyncio.sleep(100 * MS)

    tasks = [asyncio.create_task(ping(client)) for client in clients]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
