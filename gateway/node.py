"""Node: the one object that doors call, with commands, reads and subscriptions.

Every change takes the same road: it is decided against the session, committed once, and applied
when its log entry comes back, like the changes of other nodes. :meth:`Node.run` holds the tasks of
that road.

Not here: rights (the doors), the start and end of the process (``app``).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec.json import encode
from msgspec.structs import replace

from gateway.core.command import AnyCommand, Expire, Open, Progress, UpdateStream
from gateway.core.document import Message
from gateway.core.errors import (
    BadPosition,
    Draining,
    GatewayError,
    NotFound,
    PositionAhead,
    SessionClosed,
    StoreFull,
    TooManySessions,
    Unavailable,
)
from gateway.core.event import HistoryRow
from gateway.core.model import Cause, Session
from gateway.core.position import Position
from gateway.core.query import View
from gateway.core.session import decide
from gateway.live.channel import Push, Subscription, Trimmed
from gateway.live.coalescer import Coalescer, watched_ms
from gateway.live.commit_view import CommitView, EventItem, Step
from gateway.live.deadlines import DeadlineScheduler, Due
from gateway.live.documents import CLAIM_MS, Documents
from gateway.live.history import HistoryReader
from gateway.live.hub import MAILBOX_MAX, Hub, Mailbox, Notice
from gateway.live.keyed_lock import KeyedLock
from gateway.live.lease import RENEW_S, Lease, rendezvous_owner
from gateway.live.local_connections import LocalConnections, each
from gateway.live.outbound import OutboundMessage, Restart, SnapshotPage, Tick
from gateway.live.rates import WINDOW_MAX_S, Window
from gateway.live.read_barrier import APPLIED_WITHIN_S
from gateway.live.reads import UNREADY_MS, NodeReads, NodeStatus
from gateway.live.replica import Place, Rendering, Replica, Tombstone, place_of
from gateway.live.replicator import Replicator
from gateway.live.upkeep import repeat
from gateway.live.writer import CommandWriter, TooEarly
from gateway.metrics import DEADLINE_LATENESS, RESUMES, TAKEOVERS
from gateway.store.clock import RedisClock
from gateway.store.store import Store

__all__ = [  # doors import these from here, and nothing from ``live``
    "CLAIM_MS", "MAILBOX_MAX", "UNREADY_MS", "WINDOW_MAX_S", "CommitView", "Documents", "EventItem",
    "HistoryReader", "Mailbox", "Node", "NodeStatus", "Notice", "OutboundMessage", "Place",
    "Push", "Rendering", "Restart", "SnapshotPage", "Step", "Subscription", "Tick", "Tombstone",
    "Trimmed", "Window", "place_of",
]  # fmt: skip

SESSIONS_MAX: Final = 200_000  # about 450 MiB in each node
LEAVE_S: Final = 3.0  # to leave politely; a store that is away must not hold up the process
UPKEEP_S: Final = 1.0  # between two checks of held-back reports and pending disconnects
ACTIVE_S: Final = 10.0  # between two reports of activity
TRIM_S: Final = 60.0  # between two removals of what is too old

T = TypeVar("T")

log = logging.getLogger(__name__)


class Node(NodeReads):
    """One gateway process.

    Args:
        store: An open store.
        clock: Redis time.
        name: How operators call this process.
        boot: Random text that tells this run from others of the same name.
        token: Returns random text.
        max_sessions: Open sessions of all nodes together; one more is refused.
        count_sockets: Returns how many WebSockets and event streams this process has.
    """

    def __init__(
        self,
        store: Store,
        clock: RedisClock,
        *,
        name: str,
        boot: str,
        token: Callable[[], str],
        max_sessions: int = SESSIONS_MAX,
        count_sockets: Callable[[], int] = lambda: 0,
    ) -> None:
        self.max_sessions = max_sessions
        self.count_sockets = count_sockets
        self.id = f"{name}:{boot}"
        self.name, self.boot = name, boot
        self.started_ms = clock.monotonic_ms()
        self.clock = clock
        self.store = store
        self.replica = Replica(store.partitions)
        self.hub = Hub(self.replica, clock.monotonic_ms)
        self.lease = Lease(store, clock, self.id, lambda: encode(self.own_report()))
        self.deadlines = DeadlineScheduler(self.replica, clock, self.lease, self._expire)
        self.replicator = Replicator(store, self.replica, self.hub, self.deadlines, token)
        self.is_draining = False
        self._writer = CommandWriter(store, self.replica, clock, boot)
        self.documents = Documents(self._writer, self.replica)
        self._locks = KeyedLock()
        self._coalescer = Coalescer()
        self._forgotten: list[str] = []  # tombstones dropped here, not yet in the store
        self._local_connections = LocalConnections(store, self.replica, self.id, self.apply)

    # --- life

    async def start(self) -> None:
        """Load all partitions; the node is ready once :meth:`run` has caught up.

        Raises:
            Unavailable: The store does not answer.
        """
        await self.lease.renew()
        for partition in range(self.store.partitions):
            await self.replicator.load(partition)

    async def run(self) -> None:
        """Run all tasks of the node until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.store.run())
            for partition in range(self.store.partitions):
                group.create_task(self.replicator.follow(partition))
            group.create_task(self._keep_lease())
            group.create_task(repeat(UPKEEP_S, self._upkeep))
            group.create_task(repeat(ACTIVE_S, self._local_connections.report_active))
            group.create_task(repeat(TRIM_S, self._trim))
            await self.replicator.caught_up()
            group.create_task(self.deadlines.run())

    async def leave(self) -> None:
        """Leave politely: write held-back reports, disconnect sessions, give up the lease."""
        self.is_draining = True
        try:
            async with asyncio.timeout(LEAVE_S):
                await each(self._coalescer.sessions(), self._flush)
                await self._local_connections.end_all()
                await self.lease.release()
        except (Unavailable, TimeoutError):
            log.warning("the store is away: others will end the sessions of this node")

    @property
    def is_ready(self) -> bool:
        """Whether this node should get traffic."""
        return self.replicator.is_caught_up and not self.is_draining and self.is_store_up

    # --- commands

    async def apply(
        self, session_id: str, command: AnyCommand, *, op: str | None = None
    ) -> Session:
        """Apply *command* and return the session after it; reads on this node see it by then.

        Args:
            session_id: The session.
            command: The command.
            op: Names the request; repeating one that the record remembers changes nothing.

        Raises:
            GatewayError: The command was refused, or the store failed.
        """
        return await self._write(session_id, command, op)

    async def _write(self, session_id: str, command: AnyCommand | None, op: str | None) -> Session:
        if not self._locks.try_acquire(session_id):
            await self._locks.acquire(session_id)
        held = self._coalescer.take(session_id)
        try:
            return await self._writer.write(session_id, held, command, op or self._writer.next_op())
        except BaseException as error:  # refused or not written: held-back reports still count
            if not _is_gone(error):
                self._coalescer.give_back(session_id, held)
            raise
        finally:
            self._locks.release(session_id)

    async def open(self, session: Session, *, op: str | None = None) -> Session:
        """Open *session*, attached to its ``connection`` if it has one, and assign its number.

        Raises:
            IdUnavailable: The id is or was taken, unless by the same *op*.
            Draining: This node is shutting down.
            StoreFull: Redis is short of memory.
            TooManySessions: There are as many open sessions as may be.
            GatewayError: As :meth:`apply`.
        """
        if self.is_draining:
            raise Draining
        if self.store.access.is_full:
            raise StoreFull
        if len(self.sessions) >= self.max_sessions and session.id not in self.sessions:
            raise TooManySessions(retry_after_s=1)
        number = await self._writer.number(self.store.partition(session.id))
        return await self.apply(session.id, Open(session=replace(session, number=number)), op=op)

    async def report(self, session_id: str, command: Progress | UpdateStream) -> None:
        """Accept a frequent report; it is written within 5 s, or with the next command.

        Raises:
            GatewayError: The command would be refused now; or as :meth:`apply`.
        """
        session, now_ms = await self.find(session_id), self.clock.now_ms()
        decide(session, command, now_ms)
        if not self._coalescer.hold(session_id, command, now_ms, watched_ms(session)):
            await self.apply(session_id, command)

    async def find(self, session_id: str) -> Session:
        """Return an open session; one that the replica lacks is read from the store.

        Raises:
            SessionClosed: The session is closed; ``error.record`` is its final record.
            NotFound: There is no such session, and was none lately.
            Unavailable: The store did not answer.
        """
        session = self.replica.sessions.get(session_id)
        if session is None:
            session = await self._writer.fetch(session_id)
        if session is None:
            raise NotFound
        if session.closed:
            raise SessionClosed(record=session)
        return session

    async def erase_row(self, row: HistoryRow) -> None:
        """Delete a history row for good, on every node and in the store; twice is no error.

        Raises:
            GatewayError: As :meth:`apply`.
        """
        await self._writer.erase_row(row)

    async def publish(self, message: Message) -> None:
        """Deliver *message* once to the live connections of its recipients, on every node."""
        await self._writer.publish(message)

    # --- subscriptions

    async def wait_for_position(self, position: Position) -> None:
        """Wait until this node has reached *position*.

        Raises:
            PositionAhead: It has not reached it within 2 s.
            BadPosition: The position belongs to another epoch.
        """
        here = self.replica.position()
        if position.epoch != here.epoch or len(position.offsets) != len(here.offsets):
            raise BadPosition("This position is from before history was lost.")
        try:
            async with asyncio.timeout(APPLIED_WITHIN_S):
                await self.replica.wait_for_position(position)
        except TimeoutError:
            raise PositionAhead from None
        if not self.replica.position().covers(position):
            raise BadPosition("This position is from before history was lost.")

    async def check_resume(self, view: View, since: Position) -> str | None:
        """Return why a subscription cannot resume at *since*, or ``None`` if it can."""
        reason = await self._check_resume(view, since)
        RESUMES.labels((reason or "events").replace(" ", "_")).inc()
        return reason

    async def _check_resume(self, view: View, since: Position) -> str | None:
        here = self.replica.position(view.hash32)
        if since.view != here.view:
            return "other view"
        if since.epoch != here.epoch or len(since.offsets) != len(here.offsets):
            return "history lost"
        try:
            await self.wait_for_position(since)
            return None if await self.replicator.can_replay(since) else "trimmed"
        except BadPosition:
            return "history lost"
        except PositionAhead:
            return "ahead"
        except Unavailable:
            return "store unavailable"

    def subscribe(
        self, view: View, since: Position | None = None, reason: str | None = None
    ) -> Subscription:
        """Subscribe to *view*, from *since* on or, without it, with a snapshot first.

        Args:
            view: The view.
            since: A position for which :meth:`check_resume` returned ``None``.
            reason: What it returned otherwise; the subscriber gets it.

        Raises:
            Overloaded: There are too many different subscriptions.
        """
        return self.hub.subscribe(
            view,
            since,
            lambda start, upto: self.replicator.replay(view, start, upto),
            reason=reason,
        )

    # --- connections

    def hold(self, session_id: str, connection_id: str) -> None:
        """Note that a socket of this process holds this connection, until :meth:`release`."""
        self._local_connections.hold(session_id, connection_id)

    def release(self, connection_id: str) -> None:
        """Note that no socket of this process holds this connection any more."""
        self._local_connections.release(connection_id)

    async def disconnect(self, session_id: str, connection_id: str, cause: Cause) -> None:
        """End a connection; if the store is away, this is retried until it is back."""
        await self._local_connections.disconnect(session_id, connection_id, cause)

    def touch(self, session_id: str) -> None:
        """Note that the client was active; other nodes learn it every 10 s."""
        self._local_connections.touch(session_id)

    # --- upkeep

    async def _upkeep(self) -> None:
        now_ms = self.clock.now_ms()
        for session_id in (due := self._coalescer.due(now_ms)):
            self._coalescer.written(session_id, now_ms)
        await each(due, self._flush)
        await self._local_connections.reconcile(now_ms)

    async def _flush(self, session_id: str) -> None:
        try:
            await self._write(session_id, None, None)
        except GatewayError as error:
            if not isinstance(error, NotFound):
                about = {"session_id": session_id, "reason": error.code}
                log.debug("held-back updates are not written yet", extra=about)

    async def _trim(self) -> None:
        now_ms = self.clock.now_ms()
        gone = self.replica.gone  # an id may have been used and closed again since it was dropped
        self._forgotten = [known for known in self._forgotten if known not in gone]
        self._forgotten += self.replica.forget_gone(now_ms)
        if rendezvous_owner("trim", self.lease.live) != self.id:
            self._forgotten.clear()
            return
        for partition in range(self.store.partitions):
            here = [known for known in self._forgotten if self.store.partition(known) == partition]
            if here:
                await self.store.forget_gone(partition, here)
            await self.store.trim_history(partition, now_ms)
        self._forgotten.clear()
        for node_id in self.lease.forgotten(now_ms):
            if not self.replica.nodes[node_id]:
                await self.store.forget_node(node_id)

    async def _keep_lease(self) -> None:
        ending: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                known = set(self.replica.nodes)  # a node with a connection had a lease before
                try:
                    wait_s = await self.lease.renew()
                    self.replicator.rates.observe(self.lease.nodes, self.clock.now_ms())
                except Unavailable:
                    wait_s = RENEW_S / 6
                dead = known - self.lease.live
                if dead and self.lease.may_declare_dead and (ending is None or ending.done()):
                    TAKEOVERS.inc(len(dead))
                    ending = group.create_task(self._local_connections.end_connections_of(dead))
                await asyncio.sleep(wait_s)

    async def _expire(self, due: Due) -> int | None:
        try:
            await self.apply(
                due.session_id, Expire(kind=due.kind, at=due.at, amnesty_ms=due.amnesty_ms)
            )
            DEADLINE_LATENESS.observe(max(self.clock.now_ms() - due.act_at, 0) / 1000)
        except TooEarly as early:
            return early.due_ms
        except (SessionClosed, NotFound):
            pass
        return None


def _is_gone(error: BaseException) -> bool:
    """Whether the session itself is missing, and not only a stream or member of it."""
    return isinstance(error, SessionClosed) or type(error) is NotFound
