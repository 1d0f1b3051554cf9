"""Store: atomic commits, each answered once; standalone and as a one-node cluster."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.core.errors import Overloaded, Repairing, StoreUnavailable, Unavailable
from gateway.store import group_commit as group_commit_module
from gateway.store import store as store_module
from gateway.store.commit import Commit, Result
from gateway.store.embedded import EmbeddedValkey
from gateway.store.store import Store
from tests.nodes import open_store, token
from tests.support import MS, Proxy, S, eventually

HOUR_MS = 3_600_000


@pytest.fixture(params=["valkey", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """A server alone, and one in cluster mode."""
    server: EmbeddedValkey = request.getfixturevalue(request.param)
    return server.url


@pytest_asyncio.fixture
async def store(url: str, prefix: str) -> AsyncIterator[Store]:
    """An open store of its own."""
    async with open_store(url, prefix) as store:
        yield store


def write(field: str, revision: int, **facts: object) -> Commit:
    """Return a commit that follows *revision*."""
    value = b'%d {"n":%d}' % (revision + 1, revision + 1)
    given = {"field": field, "expected": revision, "value": value, "entry": b"{}", **facts}
    return Commit(**given)  # type: ignore[arg-type]


def end(field: str, revision: int, **facts: object) -> Commit:
    """Return a commit that closes what has *revision*."""
    return write(field, revision, value=b"", tombstone=b'%d {"end":1}' % (revision + 1), **facts)


async def commit(store: Store, commit: Commit) -> Result:
    """Commit in the partition that the field says."""
    return await store.commit(store.partition(commit.field), commit)


async def test_first_commit_wins_and_the_loser_sees_what_stands(store: Store) -> None:
    """Of two commits that expect the same revision the second gets the current record."""
    assert (await commit(store, write("s", 0))).status == "done"

    late = await commit(store, write("s", 0))

    assert (late.status, late.current) == ("changed", b'1 {"n":1}')


async def test_commit_to_a_missing_record_changes_nothing(store: Store) -> None:
    """Whoever expects a revision of something that is not there hears that it is not."""
    late = await commit(store, write("s", 3))

    assert (late.status, late.current) == ("changed", b"")
    assert await store.read(store.partition("s"), "s") == (None, None)


async def test_closed_id_is_gone_for_good(store: Store) -> None:
    """An id that was closed is refused with its tombstone, whatever is expected."""
    await commit(store, write("s", 0))
    await commit(store, end("s", 1))

    for expected in (0, 1, 2):
        late = await commit(store, write("s", expected))

        assert (late.status, late.current) == ("gone", b'2 {"end":1}')
    assert await store.read(store.partition("s"), "s") == (None, b'2 {"end":1}')


async def test_fifty_racers_one_winner(store: Store, url: str, prefix: str) -> None:
    """Of fifty commits from two nodes that expect the same revision exactly one is done."""
    await commit(store, write("s", 0))
    async with open_store(url, prefix) as other:
        results = await asyncio.gather(
            *(commit([store, other][number % 2], write("s", 1)) for number in range(50))
        )

    assert sorted(result.status for result in results) == ["changed"] * 49 + ["done"]


async def test_offsets_are_consecutive(store: Store) -> None:
    """Every done commit is the next entry of its partition's log, every other one is none."""
    part = store.partition("s")
    for revision in range(5):
        await commit(store, write("s", revision))
        await commit(store, write("s", 99))
    await store.commit(part, Commit(entry=b'"said"'))

    found = await store.entries(part, 0, 100)

    assert [offset for offset, _ in found] == [1, 2, 3, 4, 5, 6]
    assert found[-1][1] == b'"said"'
    meta = await store.meta(part)
    assert (meta.offset, meta.first) == (6, 1)


async def test_early_is_refused_by_redis_time(store: Store) -> None:
    """A deadline that has not passed by the server's clock refuses the commit and says when."""
    now_ms = (await commit(store, write("s", 0))).time_ms
    early = await commit(store, end("s", 1, not_before_ms=now_ms + HOUR_MS))

    assert (early.status, early.due_ms) == ("early", now_ms + HOUR_MS)
    assert (await commit(store, end("s", 1, not_before_ms=now_ms))).status == "done"


