"""A client of neko that knows nothing but neko's documented API: REST and ``/api/ws``."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support import TLS, S

Payload = Any  # whatever JSON holds

QUIET_S = 0.15 * S  # nothing comes for so long: nothing was sent


class Socket:
    """One WebSocket of a client."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def frame(self, *, within: float = 2 * S) -> dict[str, Any]:
        """Return the next message."""
        text = await asyncio.wait_for(self.connection.recv(), within)
        assert isinstance(text, str)
        assert text.endswith("\n")
        message: dict[str, Any] = json.loads(text)
        return message

    async def event(self, name: str, *, within: float = 2 * S) -> Payload:
        """Return the payload of the next message, which must be this event."""
        message = await self.frame(within=within)
        assert message["event"] == name, message
        return message["payload"]

    async def until(self, name: str, *, within: float = 2 * S) -> list[tuple[str, Any]]:
        """Return all messages up to this event."""
        seen: list[tuple[str, Payload]] = []
        while not seen or seen[-1][0] != name:
            message = await self.frame(within=within)
            seen.append((message["event"], message.get("payload")))
        return seen

    async def greeted(self) -> dict[str, Any]:
        """Read all that a new client hears; return ``system/init``."""
        seen = await self.until("openinapp/init")
        init: dict[str, Any] = seen[0][1]
        return init

    async def is_quiet(self) -> bool:
        """Whether nothing comes."""
        try:
            message = await self.frame(within=QUIET_S)
        except TimeoutError:
            return True
        raise AssertionError(message)

    async def ended(self, *, within: float = 2 * S) -> tuple[list[tuple[str, Any]], int]:
        """Return all that still comes, and how the client sees the end."""
        seen: list[tuple[str, Payload]] = []
        try:
            while True:
                message = await self.frame(within=within)
                seen.append((message["event"], message.get("payload")))
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            return seen, code

    async def say(self, event: str, payload: object = ...) -> None:
        """Send an event."""
        message = {"event": event} if payload is ... else {"event": event, "payload": payload}
        await self.connection.send(json.dumps(message))

    def abort(self) -> None:
        """Lose the connection, as a client does whose network goes."""
        self.connection.transport.abort()


class Neko:
    """One client.

    Args:
        url: Where neko is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.token: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The credentials."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def send(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a request."""
        async with httpx2.AsyncClient(base_url=self.url, verify=TLS) as http:
            sent = {**self.headers, **(headers or {})}
            return await http.request(method, path, headers=sent, json=json, content=content)

    async def get(self, path: str) -> tuple[int, Any]:
        """Return status and JSON."""
        return _read(await self.send("GET", path))

    async def post(self, path: str, **body: object) -> tuple[int, Any]:
        """Send an object; return status and JSON."""
        return _read(await self.send("POST", path, json=body))

    async def delete(self, path: str) -> tuple[int, Any]:
        """Return status and JSON."""
        return _read(await self.send("DELETE", path))

    @asynccontextmanager
    async def socket(self, headers: dict[str, str] | None = None) -> AsyncIterator[Socket]:
        """Open a WebSocket, without waiting for anything."""
        query = f"?token={self.token}" if self.token else ""
        address = f"{self.url.replace('http', 'ws', 1)}/api/ws{query}"
        async with connect(
            address, proxy=None, close_timeout=S, additional_headers=headers
        ) as connection:
            yield Socket(connection)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Socket]:
        """Open a WebSocket and read all that a new client hears."""
        async with self.socket() as socket:
            await socket.greeted()
            yield socket


def _read(response: httpx2.Response) -> tuple[int, Any]:
    return response.status_code, response.json() if response.content else None
