"""The tests' own tools do what they say; a broken one would make every other test lie."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from gateway.store.embedded import EmbeddedValkey
from tests.conftest import Server
from tests.support import MS, Proxy, eventually


async def test_eventually_returns_what_became_true() -> None:
    """It waits for functions and coroutines alike and hands back their value."""
    values = iter([None, 0, "ready"])

    async def later() -> str | None:
        return "later"

    assert await eventually(lambda: next(values)) == "ready"
    assert await eventually(later) == "later"


async def test_eventually_names_the_last_value() -> None:
    """A condition that stays false fails with what it returned last."""
    with pytest.raises(AssertionError, match=r"last value was \[\]"):
        await eventually(list, within=5 * MS)


async def test_eventually_bounds_a_condition_that_hangs() -> None:
    """A coroutine that never ends fails the test in time."""
    with pytest.raises(AssertionError, match="not true"):
        await eventually(asyncio.Event().wait, within=5 * MS)


async def test_cut_proxy_resets_old_and_new_connections(valkey: EmbeddedValkey) -> None:
    """While cut nothing gets through; afterwards everything does."""
    async with (
        Proxy(valkey.url) as proxy,
        Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0)) as client,
    ):
        await client.ping()
        async with proxy.cut():
            for _ in range(2):
                with pytest.raises(RedisConnectionError):
                    await client.ping()

        assert await client.ping()


async def test_stalled_proxy_delays_and_keeps_the_connection(valkey: EmbeddedValkey) -> None:
    """What was asked during a stall is answered after it, on the same connection."""
    async with Proxy(valkey.url) as proxy, Redis.from_url(proxy.url) as client:
        before = await client.client_id()
        async with proxy.stalled():
            asked = asyncio.ensure_future(client.client_id())
            done, _ = await asyncio.wait([asked], timeout=20 * MS)
            assert not done

        assert await asked == before


async def test_stalled_replies_let_the_write_happen(valkey: EmbeddedValkey, prefix: str) -> None:
    """A write whose reply is held back and then lost has happened all the same."""
    key = f"{prefix}key"
    async with (
        Proxy(valkey.url) as proxy,
        Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0)) as client,
        Redis.from_url(valkey.url) as direct,
    ):
        await client.ping()
        async with proxy.stalled(requests=False):
            write = asyncio.ensure_future(client.set(key, "value"))
            await eventually(lambda: direct.get(key))
            async with proxy.cut():
                with pytest.raises(RedisConnectionError):
                    await write


async def test_proxy_of_an_absent_server_ends_the_connection() -> None:
    """A client of a server that is not there sees its connection end, not hang."""
    async with Proxy("unix:///nowhere") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await reader.read() == b""
        writer.close()


async def test_proxy_passes_on_the_last_words_of_a_closing_server() -> None:
    """All that a server sent before it closed arrives, and then the end."""
    words = b"x" * 1_000_000

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Proxy(f"http://127.0.0.1:{port}/path") as proxy:
        assert proxy.url == f"http://127.0.0.1:{proxy.port}"
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write_eof()
        assert await reader.read() == words
        writer.close()


async def test_cluster_fixture_refuses_keys_of_two_slots(cluster: Server, prefix: str) -> None:
    """A command over two slots fails there, one over two keys of a slot works."""
    async with Redis.from_url(cluster.url) as client:
        await client.mset({f"{{{prefix}}}a": 1, f"{{{prefix}}}b": 2})
        with pytest.raises(ResponseError, match="hash to the same slot"):
            await client.mset({f"{prefix}a": 1, f"{prefix}b": 2})


async def test_link_that_ends_before_it_begins_leaves_no_socket(valkey: EmbeddedValkey) -> None:
    """A client that comes while the proxy goes is cut as well."""
    async with Proxy(valkey.url) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await eventually(lambda: proxy._links)  # noqa: SLF001 - it was accepted
    assert await reader.read() == b""
    writer.close()
