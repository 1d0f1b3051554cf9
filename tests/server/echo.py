"""A server of nothing but our transport: small applications on a free port, and raw clients."""

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from gateway.transport import Limits, http_protocol
from tests.support import S

__all__ = ["Client", "Echo", "Served", "frame", "serve", "upgrade"]


def frame(opcode: int, payload: bytes = b"", *, first: int = 0x80, masked: bool = True) -> bytes:
    """Return a client's frame; *first* holds FIN (0x80) and the reserved bits."""
    length = len(payload)
    mask = 0x80 if masked else 0
    if length < 126:
        head = bytes([first | opcode, mask | length])
    elif length < 1 << 16:
        head = bytes([first | opcode, mask | 126]) + length.to_bytes(2)
    else:
        head = bytes([first | opcode, mask | 127]) + length.to_bytes(8)
    return head + (bytes(4) if masked else b"") + payload


def upgrade(path: str = "/", **headers: str) -> bytes:
    """Return the request of a handshake; names have ``_`` for ``-``, an empty value removes one."""
    found = {
        "host": "localhost",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(os.urandom(16)).decode(),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{name}: {value}\r\n" for name, value in found.items() if value]
    return f"GET {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")


class Echo:
    """Says back what it hears on a WebSocket; answers requests with their path.

    ``ends`` has the last message of every WebSocket that is over, ``scopes`` all requests.
    """

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.ends: list[dict[str, object]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": scope["path"].encode()})
            return
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.ends.append(dict(message))
                return
            with suppress(OSError):  # gone already; it is told so next
                await send({**message, "type": "websocket.send"})


@dataclass(frozen=True)
class Served:
    """Where a server is, and what it knows."""

    port: int
    state: ServerState


@asynccontextmanager
async def serve(
    app: ASGIApp, limits: Limits | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Served]:
    """Serve *app* on a free port."""
    config = uvicorn.Config(
        app,
        port=0,
        http=http_protocol(limits or Limits(), tls),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    config.load()
    web = uvicorn.Server(config)
    web.lifespan = config.lifespan_class(config)
    await web.startup()  # and not serve(): it would take the signals of the whole process
    try:
        yield Served(web.servers[0].sockets[0].getsockname()[1], web.server_state)
    finally:
        await web.shutdown()


class Client:
    """A raw TCP connection to it; use :meth:`open`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def open(cls, served: Served, *said: bytes) -> AsyncIterator["Client"]:
        """Connect and say something."""
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        client = cls(reader, writer)
        try:
            writer.write(b"".join(said))
            yield client
        finally:
            writer.transport.abort()

    @classmethod
    @asynccontextmanager
    async def websocket(cls, served: Served, *said: bytes) -> AsyncIterator["Client"]:
        """Open a WebSocket and say something."""
        async with cls.open(served, upgrade()) as client:
            assert (await client.head()).startswith("HTTP/1.1 101 ")
            client.writer.write(b"".join(said))
            yield client

    async def flood(self, data: bytes, *, every_s: float = 0) -> None:
        """Say *data* again and again; return when the server has had enough."""
        with suppress(ConnectionError):
            while not self.reader.at_eof():
                self.writer.write(data)
                await self.writer.drain()
                await asyncio.sleep(every_s)

    async def head(self) -> str:
        """Return the head of an answer."""
        async with asyncio.timeout(5 * S):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")

    async def frame(self) -> tuple[int, bytes]:
        """Return the opcode and payload of a whole frame."""
        async with asyncio.timeout(5 * S):
            first, length = await self.reader.readexactly(2)
            if length >= 126:
                length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8))
            return first & 0x0F, await self.reader.readexactly(length)

    async def close_code(self) -> int:
        """Return the code of the close frame, past all else; 1006 if there is none."""
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == 8:
                    return int.from_bytes(payload[:2]) if payload else 1005
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006

    async def ends(self) -> None:
        """Return when the server has closed the connection."""
        async with asyncio.timeout(5 * S):
            try:
                await self.reader.read()
            except ConnectionError:
                return
