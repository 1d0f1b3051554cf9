"""Registry of all connections of this process, through whatever door they came.

It limits their number and ends them in waves when this node drains or loses its store, so that the
clients do not return all at once. It also lets a displaced connection wait for its successor.

Not here: the life of one connection (``connections.lifecycle``).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

from gateway.connections.lifecycle import LiveConnection, ServerClose
from gateway.core.errors import CloseCode, Draining, Overloaded
from gateway.metrics import OVERFLOWS

DRAIN_STEP_S: Final = 0.05  # between two batches of closes
GONE_WITHIN_S: Final = 2.0  # for the last connections to be gone
SHED_WAVE: Final = 0.1  # of all sockets end in one wave, when the store is gone for good
SHED_MIN: Final = 50  # but at least so many
SHED_SPREAD_MS: Final = 10_000  # their clients return to other nodes within this time
HANDOVER_WITHIN_S: Final = 1.0  # a displaced socket waits so long for its successor's hello
HANDOVER_ELSEWHERE_S: Final = 0.1  # or so long, if the successor is on another node

log = logging.getLogger(__name__)


class ConnectionRegistry:
    """All connections of this process.

    Args:
        maximum: One more is refused.
        chance: Returns a number of at least 0 and below 1, evenly spread.
    """

    def __init__(self, maximum: int, chance: Callable[[], float]) -> None:
        self.chance = chance
        self.is_draining = False
        self._maximum = maximum
        self.loop = asyncio.get_running_loop()
        self._connections: dict[int, LiveConnection] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._handovers: dict[str, asyncio.Event | None] = {}
        self._waits: set[asyncio.Timeout] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def check_capacity(self) -> None:
        """Raise if this node cannot accept another connection.

        Raises:
            Draining: This process is shutting down.
            Overloaded: The maximum is reached.
        """
        if self.is_draining:
            raise Draining
        if self.count >= self._maximum:
            OVERFLOWS.labels("connections").inc()
            raise Overloaded("There are too many connections.")

    def add(self, connection: LiveConnection) -> None:
        """Add *connection*; the registry may end it from now on."""
        self._connections[id(connection)] = connection
        self._empty.clear()

    def remove(self, connection: LiveConnection) -> None:
        """Remove *connection*."""
        del self._connections[id(connection)]
        if not self._connections:
            self._empty.set()

    @contextmanager
    def registered(self, connection: LiveConnection) -> Iterator[None]:
        """Register *connection* within a ``with`` block."""
        self.add(connection)
        try:
            yield
        finally:
            self.remove(connection)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* in the background; it has to log its own failures."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel background work, because the process stops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def bounded_wait(self, wait_s: float) -> AsyncIterator[None]:
        """Bound the wait of a plain request; it ends early when this process drains.

        Raises:
            TimeoutError: The time is over.
        """
        async with asyncio.timeout(0 if self.is_draining else wait_s) as patience:
            self._waits.add(patience)
            try:
                yield
            finally:
                self._waits.discard(patience)

    # --- waves

    async def drain(self, over_s: float) -> None:
        """Close all connections (4001), evenly over *over_s* seconds, and accept no new ones."""
        self.is_draining = True
        for patience in self._waits:
            with suppress(RuntimeError):  # its time is over just now
                patience.reschedule(asyncio.get_running_loop().time())
        connections = self._shuffled()
        steps = max(1, round(over_s / DRAIN_STEP_S))
        for step in range(steps):
            part = slice(len(connections) * step // steps, len(connections) * (step + 1) // steps)
            for connection in connections[part]:
                connection.end(
                    ServerClose(CloseCode.DRAINING, "draining", connection.reconnect_after_ms())
                )
            await asyncio.sleep(over_s / steps)
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE_WITHIN_S):
                await self._empty.wait()

    async def shed(self) -> None:
        """Close one wave of connections (4008); called each second while the store is gone."""
        wave = self._shuffled()[: max(SHED_MIN, int(self.count * SHED_WAVE))]
        for connection in wave:
            retry_after_ms = connection.reconnect_after_ms(SHED_SPREAD_MS)
            connection.end(
                ServerClose(CloseCode.STORE_UNAVAILABLE, "store_unavailable", retry_after_ms)
            )
        await asyncio.sleep(0)

    def _shuffled(self) -> list[LiveConnection]:
        return sorted(self._connections.values(), key=lambda _: self.chance())

    # --- hand-over

    def announce_handover(self, connection_id: str) -> None:
        """Announce that a connection of this process is about to get its hello."""
        self._handovers[connection_id] = None

    def complete_handover(self, connection_id: str) -> None:
        """Release the waiters of a connection, which has got its hello or will get none."""
        if (event := self._handovers.pop(connection_id, None)) is not None:
            event.set()

    async def wait_handover(self, connection_id: str, *, is_here: bool) -> None:
        """Wait, within bounds, until a connection of this or another node has its hello."""
        if connection_id not in self._handovers:
            await asyncio.sleep(0 if is_here else HANDOVER_ELSEWHERE_S)
            return
        event = self._handovers[connection_id]
        if event is None:
            event = self._handovers[connection_id] = asyncio.Event()
        try:
            async with asyncio.timeout(HANDOVER_WITHIN_S):
                await event.wait()
        except TimeoutError:
            log.warning("a connection has no greeting yet", extra={"connection_id": connection_id})
