"""A gateway that does exactly what a test scripts: a real WebSocket server on a free port.

For what a client promises about a gateway that drains, refuses, falls silent or drops it, at the
very message where it does. Every connection plays the next script.
"""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gateway.client import disconnect as client_disconnect

__all__ = ["Peer", "Script", "Scripted", "accept_all", "ending", "greet", "jwt", "scripted"]


class Peer:
    """One connection, as the scripted gateway sees it."""

    def __init__(self, socket: ServerConnection) -> None:
        assert socket.request
        target = urlsplit(socket.request.path)
        self.socket = socket
        self.path = target.path
        self.query = {name: ",".join(values) for name, values in parse_qs(target.query).items()}
        self.authorization = socket.request.headers.get("Authorization")

    async def say(self, kind: str, **fields: object) -> None:
        """Send a message."""
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def hello(self, **session: object) -> None:
        """Greet a session: ``s1`` with number 1 unless told otherwise."""
        token = session.pop("session_token", "s1.secret")
        shown = {"id": "s1", "number": 1, "revision": 1, "state": "connected", **session}
        await self.say(
            "hello", session=shown, session_token=token, position="e-0-1", heartbeat_ms=15000
        )

    async def hear(self) -> dict[str, Any]:
        """Return the client's next message without its ref."""
        message: dict[str, Any] = json.loads(await self.socket.recv())
        self.ref = message.pop("ref", None)
        return message

    async def accept(self, revision: int = 2) -> dict[str, Any]:
        """Accept the client's next message."""
        message = await self.hear()
        await self.say("ack", ref=self.ref, revision=revision)
        return message

    async def bye(self, code: int, reason: str = "", retry_after_ms: int | None = 0) -> None:
        """End the connection as a gateway does."""
        back = code < 4500
        await self.say(
            "bye", code=code, reason=reason, reconnect=back, retry_after_ms=retry_after_ms
        )
        await self.socket.close(code)

    def drop(self) -> None:
        """End the connection as a dead connection does."""
        self.socket.transport.abort()

    async def stay(self) -> None:
        """Wait until the client has gone."""
        await self.socket.wait_closed()


Script = Callable[[Peer], Awaitable[None]]


class Scripted:
    """The scripted gateway: where it is, and who came."""

    def __init__(self) -> None:
        self.url = ""
        self.peers: list[Peer] = []


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[Scripted]:
    """Run a gateway whose n-th connection plays the n-th script; failures are raised."""
    gateway, failures, waiting = Scripted(), list[Exception](), iter(scripts)

    async def play(socket: ServerConnection) -> None:
        peer = Peer(socket)
        gateway.peers.append(peer)
        try:
            script = next(waiting, None)
            assert script, f"connection {len(gateway.peers)} is one too many"
            await script(peer)
        except ConnectionClosed:
            pass
        except Exception as error:  # noqa: BLE001 - raised where the test sees it
            failures.append(error)
            await peer.bye(4503)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            client_disconnect, "BACKOFF_BASE_S", 0.01
        )  # come back at once if not told when
        async with serve(play, "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            gateway.url = f"http://127.0.0.1:{port}/"
            yield gateway
    if failures:
        raise failures[0]


async def greet(peer: Peer) -> None:
    """Be a gateway at which nothing happens."""
    await peer.hello()
    await peer.stay()


async def accept_all(peer: Peer) -> None:
    """Be a gateway that agrees with everything."""
    await peer.hello()
    while True:
        await peer.accept()


def ending(code: int, **how: Any) -> Script:  # noqa: ANN401
    """Be a gateway that greets and then says bye."""

    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.bye(code, **how)

    return script


def jwt(**claims: object) -> str:
    """A token whose claims can be read; its signature is nobody's."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"
