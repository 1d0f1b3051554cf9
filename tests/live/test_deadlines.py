"""Deadline scheduler: no deadline fires early, twice or never; time is set by hand."""

import asyncio

import pytest

from gateway.core import command as c
from gateway.core.errors import StoreUnavailable
from gateway.core.model import Connection, Deadline
from gateway.live import deadlines as deadlines_module
from gateway.live.deadlines import OTHERS_AFTER_MS, RETRY_MS, DeadlineScheduler, Due
from gateway.live.lease import Lease, rendezvous_owner
from gateway.live.replica import Replica
from gateway.store.commit import LeaseState
from tests.live.logbook import Log
from tests.nodes import clock
from tests.support import S, eventually


class World:
    """A scheduler over a log that a test writes; what it fires is applied at once."""

    def __init__(self, node_id: str = "a:1") -> None:
        self.log = Log()
        self.replica = Replica(1)
        self.clock = clock()
        self.clock.sample(self.clock.monotonic_ms(), self.clock.monotonic_ms(), 5_000)
        self.lease = Lease(None, self.clock, node_id, bytes)  # type: ignore[arg-type]  # never renewed
        self.renewed()
        self.scheduler = DeadlineScheduler(self.replica, self.clock, self.lease, self.expire)
        self.fired: list[Due] = []
        self.answers: list[int | Exception | None] = []

    def renewed(self, *others: str, up_since_ms: int = 0) -> None:
        """Let the lease be renewed now."""
        live = dict.fromkeys((self.lease.node_id, *others), (5_000, b""))
        self.lease._apply(LeaseState(5_000, up_since_ms, live))  # noqa: SLF001
        self.lease._renewed_ms = self.clock.monotonic_ms()  # noqa: SLF001

    def do(self, session_id: str, command: c.AnyCommand) -> None:
        """Append a commit and let everybody know."""
        self.log.do(session_id, command)
        self.note()

    def open(self, session_id: str, **facts: object) -> None:
        """Append an opening and let everybody know."""
        self.log.open(session_id, **facts)
        self.note()

    def note(self) -> None:
        """Apply what is new."""
        done = self.replica.offsets[0]
        self.log.play(self.replica, done)
        for entry, _ in self.log.entries[done:]:
            self.scheduler.update(entry.record)

    async def expire(self, due: Due) -> int | None:
        """Fire: as scripted, else close."""
        self.fired.append(due)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            self.log.now_ms = max(self.log.now_ms, due.at)
            self.do(due.session_id, c.Expire(kind=due.kind, at=due.at))
        return answer

    async def fire(self, now_ms: int) -> None:
        """Act on all that is due at a moment."""
        async with asyncio.TaskGroup() as group:
            self.scheduler.fire(group, now_ms)

    async def fires_at(self, now_ms: int) -> list[str]:
        """Return the sessions that are fired at a moment."""
        self.fired.clear()
        await self.fire(now_ms)
        return sorted(due.session_id for due in self.fired)


@pytest.fixture
async def world() -> World:
    """Return one with nothing in it."""
    return World()


async def test_deadlines_fire_when_due_and_not_before(world: World) -> None:
    """Each deadline fires once, at its time, in a pass that finds it due."""
    for number in range(5):
        world.open(f"s{number}")
        world.do(f"s{number}", c.RequestClose(at=10_000 + number))

    assert await world.fires_at(9_999) == []
    assert world.scheduler.next_ms() == 10_000
    assert await world.fires_at(10_002) == ["s0", "s1", "s2"]
    assert await world.fires_at(10_002) == []
    assert await world.fires_at(99_999) == ["s3", "s4"]
    assert world.scheduler.next_ms() is None


async def test_crowd_is_shared_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """When much is late a node does its own part first, and skips what another did meanwhile."""
    monkeypatch.setattr(deadlines_module, "CONCURRENT", 1)
    world.renewed("b:1")
    for number in range(20):
        world.open(f"s{number}")
        world.do(f"s{number}", c.RequestClose(at=10_000))
    mine = [
        known
        for known in world.replica.sessions
        if rendezvous_owner(known, world.lease.live) == "a:1"
    ]
    theirs = sorted(set(world.replica.sessions) - set(mine))
    assert len(mine) > 1
    assert len(theirs) > 1

    async def expire(due: Due) -> int | None:
        if len(world.fired) == len(mine) - 1:
            for session_id in theirs[1:]:
                world.do(session_id, c.Close())
        return await world.expire(due)

    world.scheduler._expire = expire  # noqa: SLF001
    await world.fire(11_000)

    assert sorted(due.session_id for due in world.fired[:-1]) == sorted(mine)
    assert world.fired[-1].session_id == theirs[0]