async def test_deadline_waits_out_an_outage(store: Store) -> None:
    """After an outage a deadline has its whole duration again; one without duration is absolute."""
    beat = await store.renew_lease("a:1", b"{}")
    await commit(store, write("s", 0))
    facts = {"not_before_ms": beat.time_ms - HOUR_MS, "amnesty_ms": 60_000}
    early = await commit(store, end("s", 1, **facts))

    assert early.status == "early"
    assert 0 <= early.due_ms - beat.up_since_ms - 60_000 < 100
    assert (await commit(store, end("s", 1, **facts | {"amnesty_ms": 0}))).status == "done"


async def test_deadline_waits_for_an_outage_that_nobody_reported(store: Store) -> None:
    """A commit that sat in a socket while the server stood still does not use its silence."""
    await store.renew_lease("a:1", b"{}")
    await commit(store, write("s", 0))
    meta = store.keys[store.partition("s")].meta
    connection = store.new_connection("test")
    now_ms = store.clock.now_ms()
    await connection.call("HSET", meta, "up_since", now_ms - HOUR_MS, "beat", now_ms - 10_000)
    facts = {"not_before_ms": now_ms - 5_000, "amnesty_ms": 1_000}

    assert (await commit(store, end("s", 1, **facts))).status == "early"

    await connection.call("HSET", meta, "beat", now_ms)
    await connection.close()

    assert (await commit(store, end("s", 1, **facts))).status == "done"


async def test_silence_of_all_leases_moves_up_since(store: Store) -> None:
    """``up_since`` stands while leases are renewed, and moves when nobody did for long."""
    first = await store.renew_lease("a:1", b'{"name":"a"}')
    second = await store.renew_lease("b:1", b"{}")

    assert second.up_since_ms == first.up_since_ms
    assert {node: lease[1] for node, lease in second.nodes.items()} == {
        "a:1": b'{"name":"a"}',
        "b:1": b"{}",
    }

    connection = store.new_connection("test")
    for part in store.keys:
        await connection.call("HSET", part.meta, "beat", first.time_ms - 10_000)
    await connection.close()
    third = await store.renew_lease("a:1", b"{}")

    assert third.up_since_ms == third.time_ms
    await store.forget_node("b:1")
    assert set((await store.renew_lease("a:1", b"{}")).nodes) == {"a:1"}


async def test_history_rows_get_numbers_and_keys(store: Store) -> None:
    """Rows are numbered without reuse and found again, newest first, page by page."""
    part = store.partition("s")
    await commit(store, write("s", 0, rows=(b'"one"', b'"two"')))
    await commit(store, write("s", 1, rows=(b'"three"',)))
    found = await store.history(part, "", 2)

    assert [row for _, _, row in found] == [b'"three"', b'"two"']
    older = await store.history(part, found[-1][0], 2)
    assert [row for _, _, row in older] == [b'"one"']
    numbers = [number for _, number, _ in found + older]
    assert numbers == sorted(set(numbers), reverse=True)
    assert {(number - part) % store.partitions for number in numbers} == {0}


async def test_forgotten_scripts_are_unseen(store: Store) -> None:
    """A server that lost its scripts is told them again; no caller notices, nothing runs twice."""
    connection = store.new_connection("test")
    await commit(store, write("s", 0))
    await connection.call("SCRIPT", "FLUSH")
    await connection.close()
    results = await asyncio.gather(*(commit(store, write(f"t{n}", 0)) for n in range(20)))

    assert {result.status for result in results} == {"done"}
    assert (await store.renew_lease("a:1", b"{}")).nodes.keys() == {"a:1"}
    epoch = (await store.meta(0)).epoch
    assert await store.new_epoch(0, "other", "fresh") == epoch
    assert await store.new_epoch(0, epoch, "fresh") == "fresh"
    assert await store.new_epoch(0, epoch, "later") == "fresh"


