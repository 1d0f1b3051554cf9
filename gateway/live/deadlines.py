"""DeadlineScheduler: acts when a deadline of a session passes.

A heap over the replica; no timer lives anywhere else. Acting is a command like any other, and it
says which deadline it saw: if the session moved on meanwhile, nothing happens. So every node may
run a scheduler over the same sessions. The node that holds a session's socket acts at once (for a
session without one the first by rendezvous hash), the others ``OTHERS_AFTER_MS`` later.

Promises: never before the deadline by Redis time; a crash only delays; an outage of the whole
gateway prolongs what :func:`~gateway.core.session.deadlines` says it prolongs.

Not here: the decision (``core.session``), the write (``node``), the loop's parent (``app``).
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
CONCURRENT: Final = 512  # expiries on their way at once; two pipelines full
STALE_MAX: Final = 1_024  # stale deadlines kept before the heaps are swept
WAIT_MAX_S: Final = 1.0  # a clock that stepped is noticed within this
_PLACES: Final = {kind: place for place, kind in enumerate(Deadline)}
_NOTHING: Final = (0,) * len(_PLACES)


class Due(Struct, frozen=True, order=True, gc=False):
    """One deadline: when to act, and what was seen."""

    act_at: int
    session_id: str
    kind: Deadline
    at: int
    amnesty_ms: int


Expirer = Callable[[Due], Awaitable[int | None]]


class DeadlineScheduler:
    """Fires deadlines.

    What is kept a session holds nothing that Python's collector follows: it would stop everything
    for half a second when there are a hundred thousand.

    Args:
        replica: Where the sessions are.
        clock: Redis time.
        lease: Who lives, and since when the gateway is up.
        expire: Sends the command; returns when to try again if it was too early.
    """

    def __init__(self, replica: Replica, clock: RedisClock, lease: Lease, expire: Expirer) -> None:
        self._replica = replica
        self._clock = clock
        self._lease = lease
        self._expire = expire
        self._heap: list[Due] = []  # not looked at yet, or this node's
        self._others: list[Due] = []  # those of other nodes, should they be late
        self._noted: dict[str, tuple[int, ...]] = {}  # by session: when, by kind; 0 is not
        self._firing: set[tuple[str, Deadline, int, int]] = set()  # one a task
        self._wake = asyncio.Event()

    def update(self, session: Session) -> None:
        """Take in a session that changed; the replica has it already."""
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
                heap[:] = filter(self._stands, heap)
                heapify(heap)

    def reload(self) -> None:
        """Start over from the replica."""
        self._heap.clear()
        self._others.clear()
        self._noted.clear()
        for session in self._replica.sessions.values():
            self.update(session)

    def next_ms(self) -> int | None:
        """Return when the next deadline is due, in milliseconds of Redis time."""
        return min((heap[0].act_at for heap in (self._heap, self._others) if heap), default=None)

    async def run(self) -> None:
        """Fire deadlines for ever; a session that keeps its own waiting keeps no other one."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._wait_s()):
                        await self._wake.wait()
                self.fire(group, self._clock.now_ms())

    def fire(self, group: asyncio.TaskGroup, now_ms: int) -> None:
        """Begin to act, in *group*, on all that is due at *now_ms*; it goes on by itself."""
        if self._clock.is_frozen:
            return
        while len(self._firing) < CONCURRENT and (due := self._next(now_ms)):
            group.create_task(self._work(due, now_ms))

    def _wait_s(self) -> float:
        if self._clock.is_frozen:
            return RETRY_MS / 1000
        next_ms = self.next_ms()
        if next_ms is None or len(self._firing) >= CONCURRENT:  # then who is done wakes us
            return WAIT_MAX_S
        return min(max(next_ms - self._clock.now_ms(), 0) / 1000, WAIT_MAX_S)

    def _next(self, now_ms: int) -> Due | None:
        """Take what is due off the heaps; in a crowd each node does its own part first."""
        return self._next_of(self._heap, now_ms) or self._next_of(self._others, now_ms)

    def _next_of(self, heap: list[Due], now_ms: int) -> Due | None:
        while heap and heap[0].act_at <= now_ms:
            due = heappop(heap)
            if not self._stands(due) or due_facts(due) in self._firing:
                continue
            act_at, is_mine = self._turn(due, now_ms)
            if act_at <= now_ms and (is_mine or heap is self._others):
                self._firing.add(due_facts(due))
                return due
            heappush(self._heap if is_mine else self._others, Due(act_at, *due_facts(due)))
        return None

    def _stands(self, due: Due) -> bool:
        return self._noted.get(due.session_id, _NOTHING)[_PLACES[due.kind]] == due.at

    def _size(self) -> int:
        return len(self._heap) + len(self._others)

    def _turn(self, due: Due, now_ms: int) -> tuple[int, bool]:
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
        if len(live) == 1:  # this node's alone
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
            if self._stands(due):  # also when nothing was refused: a deadline is never forgotten
                self._push(Due(again_at or now_ms + RETRY_MS, *due_facts(due)))
            due = self._next(now_ms)
        self._wake.set()

    def _push(self, due: Due) -> None:
        heappush(self._heap, due)
        if self._heap[0] is due:
            self._wake.set()


def due_facts(due: Due) -> tuple[str, Deadline, int, int]:
    """Return what a :class:`Due` is about, without when to act."""
    return due.session_id, due.kind, due.at, due.amnesty_ms
