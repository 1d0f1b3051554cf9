"""Log follower: every entry once and in order, or an error that says why not."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from gateway.core.errors import OutcomeUnknown
from gateway.store import group_commit as group_commit_module
from gateway.store import log as log_module
from gateway.store.commit import Commit
from gateway.store.connection import Command, Reply
from gateway.store.embedded import EmbeddedValkey
from gateway.store.log import Follower, HistoryLost, LogTrimmed, StoredEntry
from gateway.store.store import Store
from tests.nodes import open_store, token
from tests.support import MS, Proxy, S, eventually


@pytest.fixture(params=["valkey", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """A server alone, and one in cluster mode."""
    server: EmbeddedValkey = request.getfixturevalue(request.param)
    return server.url


@asynccontextmanager
async def following(
    store: Store, after: int = 0
) -> AsyncIterator[tuple[list[StoredEntry], asyncio.Task[None]]]:
    """Follow partition 0; gives what was read so far and the task that reads."""
    follower = Follower(store, 0, after, (await store.meta(0)).epoch)
    heard: list[StoredEntry] = []

    async def read() -> None:
        async for batch in follower.batches():
            assert batch
            heard.extend(batch)

    task = asyncio.create_task(read())
    try:
        yield heard, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def say(store: Store, *words: int) -> None:
    """Write one entry a word, one after the other."""
    for word in words:
        await store.commit(0, Commit(entry=b"%d" % word))


def lasts(heard: list[StoredEntry], word: int) -> bool:
    """Return whether the last thing heard is *word*."""
    return bool(heard) and heard[-1].data == b"%d" % word


def words(heard: list[StoredEntry]) -> list[int]:
    """Return what was heard, after a look at the offsets."""
    assert [entry.offset for entry in heard] == list(range(1, len(heard) + 1))
    return [int(entry.data) for entry in heard]


async def test_entries_come_once_and_in_order(url: str, prefix: str) -> None:
    """What was there and what comes is told in the order of the commits."""
    async with open_store(url, prefix) as store:
        await say(store, 1, 2, 3)
        async with following(store) as (heard, _):
            await say(store, 4, 5)
            await eventually(lambda: len(heard) == 5)

            assert words(heard) == [1, 2, 3, 4, 5]


async def test_entries_of_a_moment_come_together(valkey: EmbeddedValkey, prefix: str) -> None:
    """A read that waits sees all that is committed at once."""
    async with open_store(valkey.url, prefix) as store:
        follower = Follower(store, 0, 0, (await store.meta(0)).epoch)
        batches = follower.batches()
        first = asyncio.ensure_future(anext(batches))
        await eventually(lambda: follower._verified)  # noqa: SLF001
        await asyncio.gather(*(store.commit(0, Commit(entry=b"1")) for _ in range(100)))

        assert len(await first) == 100
        await batches.aclose()  # type: ignore[attr-defined]


async def test_read_has_a_bound(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is far behind comes up in steps, and misses nothing."""
    monkeypatch.setattr(log_module, "COUNT_MAX", 40)
    async with open_store(valkey.url, prefix) as store:
        await asyncio.gather(*(store.commit(0, Commit(entry=b"1")) for _ in range(100)))
        follower = Follower(store, 0, 0, (await store.meta(0)).epoch)
        batches = follower.batches()
        sizes = [len(await anext(batches)) for _ in range(3)]
        await batches.aclose()  # type: ignore[attr-defined]

        assert sizes == [40, 40, 20]


async def test_rows_come_with_their_entry(url: str, prefix: str) -> None:
    """An entry carries number and key of the history rows its commit wrote."""
    async with open_store(url, prefix) as store:
        await store.commit(0, Commit(entry=b"1", rows=(b'"a"', b'"b"')))
        async with following(store) as (heard, _):
            await eventually(lambda: heard)
        found = await store.history(0, "", 10)

        assert [(row.key, row.number) for row in reversed(heard[0].rows)] == [
            (key, number) for key, number, _ in found
        ]


