"""What tests share: waiting for a condition, durations, what clients trust, a link that breaks.

Nothing else may be shared; a test shows what it does.
"""

import asyncio
import inspect
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Self, TypeVar, overload
from urllib.parse import unquote, urlsplit

__all__ = ["MS", "TLS", "Proxy", "S", "eventually"]

T = TypeVar("T")

S: Final = float(os.environ.get("TEST_SLOWNESS", "1"))
"""One second of a test, in seconds: set TEST_SLOWNESS=3 on a machine three times as slow."""

MS: Final = S / 1000

TLS: Final = ssl.create_default_context()
"""What a client trusts; to make one for each client takes longer than most tests."""

POLL_EVERY_S: Final = 0.002
CHUNK_BYTES: Final = 64 * 1024

Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@overload
async def eventually(
    condition: Callable[[], Awaitable[T | None]], *, within: float = 2 * S
) -> T: ...
@overload
async def eventually(condition: Callable[[], T | None], *, within: float = 2 * S) -> T: ...
async def eventually(
    condition: Callable[[], T | Awaitable[T | None] | None], *, within: float = 2 * S
) -> T:
    """Call *condition* again and again until it returns something true, and return that.

    Args:
        condition: A function or coroutine function; what it raises is raised here.
        within: Seconds until the test fails, as a multiple of ``S`` or ``MS``.

    Raises:
        AssertionError: It was not true in time; names the last value.
    """
    value: T | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            while True:
                result = condition()
                value = await result if inspect.isawaitable(result) else result
                if value:
                    return value
                await asyncio.sleep(POLL_EVERY_S)
    raise AssertionError(f"not true within {within:g} s; the last value was {value!r}")


class Proxy:
    """A link to a server that a test can stall or cut.

    ``async with Proxy(valkey.url) as proxy`` listens on a free TCP port of the loopback; the
    address of it is ``proxy.url``. Faults end with their ``async with``, or with ``heal()``.

    Args:
        url: The server: ``redis://host:port``, ``http://host:port`` or ``unix:///path``.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._links: set[asyncio.Task[None]] = set()
        self._requests, self._replies = asyncio.Event(), asyncio.Event()
        self._cut = False
        self.heal()

    @property
    def url(self) -> str:
        """The server's address with the proxy's host and port."""
        scheme = "redis" if self._target.scheme == "unix" else self._target.scheme
        return self._target._replace(
            scheme=scheme, netloc=f"127.0.0.1:{self.port}", path=""
        ).geturl()

    @property
    def port(self) -> int:
        """The TCP port that the proxy listens on."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def lead_to(self, url: str) -> None:
        """Lead new connections to another server; those there are stay where they lead."""
        self._target = urlsplit(url)

    def heal(self) -> None:
        """Let everything through again."""
        self._cut = False
        self._requests.set()
        self._replies.set()

    @asynccontextmanager
    async def cut(self) -> AsyncIterator[None]:
        """Reset every connection, also new ones; what was on its way is lost."""
        self._cut = True
        await self._drop()
        try:
            yield
        finally:
            self.heal()

    @asynccontextmanager
    async def stalled(self, *, requests: bool = True, replies: bool = True) -> AsyncIterator[None]:
        """Keep the connections and pass nothing on in the chosen directions."""
        if requests:
            self._requests.clear()
        if replies:
            self._replies.clear()
        try:
            yield
        finally:
            self.heal()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cut = True  # whatever comes until the server is closed
        self._server.close()
        await self._drop()
        await self._server.wait_closed()
        await asyncio.sleep(0)  # for aborted transports to let go of their sockets

    async def _drop(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        link = asyncio.create_task(self._join((reader, writer)))
        self._links.add(link)
        link.add_done_callback(self._links.discard)
        # A task that is cancelled before its first step runs no ``finally`` of its own.
        link.add_done_callback(lambda _: writer.transport.abort())

    async def _join(self, client: Link) -> None:
        ends = [client[1]]
        try:
            server = await self._connect()
            ends.append(server[1])
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(client[0], server[1], self._requests))
                pumps.create_task(_pump(server[0], client[1], self._replies))
            for end in ends:
                end.close()
                await end.wait_closed()
        except* OSError:  # one side is away, or reset its end: the other learns it now
            pass
        finally:
            for end in ends:
                end.transport.abort()

    async def _connect(self) -> Link:
        if self._target.scheme == "unix":
            return await asyncio.open_unix_connection(unquote(self._target.path))
        return await asyncio.open_connection(self._target.hostname, self._target.port)


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: asyncio.Event
) -> None:
    while chunk := await source.read(CHUNK_BYTES):
        await passes.wait()
        sink.write(chunk)
        await sink.drain()
    await passes.wait()
    sink.write_eof()
