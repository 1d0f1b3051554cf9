"""Node: commands in turn, reports held back and never lost, connections that always end."""

import asyncio
from contextlib import suppress

import pytest
from msgspec.json import decode

import gateway.node as node_module
from gateway.core import command as c
from gateway.core.errors import (
    BadPosition,
    Draining,
    NotClosing,
    NotConnected,
    NotFound,
    NotWatching,
    PositionAhead,
    SessionClosed,
    StoreFull,
    StoreUnavailable,
    UnknownStream,
)
from gateway.core.model import Stream, Watch
from gateway.core.position import Position
from gateway.core.query import Filter, View, Visibility
from gateway.live import coalescer as coalescer_module
from gateway.live import keyed_lock as keyed_lock_module
from gateway.live.channel import Subscription
from gateway.live.outbound import Tick
from gateway.node import Node
from gateway.store.commit import Commit
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, connection, running_node
from tests.support import MS, eventually

ALL = View(visibility=Visibility(by="all"))


async def told(subscription: Subscription) -> list[str]:
    """Return the types of the events that can be read right now."""
    found = []
    while subscription.is_behind:
        delivery = await subscription.next()
        if isinstance(delivery, Tick):
            found += [event["type"] for event in decode(delivery.message)["events"]]
    return found


async def connected(node: Node, session_id: str, **facts: object) -> None:
    """Open a session with a socket on *node*."""
    await node.open(blank(session_id, connection=connection(node, f"c-{session_id}"), **facts))


# --- commands


async def test_commands_of_a_session_take_turns(node: Node) -> None:
    """Commands of one session are done in the order they were asked, one at a time."""
    await node.open(blank("s"))
    results = await asyncio.gather(
        *(node.apply("s", c.Update(name=f"n{number}")) for number in range(50))
    )

    assert [(result.revision, result.name) for result in results] == [
        (number + 2, f"n{number}") for number in range(50)
    ]


async def test_sessions_do_not_wait_for_each_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for their turn too long hears so; others are not held up."""
    monkeypatch.setattr(keyed_lock_module, "ACQUIRE_S", 50 * MS)
    await node.open(blank("slow"))
    await node.open(blank("quick"))
    write, gate = node._writer.write, asyncio.Event()  # noqa: SLF001

    async def stuck(session_id: str, *rest: object) -> object:
        if session_id == "slow":
            await gate.wait()
        return await write(session_id, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(node._writer, "write", stuck)  # noqa: SLF001
    first = asyncio.ensure_future(node.apply("slow", c.Update(name="x")))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(node.apply("slow", c.Update(name="y")))
    assert (await node.apply("quick", c.Update(name="x"))).name == "x"
    with pytest.raises(StoreUnavailable):
        await second
    gate.set()

    assert (await first).name == "x"


async def test_cancelled_command_gives_its_turn_back(node: Node) -> None:
    """A caller that goes away in the middle does not block the session."""
    await node.open(blank("s"))
    for _ in range(10):
        work = asyncio.ensure_future(node.apply("s", c.Update(name="x")))
        await asyncio.sleep(0)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    assert (await node.apply("s", c.Update(name="y"))).name == "y"
    assert not node._locks  # noqa: SLF001


async def test_find_asks_the_store(valkey: EmbeddedValkey, prefix: str, node: Node) -> None:
    """A session that another node has just opened or closed is found before the feed tells."""
    async with running_node(valkey.url, prefix, "b") as other:
        await node.open(blank("open"))
        await node.open(blank("closed"))
        await node.apply("closed", c.Close(reason="enough"))
        other.replica.sessions.clear()

        assert (await other.find("open")).id == "open"
        with pytest.raises(SessionClosed) as caught:
            await other.find("closed")
        assert caught.value.record is not None
        with pytest.raises(NotFound):
            await other.find("never")


async def test_full_or_leaving_node_opens_nothing(node: Node) -> None:
    """Opens are refused when memory is short or the node is going; closes are not."""
    await node.open(blank("s"))
    node.store.access.is_full = True
    with pytest.raises(StoreFull):
        await node.open(blank("t"))
    node.store.access.is_full = False
    node.is_draining = True
    with pytest.raises(Draining):
        await node.open(blank("t"))

    assert (await node.apply("s", c.Close())).closed


async def test_position_is_waited_for(
    node: Node, valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read at a position waits for it, for a while, and refuses what can never come."""
    async with running_node(valkey.url, prefix, "b") as other:
        await node.open(blank("s"))
        await other.wait_for_position(node.replica.position())
        assert "s" in other.replica.sessions

    monkeypatch.setattr(node_module, "APPLIED_WITHIN_S", 20 * MS)
    here = node.replica.position()
    with pytest.raises(PositionAhead):
        await node.wait_for_position(Position(here.epoch, (here.offsets[0] + 1,)))
    for position in (Position("other", here.offsets), Position(here.epoch, (1, 1))):
        with pytest.raises(BadPosition):
            await node.wait_for_position(position)
    view = View(filter=Filter(q="x"), visibility=Visibility(by="all"))
    reasons = [
        await node.check_resume(ALL, position)
        for position in (
            node.replica.position(ALL.hash32),
            node.replica.position(view.hash32),
            Position("other", here.offsets, ALL.hash32),
            Position(here.epoch, (here.offsets[0] + 1,), ALL.hash32),
        )
    ]
    assert reasons == [None, "other view", "history lost", "ahead"]


