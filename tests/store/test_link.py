"""Link: replies within a deadline, in order, or a connection that is dropped."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.core.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from gateway.store import link as link_module
from gateway.store.embedded import EmbeddedValkey
from gateway.store.link import Link
from tests.support import MS, Proxy, S, eventually


@pytest_asyncio.fixture
async def proxy(valkey: EmbeddedValkey) -> AsyncIterator[Proxy]:
    """A breakable way to the server."""
    async with Proxy(valkey.url) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def link(proxy: Proxy) -> AsyncIterator[Link]:
    """A link over the proxy."""
    link = Link(proxy.url, "test")
    yield link
    await link.close()


async def test_pipeline_answers_in_order_with_errors_as_values(link: Link, prefix: str) -> None:
    """One refused command does not hide what the others answered."""
    replies = await link.pipeline(
        [("SET", prefix, "1"), ("LPUSH", prefix, "2"), ("GET", prefix), ("DEL", prefix)]
    )

    assert [replies[0], *replies[2:]] == [b"OK", b"1", 1]
    assert "WRONGTYPE" in str(replies[1])


async def test_refused_command_says_so(link: Link, prefix: str) -> None:
    """A single refused command is an error of ours, not of the driver."""
    await link.call("SET", prefix, "1")

    with pytest.raises(StoreUnavailable, match="refused"):
        await link.call("LPUSH", prefix, "2")


async def test_no_server_is_unavailable_at_once(tmp_path: Path) -> None:
    """Nothing listens there: nothing was sent, and nobody waits for that."""
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(1 * S):
            await Link(f"unix://{tmp_path}/none", "test").call("PING")


async def test_stalled_reply_is_unknown_within_its_time(link: Link, proxy: Proxy) -> None:
    """A command that was sent and not answered has an unknown outcome, and the link is dropped."""
    await link.call("PING")
    async with proxy.stalled():
        with pytest.raises(OutcomeUnknown):
            await link.call("ECHO", "late", answer_s=100 * MS)

        assert not link.is_connected

    assert await link.call("ECHO", "next") == b"next"


async def test_cut_link_is_unknown_and_comes_back(link: Link, proxy: Proxy) -> None:
    """A broken connection is told as such and made again by the next call."""
    await link.call("PING")
    blocked = asyncio.ensure_future(link.call("BLPOP", "nothing", 0))
    await eventually(lambda: link.is_connected and not blocked.done())
    async with proxy.cut():
        with pytest.raises(OutcomeUnknown):
            await blocked
        with pytest.raises(StoreUnavailable):
            await link.call("PING")

    assert await link.call("PING") == b"PONG"


async def test_waits_behind_a_hung_server_do_not_add_up(
    link: Link, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty who share a link with a server that hangs all hear within one deadline."""
    await link.call("PING")
    monkeypatch.setattr(link_module, "CONNECT_S", 200 * MS)
    async with proxy.stalled(), asyncio.timeout(3 * S):
        found = await asyncio.gather(
            *(link.call("PING", answer_s=200 * MS) for _ in range(20)), return_exceptions=True
        )

    assert {type(error) for error in found} <= {OutcomeUnknown, StoreUnavailable}


async def test_cancelled_call_leaves_no_reply_behind(link: Link, proxy: Proxy) -> None:
    """Who comes after a cancelled call gets their own reply."""
    await link.call("PING")
    async with proxy.stalled(requests=False):
        call = asyncio.ensure_future(link.call("ECHO", "mine"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    assert await link.call("ECHO", "yours") == b"yours"


async def test_two_who_connect_at_once_share_one_connection(link: Link) -> None:
    """Who makes the connection while another call does keeps nobody from the own replies."""
    two, _, one = await asyncio.gather(
        link.pipeline([("ECHO", "1"), ("ECHO", "2")]), link.connect(), link.call("ECHO", "3")
    )

    assert (two, one) == ([b"1", b"2"], b"3")


async def test_server_without_memory_is_full(tmp_path: Path) -> None:
    """A write that the server has no memory for says so."""
    async with EmbeddedValkey(tmp_path) as server:
        link = Link(server.url, "test")
        await link.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFull):
            await link.call("SET", "key", "value")
        await link.close()
