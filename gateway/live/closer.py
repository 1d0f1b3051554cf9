"""Closer: acts when a deadline of a session passes.

A heap over the mirror; no timer lives anywhere else. Acting is a command like any other, and it
says which deadline it saw: if the session moved on meanwhile, nothing happens. So every node may
run a closer over the same sessions. The node that holds a session's socket acts at once (for a
session without one the first by rendezvous hash), the others ``OTHERS_AFTER_MS`` later.

Promises: never before the deadline by Redis time; a crash only delays; an outage of the whole
gateway prolongs what :func:`~gateway.core.session.deadlines` says it prolongs.

Not here: the decision (``core.session``), the write (``node``), the loop's parent (``app``).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from msgspec import Struct

from gateway.core.errors import GatewayError
from gateway.core.model import Deadline, Session
from gateway.core.session import deadlines
from gateway.live.lease import Lease, rank
from gateway.live.mirror import Mirror
from gateway.store.clock import RedisClock

OTHERS_AFTER_MS: Final = 50  # the head start of the node that should act
RETRY_MS: Final = 250  # after the store failed
CONCURRENT: Final = 512  # expiries on their way at once; two pipelines full
STALE_MAX: Final = 1_024  # stale deadlines kept before the heap is swept
WAIT_MAX_S: Final = 1.0  # a clock that stepped is noticed within this


class Due(Struct, frozen=True, order=True):
    """One deadline: when to act, and what was seen."""

    act_at: int
    session_id: str
    kind: Deadline
    at: int
    amnesty_ms: int


Expirer = Callable[[Due], Awaitable[int | None]]


class Closer:
    """Fires deadlines.

    Args:
        mirror: Where the sessions are.
        clock: Redis time.
        lease: Who lives, and since when the gateway is up.
        expire: Sends the command; returns when to try again if it was too early.
    """

    def __init__(self, mirror: Mirror, clock: RedisClock, lease: Lease, expire: Expirer) -> None:
        self._mirror = mirror
        self._clock = clock
        self._lease = lease
        self._expire = expire
        self._heap: list[Due] = []
        self._noted: dict[str, dict[Deadline, int]] = {}
        self._wake = asyncio.Event()

    def note(self, session: Session) -> None:
        """Take in a session that changed; the mirror has it already."""
        live = deadlines(session)
        if not live:
            self._noted.pop(session.id, None)
            return
        known = self._noted.get(session.id, {})
        self._noted[session.id] = {kind: at for kind, at, _ in live}
        for kind, at, amnesty_ms in live:
            if known.get(kind) != at:
                self._push(Due(at, session.id, kind, at, amnesty_ms))
        if len(self._heap) > STALE_MAX and len(self._heap) > 8 * len(self._noted):
            self._heap = [due for due in self._heap if self._stands(due)]
            heapify(self._heap)

    def reload(self) -> None:
        """Start over from the mirror."""
        self._heap.clear()
        self._noted.clear()
        for session in self._mirror.sessions.values():
            self.note(session)

    def next_ms(self) -> int | None:
        """Return when the next deadline is due, in milliseconds of Redis time."""
        return self._heap[0].act_at if self._heap else None

    async def run(self) -> None:
        """Fire deadlines for ever."""
        while True:
            next_ms = self.next_ms()
            wait_s = WAIT_MAX_S
            if next_ms is not None:
                wait_s = min(max(next_ms - self._clock.now_ms(), 0) / 1000, WAIT_MAX_S)
            self._wake.clear()
            if wait_s > 0:
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            await self.run_once(self._clock.now_ms())

    async def run_once(self, now_ms: int) -> None:
        """Act on everything that is due at *now_ms*."""
        if self._clock.is_frozen:
            await asyncio.sleep(RETRY_MS / 1000)
            return
        due = self._due(now_ms)
        workers = min(CONCURRENT, len(due))
        queue = iter(due)
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(queue, now_ms))

    def _due(self, now_ms: int) -> list[Due]:
        """Take what is due off the heap; in a crowd each node does its own part first."""
        mine: list[Due] = []
        others: list[Due] = []
        while self._heap and self._heap[0].act_at <= now_ms:
            due = heappop(self._heap)
            if not self._stands(due):
                continue
            act_at, is_mine = self._turn(due, now_ms)
            if act_at > now_ms:
                heappush(self._heap, Due(act_at, *due_facts(due)))
            else:
                (mine if is_mine else others).append(due)
        return mine + others

    def _stands(self, due: Due) -> bool:
        return self._noted.get(due.session_id, {}).get(due.kind) == due.at

    def _turn(self, due: Due, now_ms: int) -> tuple[int, bool]:
        """Return when this node should act, and whether it is the one that should."""
        at = due.at
        if due.amnesty_ms:
            if not self._lease.is_fresh:
                return now_ms + RETRY_MS, False
            at = max(at, self._lease.up_since_ms + due.amnesty_ms)
        session = self._mirror.sessions[due.session_id]
        owner = session.connection.node if session.connection and session.is_connected else ""
        if owner not in self._lease.live:
            owner = rank(due.session_id, self._lease.live)
        is_mine = owner == self._lease.node_id
        return (at if is_mine else at + OTHERS_AFTER_MS), is_mine

    async def _work(self, queue: Iterator[Due], now_ms: int) -> None:
        for due in queue:
            if not self._stands(due):  # another node was faster while this one waited here
                continue
            try:
                again_at = await self._expire(due)
            except GatewayError:
                again_at = None
            if self._stands(due):  # also when nothing was refused: a deadline is never forgotten
                self._push(Due(again_at or now_ms + RETRY_MS, *due_facts(due)))

    def _push(self, due: Due) -> None:
        heappush(self._heap, due)
        if self._heap[0] is due:
            self._wake.set()


def due_facts(due: Due) -> tuple[str, Deadline, int, int]:
    """Return what a :class:`Due` is about, without when to act."""
    return due.session_id, due.kind, due.at, due.amnesty_ms