@pytest.mark.parametrize("fault", ["killed", "cut", "requests", "replies", "both"])
async def test_broken_link_loses_and_doubles_nothing(
    valkey: EmbeddedValkey, prefix: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is killed, cut or hangs is made again, and no entry is missed."""
    monkeypatch.setattr(log_module, "BLOCK_MS", 100)
    monkeypatch.setattr(log_module, "BLOCK_ANSWER_S", 300 * MS)
    async with (
        open_store(valkey.url, prefix) as store,
        Proxy(valkey.url) as proxy,
        open_store(proxy.url, prefix) as beyond,
        following(beyond) as (heard, _),
    ):
        await say(store, *range(20))
        await eventually(lambda: heard)
        for number in range(3):
            start = 20 + 40 * number
            if fault == "killed":
                connection = store.new_connection("test")
                clients = (await connection.call("CLIENT", "LIST")).decode().splitlines()
                for client in clients:
                    if f"name={prefix}-log-0" in client:
                        await connection.call("CLIENT", "KILL", "ID", client.split()[0][3:])
                await connection.close()
            elif fault == "cut":
                async with proxy.cut():
                    await say(store, *range(start, start + 20))
            else:
                async with proxy.stalled(requests=fault != "replies", replies=fault != "requests"):
                    await say(store, *range(start, start + 20))
                    if number == 1:
                        await asyncio.sleep(500 * MS)  # the reader gives up meanwhile
            more = 20 if fault != "killed" else 40
            await say(store, *range(start + 40 - more, start + 40))
            await eventually(partial(lasts, heard, start + 39), within=4 * S)
        assert words(heard) == list(range(140))


async def test_hung_server_is_dropped_in_time(valkey: EmbeddedValkey, prefix: str) -> None:
    """A server that does not even end a blocked read is taken for dead within two seconds."""
    async with Proxy(valkey.url) as proxy, open_store(proxy.url, prefix) as store:
        follower = Follower(store, 0, 0, (await store.meta(0)).epoch)
        batches = follower.batches()
        first = asyncio.ensure_future(anext(batches))
        await eventually(lambda: follower._verified)  # noqa: SLF001
        async with proxy.stalled():
            started_s = time.monotonic()
            await eventually(lambda: not follower._connection.is_connected, within=2.2 * S)  # noqa: SLF001

            assert time.monotonic() - started_s > 0.7
        await say(store, 1)
        assert [entry.data for entry in await first] == [b"1"]
        await batches.aclose()  # type: ignore[attr-defined]


async def test_trimmed_log_is_told(url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower whose next entry is gone from the log hears so instead of a gap."""
    monkeypatch.setattr(group_commit_module, "LOG_BYTES_MAX", 1)
    monkeypatch.setattr(group_commit_module, "LOG_ENTRIES_MIN", 10)
    async with open_store(url, prefix) as store:
        await asyncio.gather(*(store.commit(0, Commit(entry=b"x" * 99)) for _ in range(512)))
        assert (await store.meta(0)).first > 100
        async with following(store, after=3) as (heard, task):
            with pytest.raises(LogTrimmed):
                await task

            assert heard == []


async def test_log_trimmed_while_away_is_told(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that comes back to a log that went on without it hears that it was trimmed."""
    monkeypatch.setattr(group_commit_module, "LOG_BYTES_MAX", 1)
    monkeypatch.setattr(group_commit_module, "LOG_ENTRIES_MIN", 10)
    async with (
        open_store(valkey.url, prefix) as store,
        Proxy(valkey.url) as proxy,
        open_store(proxy.url, prefix) as beyond,
        following(beyond) as (heard, task),
    ):
        await say(store, 1)
        await eventually(lambda: heard)
        async with proxy.cut():
            await asyncio.gather(*(store.commit(0, Commit(entry=b"x" * 99)) for _ in range(512)))
        with pytest.raises(LogTrimmed):
            await task


async def test_emptied_server_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was emptied behind a standing connection is noticed, whatever comes after."""
    monkeypatch.setattr(log_module, "BLOCK_MS", 100)
    async with EmbeddedValkey(tmp_path) as server, open_store(server.url, "test") as store:
        await say(store, 1, 2)
        async with following(store) as (heard, task):
            await eventually(lambda: len(heard) == 2)
            connection = store.new_connection("test")
            await connection.call("FLUSHALL")
            await connection.close()
            await store.open(token)
            await say(store, *range(10))
            with pytest.raises(HistoryLost):
                await task

        assert words(heard) == [1, 2]


async def test_other_history_is_told_after_a_reconnect(valkey: EmbeddedValkey, prefix: str) -> None:
    """A server that came back with another past under the same epoch is found out."""
    async with (
        open_store(valkey.url, prefix) as store,
        Proxy(valkey.url) as proxy,
        open_store(proxy.url, prefix) as beyond,
        following(beyond) as (heard, task),
    ):
        await say(store, 1, 2, 3)
        await eventually(lambda: len(heard) == 3)
        async with proxy.cut():
            connection = store.new_connection("test")
            await connection.call("DEL", store.keys[0].log)
            await connection.call("HSET", store.keys[0].meta, "offset", 1)
            await connection.close()
            await say(store, 8, 9)
        with pytest.raises(HistoryLost):
            await task


async def test_log_that_was_lost_alone_does_not_stop_a_new_follower(
    valkey: EmbeddedValkey, prefix: str
) -> None:
    """Who has just loaded and finds an empty log goes on with what comes."""
    async with open_store(valkey.url, prefix) as store:
        await say(store, 1, 2, 3)
        connection = store.new_connection("test")
        await connection.call("DEL", store.keys[0].log)
        await connection.close()
        async with following(store, after=3) as (heard, _):
            await say(store, 4)
            await eventually(lambda: heard)

        assert [(entry.offset, entry.data) for entry in heard] == [(4, b"4")]


async def test_end_that_was_lost_before_the_first_look_is_told(
    valkey: EmbeddedValkey, prefix: str
) -> None:
    """Who has loaded more than the server still has hears so, instead of skipping what comes."""
    async with open_store(valkey.url, prefix) as store:
        await say(store, 1, 2, 3)
        connection = store.new_connection("test")
        await connection.call("XDEL", store.keys[0].log, "2-0", "3-0")
        await connection.call("HSET", store.keys[0].meta, "offset", 1)
        await connection.close()
        async with following(store, after=3) as (heard, task):
            with pytest.raises(HistoryLost):
                await task

            assert heard == []


async def test_link_that_is_too_slow_for_a_full_read_gets_less(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is far behind on a slow connection catches up in smaller steps, then reads as ever."""
    monkeypatch.setattr(log_module, "COUNT_MAX", 80)
    async with open_store(valkey.url, prefix) as store:
        await asyncio.gather(*(store.commit(0, Commit(entry=b"1")) for _ in range(50)))
        follower = Follower(store, 0, 0, (await store.meta(0)).epoch)
        connection = follower._connection  # noqa: SLF001
        pipeline, asked = connection.pipeline, []

        async def slow(commands: Sequence[Command], *, answer_s: float) -> list[Reply]:
            if commands[0][0] == "XREAD":
                asked.append(commands[0][4])
                if int(commands[0][4]) > 20:
                    raise OutcomeUnknown
            return await pipeline(commands, answer_s=answer_s)

        monkeypatch.setattr(connection, "pipeline", slow)
        batches = follower.batches()
        sizes = [len(await anext(batches)) for _ in range(3)]
        await batches.aclose()  # type: ignore[attr-defined]

        assert sizes == [20, 20, 10]
        assert asked == [80, 40, 20, 20, 20]
        assert follower._count == 80  # noqa: SLF001