async def test_watcher_goes_on_at_the_other_node(
    valkey: EmbeddedValkey, prefix: str, node: Node
) -> None:
    """Who drops and comes back elsewhere gets exactly what they missed."""
    async with running_node(valkey.url, prefix, "b") as other:
        with node.subscribe(ALL) as first:
            await node.open(blank("s"))
            await told(first)
            since = Position.parse(first.position)
        await asyncio.gather(
            *(node.apply("s", c.Join(members=(f"m{number}",))) for number in range(9))
        )
        await node.apply("s", c.Close())
        assert await other.check_resume(ALL, since) is None
        with other.subscribe(ALL, since) as second:
            delivery = await second.next()
            assert isinstance(delivery, Tick)

            assert [item.type for item in delivery.items] == [
                *["session.updated"] * 9,
                "session.closed",
            ]
            assert second.position == str(other.replica.position(ALL.hash32))


# --- reports


async def test_reports_are_held_back(node: Node) -> None:
    """Of many reports one is written at once, the rest as one commit when they are due."""
    await node.open(blank("s"))
    await node.apply("s", c.StartWatch(watch=Watch(key="m")))
    with node.subscribe(ALL) as subscription:
        await told(subscription)
        for number in range(1, 21):
            await node.report("s", c.Progress(position_ms=number))
        assert await told(subscription) == ["session.updated"]
        later_ms = node.clock.now_ms() + coalescer_module.EVERY_MS
        assert node._coalescer.due(later_ms) == ["s"]  # noqa: SLF001
        await node._flush("s")  # noqa: SLF001

        assert await told(subscription) == ["session.updated"]
        watch = node.replica.sessions["s"].watch
        assert watch is not None
        assert watch.position_ms == 20


