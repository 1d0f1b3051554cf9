"""Channel: a ring that each subscriber reads at its own pace, resumed without gap or double."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from msgspec.json import decode

from gateway.core import command as c
from gateway.core.position import Position
from gateway.core.query import View, Visibility
from gateway.live import channel as channel_module
from gateway.live.channel import Channel, Subscription, Trimmed
from gateway.live.commit_view import CommitView
from gateway.live.hub import Hub
from gateway.live.outbound import Restart, SnapshotPage, Tick
from gateway.live.replica import Replica
from tests.live.logbook import Log
from tests.support import eventually

ALL = View(visibility=Visibility(by="all"))


class World:
    """A hub over a log that a test writes; the log can be asked for the past."""

    def __init__(self) -> None:
        self.log = Log()
        self.replica = Replica(1)
        self.replica.epochs[0] = "epoch1"
        self.hub = Hub(self.replica, lambda: 0.0)
        self.asked: list[tuple[int, int]] = []
        self.trimmed = False
        self.gate = asyncio.Event()
        self.gate.set()

    def write(self, count: int, batch: int = 1) -> None:
        """Append *count* commits and tell them."""
        if not self.log.sessions:
            self.log.open("s")
            count -= 1
        for _ in range(count):
            self.log.do("s", c.Update(name=f"n{len(self.log.entries)}"))
        self.log.tell(self.replica, self.hub, batch)

    def at(self, offset: int) -> Position:
        """Return a position."""
        return Position("epoch1", (offset,), ALL.hash32)

    async def missed(self, since: Position, upto: Position) -> AsyncIterator[Tick]:
        """Tell the past, two entries at a time."""
        self.asked.append((since.offsets[0], upto.offsets[0]))
        start = since.offsets[0]
        while start < upto.offsets[0]:
            await self.gate.wait()
            if self.trimmed:
                raise Trimmed
            stop = min(start + 2, upto.offsets[0])
            items = []
            for entry, _ in self.log.entries[start:stop]:
                items += self.hub.render(ALL, CommitView.from_log(entry))
            yield Tick(self.at(stop), items, self.at(start))
            start = stop


@pytest.fixture
async def world() -> World:
    """Return an empty one, within a loop."""
    return World()


async def revisions(subscription: Subscription, upto: int) -> list[int]:
    """Return the revisions told until the last one is *upto*."""
    found: list[int] = []
    while not found or found[-1] < upto:
        delivery = await subscription.next()
        assert isinstance(delivery, Tick), delivery
        found += [event["revision"] for event in decode(delivery.message)["events"]]
    return found


@pytest.mark.parametrize("since", range(3, 11))
async def test_resume_from_the_ring_tells_exactly_what_was_missed(world: World, since: int) -> None:
    """Any position that the ring covers continues there, without asking the log."""
    world.write(3)
    with world.hub.subscribe(ALL):
        world.write(7)
        with world.hub.subscribe(ALL, world.at(since), world.missed) as subscription:
            assert (subscription.mode, world.asked) == ("resume", [])
            world.write(1)

            assert await revisions(subscription, 11) == list(range(since + 1, 12))


@pytest.mark.parametrize("since", range(9))
@pytest.mark.parametrize("batch", [1, 3, 4])
async def test_resume_within_a_batch_doubles_nothing(world: World, since: int, batch: int) -> None:
    """A position from a node with other batches gets exactly what it missed."""
    with world.hub.subscribe(ALL):
        world.write(8, batch)
        with world.hub.subscribe(ALL, world.at(since), world.missed) as subscription:
            world.write(2, batch)

            assert await revisions(subscription, 10) == list(range(since + 1, 11))


def test_resume_where_two_logs_never_stood_together() -> None:
    """With several partitions, a position off the ring's path is not served from the ring."""
    channel = Channel(ALL, Position("e", (0, 0)))
    path = [(0, 0), (2, 0), (2, 3), (4, 3)]
    for start, stop in pairwise(path):
        channel.append(Tick(Position("e", stop), [], Position("e", start)))

    assert [channel.after(Position("e", at)) for at in path] == [0, 1, 2, 3]
    assert channel.after(Position("e", (0, 3))) is None
    assert channel.after(Position("e", (3, 1))) is None
    assert channel.after(Position("other", (2, 0))) is None


async def test_resume_from_before_the_ring_asks_the_log(world: World) -> None:
    """What the ring never had comes from the log, then the ring goes on, without a seam."""
    world.write(5)
    with world.hub.subscribe(ALL, world.at(2), world.missed) as subscription:
        world.write(3)

        assert await revisions(subscription, 8) == [3, 4, 5, 6, 7, 8]
        assert world.asked == [(2, 5)]
        assert subscription.position == str(world.at(8))


