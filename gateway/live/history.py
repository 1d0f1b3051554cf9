"""History: the rows within reach, for doors that page by offset and need totals.

The newest rows are in memory; when that is full there are older ones in the store, of which the
newest ``OLD_ROWS_MAX`` are looked at.
Not here: pages by cursor, which read no more than they show (``api.endpoints_history``).
"""

from collections.abc import Sequence
from typing import Final

from msgspec.json import Decoder
from msgspec.structs import replace

from gateway.core.event import HistoryRow
from gateway.live.replica import HISTORY_MAX, Replica, place_of
from gateway.store.store import Store

OLD_ROWS_MAX: Final = 4_000  # rows of Redis a request looks at: about 20 ms
OLD_ROWS_STEP: Final = 500  # of them in one command

_row: Final = Decoder(HistoryRow)


async def rows_within_reach(store: Store, replica: Replica) -> Sequence[HistoryRow]:
    """Return all rows within reach, oldest first.

    Raises:
        Unavailable: The store did not answer.
    """
    rows = list(replica.history)
    if len(rows) + replica.erased_rows >= HISTORY_MAX // store.partitions:
        oldest: dict[int, str] = {}
        for row in rows:
            oldest.setdefault(store.partition(row.session_id), row.key)
        for partition in range(store.partitions):
            rows += await _older(store, partition, oldest.get(partition, ""))
    rows.sort(key=place_of)
    return rows


async def _older(store: Store, partition: int, before: str) -> list[HistoryRow]:
    budget = OLD_ROWS_MAX // store.partitions
    rows: list[HistoryRow] = []
    while budget > 0:
        found = await store.history(partition, before, min(budget, OLD_ROWS_STEP))
        rows += (replace(_row.decode(text), number=no, key=key) for key, no, text in found)
        if not found:
            break
        before = found[-1][0]
        budget -= len(found)
    return rows