async def test_stale_deadlines_are_ignored(world: World) -> None:
    """A close that was moved, called off or overtaken does not fire at its old time."""
    for session_id in ("moved", "cancelled", "closed"):
        world.open(session_id)
        world.do(session_id, c.RequestClose(at=10_000))
    world.do("moved", c.RequestClose(at=20_000))
    world.do("cancelled", c.CancelClose())
    world.do("closed", c.Close())

    assert await world.fires_at(15_000) == []
    assert await world.fires_at(20_000) == ["moved"]


async def test_every_kind_of_deadline_fires(world: World) -> None:
    """Linger, keepalive, longest life, start and settling are deadlines like a close."""
    world.open("linger", linger_ms=2_000)
    world.open("keepalive", keepalive_ms=2_000)
    world.open("ttl", ttl_ms=2_000)
    world.open("start", start_within_ms=2_000)
    world.open("settle", grace_ms=500)
    world.do("settle", c.Connect(connection=Connection(id="c", node="a:1", connected_at=1)))
    world.do("settle", c.Disconnect(connection="c", cause="lost"))

    assert await world.fires_at(60_000) == ["keepalive", "linger", "settle", "start", "ttl"]
    assert {due.kind for due in world.fired} == {
        Deadline.LINGER,
        Deadline.KEEPALIVE,
        Deadline.TTL,
        Deadline.START,
        Deadline.SETTLE,
    }
    assert set(world.replica.sessions) == {"settle"}


async def test_others_act_fifty_milliseconds_later(world: World) -> None:
    """The node that holds the socket goes first; another one steps in soon after."""
    world.renewed("b:1")
    world.open("mine")
    world.do("mine", c.Connect(connection=Connection(id="c1", node="a:1", connected_at=1)))
    world.open("theirs")
    world.do("theirs", c.Connect(connection=Connection(id="c2", node="b:1", connected_at=1)))
    for session_id in ("mine", "theirs"):
        world.do(session_id, c.RequestClose(at=10_000))

    assert await world.fires_at(10_000) == ["mine"]
    assert await world.fires_at(10_000 + OTHERS_AFTER_MS - 1) == []
    assert await world.fires_at(10_000 + OTHERS_AFTER_MS) == ["theirs"]


async def test_sessions_of_a_dead_node_have_a_first_node_too(world: World) -> None:
    """Of the nodes that live exactly one goes first for a session without a socket."""
    other = World("b:1")
    first = {}
    for known, peer in ((world, "b:1"), (other, "a:1")):
        known.renewed(peer)
        for number in range(40):
            known.open(f"s{number}")
            known.do(f"s{number}", c.RequestClose(at=10_000))
        first[peer] = set(await known.fires_at(10_000))

    assert first["a:1"] | first["b:1"] == {f"s{number}" for number in range(40)}
    assert not first["a:1"] & first["b:1"]
    assert min(map(len, first.values())) > 5


async def test_outage_prolongs_linger_but_no_close(world: World) -> None:
    """After an outage a linger starts over; a delayed close keeps its word."""
    world.open("linger", linger_ms=2_000)
    world.open("close")
    world.do("close", c.RequestClose(at=10_000))
    world.renewed(up_since_ms=50_000)

    assert await world.fires_at(51_999) == ["close"]
    assert await world.fires_at(52_000) == ["linger"]


async def test_node_that_did_not_renew_fires_no_linger(world: World) -> None:
    """Who may have missed an outage waits for news of it; closes go on."""
    world.open("linger", linger_ms=2_000)
    world.open("close")
    world.do("close", c.RequestClose(at=10_000))
    world.lease._renewed_ms -= 60_000  # noqa: SLF001

    assert await world.fires_at(20_000) == ["close"]
    world.renewed()
    assert await world.fires_at(20_000 + RETRY_MS) == ["linger"]


async def test_clock_that_stepped_fires_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a step of the server's clock deadlines wait, and none is lost."""
    monkeypatch.setattr(deadlines_module, "RETRY_MS", 1)
    world.open("s")
    world.do("s", c.RequestClose(at=10_000))
    now_ms = world.clock.monotonic_ms()
    world.clock.sample(now_ms, now_ms, 500_000)

    assert await world.fires_at(500_000) == []
    world.clock._frozen_until_ms = 0  # noqa: SLF001
    assert await world.fires_at(500_000) == ["s"]


async def test_early_or_failed_deadline_is_tried_again(world: World) -> None:
    """What Redis found too early, or could not answer, fires again at the time it said."""
    world.open("s")
    world.do("s", c.RequestClose(at=10_000))
    world.answers = [10_007, StoreUnavailable(), 10_400]

    assert await world.fires_at(10_000) == ["s"]
    assert await world.fires_at(10_006) == []
    assert await world.fires_at(10_007) == ["s"]
    assert await world.fires_at(10_006 + RETRY_MS) == []
    assert await world.fires_at(10_007 + RETRY_MS) == ["s"]
    assert await world.fires_at(10_400) == ["s"]
    assert world.replica.sessions == {}


