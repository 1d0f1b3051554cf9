"""Connection: replies within a deadline, in order, or a connection that is dropped."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.core.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from gateway.store import connection as connection_module
from gateway.store.connection import RedisConnection
from gateway.store.embedded import EmbeddedValkey
from tests.support import MS, Proxy, S, eventually


@pytest_asyncio.fixture
async def proxy(valkey: EmbeddedValkey) -> AsyncIterator[Proxy]:
    """A breakable way to the server."""
    async with Proxy(valkey.url) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def connection(proxy: Proxy) -> AsyncIterator[RedisConnection]:
    """A connection over the proxy."""
    connection = RedisConnection(proxy.url, "test")
    yield connection
    await connection.close()


async def test_pipeline_answers_in_order_with_errors_as_values(
    connection: RedisConnection, prefix: str
) -> None:
    """One refused command does not hide what the others answered."""
    replies = await connection.pipeline(
        [("SET", prefix, "1"), ("LPUSH", prefix, "2"), ("GET", prefix), ("DEL", prefix)]
    )

    assert [replies[0], *replies[2:]] == [b"OK", b"1", 1]
    assert "WRONGTYPE" in str(replies[1])


async def test_refused_command_says_so(connection: RedisConnection, prefix: str) -> None:
    """A single refused command is an error of ours, not of the driver."""
    await connection.call("SET", prefix, "1")

    with pytest.raises(StoreUnavailable, match="refused"):
        await connection.call("LPUSH", prefix, "2")


async def test_no_server_is_unavailable_at_once(tmp_path: Path) -> None:
    """Nothing listens there: nothing was sent, and nobody waits for that."""
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(1 * S):
            await RedisConnection(f"unix://{tmp_path}/none", "test").call("PING")


async def test_stalled_reply_is_unknown_within_its_time(
    connection: RedisConnection, proxy: Proxy
) -> None:
    """A command without an answer has an unknown outcome, and the connection is dropped."""
    await connection.call("PING")
    async with proxy.stalled():
        with pytest.raises(OutcomeUnknown):
            await connection.call("ECHO", "late", answer_s=100 * MS)

        assert not connection.is_connected

    assert await connection.call("ECHO", "next") == b"next"


async def test_cut_link_is_unknown_and_comes_back(
    connection: RedisConnection, proxy: Proxy
) -> None:
    """A broken connection is told as such and made again by the next call."""
    await connection.call("PING")
    blocked = asyncio.ensure_future(connection.call("BLPOP", "nothing", 0))
    await eventually(lambda: connection.is_connected and not blocked.done())
    async with proxy.cut():
        with pytest.raises(OutcomeUnknown):
            await blocked
        with pytest.raises(StoreUnavailable):
            await connection.call("PING")

    assert await connection.call("PING") == b"PONG"


async def test_waits_behind_a_hung_server_do_not_add_up(
    connection: RedisConnection, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty who share a connection with a server that hangs all hear within one deadline."""
    await connection.call("PING")
    monkeypatch.setattr(connection_module, "CONNECT_S", 200 * MS)
    async with proxy.stalled(), asyncio.timeout(3 * S):
        found = await asyncio.gather(
            *(connection.call("PING", answer_s=200 * MS) for _ in range(20)), return_exceptions=True
        )

    assert {type(error) for error in found} <= {OutcomeUnknown, StoreUnavailable}


async def test_cancelled_call_leaves_no_reply_behind(
    connection: RedisConnection, proxy: Proxy
) -> None:
    """Who comes after a cancelled call gets their own reply."""
    await connection.call("PING")
    async with proxy.stalled(requests=False):
        call = asyncio.ensure_future(connection.call("ECHO", "mine"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    assert await connection.call("ECHO", "yours") == b"yours"


async def test_two_who_connect_at_once_share_one_connection(connection: RedisConnection) -> None:
    """Who makes the connection while another call does keeps nobody from the own replies."""
    two, _, one = await asyncio.gather(
        connection.pipeline([("ECHO", "1"), ("ECHO", "2")]),
        connection.connect(),
        connection.call("ECHO", "3"),
    )

    assert (two, one) == ([b"1", b"2"], b"3")


async def test_server_without_memory_is_full(tmp_path: Path) -> None:
    """A write that the server has no memory for says so."""
    async with EmbeddedValkey(tmp_path) as server:
        connection = RedisConnection(server.url, "test")
        await connection.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFull):
            await connection.call("SET", "key", "value")
        await connection.close()