async def test_full_queue_refuses_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits over the bound are refused, those within it are done."""
    monkeypatch.setattr(group_commit_module, "QUEUE_MAX", 10)
    results = await asyncio.gather(
        *(commit(store, write(f"s{n}", 0)) for n in range(15)), return_exceptions=True
    )

    assert [type(result) for result in results] == [Result] * 10 + [Overloaded] * 5


@pytest.mark.parametrize("fault", ["stalled", "cut"])
async def test_waits_for_a_server_that_stops_do_not_add_up(
    valkey: EmbeddedValkey, prefix: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait when the server stops to answer, all hear so within one deadline or two."""
    monkeypatch.setattr(group_commit_module, "ANSWER_S", 200 * MS)
    async with Proxy(valkey.url) as proxy, open_store(proxy.url, prefix) as store:
        await commit(store, write("s", 0))
        started_s = time.monotonic()
        async with proxy.stalled() if fault == "stalled" else proxy.cut():
            results = await asyncio.gather(
                *(commit(store, write(f"s{n}", 0)) for n in range(6_000)), return_exceptions=True
            )

        assert time.monotonic() - started_s < 3 * S
        assert all(isinstance(result, Unavailable) for result in results)
        assert (await commit(store, write("s", 1))).status == "done"


async def test_commits_after_the_end_are_refused(valkey: EmbeddedValkey, prefix: str) -> None:
    """A store that stopped sending leaves nobody waiting, on the way or after."""
    async with Proxy(valkey.url) as proxy:
        async with open_store(proxy.url, prefix) as store, proxy.stalled():
            waiting = [asyncio.ensure_future(commit(store, write(f"s{n}", 0))) for n in range(3)]
            await eventually(lambda: not store._group_commit._queue)  # noqa: SLF001
            waiting.append(asyncio.ensure_future(commit(store, write("last", 0))))
            await asyncio.sleep(0)
        results = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(isinstance(result, Unavailable) for result in results)
    with pytest.raises(StoreUnavailable):
        await commit(store, write("s", 0))


