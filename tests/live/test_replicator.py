"""Replicator: from the log into the replica; a broken log is loaded again."""

import asyncio
from pathlib import Path

import pytest
from msgspec.json import decode

from gateway.core import command as c
from gateway.core.model import Watch
from gateway.core.query import View, Visibility
from gateway.live import replicator as replicator_module
from gateway.live.channel import Trimmed
from gateway.live.hub import Notice
from gateway.live.outbound import Restart, SnapshotPage, Tick
from gateway.node import Node
from gateway.store import group_commit as group_commit_module
from gateway.store import log as log_module
from gateway.store.commit import Commit
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, running_node
from tests.support import MS, Proxy, S, eventually

ALL = View(visibility=Visibility(by="all"))


async def test_node_that_starts_knows_all_that_is_there(
    valkey: EmbeddedValkey, prefix: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions, tombstones, documents and history of the store are in a new node's replica."""
    monkeypatch.setattr(replicator_module, "HISTORY_COUNT", 3)
    for number in range(8):
        await node.open(blank(f"s{number}"))
        await node.apply(f"s{number}", c.StartWatch(watch=Watch(key="m")))
    for number in range(4):
        await node.apply(f"s{number}", c.Close(reason="enough"))
    await node.documents.write("kind", "key", lambda _: {"x": 1})
    async with running_node(valkey.url, prefix, "b") as late:
        assert late.replica.sessions == node.replica.sessions
        assert late.replica.gone == node.replica.gone
        assert late.replica.documents == node.replica.documents
        assert list(late.replica.history) == list(node.replica.history)
        assert len(late.replica.history) == 8
        assert late.replica.position() == node.replica.position()


@pytest.mark.parametrize("partitions", [1, 3])
async def test_nodes_see_what_others_write(
    valkey: EmbeddedValkey, prefix: str, partitions: int
) -> None:
    """What one node writes is in the other's replica, wherever it is kept, with numbers its own."""
    async with (
        running_node(valkey.url, prefix, "a", partitions) as one,
        running_node(valkey.url, prefix, "b") as two,
    ):
        await asyncio.gather(*((one, two)[n % 2].open(blank(f"s{n}")) for n in range(40)))
        await asyncio.gather(*((one, two)[n % 3 % 2].apply(f"s{n}", c.Close()) for n in range(9)))
        await two.wait_for_position(one.replica.position())
        await one.wait_for_position(two.replica.position())

        assert one.replica.sessions == two.replica.sessions
        assert len({session.number for session in one.replica.sessions.values()}) == 31
        assert len({row.number for row in one.replica.history}) == 9
        assert sorted(map(str, one.replica.history)) == sorted(map(str, two.replica.history))


async def test_entry_that_cannot_be_read_is_passed_over(node: Node) -> None:
    """A broken log entry stops neither the replica nor a replay."""
    since = node.replica.position(ALL.hash32)
    await node.store.commit(0, Commit(entry=b"not JSON"))
    await node.store.commit(0, Commit(entry=b'{"kind":"s","at":"never"}'))
    await node.open(blank("s"))

    assert node.replica.offsets == [3]
    ticks = [tick async for tick in node.replicator.replay(ALL, since, node.replica.position())]
    assert [item.type for tick in ticks for item in tick.items] == ["session.opened"]


async def test_missed_tells_all_between_two_positions(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay has every event after the one position up to the other, as it was told live."""
    monkeypatch.setattr(replicator_module, "REPLAY_COUNT", 2)
    with node.subscribe(ALL) as live:
        await live.next()
        since = node.replica.position(ALL.hash32)
        await node.open(blank("s"))
        for number in range(6):
            await node.apply("s", c.Update(name=f"n{number}"))
        await node.apply("s", c.Close())
        told = []
        while live.is_behind:
            tick = await live.next()
            assert isinstance(tick, Tick)
            told += tick.items
    ticks = [tick async for tick in node.replicator.replay(ALL, since, node.replica.position())]

    assert [item for tick in ticks for item in tick.items] == told
    assert [tick.position.offsets[0] for tick in ticks] == [2, 4, 6, 8]


async def test_trimmed_log_cannot_be_replayed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A position before the log's first entry gets a snapshot and is told why."""
    monkeypatch.setattr(group_commit_module, "LOG_BYTES_MAX", 1)
    monkeypatch.setattr(group_commit_module, "LOG_ENTRIES_MIN", 10)
    since = node.replica.position(ALL.hash32)
    await node.open(blank("s"))
    entry = b'{"kind":"a","at":1,"active":{}}'
    await asyncio.gather(*(node.store.commit(0, Commit(entry=entry)) for _ in range(600)))

    assert await node.check_resume(ALL, since) == "trimmed"
    with pytest.raises(Trimmed):
        await anext(node.replicator.replay(ALL, since, node.replica.position()))


async def test_node_that_was_away_too_long_loads_again(
    valkey: EmbeddedValkey, prefix: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the log was trimmed past a node, its watchers start over, its sockets look again."""
    monkeypatch.setattr(group_commit_module, "LOG_BYTES_MAX", 1)
    monkeypatch.setattr(group_commit_module, "LOG_ENTRIES_MIN", 10)
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix, "b") as away:
        session = await node.open(blank("s"))
        await away.wait_for_position(node.replica.position())
        with away.subscribe(ALL) as subscription, away.hub.mailbox(session) as box:
            assert isinstance(await subscription.next(), SnapshotPage)
            async with proxy.cut():
                entry = b'{"kind":"a","at":1,"active":{}}'
                await asyncio.gather(
                    *(node.store.commit(0, Commit(entry=entry)) for _ in range(600))
                )
                await node.apply("s", c.Update(name="new"))
                await node.open(blank("t"))
            assert await subscription.next() == Restart("trimmed")
            page = await subscription.next()

            assert isinstance(page, SnapshotPage)
            assert {decode(shown)["id"] for shown in page.sessions} == {"s", "t"}
            assert away.replica.sessions == node.replica.sessions
            assert await box.get() == Notice()
            await node.apply("s", c.Close())
            tick = await subscription.next()
            assert isinstance(tick, Tick)
            assert tick.items[0].type == "session.closed"


async def test_lost_history_starts_a_new_epoch_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emptied server: both nodes agree on a new epoch, watchers start over, opens work."""
    monkeypatch.setattr(log_module, "BLOCK_MS", 100)
    async with (
        EmbeddedValkey(tmp_path) as server,
        running_node(server.url, "test", "a") as one,
        running_node(server.url, "test", "b") as two,
    ):
        await one.open(blank("s"))
        await two.wait_for_position(one.replica.position())
        before = one.replica.position(ALL.hash32)
        with one.subscribe(ALL) as here, two.subscribe(ALL) as there:
            assert isinstance(await here.next(), SnapshotPage)
            assert isinstance(await there.next(), SnapshotPage)
            link = one.store.new_connection("test")
            await link.call("FLUSHALL")
            await link.close()
            for subscription in (here, there):
                assert await subscription.next() == Restart("history lost")
                page = await subscription.next()
                assert isinstance(page, SnapshotPage)
                assert page.sessions == []
            await one.open(blank("t"))
            await two.wait_for_position(one.replica.position())

            assert two.replica.position() == one.replica.position()
            assert one.replica.position().epoch != before.epoch
            assert set(two.replica.sessions) == {"t"}
            assert await two.check_resume(ALL, before) == "history lost"


async def test_age_of_the_picture_is_known(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is silent reads are told how old they are; a healthy node says nothing."""
    monkeypatch.setattr(replicator_module, "LAG_MIN_MS", 300)
    monkeypatch.setattr(log_module, "BLOCK_MS", 100)
    monkeypatch.setattr(log_module, "BLOCK_ANSWER_S", 200 * MS)
    monkeypatch.setattr("gateway.live.reads.UNREADY_MS", 400)
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        assert node.replicator.lag_ms() == 0
        assert node.is_ready
        async with proxy.stalled():
            await eventually(lambda: not node.is_ready)

            assert node.replicator.lag_ms() >= 400
        await eventually(lambda: node.is_ready, within=4 * S)
        assert node.replicator.lag_ms() == 0
