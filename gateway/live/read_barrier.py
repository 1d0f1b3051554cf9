"""Read barrier: makes writers and readers wait until this node has applied the log far enough.

A write is answered when its own log entry has been applied here (read-your-writes), or without that
after ``APPLIED_WITHIN_S``, because it is done in any case. All writes wait equally long, so one
timer serves them all. Readers with a position from another node are rare, and bound their wait
themselves.

Not here: applying entries (``replica``), errors for readers (``node``).
"""

import asyncio
import logging
from collections import deque
from heapq import heappop, heappush
from typing import Final

from gateway.core.position import Position
from gateway.logs.throttle import Throttle
from gateway.store.commit import Result

APPLIED_WITHIN_S: Final = 2.0  # for the log entry of a done write, or a reader's position

log = logging.getLogger(__name__)

Answer = asyncio.Future[Result]


class ReadBarrier:
    """The waiting writers and readers; the replica reports its progress.

    Args:
        partitions: How many logs there are.
    """

    def __init__(self, partitions: int) -> None:
        self._applied = [0] * partitions
        self._writes: list[list[tuple[int, int, Answer, Result]]] = [[] for _ in range(partitions)]
        self._in_time: deque[tuple[float, Answer, Result]] = deque()  # soonest first
        self._timer: asyncio.TimerHandle | None = None
        self._serial = 0  # breaks ties: two answers do not compare
        self._positions: dict[asyncio.Future[None], Position] = {}
        self._throttle = Throttle()

    def complete_write(self, partition: int, result: Result, answer: Answer) -> None:
        """Complete a done commit as soon as its log entry has been applied."""
        if result.offset <= self._applied[partition]:
            answer.set_result(result)
            return
        self._serial += 1
        heappush(self._writes[partition], (result.offset, self._serial, answer, result))
        loop = answer.get_loop()
        until_s = loop.time() + APPLIED_WITHIN_S
        self._in_time.append((until_s, answer, result))
        if self._timer is None:
            self._timer = loop.call_at(until_s, self._on_timeout)

    async def wait_for_offset(self, partition: int, offset: int) -> None:
        """Wait until *offset* is applied, as a write of that offset does."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self.complete_write(partition, Result("done", 0, offset=offset), answer)
        await answer

    async def wait_for_position(self, position: Position) -> None:
        """Wait until *position* is reached, or void because the epoch changed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._positions[waiter] = position
        try:
            await waiter
        finally:
            self._positions.pop(waiter, None)

    @property
    def has_position_waiters(self) -> bool:
        """Whether a reader waits for a position."""
        return bool(self._positions)

    def advance(self, partition: int, offset: int) -> None:
        """Complete the writes of *partition* up to *offset*."""
        self._applied[partition] = offset
        self._release(self._writes[partition], offset)

    def release_all(self, partition: int) -> None:
        """Complete all writes of *partition*, because its history was lost."""
        writes = self._writes[partition]
        if writes:
            self._release(writes, max(writes)[0])

    def advance_positions(self, here: Position) -> None:
        """Release the readers whose position is reached, or void."""
        for waiter, position in list(self._positions.items()):
            if (here.covers(position) or here.epoch != position.epoch) and not waiter.done():
                waiter.set_result(None)

    def _release(self, writes: list[tuple[int, int, Answer, Result]], offset: int) -> None:
        while writes and writes[0][0] <= offset:
            _, _, answer, result = heappop(writes)
            if not answer.done():
                answer.set_result(result)
        while self._in_time and self._in_time[0][1].done():
            self._in_time.popleft()

    def _on_timeout(self) -> None:
        self._timer = None
        late = 0
        while self._in_time:
            until_s, answer, result = self._in_time[0]
            if not answer.done():
                loop = answer.get_loop()
                if until_s > loop.time():
                    self._timer = loop.call_at(until_s, self._on_timeout)
                    break
                answer.set_result(result)
                late += 1
            self._in_time.popleft()
        if late:
            self._tell_late(late)

    def _tell_late(self, late: int) -> None:
        if (fields := self._throttle.admit()) is not None:
            about = {"writes": late, "within_s": APPLIED_WITHIN_S, **fields}
            log.warning("own writes are not applied in time", extra=about)
