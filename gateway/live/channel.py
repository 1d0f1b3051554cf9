"""Channel: all local subscribers of one view, and the ring buffer that each reads at its own pace.

Each batch of the log becomes one *tick* of a channel: its events are encoded once, framed once and
kept in the ring. Caught-up subscribers that *follow* are written to synchronously; there is no task
per subscriber. All others read the ring and have no queue of their own. A subscriber that falls out
of the ring gets a ``resync`` and a new snapshot.

A snapshot is the list of sessions at one position, shared by all who join within a quarter of a
second; its pages are rendered when they are read. Until a reader has the last page, its position
belongs to no view: a client that resumes there gets a snapshot again, because it has half of one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Literal, Self

from msgspec.structs import replace

from gateway.core.model import Session
from gateway.core.position import Position
from gateway.core.query import View
from gateway.live.outbound import OutboundMessage, Restart, SnapshotPage, Tick
from gateway.live.replica import Replica
from gateway.metrics import DELIVERIES, SLOW_READERS

RING_TICKS: Final = 4096  # ticks that a channel keeps for subscribers that are behind, and at most
RING_BYTES: Final = 8 << 20  # bytes
SNAPSHOT_PAGE: Final = 200  # sessions a snapshot message
SNAPSHOT_AGE_MS: Final = 250  # subscribers that join within this time share a snapshot


class Trimmed(Exception):
    """The log no longer has the entries that a subscriber missed."""


Replay = Callable[[Position, Position], AsyncIterator[Tick]]
Push = Callable[[bytes], bool]
"""Writes a frame; returns whether the reader keeps up."""
PushTick = Callable[[Tick], bool]
"""Takes a tick; returns whether the reader keeps up."""


class _Frozen:
    """A snapshot: the sessions at one position; pages are rendered when they are read.

    Args:
        sessions: All sessions in view.
        position: Where a reader of the whole snapshot continues.
        sequence: The sequence number of the tick that follows.
        at_ms: When the snapshot was taken.
    """

    def __init__(
        self, sessions: list[Session], position: Position, sequence: int, at_ms: float
    ) -> None:
        self.position = str(position)
        self.within = str(replace(position, view=0))
        self.sequence = sequence
        self.at_ms = at_ms
        self._sessions = sessions
        self._pages: dict[int, SnapshotPage] = {}

    def page(self, number: int, replica: Replica, *, full: bool) -> SnapshotPage:
        page = self._pages.get(number)
        if page is None:
            start = number * SNAPSHOT_PAGE
            part = self._sessions[start : start + SNAPSHOT_PAGE]
            more = start + SNAPSHOT_PAGE < len(self._sessions)
            page = self._pages[number] = SnapshotPage(
                self.within if more else self.position,
                [replica.rendered(session, full=full) for session in part],
                more=more,
            )
        return page


class Channel:
    """All subscribers of one view on this node, and the ring that they read.

    Args:
        view: The view.
        born: The position at which the channel starts.
        on_empty: Called when the last subscriber has left.
    """

    def __init__(
        self, view: View, born: Position, on_empty: "Callable[[Channel], None]" = lambda _: None
    ) -> None:
        self.view = view
        self.born = born  # every later tick went through the ring
        self.hash32 = view.hash32
        self.index = view.index
        self.subscribers = 0
        self.sequence = 0  # of the next tick
        self.generation = 0  # raised when all subscribers have to start over
        self.reason = ""
        self.complete = True  # the ring still has everything since ``born``
        self.frozen: _Frozen | None = None
        self._ring: deque[Tick] = deque()
        self.ring_bytes = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._followers: dict[Subscription, Push] = {}
        self._tick_followers: dict[Subscription, PushTick] = {}
        self.last_sent_at_s = 0.0  # when followers were last sent a tick, in loop time
        self._on_empty = on_empty

    @property
    def first(self) -> int:
        """The sequence number of the oldest tick in the ring."""
        return self.sequence - len(self._ring)

    def tick(self, sequence: int) -> Tick:
        """Return the tick with this sequence number; it must be in the ring."""
        return self._ring[sequence - self.first]

    def after(self, position: Position) -> int | None:
        """Return the sequence number that follows *position*, if the ring has all ticks since then.

        Batches differ between nodes. A position within one of our ticks, or one that our logs never
        reached together, gets ``None`` and is served from the log, so that no event is sent twice.
        """
        if not position.covers(self.born):
            return None
        sequence = self.sequence
        following: Tick | None = None
        for tick in reversed(self._ring):
            if position.covers(tick.position):
                break
            sequence, following = sequence - 1, tick
        else:
            if not self.complete:
                return None
        return sequence if following is None or following.start.covers(position) else None

    def append(self, tick: Tick) -> None:
        """Add a tick, write it to all followers, and wake the readers that wait for one."""
        self._ring.append(tick)
        self.ring_bytes += tick.size
        self.sequence += 1
        while len(self._ring) > RING_TICKS or (
            self.ring_bytes > RING_BYTES and len(self._ring) > 1
        ):
            self.ring_bytes -= self._ring.popleft().size
            self.complete = False
        if followers := len(self._followers) + len(self._tick_followers):
            DELIVERIES.inc(followers * len(tick.items))
        if self._followers:
            self.last_sent_at_s = asyncio.get_running_loop().time()
            told = tick.frame
            behind = [reader for reader, push in self._followers.items() if not push(told)]
            for reader in behind:
                del self._followers[reader]
                reader.fall_behind(self.sequence, tick)
        for reader, push in list(self._tick_followers.items()):  # one that hears its end leaves
            if not push(tick):
                self._tick_followers.pop(reader, None)
                reader.fall_behind(self.sequence, tick)
        self._wake()

    def restart(self, reason: str, born: Position) -> None:
        """Make every subscriber start over at *born*."""
        last = self._ring[-1] if self._ring else None
        self.born, self.complete = born, True
        self._ring.clear()
        self.ring_bytes = 0
        self.frozen = None
        self.generation += 1
        self.reason = reason
        followers = [*self._followers, *self._tick_followers]
        self._followers, self._tick_followers = {}, {}
        for reader in followers:
            reader.fall_behind(self.sequence, last)
        self._wake()

    def follow(self, reader: "Subscription", push: Push) -> None:
        """Write each tick to *reader*, which has read the whole ring, from now on."""
        self._followers[reader] = push

    def follow_ticks(self, reader: "Subscription", push: "PushTick") -> None:
        """Hand *reader* each tick as it is, not as a frame; else as :meth:`follow`."""
        self._tick_followers[reader] = push

    def leave(self, reader: "Subscription") -> None:
        """Remove *reader*."""
        self._followers.pop(reader, None)
        self._tick_followers.pop(reader, None)
        self.subscribers -= 1
        if not self.subscribers:
            self._on_empty(self)

    def thaw(self, frozen: _Frozen) -> None:
        """Drop a snapshot that is too old to be shared; its readers still have it."""
        if self.frozen is frozen:
            self.frozen = None

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self) -> None:
        """Wait for the next tick or restart."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