async def test_log_is_trimmed_by_bytes_but_keeps_a_minimum(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log stays near its budget, and never falls below the entries that a resume may need."""
    monkeypatch.setattr(group_commit_module, "LOG_BYTES_MAX", 100_000)
    monkeypatch.setattr(group_commit_module, "LOG_ENTRIES_MIN", 300)

    async def fill(count: int, entry: bytes) -> int:
        for _ in range(count // 64):
            await asyncio.gather(*(store.commit(0, Commit(entry=entry)) for _ in range(64)))
        meta = await store.meta(0)
        return meta.offset - meta.first + 1

    assert await fill(512, b"x" * 10) == 512
    assert 300 <= await fill(2_048, b"x" * 1_000) < 900

    monkeypatch.setattr(group_commit_module, "LOG_ENTRIES_MIN", 10)

    assert await fill(512, b"x" * 1_000) < 400


async def test_log_whose_entries_grow_keeps_its_bound(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the oldest entries take says nothing of the others: the log is measured as it is."""
    budget = 2 << 20
    monkeypatch.setattr(group_commit_module, "LOG_BYTES_MAX", budget)
    monkeypatch.setattr(group_commit_module, "LOG_ENTRIES_MIN", 10)
    connection = store.new_connection("test")
    log, largest = store.keys[0].log, 0
    for size, count in ((100, 1_000), (30_000, 300)):
        for _ in range(count // 20):
            await asyncio.gather(*(store.commit(0, Commit(entry=b"x" * size)) for _ in range(20)))
            largest = max(largest, await connection.call("MEMORY", "USAGE", log, "SAMPLES", 0))
    await connection.close()

    assert budget / 2 < largest < 2 * budget


async def test_reserved_numbers_are_unique_over_partitions(url: str, prefix: str) -> None:
    """No session number is given twice, whichever partition and node it comes from."""
    async with open_store(url, prefix, 4) as one, open_store(url, prefix, 4) as two:
        ranges = await asyncio.gather(
            *(store.reserve_numbers(part, 10) for store in (one, two) for part in range(4))
        )
    numbers = [number for numbers in ranges for number in numbers]

    assert len(numbers) == len(set(numbers)) == 80
    assert all(
        number % 4 == part
        for index, numbers in enumerate(ranges)
        for part in (index % 4,)
        for number in numbers
    )
    assert min(numbers) > 0


async def test_load_returns_everything(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load in steps sees every record and every tombstone."""
    monkeypatch.setattr(store_module, "SCAN_COUNT", 50)
    await asyncio.gather(*(commit(store, write(f"s{n}", 0)) for n in range(700)))
    await asyncio.gather(*(commit(store, end(f"s{n}", 1)) for n in range(200)))
    live, gone = set(), set()
    for part in range(store.partitions):
        async for found in store.load(part, "live"):
            live |= {field for field, _ in found}
        async for found in store.load(part, "gone"):
            gone |= {field for field, _ in found}

    assert live == {f"s{n}" for n in range(200, 700)}
    assert gone == {f"s{n}" for n in range(200)}


async def test_forgotten_tombstones_free_their_ids(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id whose tombstone was removed can be opened again."""
    monkeypatch.setattr(store_module, "FORGET_COUNT", 2)
    part = store.partition("s")
    await commit(store, write("s", 0))
    await commit(store, end("s", 1))
    await store.forget_gone(part, ["a", "b", "c", "d", "s"])

    assert (await commit(store, write("s", 0))).status == "done"


async def test_old_history_is_trimmed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows past their age or number go, in whole pieces of the stream."""
    monkeypatch.setattr(store_module, "HISTORY_ROWS_MAX", 200)
    await asyncio.gather(
        *(store.commit(0, Commit(entry=b"{}", rows=(b"{}",) * 10)) for n in range(50))
    )
    await store.trim_history(0, store.clock.now_ms())
    kept = await store.history(0, "", 1_000)

    assert 200 <= len(kept) < 350
    await store.trim_history(0, store.clock.now_ms() + 8 * 24 * HOUR_MS)
    assert len(await store.history(0, "", 1_000)) < 100


async def test_full_server_takes_closes(tmp_path: Path) -> None:
    """Above its memory a server refuses numbers for opens, and still closes what is open."""
    async with EmbeddedValkey(tmp_path) as server, open_store(server.url, "test") as store:
        await commit(store, write("s", 0))
        connection = store.new_connection("test")
        await connection.call("CONFIG", "SET", "maxmemory", "1")
        await connection.close()
        await store.renew_lease("a:1", b"{}")

        assert store.access.is_full
        with pytest.raises(Unavailable):
            await store.reserve_numbers(0, 1)
        assert (await commit(store, end("s", 1))).status == "done"


async def test_emptied_server_takes_no_commits(tmp_path: Path) -> None:
    """Nothing is written into a server that lost its data, until somebody began a new epoch."""
    async with EmbeddedValkey(tmp_path) as server, open_store(server.url, "test") as store:
        await commit(store, write("s", 0))
        connection = store.new_connection("test")
        await connection.call("FLUSHALL")
        await connection.close()
        with pytest.raises(Repairing):
            await commit(store, write("t", 0))
        await store.open(token)

        assert (await commit(store, write("t", 0))).status == "done"


async def test_busy_group_keeps_each_answer_with_its_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pipelines of many commits each caller gets the answer to its own."""
    monkeypatch.setattr(group_commit_module, "BATCH_MAX", 7)
    await asyncio.gather(*(commit(store, write(f"s{n}", 0)) for n in range(0, 100, 2)))
    results = await asyncio.gather(*(commit(store, write(f"s{n}", 0)) for n in range(100)))

    assert [result.status for result in results] == ["changed", "done"] * 50


async def test_cancelled_commit_is_not_sent(valkey: EmbeddedValkey, prefix: str) -> None:
    """A commit whose caller went away while it waited is left out of the pipeline."""
    async with Proxy(valkey.url) as proxy, open_store(proxy.url, prefix) as store:
        await commit(store, write("s", 0))
        async with proxy.stalled():
            first = asyncio.ensure_future(commit(store, write("first", 0)))
            queue = store._group_commit._queue  # noqa: SLF001
            await eventually(lambda: first.done() or not queue, within=100 * MS)
            second = asyncio.ensure_future(commit(store, write("second", 0)))
            await asyncio.sleep(0)
            second.cancel()
        assert (await first).status == "done"
        await commit(store, write("third", 0))

        assert await store.read(0, "second") == (None, None)
