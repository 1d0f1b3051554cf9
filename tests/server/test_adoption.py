"""Adoption: a connection whose application has returned, and whose listener is told by calls."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from gateway.core.frames import TEXT, Writer
from gateway.core.frames import frame as server_frame
from gateway.transport import Limits
from tests.server.echo import Client, frame, serve
from tests.support import eventually


class Listener:
    """Says back what it hears, and writes everything down."""

    def __init__(self) -> None:
        self.returned = False
        self.writer: Writer
        self.messages: list[str | bytes] = []
        self.ends: list[tuple[int, str | None]] = []
        self.rooms = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept a WebSocket, take it over and return."""
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await asyncio.sleep(0)  # what the client says meanwhile is not lost
        self.writer = scope["extensions"]["gateway.frames"]["writer"]
        self.writer.adopt(self)
        with pytest.raises(RuntimeError):
            await receive()
        with pytest.raises(RuntimeError):
            self.writer.adopt(self)
        self.returned = True

    def on_message(self, message: str | bytes) -> None:
        """Say it back."""
        self.messages.append(message)
        if message == "close":
            self.writer.close(4500, "done", server_frame(TEXT, b"last"))
        else:
            self.writer.write(server_frame(TEXT, str(message).encode()))

    def on_writable(self) -> None:
        """Count it."""
        self.rooms += 1

    def on_close(self, code: int, reason: str | None) -> None:
        """Write it down."""
        self.ends.append((code, reason))


async def test_listener_hears_after_the_application_returned() -> None:
    """What came before the adoption and after it is heard in order; the connection stays."""
    listener = Listener()
    async with serve(listener) as served, Client.websocket(served, frame(1, b"one")) as client:
        client.writer.write(frame(1, b"two") + frame(1, b"three"))
        assert [(await client.frame())[1] for _ in range(3)] == [b"one", b"two", b"three"]
        assert listener.returned

        client.writer.write(frame(8, b"\x03\xe8bye"))
        assert await client.frame() == (8, b"\x03\xe8bye")
        await eventually(lambda: listener.ends == [(1000, "bye")])
        await eventually(lambda: not served.state.connections)


async def test_listener_that_closes_hears_nothing_more() -> None:
    """Its last frame and the close leave in order; it is not told what it did itself."""
    listener = Listener()
    async with serve(listener) as served, Client.websocket(served) as client:
        client.writer.write(frame(1, b"close") + frame(1, b"more"))
        assert await client.frame() == (1, b"last")
        assert await client.frame() == (8, b"\x11\x94done")
        client.writer.write(frame(8, b"\x11\x94"))
        await client.ends()
        await eventually(lambda: not served.state.connections)
    assert (listener.messages, listener.ends) == (["close"], [])


async def test_broken_connection_is_told_once() -> None:
    """A client that vanishes is told without a reason, exactly once."""
    listener = Listener()
    async with serve(listener) as served, Client.websocket(served) as client:
        await eventually(lambda: listener.returned)
        client.writer.transport.abort()
        await eventually(lambda: not served.state.connections)
    assert listener.ends == [(1006, None)]


async def test_listener_hears_that_there_is_room() -> None:
    """A writer that is full says so, and its listener is called when the client has read on."""
    listener = Listener()
    async with serve(listener) as served, Client.websocket(served) as client:
        await eventually(lambda: listener.returned)
        while not listener.writer.is_full:
            listener.writer.write(server_frame(TEXT, bytes(100_000)))
        assert listener.writer.unsent > 0

        async def read() -> bool:
            await client.frame()
            return listener.rooms > 0

        await eventually(read)
        assert not listener.writer.is_full


async def test_listener_hears_why_the_server_ended_it() -> None:
    """A client that answers no ping is cut, and the listener knows the code."""
    listener = Listener()
    async with (
        serve(listener, Limits(heartbeat_s=0.05, pong_s=0.1)) as served,
        Client.websocket(served) as client,
    ):
        assert await client.close_code() == 4003
    assert listener.ends == [(4003, None)]