async def test_deadline_that_came_to_nothing_is_not_forgotten(world: World) -> None:
    """When a clock went back a little between look and decision, the deadline fires again."""
    world.open("s")
    world.do("s", c.RequestClose(at=10_000))
    fire = world.scheduler._expire  # noqa: SLF001

    async def nothing(_: Due) -> None:
        """Decide to nothing, as ``decide`` does a millisecond early."""

    world.scheduler._expire = nothing  # noqa: SLF001
    await world.fire(10_000)
    world.scheduler._expire = fire  # noqa: SLF001

    assert await world.fires_at(10_000 + RETRY_MS) == ["s"]


async def test_heap_stays_small(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose deadline moves often does not fill the heap."""
    monkeypatch.setattr(deadlines_module, "STALE_MAX", 50)
    world.open("s")
    for number in range(500):
        world.do("s", c.RequestClose(at=10_000 + number))

    assert len(world.scheduler._heap) <= 51  # noqa: SLF001
    assert await world.fires_at(10_498) == []
    assert await world.fires_at(10_499) == ["s"]


async def test_reload_starts_over_from_the_replica(world: World) -> None:
    """After a load every deadline that stands is known, and no other."""
    world.open("s")
    world.do("s", c.RequestClose(at=10_000))
    world.open("gone")
    world.do("gone", c.RequestClose(at=10_000))
    del world.replica.sessions["gone"]
    world.scheduler.reload()

    assert await world.fires_at(10_000) == ["s"]


async def test_sleeping_closer_wakes_for_a_sooner_deadline(world: World) -> None:
    """A deadline that comes in while the scheduler waits for a later one is in time."""
    running = asyncio.create_task(world.scheduler.run())
    try:
        world.open("late")
        world.do("late", c.RequestClose(at=world.clock.now_ms() + 60_000))
        await asyncio.sleep(0)
        world.open("soon")
        world.do("soon", c.RequestClose(at=world.clock.now_ms() + 5))
        await eventually(lambda: "soon" not in world.replica.sessions, within=0.5 * S)

        assert set(world.replica.sessions) == {"late"}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Stuck:
    """A world whose sessions named ``stuck…`` keep their deadlines waiting."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.free = asyncio.Event()
        self.tried: list[str] = []
        self._fire = world.scheduler._expire  # noqa: SLF001
        world.scheduler._expire = self.expire  # noqa: SLF001

    async def expire(self, due: Due) -> int | None:
        """Fire, once the session lets us."""
        self.tried.append(due.session_id)
        if due.session_id.startswith("stuck"):
            await self.free.wait()
        return await self._fire(due)

    def open(self, session_id: str, in_ms: int) -> None:
        """Open a session that closes in a moment."""
        self.world.open(session_id)
        self.world.do(session_id, c.RequestClose(at=self.world.clock.now_ms() + in_ms))


async def test_session_that_keeps_its_own_waiting_keeps_no_other(world: World) -> None:
    """While one deadline waits for its session others fire in time; it fires once, then."""
    stuck = Stuck(world)
    stuck.open("stuck", 0)
    stuck.open("other", 30)
    running = asyncio.create_task(world.scheduler.run())
    try:
        await eventually(lambda: "other" not in world.replica.sessions, within=0.5 * S)
        world.scheduler.reload()
        stuck.open("last", 5)
        await eventually(lambda: "last" not in world.replica.sessions, within=0.5 * S)

        assert stuck.tried == ["stuck", "other", "last"]
        stuck.free.set()
        await eventually(lambda: not world.replica.sessions, within=0.5 * S)
        assert len(stuck.tried) == 3
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_deadlines_on_their_way_have_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait for their sessions, the next one goes when one is done."""
    monkeypatch.setattr(deadlines_module, "CONCURRENT", 2)
    monkeypatch.setattr(deadlines_module, "WAIT_MAX_S", 60 * S)
    stuck = Stuck(world)
    for session_id in ("stuck1", "stuck2"):
        stuck.open(session_id, 0)
    running = asyncio.create_task(world.scheduler.run())
    try:
        await eventually(lambda: len(stuck.tried) == 2)
        stuck.open("other", 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert len(stuck.tried) == 2
        stuck.free.set()
        await eventually(lambda: not world.replica.sessions, within=0.5 * S)
        assert stuck.tried == ["stuck1", "stuck2", "other"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
