"""Followers of a channel: written to synchronously, without gap or duplicate."""

import pytest
from msgspec.json import decode

from gateway.core import command as c
from gateway.core.position import Position
from gateway.core.query import View, Visibility
from gateway.live.channel import Subscription
from gateway.live.hub import Hub
from gateway.live.outbound import Restart, SnapshotPage
from gateway.live.replica import Replica
from tests.live.logbook import Log

ALL = View(visibility=Visibility(by="all"))


class Reader:
    """Takes frames, until it is full."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.frames: list[bytes] = []
        self.revisions: list[int] = []
        self.is_full = False
        self.behind = 0

    def follow(self) -> bool:
        """Follow, if there is nothing to read first."""
        return self.subscription.follow(self.push, self.fall_behind)

    def push(self, frame: bytes) -> bool:
        """Take a frame; return whether there is room for another."""
        self.frames.append(frame)
        message = decode(frame[2 if frame[1] < 126 else 4 :])
        self.revisions += [event["revision"] for event in message["events"]]
        return not self.is_full

    def fall_behind(self) -> None:
        """Note it."""
        self.behind += 1

    def catch_up(self) -> None:
        """Read what there is, and follow again."""
        while not self.follow():
            delivery = self.subscription.take()
            assert delivery is not None
            if not isinstance(delivery, SnapshotPage):
                self.push(delivery.frame)


class World:
    """A hub over a log that a test writes."""

    def __init__(self) -> None:
        self.log = Log()
        self.replica = Replica(1)
        self.replica.epochs[0] = "epoch1"
        self.hub = Hub(self.replica, lambda: 0.0)
        self.log.open("s")
        self.log.tell(self.replica, self.hub, 1)

    def write(self, count: int) -> None:
        """Commit and tell, one by one."""
        for _ in range(count):
            self.log.do("s", c.Update(name=f"n{len(self.log.entries)}"))
        self.log.tell(self.replica, self.hub, 1)


@pytest.fixture
async def world() -> World:
    """Return one with a session, within a loop."""
    return World()


async def test_who_has_something_to_read_cannot_follow(world: World) -> None:
    """A snapshot comes first; then every tick is pushed, and nothing is left to be read."""
    with world.hub.subscribe(ALL) as subscription:
        reader = Reader(subscription)
        assert not reader.follow()
        assert isinstance(subscription.take(), SnapshotPage)
        assert reader.follow()
        world.write(3)

        assert reader.revisions == [2, 3, 4]
        assert subscription.take() is None
        assert not subscription.is_behind


async def test_followers_share_one_frame(world: World) -> None:
    """All who follow a channel are given the same bytes."""
    with world.hub.subscribe(ALL) as one, world.hub.subscribe(ALL) as two:
        readers = [Reader(one), Reader(two)]
        for reader in readers:
            reader.catch_up()
        world.write(2)

        assert [len(reader.frames) for reader in readers] == [2, 2]
        assert all(a is b for a, b in zip(*(reader.frames for reader in readers), strict=True))


async def test_full_reader_is_left_behind_and_catches_up(world: World) -> None:
    """Who takes no more is told once that it fell behind, is pushed nothing, and misses nothing."""
    with world.hub.subscribe(ALL) as slow, world.hub.subscribe(ALL) as quick:
        readers = [Reader(slow), Reader(quick)]
        for reader in readers:
            reader.catch_up()
        readers[0].is_full = True
        world.write(5)
        assert (readers[0].revisions, readers[0].behind) == ([2], 1)
        assert slow.is_behind
        assert slow.position == str(Position("epoch1", (2,), ALL.hash32))  # the last that was told

        readers[0].is_full = False
        readers[0].catch_up()
        world.write(1)

        assert readers[0].revisions == readers[1].revisions == [2, 3, 4, 5, 6, 7]
        assert readers[1].behind == 0


async def test_restart_reaches_followers(world: World) -> None:
    """A channel that starts over is followed by nobody until they have read why, and a snapshot."""
    with world.hub.subscribe(ALL) as subscription:
        reader = Reader(subscription)
        reader.catch_up()
        world.hub.restart("history lost")

        assert reader.behind == 1
        assert subscription.take() == Restart("history lost")
        assert isinstance(subscription.take(), SnapshotPage)
        reader.catch_up()
        world.write(1)
        assert reader.revisions == [2]


async def test_position_never_goes_back(world: World) -> None:
    """Who starts over after a snapshot that was newer than the last tick stays where it was."""
    anns = View(visibility=Visibility("account", "ann"))
    world.log.open("a", account="ann")
    with world.hub.subscribe(anns):
        world.log.do("a", c.Update(name="told"))
        world.write(3)  # of another session: no tick here
        with world.hub.subscribe(anns) as late:
            Reader(late).catch_up()
            here = late.position
            world.hub.restart("trimmed")

            assert late.position == here


async def test_closed_subscription_is_told_nothing(world: World) -> None:
    """Closing ends the following, also twice, and the last one takes the channel with it."""
    subscription = world.hub.subscribe(ALL)
    reader = Reader(subscription)
    reader.catch_up()
    subscription.close()
    subscription.close()
    world.write(2)

    assert (reader.frames, reader.behind) == ([], 0)
    assert not world.hub._channels  # noqa: SLF001 - there is no other way to see a leak