async def test_reports_are_flushed_in_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held back is written without anybody asking."""
    monkeypatch.setattr(coalescer_module, "EVERY_MS", 100)
    await node.open(blank("s", watch=Watch(key="m")))
    await node.report("s", c.Progress(position_ms=1))
    await node.report("s", c.Progress(position_ms=2))

    def position() -> bool:
        watch = node.replica.sessions["s"].watch
        return watch is not None and watch.position_ms == 2

    await eventually(position)


@pytest.mark.parametrize("end", ["unwatch", "disconnect", "close"])
async def test_held_back_reports_go_along(node: Node, end: str) -> None:
    """Whatever ends a watch takes what was held back into the same commit, before it."""
    await connected(node, "s", watch=Watch(key="m"))
    await node.apply("s", c.StartStream(stream=Stream(key="t", kind="k")))
    await node.report("s", c.Progress(position_ms=1))
    await node.report("s", c.Progress(position_ms=2_000))
    await node.report("s", c.UpdateStream(stream=Stream(key="t", kind="k", data={"n": 1})))
    before = node.replica.offsets[0]
    with node.subscribe(ALL) as subscription:
        await told(subscription)
        commands: dict[str, c.AnyCommand] = {
            "unwatch": c.Unwatch(),
            "disconnect": c.Disconnect(connection="c-s", cause="lost"),
            "close": c.Close(),
        }
        await node.apply("s", commands[end])
        types = await told(subscription)

    assert node.replica.offsets[0] == before + 1
    assert types[:2] == ["session.updated", "stream.updated"]
    assert len(types) == (4 if end == "close" else 3)
    if end != "disconnect":
        [row] = node.replica.rows("watch")
        assert row.watch is not None
        assert row.watch.position_ms == 2_000


async def test_repeated_request_keeps_what_was_held_back(node: Node) -> None:
    """A request that was done before does nothing, and loses no report that was accepted since."""
    await node.open(blank("s"))
    await node.apply("s", c.StartWatch(watch=Watch(key="m")))
    renamed = c.Update(name="x")
    await node.apply("s", renamed, op="once")
    for number in (1, 2):
        await node.report("s", c.Progress(position_ms=number))
    await node.apply("s", renamed, op="once")

    watch = node.replica.sessions["s"].watch
    assert watch is not None
    assert watch.position_ms == 2


async def test_report_that_is_too_large_keeps_nobody_from_anything(node: Node) -> None:
    """A held-back report that no record can hold is left out; the session can still be closed."""
    big = {"x": "y" * 7_800}
    streams = tuple(Stream(key=key, kind="k", data=big) for key in "ab")
    await node.open(blank("s", connection=connection(node), streams=streams))
    small, large = (Stream(key="b", kind="k", data={"x": "y" * size}) for size in (1, 9_000))
    await node.report("s", c.UpdateStream(stream=small))
    await node.report("s", c.UpdateStream(stream=large))

    assert (await node.apply("s", c.Update(name="x"))).name == "x"
    await node.report("s", c.UpdateStream(stream=large))
    assert (await node.apply("s", c.Close())).closed


async def test_refused_command_keeps_what_was_held_back(node: Node) -> None:
    """An accepted report survives a command that is refused."""
    await node.open(blank("s", watch=Watch(key="m")))
    await node.report("s", c.Progress(position_ms=1))
    await node.report("s", c.Progress(position_ms=2))
    with pytest.raises(NotClosing):
        await node.apply("s", c.CancelClose())
    session = await node.apply("s", c.Update(name="x"))

    assert session.watch is not None
    assert session.watch.position_ms == 2


async def test_moot_reports_do_not_stop_others(node: Node) -> None:
    """A held-back report that has become moot is left out, and those beside it are written."""
    await node.open(blank("s", watch=Watch(key="m")))
    await node.apply("s", c.StartStream(stream=Stream(key="t", kind="k")))
    await node.report("s", c.Progress(position_ms=1))
    await node.report("s", c.UpdateStream(stream=Stream(key="t", kind="k", data={"n": 1})))
    late = c.Progress(position_ms=2, via="displaced")  # became so while it was held back
    node._coalescer.hold("s", late, node.clock.now_ms())  # noqa: SLF001
    await node._flush("s")  # noqa: SLF001
    session = node.replica.sessions["s"]

    assert session.streams[0].data == {"n": 1}
    assert session.watch is not None
    assert session.watch.position_ms == 1
    assert node._coalescer.sessions() == []  # noqa: SLF001


async def test_reports_about_nothing_are_refused(node: Node) -> None:
    """Progress without a watch and an update of an unknown stream are told at once."""
    await node.open(blank("s"))
    with pytest.raises(NotWatching):
        await node.report("s", c.Progress(position_ms=1))
    with pytest.raises(UnknownStream):
        await node.report("s", c.UpdateStream(stream=Stream(key="t", kind="k")))
    with pytest.raises(NotFound):
        await node.report("nobody", c.Progress(position_ms=1))
    await node.apply("s", c.StartWatch(watch=Watch(key="m")))
    with pytest.raises(NotConnected):
        await node.report("s", c.Progress(position_ms=1, via="displaced"))


# --- upkeep


async def test_activity_reaches_other_nodes(
    valkey: EmbeddedValkey, prefix: str, node: Node
) -> None:
    """When clients last spoke is known elsewhere after the next report, without a revision."""
    async with running_node(valkey.url, prefix, "b") as other:
        await node.open(blank("s"))
        node.touch("s")
        node.touch("closed meanwhile")
        await node._local_connections.report_active()  # noqa: SLF001
        await node._local_connections.report_active()  # noqa: SLF001
        await eventually(lambda: other.replica.active == {"s": node.replica.active["s"]})

        assert node.replica.sessions["s"].revision == 1
        assert node.replica.offsets == [2]


async def test_old_tombstones_and_leases_go(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is past its time is dropped here and in the store."""
    await node.open(blank("s"))
    await node.apply("s", c.Close())
    link = node.store.new_connection("test")
    await link.call("HSET", node.store.keys[0].nodes, "old:1", "5 {}")
    await link.close()
    await node.lease.renew()
    monkeypatch.setattr("gateway.live.replica.GONE_AGE_MS", -1_000)
    await node._trim()  # noqa: SLF001
    await node.lease.renew()

    assert node.replica.gone == {}
    assert await node.store.read(0, "s") == (None, None)
    assert set(node.lease.nodes) == {node.id}
    assert (await node.open(blank("s"))).revision == 1


async def test_busy_log_is_followed_in_few_batches(node: Node) -> None:
    """A pipeline of commits arrives as a tick or a few, not one each."""
    with node.subscribe(ALL) as subscription:
        await told(subscription)
        entry = b'{"kind":"a","at":1,"active":{}}'
        await asyncio.gather(*(node.store.commit(0, Commit(entry=entry)) for _ in range(10)))
        await asyncio.gather(*(node.open(blank(f"s{number}")) for number in range(200)))
        ticks = 0
        while subscription.is_behind:
            await subscription.next()
            ticks += 1

        assert ticks < 50
