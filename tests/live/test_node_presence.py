"""Node: connections end in the record, whatever happened to their socket, node or store."""

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial

import pytest
from msgspec.json import decode

import gateway.node as node_module
from gateway.core import command as c
from gateway.core.errors import Overloaded, Unavailable
from gateway.core.model import State, Watch
from gateway.core.query import View, Visibility
from gateway.live import lease as lease_module
from gateway.live import local_connections
from gateway.live import writer as writer_module
from gateway.live.channel import Subscription
from gateway.live.outbound import Tick
from gateway.node import Node
from gateway.store.commit import Commit, Result
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, connection, holding, running_node
from tests.support import MS, Proxy, S, eventually

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


def knows(node: Node, other: Node) -> bool:
    """Return whether a node has seen the other's lease."""
    return other.id in node.lease.live


async def test_disconnect_during_an_outage_is_done_after(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that ends while the store is away is not forgotten."""
    monkeypatch.setattr(writer_module, "OUTCOME_S", 200 * MS)
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        await connected(node, "s")
        async with proxy.cut():
            with holding(node, "s", "c-s"):
                pass
            await node.disconnect("s", "c-s", "clean")
            assert node.replica.sessions["s"].is_connected
        await eventually(lambda: not node._local_connections._pending_disconnects, within=4 * S)  # noqa: SLF001

        assert not node.replica.sessions["s"].is_connected


async def test_goodbye_to_what_is_gone_is_over(node: Node) -> None:
    """The end of a connection that is closed, displaced or unknown changes nothing."""
    await connected(node, "s")
    await node.apply("s", c.Connect(connection=connection(node, "c2")))
    for session_id, connection_id in (("s", "c-s"), ("nobody", "c9")):
        await node.disconnect(session_id, connection_id, "lost")
    assert node.replica.sessions["s"].is_connected
    await node.apply("s", c.Close())
    await node.disconnect("s", "c2", "lost")

    assert not node._local_connections._pending_disconnects  # noqa: SLF001


async def test_orphaned_connection_is_ended(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that the record gives to this node and no socket here holds is lost."""
    monkeypatch.setattr(local_connections, "ORPHAN_MS", -1_000)
    await connected(node, "held")
    await connected(node, "orphan")
    with holding(node, "held", "c-held"):
        await node._upkeep()  # noqa: SLF001

        assert node.replica.sessions["orphan"].state == State.AWAY
        assert node.replica.sessions["held"].state == State.CONNECTED


async def test_young_connection_is_no_orphan(node: Node) -> None:
    """Between commit and socket there may be a moment."""
    await connected(node, "young")
    await node._upkeep()  # noqa: SLF001

    assert node.replica.sessions["young"].is_connected


def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make leases thirty times as quick."""
    monkeypatch.setattr(lease_module, "RENEW_S", 100 * MS)
    monkeypatch.setattr(lease_module, "WATCH_S", 20 * MS)
    monkeypatch.setattr(lease_module, "OVERDUE_MS", 200 * S)
    monkeypatch.setattr(lease_module, "DEAD_AFTER_MS", 400 * S)
    monkeypatch.setattr(lease_module, "OUTAGE_MS", 2_000 * S)


@pytest.mark.alone
async def test_sessions_of_a_dead_node_are_away_soon(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others end, once, what a dead node held, in its name, and nothing else."""
    quick_leases(monkeypatch)
    async with AsyncExitStack() as alive:
        one, two = [
            await alive.enter_async_context(running_node(valkey.url, prefix, name))
            for name in ("a", "b")
        ]
        await connected(one, "mine")
        async with running_node(valkey.url, prefix, "dying") as dying:
            for number in range(300):
                await connected(dying, f"s{number}", linger_ms=15_000)
            await one.wait_for_position(dying.replica.position())
            with one.subscribe(ALL) as watcher:
                await told(watcher)
                await eventually(lambda: one.lease.may_declare_dead and two.lease.may_declare_dead)
                assert one.replica.nodes == {dying.id: 300, one.id: 1}
                assert await told(watcher) == []
        died_s = time.monotonic()
        with one.subscribe(ALL) as watcher:
            await told(watcher)
            await eventually(lambda: one.replica.nodes == {one.id: 1}, within=4 * S)
            took_s = time.monotonic() - died_s
            await one.apply("mine", c.Update(name="x"))

            assert await told(watcher) == ["session.disconnected"] * 300 + ["session.updated"]
        assert took_s > 200 * MS
        session = one.replica.sessions["s7"]
        assert session.state == State.AWAY
        assert session.disconnected_at is not None
        assert session.linger_at == session.disconnected_at + 60_000


@pytest.mark.alone
async def test_new_node_is_not_taken_for_dead(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions of a node that came after the last look at the leases are left alone."""
    quick_leases(monkeypatch)
    async with running_node(valkey.url, prefix, "a") as old:
        await eventually(lambda: old.lease.may_declare_dead)
        ended = []
        holder = old._local_connections  # noqa: SLF001
        end = holder.end_connections_of

        async def watched(nodes: set[str]) -> None:
            ended.append(nodes)
            await end(nodes)

        monkeypatch.setattr(holder, "end_connections_of", watched)
        monkeypatch.setattr(lease_module, "RENEW_S", 10 * MS)
        for number in range(8):
            async with running_node(valkey.url, prefix, f"b{number}") as new:
                await connected(new, f"s{number}")
                await old.wait_for_position(new.replica.position())
                await eventually(partial(knows, old, new))
                await new.leave()

        assert ended == []


async def test_leaving_node_says_goodbye(valkey: EmbeddedValkey, prefix: str, node: Node) -> None:
    """A node that goes politely writes what it held back, leaves sessions away and no lease."""
    async with running_node(valkey.url, prefix, "b") as leaver:
        for number in range(20):
            await connected(leaver, f"s{number}", watch=Watch(key="m"))
        await leaver.open(blank("posted", watch=Watch(key="m")))
        for position_ms in (1, 2):
            await leaver.report("posted", c.Progress(position_ms=position_ms))
            await leaver.report("s0", c.Progress(position_ms=position_ms))
        with holding(leaver, "s1", "c-s1"):
            await leaver.leave()
        await node.wait_for_position(leaver.replica.position())
        await node.lease.renew()

        assert leaver.id not in node.lease.nodes
        assert not node.replica.nodes
        for session_id in ("s0", "posted"):
            watch = node.replica.sessions[session_id].watch
            assert watch is not None
            assert watch.position_ms == 2


async def test_leaving_without_a_store_is_quick(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that hangs does not keep a process from stopping."""
    monkeypatch.setattr(node_module, "LEAVE_S", 100 * MS)
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        for number in range(30):
            await connected(node, f"s{number}")
        async with proxy.stalled():
            started_s = time.monotonic()
            await node.leave()

            assert time.monotonic() - started_s < 1.8 * S


async def test_much_activity_is_told_in_parts(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """No entry of the log grows with the node; what could not be told is told the next time."""
    monkeypatch.setattr(local_connections, "ACTIVE_MAX", 3)
    ids = [f"s{number}" for number in range(8)]
    for session_id in ids:
        await node.open(blank(session_id))
        node.touch(session_id)
    commit = node.store.commit
    told: list[list[str]] = []

    def breaking(partition: int, entry: Commit) -> asyncio.Future[Result]:
        told.append(list(decode(entry.entry)["active"]))
        if len(told) == 2:
            raise Overloaded
        return commit(partition, entry)

    monkeypatch.setattr(node.store, "commit", breaking)
    with pytest.raises(Overloaded):
        await node._local_connections.report_active()  # noqa: SLF001
    await node._local_connections.report_active()  # noqa: SLF001

    assert told == [ids[:3], ids[3:6], ids[3:6], ids[6:]]


async def test_tombstones_go_when_the_store_is_back(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be dropped in the store is so the next time, unless it was closed anew."""
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        for session_id in ("s", "t"):
            await node.open(blank(session_id))
            await node.apply(session_id, c.Close())
        with monkeypatch.context() as late:
            late.setattr("gateway.live.replica.GONE_AGE_MS", -1_000)
            async with proxy.cut():
                with pytest.raises(Unavailable):
                    await node._trim()  # noqa: SLF001
        assert node.replica.gone == {}
        await node.store.forget_gone(0, ["t"])
        await node.open(blank("t"))
        await node.apply("t", c.Close())
        await node._trim()  # noqa: SLF001

        assert await node.store.read(0, "s") == (None, None)
        assert (await node.store.read(0, "t"))[1] is not None
