"""Replicator: applies the log to the replica, and tells the hub and the deadline scheduler.

Every change on any node, this one included, arrives here and nowhere else. When the log does not
continue where the replica is, the partition is loaded again and its subscribers start over.

Not here: reading the log (``store.log``), starting the tasks (``node``).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

from msgspec import DecodeError, Struct
from msgspec.json import decode
from msgspec.structs import replace

from gateway.core.document import Document
from gateway.core.errors import Unavailable
from gateway.core.event import AnyEntry, HistoryRow, SessionEntry, decode_entry
from gateway.core.model import Session, decode_session
from gateway.core.position import Position
from gateway.core.query import View
from gateway.live.channel import Trimmed
from gateway.live.commit_view import CommitView, EventItem
from gateway.live.deadlines import DeadlineScheduler
from gateway.live.hub import Hub
from gateway.live.outbound import Tick
from gateway.live.rates import Rates
from gateway.live.replica import HISTORY_MAX, Replica, Tombstone
from gateway.metrics import DELIVERY_LAG
from gateway.store.commit import split_value
from gateway.store.log import BLOCK_MS, Follower, HistoryLost, LogTrimmed, StoredEntry
from gateway.store.store import Store

REPLAY_COUNT: Final = 1_000  # log entries read at once for a resume
PAST_READS: Final = 20  # reads of the log for the events of one session
HISTORY_COUNT: Final = 1_000  # history rows read at once
LAG_MIN_MS: Final = BLOCK_MS + 500  # a healthy follower hears from its server at least this often
RETRY_S: Final = 0.25  # between two tries to load

log = logging.getLogger(__name__)


class PastEvents(Struct):
    """What the log still has of one session.

    Args:
        items: Its events, the newest first.
        is_whole: Whether they reach back to its beginning.
        since_ms: From when on nothing is missing, in milliseconds of Redis time.
        next: The offset before which there may be more.
    """

    items: list[EventItem] = []
    is_whole: bool = False
    since_ms: int = 0
    next: int | None = None


class Replicator:
    """Consumes the store's logs for one node.

    Args:
        store: An open store.
        replica: Gets every entry.
        hub: Gets every batch of changes.
        deadlines: Gets every session that changed.
        token: Returns random text, for a new epoch.
    """

    def __init__(
        self,
        store: Store,
        replica: Replica,
        hub: Hub,
        deadlines: DeadlineScheduler,
        token: Callable[[], str],
    ) -> None:
        self.rates = Rates()
        self._store = store
        self._replica = replica
        self._hub = hub
        self._deadlines = deadlines
        self._token = token
        self._followers: dict[int, Follower] = {}
        self._tails: dict[int, int] = {}
        self._caught_up = asyncio.Event()

    @property
    def is_caught_up(self) -> bool:
        """Whether everything that was there at the start has been applied."""
        return self._caught_up.is_set()

    async def caught_up(self) -> None:
        """Wait until everything that was there at the start has been applied."""
        await self._caught_up.wait()

    def silent_ms(self) -> int:
        """Return for how many milliseconds the store has not answered."""
        heard_ms = [follower.heard_ms for follower in self._followers.values()]
        return int(self._store.clock.monotonic_ms() - min(heard_ms)) if heard_ms else 0

    def lag_ms(self) -> int:
        """Return how stale the replica may be, in milliseconds; 0 while the logs are followed."""
        silent_ms = self.silent_ms()
        return silent_ms if silent_ms > LAG_MIN_MS else 0

    # --- load

    async def load(self, partition: int) -> None:
        """Load a partition and put it into the replica in one step; :meth:`follow` continues there.

        Raises:
            Unavailable: The store did not answer.
        """
        meta = await self._store.meta(partition)
        sessions: list[Session] = []
        documents: list[Document] = []
        async for found in self._store.load(partition, "live"):
            for field, value in found:
                record = split_value(value)[1]
                if "/" in field:
                    documents.append(decode(record, type=Document))
                else:
                    sessions.append(decode_session(record))
        gone = [
            Tombstone.of(decode_session(split_value(value)[1]))
            async for found in self._store.load(partition, "gone")
            for _, value in found
        ]
        rows = await self._rows(partition)
        tail = (await self._store.meta(partition)).offset
        replica = self._replica  # no await from here on: no reader sees half of it
        replica.reload(
            partition,
            sessions,
            gone,
            documents,
            rows,
            is_here=lambda key: self._store.partition(key) == partition,
        )
        if replica.epochs[partition] != meta.epoch:
            replica.barrier.release_all(partition)
        replica.epochs[partition], replica.offsets[partition] = meta.epoch, meta.offset
        replica.entry_cache.clear()
        replica.notify(partition)
        self._tails[partition] = tail
        self._followers[partition] = Follower(self._store, partition, meta.offset, meta.epoch)
        self._deadlines.reload()

    async def _rows(self, partition: int) -> list[HistoryRow]:
        rows: list[HistoryRow] = []
        before = ""
        while len(rows) < HISTORY_MAX // self._store.partitions:
            found = await self._store.history(partition, before, HISTORY_COUNT)
            rows.extend(
                replace(decode(row, type=HistoryRow), number=number, key=key)
                for key, number, row in found
            )
            if len(found) < HISTORY_COUNT:
                break
            before = found[-1][0]
        rows.reverse()
        return rows

    # --- follow

    async def follow(self, partition: int) -> None:
        """Apply one partition's log until cancelled."""
        while True:
            self._check_caught_up()
            try:
                async for batch in self._followers[partition].batches():
                    self._apply(partition, batch)
            except LogTrimmed:
                log.warning("the log was trimmed past this node", extra={"partition": partition})
                await self._reload(partition, lost=False)
            except HistoryLost:
                log.warning("the store lost history", extra={"partition": partition})
                await self._reload(partition, lost=True)

    def _apply(self, partition: int, batch: list[StoredEntry]) -> None:
        changes: list[CommitView] = []
        before = self._replica.position()
        for entry in batch:
            decoded = self._replica.entry_cache.pop(entry.data) or _decoded(
                partition, entry.offset, entry.data
            )
            if decoded is None:
                self._replica.offsets[partition] = entry.offset
                continue
            change = self._replica.apply(partition, entry.offset, decoded, entry.rows)
            if change:
                changes.append(change)
                if change.after:
                    self._deadlines.update(change.after)
        if changes:
            self._hub.publish(changes, before)
            late_ms = self._store.clock.now_ms() - changes[0].entry.at
            DELIVERY_LAG.observe(max(late_ms, 0) / 1000)
            self.rates.count(changes)
        self._replica.notify(partition)
        self._check_caught_up()

    def _check_caught_up(self) -> None:
        if all(self._replica.offsets[part] >= tail for part, tail in self._tails.items()):
            self._caught_up.set()

    async def _reload(self, partition: int, *, lost: bool) -> None:
        while True:
            try:
                if lost:
                    await self._store.open(self._token)
                    epoch = self._replica.epochs[partition]
                    await self._store.new_epoch(partition, epoch, self._token()[:8])
                await self.load(partition)
            except Unavailable:
                await asyncio.sleep(RETRY_S)
                continue
            self._hub.restart("history lost" if lost else "trimmed")
            return

    # --- replay

    async def can_replay(self, since: Position) -> bool:
        """Whether the logs still have everything after *since*.

        Raises:
            Unavailable: The store did not answer.
        """
        for partition, offset in enumerate(since.offsets):
            if (await self._store.meta(partition)).first > offset + 1:
                return False
        return True

    async def events_of(
        self, session_id: str, view: View, before: int | None, limit: int
    ) -> PastEvents:
        """Return the events of one session in *view*, the newest first.

        It reads the log back from *before*, ``PAST_READS`` times ``REPLAY_COUNT`` entries at most.

        Args:
            session_id: The session.
            view: The view that the events are rendered for.
            before: An offset of the log that was told before; ``None`` is its end.
            limit: At least one commit is told whole, then no more after this many events.

        Raises:
            Unavailable: The store did not answer.
        """
        partition, name = self._store.partition(session_id), session_id.encode()
        first = (await self._store.meta(partition)).first
        end = self._replica.offsets[partition] + 1 if before is None else before
        found, oldest = PastEvents(since_ms=self._store.clock.now_ms()), None
        async with aclosing(self._newest_first(partition, first, end)) as entries:
            async for offset, data in entries:
                end, oldest = offset, data
                entry = _decoded(partition, offset, data) if name in data else None
                if isinstance(entry, SessionEntry) and entry.record.id == session_id:
                    found.items += reversed(self._hub.render(view, CommitView.from_log(entry)))
                    found.is_whole = entry.record.revision == 1
                if found.is_whole or len(found.items) >= limit:
                    break
        if oldest is not None and (entry := _decoded(partition, end, oldest)):
            found.since_ms = entry.at
        found.next = None if found.is_whole or end <= first else end
        return found

    async def _newest_first(
        self, partition: int, first: int, end: int
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield the entries of a log before *end*, back to *first* or as far as may be read."""
        for _ in range(PAST_READS):
            if end <= first:
                return
            start = max(first, end - REPLAY_COUNT)
            entries = await self._store.entries(partition, start - 1, end - start)
            for offset, data in reversed(entries):
                if offset < end:  # a log that was trimmed meanwhile starts later
                    yield offset, data
            end = start

    async def replay(self, view: View, since: Position, upto: Position) -> AsyncIterator[Tick]:
        """Yield what happened in *view* between two positions, read from the logs.

        Raises:
            Trimmed: The log no longer has all of it, or cannot be read.
        """
        offsets = list(since.offsets)
        for partition, last in enumerate(upto.offsets):
            while offsets[partition] < last:
                count = min(REPLAY_COUNT, last - offsets[partition])
                try:
                    found = await self._store.entries(partition, offsets[partition], count)
                except Unavailable as error:
                    raise Trimmed from error
                if not found or found[0][0] != offsets[partition] + 1:
                    raise Trimmed
                items: list[EventItem] = []
                start = tuple(offsets)
                for offset, data in found:
                    offsets[partition] = offset
                    if entry := _decoded(partition, offset, data):
                        items.extend(self._hub.render(view, CommitView.from_log(entry)))
                if items:
                    yield Tick(
                        Position(upto.epoch, tuple(offsets), upto.view),
                        items,
                        Position(upto.epoch, start),
                    )


def _decoded(partition: int, offset: int, data: bytes) -> AnyEntry | None:
    try:
        return decode_entry(data)
    except DecodeError:
        about = {"partition": partition, "offset": offset}
        log.exception("an entry of the log cannot be read", extra=about)
        return None
