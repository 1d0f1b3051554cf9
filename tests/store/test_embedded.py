"""The embedded Valkey: one server a directory, whatever is killed and in whatever order."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from urllib.parse import unquote, urlsplit

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.core.errors import StoreUnavailable
from gateway.store import embedded
from gateway.store.embedded import EmbeddedValkey
from tests.support import MS, S, eventually

OPENER = """
import asyncio, sys
from pathlib import Path
from gateway.store.embedded import EmbeddedValkey

async def main():
    async with EmbeddedValkey(Path(sys.argv[1])) as valkey:
        print(valkey.pid, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def servers(data_dir: Path) -> set[int]:
    """Process ids of the Valkey servers whose working directory is *data_dir*."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "exe").readlink().name == "valkey-server" and (
                process / "cwd"
            ).readlink() == data_dir:
                found.add(int(process.name))
        except OSError:  # it ended while we looked
            continue
    return found


@contextmanager
def gateway_process(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that has the directory open until it is killed, and its server's pid."""
    with subprocess.Popen(
        [sys.executable, "-c", OPENER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@asynccontextmanager
async def connected(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    """A client that does not hide a lost server by retrying."""
    async with Redis.from_url(valkey.url, retry=Retry(NoBackoff(), 0)) as client:
        yield client


@asynccontextmanager
async def watched(valkey: EmbeddedValkey) -> AsyncIterator[None]:
    """Run ``watch()`` as the application does."""
    task = asyncio.create_task(valkey.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def answers(valkey: EmbeddedValkey) -> bool:
    """Whether the server serves right now."""
    try:
        async with connected(valkey) as client:
            return bool(await client.ping())
    except RedisConnectionError:
        return False


def kill(pid: int | None, sign: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that must exist."""
    assert pid is not None
    os.kill(pid, sign)


async def test_started_server_keeps_data_over_stop_and_start(tmp_path: Path) -> None:
    """What was written before a stop is there after the next start."""
    async with EmbeddedValkey(tmp_path) as valkey, connected(valkey) as client:
        await client.set("key", "value")

    async with EmbeddedValkey(tmp_path) as valkey, connected(valkey) as client:
        assert await client.get("key") == b"value"


async def test_stop_leaves_no_process(tmp_path: Path) -> None:
    """After stop() no server of the directory is left, and nothing answers."""
    valkey = EmbeddedValkey(tmp_path)
    await valkey.start()
    assert servers(tmp_path) == {valkey.pid}

    await valkey.stop()

    assert servers(tmp_path) == set()
    assert not await answers(valkey)


async def test_server_is_set_up_for_a_durable_store_without_a_network(tmp_path: Path) -> None:
    """It listens on its socket alone, evicts nothing, and writes an append-only file."""
    async with EmbeddedValkey(tmp_path) as valkey, connected(valkey) as client:
        config = await client.config_get(
            "port", "appendonly", "appendfsync", "save", "maxmemory-policy"
        )
        mode = (tmp_path / "valkey.sock").stat().st_mode & 0o777

    assert config == {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    assert mode == 0o700


async def test_killed_server_comes_back_with_all_but_the_last_two_seconds(tmp_path: Path) -> None:
    """Killed -9 under load, it is started again and has what was acknowledged 2 s before."""
    acknowledged: list[float] = []
    async with (
        EmbeddedValkey(tmp_path) as valkey,
        watched(valkey),
    ):
        first = valkey.pid
        async with connected(valkey) as client:
            began = monotonic()
            while monotonic() < began + 2.5:  # two fsyncs at least
                await client.incr("counter")
                acknowledged.append(monotonic())
        killed = monotonic()
        kill(first)

        await eventually(lambda: valkey.pid != first and answers(valkey))

        async with connected(valkey) as client:
            kept = int(await client.get("counter") or 0)
        assert kept >= sum(moment < killed - 2 for moment in acknowledged) > 0
        assert servers(tmp_path) == {valkey.pid}


async def test_second_opener_gets_the_same_server(tmp_path: Path) -> None:
    """Two gateways on one directory share a server, and the one that came second leaves it."""
    async with EmbeddedValkey(tmp_path) as owner:
        async with EmbeddedValkey(tmp_path) as guest:
            async with connected(owner) as client:
                await client.set("key", "value")
            async with connected(guest) as client:
                assert await client.get("key") == b"value"
            assert guest.url == owner.url
            assert guest.pid == owner.pid

        assert await answers(owner)
        assert servers(tmp_path) == {owner.pid}


async def test_racing_starts_make_one_server(tmp_path: Path) -> None:
    """Of many that open a directory at the same moment exactly one starts a server."""
    racers = [EmbeddedValkey(tmp_path) for _ in range(8)]
    try:
        await asyncio.gather(*(racer.start() for racer in racers))

        assert len(servers(tmp_path)) == 1
        assert [await answers(racer) for racer in racers] == [True] * len(racers)
    finally:
        await asyncio.gather(*(racer.stop() for racer in racers))
    assert servers(tmp_path) == set()


async def test_guest_takes_over_when_the_owner_leaves(tmp_path: Path) -> None:
    """A gateway that watches starts the server at the same address when its owner is gone."""
    owner, guest = EmbeddedValkey(tmp_path), EmbeddedValkey(tmp_path)
    await owner.start()
    async with guest, watched(guest):
        url = guest.url
        async with connected(guest) as client:
            await client.set("key", "value")
        await owner.stop()

        await eventually(lambda: answers(guest))

        assert guest.url == url
        async with connected(guest) as client:
            assert await client.get("key") == b"value"
    assert servers(tmp_path) == set()


async def test_opener_waits_for_a_server_that_is_going_and_starts_its_own(tmp_path: Path) -> None:
    """A start that finds the lock taken by a server that dies meanwhile takes over from it."""
    async with EmbeddedValkey(tmp_path) as dying:
        first = dying.pid
        kill(first, signal.SIGSTOP)
        opener = EmbeddedValkey(tmp_path)
        starting = asyncio.create_task(opener.start())
        try:
            done, _ = await asyncio.wait([starting], timeout=50 * MS)
            assert not done
            kill(first)
            await starting

            assert servers(tmp_path) == {opener.pid}
            assert opener.pid != first
        finally:
            await opener.stop()


async def test_killed_gateway_takes_its_server_along_and_the_next_one_starts(
    tmp_path: Path,
) -> None:
    """A gateway killed -9 leaves no server behind, loses nothing, and is no obstacle."""
    with gateway_process(tmp_path) as (process, pid):
        valkey = EmbeddedValkey(tmp_path)
        async with valkey, connected(valkey) as client:
            assert servers(tmp_path) == {pid}
            await client.set("key", "value")
        kill(process.pid)
        process.wait()

        await eventually(lambda: not servers(tmp_path))

    async with valkey, connected(valkey) as client:
        assert await client.get("key") == b"value"


async def test_next_start_right_after_a_kill_makes_no_second_server(tmp_path: Path) -> None:
    """However soon it comes after the kill, the next start ends with one server that serves."""
    with gateway_process(tmp_path) as (process, _):
        kill(process.pid)

        async with EmbeddedValkey(tmp_path) as valkey, watched(valkey):
            await eventually(lambda: process.poll() is not None)
            await eventually(lambda: len(servers(tmp_path)) == 1 and answers(valkey))


@pytest.mark.parametrize("runtime_dir", [None, "/nowhere", "there"])
async def test_path_too_long_for_a_socket_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime_dir: str | None
) -> None:
    """A directory far below the root is served, also to a second gateway, and leaves no trace."""
    data_dir = tmp_path / ("long name with % and ? " * 8).strip() / "data"
    with TemporaryDirectory(dir="/tmp") as there:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        if runtime_dir is not None:
            monkeypatch.setenv("XDG_RUNTIME_DIR", runtime_dir.replace("there", there, 1))

        async with EmbeddedValkey(data_dir) as owner, EmbeddedValkey(data_dir) as guest:
            async with connected(owner) as client:
                await client.set("key", "value")
            async with connected(guest) as client:
                assert await client.get("key") == b"value"
            home = Path(unquote(urlsplit(owner.url).path)).parent.parent
            assert (home.parent == Path(there)) == (runtime_dir == "there")
            assert home.stat().st_mode & 0o777 == 0o700
            assert servers(data_dir) == {owner.pid}

        assert not home.exists()


async def test_url_escapes_what_an_address_may_not_hold(tmp_path: Path) -> None:
    """A directory whose name has blanks, a question mark or a percent sign is served."""
    async with EmbeddedValkey(tmp_path / "a b?c%20d#e") as valkey:
        assert await answers(valkey)


async def test_unreadable_data_is_reported_with_the_reason(tmp_path: Path) -> None:
    """A server that refuses its data fails the start with its own last words, and is not left."""
    async with EmbeddedValkey(tmp_path) as valkey, connected(valkey) as client:
        await client.set("key", "value")
    (tmp_path / "appendonlydir" / "appendonly.aof.1.incr.aof").write_text("not a log\n")

    with pytest.raises(StoreUnavailable, match="Bad file format"):
        await valkey.start()

    assert servers(tmp_path) == set()


async def test_unusable_directory_is_reported(tmp_path: Path) -> None:
    """A data directory that cannot be made is an error of ours, not of the system."""
    (tmp_path / "file").touch()

    with pytest.raises(StoreUnavailable, match="data directory"):
        await EmbeddedValkey(tmp_path / "file" / "data").start()


async def test_unusable_lock_is_reported(tmp_path: Path) -> None:
    """A lock that cannot be opened is an error of ours, and no server is started without it."""
    (tmp_path / "lock").mkdir()
    valkey = EmbeddedValkey(tmp_path)

    with pytest.raises(StoreUnavailable, match="Cannot start Valkey"):
        await valkey.start()

    assert valkey.pid is None
    assert servers(tmp_path) == set()


async def test_long_log_of_the_server_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's log is kept over starts for its last words, but not for ever."""
    log = tmp_path / "valkey.log"
    log.write_text("earlier\n")
    async with EmbeddedValkey(tmp_path):
        assert log.read_text().startswith("earlier")

    monkeypatch.setattr(embedded, "LOG_BYTES", 4)
    async with EmbeddedValkey(tmp_path):
        assert not log.read_text().startswith("earlier")


async def test_cancelled_start_leaves_no_process(tmp_path: Path) -> None:
    """A start that is given up half-way takes its server back."""
    starting = asyncio.create_task(EmbeddedValkey(tmp_path).start())
    await eventually((tmp_path / "lock").exists)

    starting.cancel()
    await asyncio.wait([starting])

    assert starting.cancelled()
    assert servers(tmp_path) == set()


async def test_server_that_never_answers_fails_the_start_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start is bounded: a lock that is held by a hung server ends in an error."""
    async with EmbeddedValkey(tmp_path) as hung:
        kill(hung.pid, signal.SIGSTOP)
        monkeypatch.setattr(embedded, "START_WITHIN_S", 100 * MS)

        with pytest.raises(StoreUnavailable, match="did not answer"):
            await EmbeddedValkey(tmp_path).start()

        kill(hung.pid, signal.SIGCONT)


async def test_hung_server_does_not_hang_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not obey SIGTERM is killed after its time."""
    valkey = EmbeddedValkey(tmp_path)
    await valkey.start()
    kill(valkey.pid, signal.SIGSTOP)
    monkeypatch.setattr(embedded, "STOP_WITHIN_S", 100 * MS)

    async with asyncio.timeout(3 * S):
        await valkey.stop()

    assert servers(tmp_path) == set()


async def test_watch_outlives_a_start_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Data that cannot be read is logged and tried again; repaired, it is served."""
    monkeypatch.setattr(embedded, "RETRY_AFTER_S", 50 * MS)
    log = tmp_path / "appendonlydir" / "appendonly.aof.1.incr.aof"
    async with EmbeddedValkey(tmp_path) as valkey, watched(valkey):
        good = log.read_bytes()
        log.write_text("not a log\n")
        kill(valkey.pid)
        await eventually(lambda: any("Bad file format" in str(vars(r)) for r in caplog.records))

        log.write_bytes(good)

        await eventually(lambda: answers(valkey))
