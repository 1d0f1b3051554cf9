"""Deadline scheduler: sends a command when a deadline of a session passes.

It keeps a heap over the sessions of the replica; sessions have no timers of their own. The command
names the deadline that the scheduler saw, so it changes nothing if the session has moved on. So
every node may schedule the same sessions. The node that holds a session's socket acts at once (for
a session without one the owner by rendezvous hash), the others ``OTHERS_AFTER_MS`` later.

Promises: no deadline fires early by Redis time; a crash only delays it; an outage of the whole
gateway postpones those for which :func:`~gateway.core.session.deadlines` says so.

Not here: the decision (``core.session``), the write and the start of the loop (``node``).
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from heapq import heapify, heappop, heappush
from typing import Final

from msgspec import Struct

from gateway.core.errors import GatewayError
from gateway.core.model import Deadline, Session
from gateway.core.session import deadlines
from gateway.live.lease import Lease, rendezvous_owner
from gateway.live.replica import Replica
from gateway.store.clock import RedisClock

OTHERS_AFTER_MS: Final = 50  # the head start of the node that should act
RETRY_MS: Final = 250  # after the store failed
CONCURRENT: Final = 512  # commands in flight; two full pipelines
STALE_MAX: Final = 1_024  # stale deadlines kept before the heaps are swept
WAIT_MAX_S: Final = 1.0  # a clock that stepped is noticed within this
_PLACES: Final = {kind: place for place, kind in enumerate(Deadline)}
_NOTHING: Final = (0,) * len(_PLACES)


class Due(Struct, frozen=True, order=True, gc=False):
    """A deadline in the heap: when to act, and the deadline as it was seen."""

    act_at: int
    session_id: str
    kind: Deadline
    at: int
    amnesty_ms: int


Expirer = Callable[[Due], Awaitable[int | None]]


class DeadlineScheduler:
    """Fires the deadlines of all sessions.

    The state of a session consists of objects that Python's garbage collector does not track: with
    a hundred thousand sessions a collection would stop the process for half a second.

    Args:
        replica: The sessions.
        clock: Redis time.
        lease: Which nodes are alive, and since when the gateway is up.
        expire: Sends the command; returns when to try again if it was too early.
    """

    def __init__(self, replica: Replica, clock: RedisClock, lease: Lease, expire: Expirer) -> None:
        self._replica = replica
        self._clock = clock
        self._lease = lease
        self._expire = expire
        self._heap: list[Due] = []  # new ones, and those of this node
        self._others: list[Due] = []  # those of other nodes, in case they are late
        self._noted: dict[str, tuple[int, ...]] = {}  # deadlines by session and kind; 0 is unset
        self._firing: set[tuple[str, Deadline, int, int]] = set()  # one for each task
        self._wake = asyncio.Event()

    def update(self, session: Session) -> None:
        """Schedule the deadlines of a session that changed; the replica has it already."""
        live = deadlines(session)
        if not live:
            self._noted.pop(session.id, None)
            return
        known = self._noted.get(session.id, _NOTHING)
        noted = [0] * len(_PLACES)
        for kind, at, amnesty_ms in live:
            place = _PLACES[kind]
            noted[place] = at
            if known[place] != at:
                self._push(Due(at, session.id, kind, at, amnesty_ms))
        self._noted[session.id] = tuple(noted)
        if self._size() > STALE_MAX and self._size() > 8 * len(self._noted):
            for heap in (self._heap, self._others):
                heap[:] = filter(self._is_current, heap)
                heapify(heap)

    def reload(self) -> None:
        """Schedule all sessions of the replica anew."""
        self._heap.clear()
        self._others.clear()
        self._noted.clear()
        for session in self._replica.sessions.values():
            self.update(session)

    def next_ms(self) -> int | None:
        """Return when the next deadline is due, in milliseconds of Redis time."""
        return min((heap[0].act_at for heap in (self._heap, self._others) if heap), default=None)

    async def run(self) -> None:
        """Fire deadlines until cancelled; a session whose command waits delays no other one."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._wait_s()):
                        await self._wake.wait()
                self.fire(group, self._clock.now_ms())

    def fire(self, group: asyncio.TaskGroup, now_ms: int) -> None:
        """Start commands in *group* for all deadlines that are due at *now_ms*."""
        if self._clock.is_frozen:
            return
        while len(self._firing) < CONCURRENT and (due := self._next(now_ms)):
            group.create_task(self._work(due, now_ms))

    def _wait_s(self) -> float:
        if self._clock.is_frozen:
            return RETRY_MS / 1000
        next_ms = self.next_ms()
        if next_ms is None or len(self._firing) >= CONCURRENT:  # a task that ends wakes us
            return WAIT_MAX_S
        return min(max(next_ms - self._clock.now_ms(), 0) / 1000, WAIT_MAX_S)

    def _next(self, now_ms: int) -> Due | None:
        """Take the next due deadline off the heaps; those of this node go first."""
        return self._next_of(self._heap, now_ms) or self._next_of(self._others, now_ms)

    def _next_of(self, heap: list[Due], now_ms: int) -> Due | None:
        while heap and heap[0].act_at <= now_ms:
            due = heappop(heap)
            if not self._is_current(due) or due_facts(due) in self._firing:
                continue
            act_at, is_mine = self._acts_at(due, now_ms)
            if act_at <= now_ms and (is_mine or heap is self._others):
                self._firing.add(due_facts(due))
                return due
            heappush(self._heap if is_mine else self._others, Due(act_at, *due_facts(due)))
        return None

    def _is_current(self, due: Due) -> bool:
        return self._noted.get(due.session_id, _NOTHING)[_PLACES[due.kind]] == due.at

    def _size(self) -> int:
        return len(self._heap) + len(self._others)

    def _acts_at(self, due: Due, now_ms: int) -> tuple[int, bool]:
        """Return when this node should act, and whether it is the one that should."""
        at = due.at
        if due.amnesty_ms:
            if not self._lease.is_fresh:
                return now_ms + RETRY_MS, False
            at = max(at, self._lease.up_since_ms + due.amnesty_ms)
        is_mine = self._is_mine(due.session_id)
        return (at if is_mine else at + OTHERS_AFTER_MS), is_mine

    def _is_mine(self, session_id: str) -> bool:
        live = self._lease.live
        if len(live) == 1:  # this node only
            return True
        session = self._replica.sessions[session_id]
        owner = session.connection.node if session.connection and session.is_connected else ""
        if owner not in live:
            owner = rendezvous_owner(session_id, live)
        return owner == self._lease.node_id

    async def _work(self, first: Due, now_ms: int) -> None:
        due: Due | None = first
        while due is not None:
            try:
                again_at = await self._expire(due)
            except GatewayError:
                again_at = None
            self._firing.remove(due_facts(due))
            if self._is_current(due):  # even without an error: no deadline may get lost
                self._push(Due(again_at or now_ms + RETRY_MS, *due_facts(due)))
            due = self._next(now_ms)
        self._wake.set()

    def _push(self, due: Due) -> None:
        heappush(self._heap, due)
        if self._heap[0] is due:
            self._wake.set()


def due_facts(due: Due) -> tuple[str, Deadline, int, int]:
    """Return the fields of a :class:`Due` without the time to act."""
    return due.session_id, due.kind, due.at, due.amnesty_ms
