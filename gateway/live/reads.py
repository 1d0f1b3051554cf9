"""Reads: the reads of a node, from memory, for its doors.

Lists never wait for Redis. Reads that take longer than a moment let other tasks run.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Final, NamedTuple

from gateway import __version__
from gateway.core.event import HistoryRow
from gateway.core.model import Session
from gateway.core.position import Position
from gateway.core.query import Page, SortKey, View
from gateway.live.history import HistoryReader
from gateway.live.hub import Hub, Mailbox, NoticeSink, Renderer
from gateway.live.lease import Lease, rendezvous_owner
from gateway.live.outbound import Tick
from gateway.live.rates import Window
from gateway.live.replica import Place, Rendering, Replica, Tombstone
from gateway.live.replicator import PastEvents, Replicator
from gateway.live.report import NodeReport, read_report, resident_bytes
from gateway.metrics import DELIVERIES, SLOW_READERS, total
from gateway.store.clock import RedisClock
from gateway.store.store import Store

SCANNED_AT_ONCE: Final = 500  # sessions that are scanned before other tasks run
UNREADY_MS: Final = 3_000  # a node whose store has been silent for this long is not ready
SCANNED_TURNS: Final = 40  # of that: a page scans at most 20,000 sessions


class NodeStatus(NamedTuple):
    """A node and its lease.

    Args:
        id: Its name and the boot of this run.
        is_alive: Whether its lease is in time.
        connections: How many sessions it holds.
        renewed_at: When it renewed its lease, in milliseconds of Redis time.
        report: What it said of itself then; this node's own is of now.
    """

    id: str
    is_alive: bool
    connections: int
    renewed_at: int
    report: NodeReport


class NodeReads:
    """The reads of a :class:`gateway.node.Node`."""

    id: str
    name: str
    boot: str
    is_draining: bool
    started_ms: float
    count_sockets: Callable[[], int]
    clock: RedisClock
    store: Store
    replica: Replica
    hub: Hub
    lease: Lease
    replicator: Replicator

    # --- sessions

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The open sessions by id, as far as this node has applied the log."""
        return self.replica.sessions

    def all_in(self, view: View) -> list[Session]:
        """Return every session in *view*, oldest first; no later change shows in the list."""
        return self.replica.all_in(view)

    async def page(self, view: View, page: Page) -> tuple[list[Session], SortKey | None]:
        """Return a page of *view*, and the sort key after which the next one starts."""
        found: dict[str, Session] = {}  # a session that moves meanwhile is met again
        after = page.after
        for turn in range(SCANNED_TURNS):
            if turn:
                await asyncio.sleep(0)
            limit = page.limit - len(found)
            rest = Page(sort=page.sort, limit=limit, after=after, scan_limit=SCANNED_AT_ONCE)
            part, after = self.replica.page(view, rest)
            found.update((session.id, session) for session in part)
            if after is None or len(found) == page.limit:
                break
        return list(found.values()), after

    async def scan(
        self, view: View, after: SortKey | None
    ) -> AsyncGenerator[tuple[list[Session], SortKey | None], None]:
        """Yield the sessions of *view* in parts, each with the sort key where the next starts."""
        for turn in range(SCANNED_TURNS):
            if turn:
                await asyncio.sleep(0)
            step = Page(limit=SCANNED_AT_ONCE, after=after, scan_limit=SCANNED_AT_ONCE)
            part, after = self.replica.page(view, step)
            yield part, after
            if after is None:
                return

    def renderings(self, sessions: Iterable[Session], *, full: bool) -> list[Rendering]:
        """Return the public JSON of *sessions*, that of the newest records from a cache."""
        return self.replica.renderings(sessions, full=full)

    def part(self, view: View, page: Page) -> list[Session]:
        """Return a page of *view* that is found by its offset."""
        return self.replica.page(view, page)[0]

    def count(self, view: View) -> int:
        """Return how many sessions are in *view*."""
        return self.replica.count(view)

    def numbered(self, number: int) -> Session | None:
        """Return the open session with this number."""
        return self.replica.numbered(number)

    def tombstone(self, session_id: str) -> Tombstone | None:
        """Return the tombstone of a session that was closed lately."""
        return self.replica.gone.get(session_id)

    def tombstones(self) -> list[Tombstone]:
        """Return the tombstones of all sessions that were closed lately."""
        return list(self.replica.gone.values())

    def last_active_at(self, session_id: str) -> int | None:
        """Return when the client of a session was last active, at most 10 s late."""
        return self.replica.active.get(session_id)

    def recent_history(self) -> list[HistoryRow]:
        """Return the rows of the history that are in memory, oldest first."""
        return list(self.replica.history)

    def history(self, before: Place | None = None) -> HistoryReader:
        """Return a reader of the history, newest row first, from *before* on."""
        return HistoryReader(self.store, self.replica, before)

    async def history_rows(self) -> list[HistoryRow]:
        """Return the history rows of both kinds that are within reach, oldest first.

        Raises:
            Unavailable: The store did not answer.
        """
        rows = [row async for row in self.history().rows()]
        rows.reverse()
        return rows

    # --- positions

    def position(self, view: int = 0) -> Position:
        """Return the position up to which this node has applied the log.

        Args:
            view: The hash of the view that the position is for.
        """
        return self.replica.position(view)

    def replay(self, view: View, since: Position, upto: Position) -> AsyncIterator[Tick]:
        """Yield what happened in *view* between two positions.

        Raises:
            Trimmed: The log does not reach back so far.
        """
        return self.replicator.replay(view, since, upto)

    async def events_of(
        self, session_id: str, view: View, before: int | None, limit: int
    ) -> PastEvents:
        """Return the events of one session in *view*, the newest first.

        Args:
            session_id: The session.
            view: The view that they are rendered for.
            before: ``next`` of the page before.
            limit: About so many.

        Raises:
            Unavailable: The store did not answer.
        """
        return await self.replicator.events_of(session_id, view, before, limit)

    # --- nodes

    def now_ms(self) -> int:
        """Return Redis time in milliseconds."""
        return self.clock.now_ms()

    def monotonic_ms(self) -> float:
        """Return the milliseconds of a clock that never steps."""
        return self.clock.monotonic_ms()

    def lag_ms(self) -> int:
        """Return how old reads may be, in milliseconds; 0 while the store answers."""
        return self.replicator.lag_ms()

    async def caught_up(self) -> None:
        """Wait until this node has applied everything that was there at its start."""
        await self.replicator.caught_up()

    def silent_ms(self) -> int:
        """Return for how many milliseconds the store has not answered."""
        return self.replicator.silent_ms()

    @property
    def is_store_up(self) -> bool:
        """Whether the store answers and takes writes."""
        return self.replicator.silent_ms() < UNREADY_MS and self.store.access.is_writable

    @property
    def store_refusal(self) -> str | None:
        """Why the store takes no writes, if it takes none."""
        return self.store.access.refusal

    @property
    def secret(self) -> bytes:
        """A secret that all nodes of one store have."""
        return self.store.secret

    @property
    def up_since_ms(self) -> int:
        """Since when some node has been up without a break, in milliseconds of Redis time."""
        return self.lease.up_since_ms

    @property
    def is_alone(self) -> bool:
        """Whether no other node is alive."""
        return self.lease.live == {self.id}

    def nodes(self) -> list[NodeStatus]:
        """Return the nodes that are known, by id."""
        return [
            NodeStatus(
                id=node_id,
                is_alive=node_id in self.lease.live,
                connections=max(self.replica.nodes[node_id], 0),
                renewed_at=renewed_at,
                report=self.own_report() if node_id == self.id else read_report(announced),
            )
            for node_id, (renewed_at, announced) in sorted(self.lease.nodes.items())
        ]

    def own_report(self) -> NodeReport:
        """Return the state of this node, as it tells the others."""
        return NodeReport(
            name=self.name,
            boot=self.boot,
            version=__version__,
            uptime_s=round((self.monotonic_ms() - self.started_ms) / 1000, 3),
            sockets=self.count_sockets(),
            feed_lag_ms=self.lag_ms(),
            memory_bytes=resident_bytes(),
            slow_readers=total(SLOW_READERS),
            deliveries=total(DELIVERIES),
            is_draining=self.is_draining,
        )

    def window(self, seconds: int) -> Window:
        """Return what happened in each of the last *seconds*, as far as this node knows."""
        return self.replicator.rates.window(seconds, self.now_ms())

    def is_owner(self, work: str) -> bool:
        """Whether this node is the one of all live nodes that does *work*."""
        return rendezvous_owner(work, self.lease.live) == self.id

    # --- notices

    def attach(self, session_id: str, sink: NoticeSink) -> None:
        """Deliver the notices of a session to *sink*, until :meth:`detach`."""
        self.hub.attach(session_id, sink)

    def detach(self, session_id: str, sink: NoticeSink) -> None:
        """Deliver no more notices to *sink*."""
        self.hub.detach(session_id, sink)

    def mailbox(self, session: Session) -> AbstractContextManager[Mailbox]:
        """Return a mailbox that collects the notices of *session*."""
        return self.hub.mailbox(session)

    def channel_sizes(self) -> tuple[int, int]:
        """Return how many views are subscribed to, and the bytes of events kept for them."""
        return self.hub.channel_sizes()

    def register(self, dialect: str, renderer: Renderer) -> None:
        """Render the events of views of *dialect* with *renderer*."""
        self.hub.register(dialect, renderer)