class Subscription:
    """One reader of a channel; ``with`` closes it.

    Args:
        mode: ``resume`` starts with the events that were missed, ``snapshot`` with all sessions.
        reason: Why the mode is not the one that was asked for, or ``None``.
        position: The position at which the subscription starts.
        is_client: Whether what is read counts as delivered; a reader of this process clears it.
    """

    def __init__(
        self,
        channel: Channel,
        replica: Replica,
        clock_ms: Callable[[], float],
        *,
        mode: Literal["snapshot", "resume"],
        reason: str | None,
        position: Position,
    ) -> None:
        self.mode: Literal["snapshot", "resume"] = mode
        self.reason = reason
        self.position = str(position)
        self.is_client = True
        self._channel = channel
        self._replica = replica
        self._clock_ms = clock_ms
        self._replay: Replay | None = None
        self._replayed = self._upto = position
        self._missed: AsyncIterator[Tick] | None = None
        self._generation = channel.generation
        self._sequence = channel.sequence
        self._frozen: _Frozen | None = None
        self._page = 0
        self._on_behind: Callable[[], None] | None = None  # while it follows
        self._is_closed = False
        channel.subscribers += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading."""
        if not self._is_closed:
            self._is_closed, self._on_behind = True, None
            self._channel.leave(self)

    @property
    def view(self) -> View:
        """The view of the channel."""
        return self._channel.view

    @property
    def last_sent_at_s(self) -> float:
        """When a tick was last pushed, in loop time; 0 if the subscription does not follow."""
        return 0.0 if self._on_behind is None else self._channel.last_sent_at_s

    @property
    def is_behind(self) -> bool:
        """Whether there is a message to read right now."""
        return self._on_behind is None and (
            self._sequence < self._channel.sequence
            or self._frozen is not None
            or self._missed is not None
            or self._generation != self._channel.generation
        )

    def resume(self, sequence: int) -> None:
        """Start at a tick of the ring."""
        self._sequence = sequence

    def replay(self, missed: Replay, since: Position, upto: Position) -> None:
        """Start with the ticks that *missed* yields between two positions."""
        self._replay, self._replayed, self._upto = missed, since, upto
        self._missed = missed(since, upto)

    def start(self) -> None:
        """Start with a snapshot."""
        self._missed = None
        frozen = self._channel.frozen
        if (
            frozen is None
            or self._clock_ms() - frozen.at_ms > SNAPSHOT_AGE_MS
            or (frozen.sequence < self._channel.first)
        ):
            frozen = self._channel.frozen = _Frozen(
                self._replica.all_in(self.view),
                self._replica.position(self._channel.hash32),
                self._channel.sequence,
                self._clock_ms(),
            )
            loop = asyncio.get_running_loop()
            loop.call_later(SNAPSHOT_AGE_MS / 1000, self._channel.thaw, frozen)
        self._frozen, self._page = frozen, 0
        self._sequence, self._generation = frozen.sequence, self._channel.generation
        self.position = frozen.within

    def follow(self, push: Push, on_behind: Callable[[], None]) -> bool:
        """Push each tick from now on; return ``False`` if there is something to read first.

        Args:
            push: Writes a frame; when it returns ``False`` the frame was taken, but no more follow.
            on_behind: Called when the subscription follows no more and has to be read. It must
                return at once, because the channel calls it while it writes to all others.
        """
        if self.is_behind:
            return False
        self._on_behind = on_behind
        self._channel.follow(self, push)
        return True

    def follow_ticks(self, push: PushTick, on_behind: Callable[[], None]) -> bool:
        """As :meth:`follow`, for readers that render each tick by themselves.

        What *push* calls may close its own subscription.
        """
        if self.is_behind:
            return False
        self._on_behind = on_behind
        self._channel.follow_ticks(self, push)
        return True

    def fall_behind(self, sequence: int, told: Tick | None) -> None:
        """Stop following; all ticks before *sequence* were pushed, *told* last."""
        if told is not None and self._sequence < sequence:  # else no tick came since it followed
            self.position = str(told.position)
        self._sequence = sequence
        on_behind, self._on_behind = self._on_behind, None
        if on_behind is not None:
            on_behind()

    def take(self) -> OutboundMessage | None:
        """Return the next message; ``None`` if the caller has to wait for it."""
        if self._on_behind is not None:
            return None
        channel = self._channel
        if self._generation != channel.generation:
            reason = channel.reason
            self.start()
            return Restart(reason)
        if self._frozen:
            page = self._frozen.page(self._page, self._replica, full=self.view.full)
            self._page += 1
            if not page.more:
                self._frozen, self.position = None, page.position
            return page
        if self._missed:
            return None
        if self._sequence < channel.first:
            self.start()
            SLOW_READERS.inc()
            return Restart("slow")
        if self._sequence < channel.sequence:
            tick = channel.tick(self._sequence)
            self._sequence += 1
            self.position = str(tick.position)
            DELIVERIES.inc(len(tick.items) * self.is_client)
            return tick
        return None

    async def next(self) -> OutboundMessage:
        """Wait for the next message and return it."""
        while True:
            delivery = self.take()
            if delivery is not None:
                return delivery
            if self._missed:
                try:
                    tick = await anext(self._missed)
                except StopAsyncIteration:
                    self._missed = None
                    continue
                except Trimmed:
                    self.start()
                    return Restart("trimmed")
                except asyncio.CancelledError:  # it ended the iterator, so begin again where it was
                    if self._replay:
                        self._missed = self._replay(self._replayed, self._upto)
                    raise
                self._replayed, self.position = tick.position, str(tick.position)
                DELIVERIES.inc(len(tick.items) * self.is_client)
                return tick
            await self._channel.wait()
