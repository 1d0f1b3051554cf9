"""Sockets: all lines of this process, whatever door they came through.

They are bounded, they are told of each other, and they are sent elsewhere in waves, so that those
who come back do not come all at once.

Not here: what one of them is (``lines``).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

from gateway.core.errors import CloseCode, Draining, Overloaded
from gateway.lines import Goodbye, Line
from gateway.metrics import OVERFLOWS

DRAIN_STEP_S: Final = 0.05  # between two batches of goodbyes
GONE_WITHIN_S: Final = 2.0  # for the last of them to be gone
SHED_WAVE: Final = 0.1  # of all sockets end in one wave, when the store is gone for good
SHED_MIN: Final = 50  # but at least so many
SHED_SPREAD_MS: Final = 10_000  # clients come back so far apart: the other nodes get them all
GREETED_WITHIN_S: Final = 1.0  # a displaced socket waits so long for its successor's hello
ELSEWHERE_S: Final = 0.1  # or so long if that is on another node, whose hello is on its way

log = logging.getLogger(__name__)


class Sockets:
    """All lines of this process.

    Args:
        maximum: One more is refused.
        chance: Returns a number of at least 0 and below 1, evenly spread.
    """

    def __init__(self, maximum: int, chance: Callable[[], float]) -> None:
        self.chance = chance
        self.is_draining = False
        self._maximum = maximum
        self.loop = asyncio.get_running_loop()
        self._lines: dict[int, Line] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._greetings: dict[str, asyncio.Event | None] = {}
        self._patient: set[asyncio.Timeout] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._lines)

    def check(self) -> None:
        """Do nothing if there is room for one more.

        Raises:
            Draining: This process is going.
            Overloaded: There are as many as may be.
        """
        if self.is_draining:
            raise Draining
        if self.count >= self._maximum:
            OVERFLOWS.labels("connections").inc()
            raise Overloaded("There are too many connections.")

    def add(self, line: Line) -> None:
        """Count *line*; it can be ended from outside from now on."""
        self._lines[id(line)] = line
        self._empty.clear()

    def remove(self, line: Line) -> None:
        """Count *line* no more."""
        del self._lines[id(line)]
        if not self._lines:
            self._empty.set()

    @contextmanager
    def counting(self, line: Line) -> Iterator[None]:
        """Count *line* for a while."""
        self.add(line)
        try:
            yield
        finally:
            self.remove(line)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do *work*, which tells by itself what went wrong, beside all else."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel what is still being done: the process stops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def patience(self, wait_s: float) -> AsyncIterator[None]:
        """Let a request that is no line wait so long, but not longer than this process stays.

        Raises:
            TimeoutError: The time is over.
        """
        async with asyncio.timeout(0 if self.is_draining else wait_s) as patience:
            self._patient.add(patience)
            try:
                yield
            finally:
                self._patient.discard(patience)

    # --- waves

    async def drain(self, over_s: float) -> None:
        """Send all clients elsewhere (4001), evenly over *over_s* seconds; no new ones come in."""
        self.is_draining = True
        for patience in self._patient:
            with suppress(RuntimeError):  # its time is over just now
                patience.reschedule(asyncio.get_running_loop().time())
        lines = self._shuffled()
        steps = max(1, round(over_s / DRAIN_STEP_S))
        for step in range(steps):
            part = slice(len(lines) * step // steps, len(lines) * (step + 1) // steps)
            for line in lines[part]:
                line.end(Goodbye(CloseCode.DRAINING, "draining", line.away_ms()))
            await asyncio.sleep(over_s / steps)
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE_WITHIN_S):
                await self._empty.wait()

    async def shed(self) -> None:
        """Send one wave of clients elsewhere (4008); called each second while the store is gone."""
        wave = self._shuffled()[: max(SHED_MIN, int(self.count * SHED_WAVE))]
        for line in wave:
            retry_after_ms = line.away_ms(SHED_SPREAD_MS)
            line.end(Goodbye(CloseCode.STORE_UNAVAILABLE, "store_unavailable", retry_after_ms))
        await asyncio.sleep(0)

    def _shuffled(self) -> list[Line]:
        return sorted(self._lines.values(), key=lambda _: self.chance())

    # --- successors

    def expect(self, connection_id: str) -> None:
        """Announce that a connection of this process will get its hello, or never come."""
        self._greetings[connection_id] = None

    def greet(self, connection_id: str) -> None:
        """Tell those who wait that a connection has got its hello, or will get none."""
        if (event := self._greetings.pop(connection_id, None)) is not None:
            event.set()

    async def greeted(self, connection_id: str, *, is_here: bool) -> None:
        """Wait until a connection, of this process or another, has got its hello; bounded."""
        if connection_id not in self._greetings:
            await asyncio.sleep(0 if is_here else ELSEWHERE_S)
            return
        event = self._greetings[connection_id]
        if event is None:
            event = self._greetings[connection_id] = asyncio.Event()
        try:
            async with asyncio.timeout(GREETED_WITHIN_S):
                await event.wait()
        except TimeoutError:
            log.warning("connection %s has no hello yet", connection_id)
