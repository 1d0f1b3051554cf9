"""History reader: rows of the history from the replica, then from Redis within a budget.

The newest rows are in memory. Older ones come from Redis, a bounded number per request; ``gave_up``
says that the budget was spent. Rows are in the order in which Redis stored them: by time in
milliseconds, then by number, which together are unique.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

from msgspec.json import Decoder
from msgspec.structs import replace

from gateway.core.event import HistoryRow
from gateway.live.replica import HISTORY_MAX, Place, Replica, place_of
from gateway.store.store import Store

ROWS_AT_ONCE: Final = 500  # rows in memory that are read before other tasks run
OLD_ROWS_MAX: Final = 4_000  # rows of Redis that a request reads: about 20 ms
OLD_ROWS_STEP: Final = 500  # of them in one command
ANY_PLACE: Final[Place] = (2**53, 0)  # later than any row's

_row: Final = Decoder(HistoryRow)


class HistoryReader:
    """Reads the history backwards from a place.

    Args:
        store: Where the older rows are.
        replica: Where the newest rows are.
        before: Only rows that stand before this place; ``None`` is all.
    """

    def __init__(self, store: Store, replica: Replica, before: Place | None) -> None:
        self.gave_up = False  # there may be more rows, but the budget is spent
        self._store = store
        self._replica = replica
        self._before = before

    async def rows(self) -> AsyncGenerator[HistoryRow, None]:
        """Yield rows of both kinds, newest first."""
        floor = self._floor()
        for looked, row in enumerate(self._remembered(), 1):
            if looked % ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
            place = place_of(row)
            if floor is not None and place < floor:
                break
            if self._before is None or place < self._before:
                yield row
        if floor is None:
            return
        before = floor if self._before is None else min(floor, self._before)
        async with aclosing(self._stored(before)) as stored:
            async for row in stored:
                yield row

    def _remembered(self) -> Iterator[HistoryRow]:
        """Return the replica's rows; those of several partitions arrived in any order."""
        rows = reversed(self._replica.history.copy())
        if self._store.partitions > 1:
            return iter(sorted(rows, key=place_of, reverse=True))
        return rows

    def _floor(self) -> Place | None:
        """Return the place after which the replica has every row; ``None`` if it has all."""
        store, history = self._store, self._replica.history
        if len(history) + self._replica.erased_rows < HISTORY_MAX // store.partitions:
            return None
        oldest: dict[int, Place] = {}
        for row in history:
            oldest.setdefault(store.partition(row.session_id), place_of(row))
            if len(oldest) == store.partitions:
                break
        return max(oldest.values(), default=ANY_PLACE)

    async def _stored(self, before: Place) -> AsyncGenerator[HistoryRow, None]:
        """Yield Redis' rows of all partitions, newest first, as far as the budget goes."""
        store = self._store
        waiting: dict[int, deque[HistoryRow]] = {part: deque() for part in range(store.partitions)}
        starts = dict.fromkeys(waiting, f"{before[0] + 1}-0")
        budget = OLD_ROWS_MAX
        while waiting:
            for part in [part for part, rows in waiting.items() if not rows]:
                if budget <= 0:
                    self.gave_up = True
                    return
                step = max(OLD_ROWS_STEP // store.partitions, 1)
                found = await store.history(part, starts[part], step)
                budget -= len(found)
                if not found:
                    del waiting[part]
                    continue
                starts[part] = found[-1][0]
                rows = (
                    replace(_row.decode(text), number=number, key=key)
                    for key, number, text in found
                )
                waiting[part].extend(row for row in rows if place_of(row) < before)
            full = [rows for rows in waiting.values() if rows]
            if len(full) == len(waiting) and full:
                yield max(full, key=lambda rows: place_of(rows[0])).popleft()
