"""Log follower: yields every entry of a partition's log once and in order, or reports lost history.

A follower has its own connection, because a blocking read holds up all commands behind it. A group
of commits is one script, so a blocking read returns all of it. Offsets are consecutive, so a gap is
obvious. After every reconnect the follower asks the log for the last entry that it has read, and
with every read for the epoch. If one is missing or different, the server lost history (it was
emptied, restarted, failed over or restored from a backup), and the partition must be loaded again.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from msgspec import Struct
from redis.exceptions import ResponseError

from gateway.core.errors import Unavailable
from gateway.store.connection import Command, Reply, error_from_reply
from gateway.store.roles import reason_of
from gateway.store.store import Store

BLOCK_MS: Final = 1_000  # a read waits this long for new entries
BLOCK_ANSWER_S: Final = 1.8  # after this the server counts as dead
COUNT_MAX: Final = 1_000  # entries per read; halved after each failure, until caught up
RETRY_FIRST_S: Final = 0.05  # before the first reconnect; doubled each time
RETRY_MAX_S: Final = 1.0  # between two reconnects


class HistoryPlace(Struct, frozen=True, gc=False):
    """The number of a history row, which is never reused, and its key in the stream."""

    number: int
    key: str


class StoredEntry(Struct, frozen=True, gc=False):
    """An entry as it stands in the log.

    Args:
        offset: Its place.
        data: The ``LogEntry`` as JSON.
        rows: One for each history row the commit wrote, in order.
    """

    offset: int
    data: bytes
    rows: tuple[HistoryPlace, ...] = ()


class LogTrimmed(Exception):
    """The log was trimmed past this follower; the partition must be loaded again."""


class HistoryLost(Exception):
    """The log is not the one that this follower read; load again under a new epoch."""


class Follower:
    """Reads a partition's log from an offset on.

    Args:
        store: Where the log is.
        partition: Which log.
        after: The last offset that was read already.
        epoch: The epoch of that offset.
    """

    def __init__(self, store: Store, partition: int, after: int, epoch: str) -> None:
        self.partition = partition
        self.offset = after
        self.heard_ms: float = store.clock.monotonic_ms()  # when the server last answered
        self._store = store
        self._log = store.keys[partition].log
        self._meta = store.keys[partition].meta
        self._epoch = epoch.encode()
        self._number_of = partial(store.row_number, partition)
        self._known: bytes | None = None  # the entry at ``offset``
        self._verified = False  # on this connection
        self._has_read = False  # on this connection
        self._count = COUNT_MAX
        self._connection = store.new_connection(f"log-{partition}")

    async def batches(self) -> AsyncIterator[list[StoredEntry]]:
        """Yield new entries in batches as they come; this reconnects by itself.

        Raises:
            LogTrimmed: Entries that were not read yet are gone.
            HistoryLost: The server has another history.
        """
        retry_s, failures, failing_ms = RETRY_FIRST_S, 0, 0.0
        access = self._store.access
        try:
            while True:
                try:
                    if not (self._verified and self._connection.is_connected):
                        await self._verify()
                    found = await self._read()
                except Unavailable as error:
                    failures += 1
                    is_late = isinstance(error.__cause__, TimeoutError)
                    if failures == 1:  # a server that hangs does so since it was last heard
                        failing_ms = self.heard_ms if is_late else self._store.clock.monotonic_ms()
                    if failures > 1 or is_late:
                        access.lost(self.partition, failing_ms, reason_of(error.__cause__))
                    await asyncio.sleep(retry_s)
                    retry_s = min(2 * retry_s, RETRY_MAX_S)
                    continue
                retry_s, failures = RETRY_FIRST_S, 0
                access.found(self.partition)
                self.heard_ms = self._store.clock.monotonic_ms()
                if found:
                    yield found
        finally:
            await self._connection.close()

    async def _verify(self) -> None:
        """Connect if necessary, and check that the log still has the last entry that was read."""
        self._verified = False
        here = f"{self.offset}-0"
        found, first, last = await self._pipeline(
            ("XRANGE", self._log, here, here),
            ("XRANGE", self._log, "-", "+", "COUNT", 1),
            ("HGET", self._meta, "offset"),
        )
        if self._known is None and int(last or 0) >= self.offset:
            self._known = found[0][1][1] if found else None
        elif not (found and found[0][1][1] == self._known):
            if not found and first and _offset(first[0][0]) > self.offset:
                raise LogTrimmed
            raise HistoryLost
        self._verified, self._has_read = True, False

    async def _read(self) -> list[StoredEntry]:
        after = f"{self.offset}-0"
        block_ms = BLOCK_MS if self._has_read else 1  # the first read says that the store is there
        try:
            reply, epoch = await self._pipeline(
                ("XREAD", "BLOCK", block_ms, "COUNT", self._count, "STREAMS", self._log, after),
                ("HGET", self._meta, "epoch"),  # after the read: its entries are of this epoch
            )
        except Unavailable:  # perhaps the reply was too large for a slow network
            self._count = max(self._count // 2, 1)
            raise
        if epoch != self._epoch:
            raise HistoryLost
        self._has_read = True
        found: list[StoredEntry] = []
        for entry_id, fields in reply[0][1] if reply else ():
            offset = self.offset + 1
            if entry_id != b"%d-0" % offset:
                raise LogTrimmed
            data = fields[1]
            found.append(StoredEntry(offset, data, self._rows(fields) if len(fields) > 2 else ()))  # noqa: PLR2004
            self.offset, self._known = offset, data
        if len(found) < self._count:
            self._count = COUNT_MAX
        return found

    def _rows(self, fields: list[bytes]) -> tuple[HistoryPlace, ...]:
        rows = []
        for value in fields[3::2]:
            number, _, key = value.decode().partition(" ")
            rows.append(HistoryPlace(self._number_of(int(number)), key))
        return tuple(rows)

    async def _pipeline(self, *commands: Command) -> list[Reply]:
        replies = await self._connection.pipeline(commands, answer_s=BLOCK_ANSWER_S)
        for reply in replies:
            if isinstance(reply, ResponseError):
                await self._connection.close()
                raise error_from_reply(reply) from reply
        return replies


def _offset(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