async def test_trimmed_log_restarts_with_a_snapshot(world: World) -> None:
    """A log that lost what a resume needs leads to a snapshot, and the subscriber is told."""
    world.write(5)
    world.trimmed = True
    with world.hub.subscribe(ALL, world.at(2), world.missed) as subscription:
        assert await subscription.next() == Restart("trimmed")
        page = await subscription.next()

        assert isinstance(page, SnapshotPage)
        assert page.position == str(world.at(5))
        world.write(1)
        assert await revisions(subscription, 6) == [6]


async def test_cancelled_replay_goes_on(world: World) -> None:
    """Who gives up waiting in the middle of a replay misses nothing of it."""
    world.write(6)
    with world.hub.subscribe(ALL, world.at(0), world.missed) as subscription:
        first = await subscription.next()
        world.gate.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await subscription.next()
        world.gate.set()
        world.write(1)

        assert decode(first.message)["events"][-1]["revision"] == 2
        assert await revisions(subscription, 7) == [3, 4, 5, 6, 7]


async def test_waiting_leaves_nothing_behind(world: World) -> None:
    """A quiet channel does not collect those who gave up waiting."""
    with world.hub.subscribe(ALL) as subscription:
        await subscription.next()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await subscription.next()

        assert not subscription._channel._waiters  # noqa: SLF001


@pytest.mark.parametrize("bound", ["RING_TICKS", "RING_BYTES"])
async def test_slow_reader_starts_over(
    world: World, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who falls out of the ring is told so and gets a snapshot; who keeps up is not touched."""
    monkeypatch.setattr(channel_module, bound, 4 if bound == "RING_TICKS" else 1_500)
    world.write(1)
    with world.hub.subscribe(ALL) as slow, world.hub.subscribe(ALL) as quick:
        await slow.next()
        await quick.next()
        for _ in range(20):
            world.write(1)
            assert isinstance(await quick.next(), Tick)
        assert await slow.next() == Restart("slow")
        page = await slow.next()

        assert isinstance(page, SnapshotPage)
        assert [decode(session)["revision"] for session in page.sessions] == [21]
        world.write(1)
        assert await revisions(slow, 22) == [22]


async def test_reader_within_the_ring_is_not_slow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last tick that the ring holds can still be read."""
    monkeypatch.setattr(channel_module, "RING_TICKS", 4)
    world.write(1)
    with world.hub.subscribe(ALL) as subscription:
        await subscription.next()
        world.write(4)

        assert await revisions(subscription, 5) == [2, 3, 4, 5]


async def test_ring_that_lost_its_beginning_does_not_serve_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resume from before the ring's first tick goes to the log."""
    monkeypatch.setattr(channel_module, "RING_TICKS", 2)
    with world.hub.subscribe(ALL):
        world.write(5)
        with world.hub.subscribe(ALL, world.at(1), world.missed) as subscription:
            assert await revisions(subscription, 5) == [2, 3, 4, 5]
            assert world.asked == [(1, 5)]


async def test_one_tick_tells_a_batch_at_its_end(world: World) -> None:
    """Events of a batch are one message, and its position is after the last of them."""
    with world.hub.subscribe(ALL) as subscription:
        await subscription.next()
        world.write(5, batch=10)
        tick = await subscription.next()

        assert isinstance(tick, Tick)
        assert decode(tick.message)["position"] == str(world.at(5)) == subscription.position
        assert [event["revision"] for event in decode(tick.message)["events"]] == [1, 2, 3, 4, 5]
        assert not subscription.is_behind


async def test_empty_view_has_an_empty_snapshot(world: World) -> None:
    """A snapshot of nothing is one page that says so."""
    with world.hub.subscribe(ALL) as subscription:
        page = await subscription.next()

        assert isinstance(page, SnapshotPage)
        assert (page.sessions, page.more) == ([], False)


async def test_snapshot_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel keeps a snapshot only as long as it may be shared, however long it lives."""
    monkeypatch.setattr(channel_module, "SNAPSHOT_AGE_MS", 10)
    world.write(3)
    with world.hub.subscribe(ALL) as subscription:
        assert isinstance(await subscription.next(), SnapshotPage)
        channel = world.hub._channels[ALL.key]  # noqa: SLF001
        await eventually(lambda: channel.frozen is None)


async def test_reader_that_renders_may_leave_when_it_hears_its_end() -> None:
    """A reader that is handed ticks may close its subscription in the middle; others go on."""
    world = World()
    world.write(1)
    first, second = (world.hub.subscribe(ALL, world.at(1)) for _ in range(2))
    told: list[str] = []

    def leave(tick: Tick) -> bool:
        told.append(f"first {len(tick.items)}")
        first.close()
        return False

    def stay(tick: Tick) -> bool:
        told.append(f"second {len(tick.items)}")
        return True

    assert first.follow_ticks(leave, lambda: None)
    assert second.follow_ticks(stay, lambda: None)
    world.write(2)

    assert told[:2] == ["first 1", "second 1"]
    assert told[2:] == ["second 1"]
