"""Documents: no write is lost, whoever else writes."""

import asyncio
from typing import Any

import pytest

from gateway.core.errors import IdUnavailable, StoreUnavailable
from gateway.live import keyed_lock as keyed_lock_module
from gateway.live import read_barrier as read_barrier_module
from gateway.node import Node
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import running_node
from tests.support import MS, eventually


async def test_node_that_lags_does_not_write_over_a_new_document(
    valkey: EmbeddedValkey, prefix: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document that was deleted and made again is not taken for the one before."""

    def named(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "name": "x"}

    monkeypatch.setattr(read_barrier_module, "APPLIED_WITHIN_S", 100 * MS)
    async with running_node(valkey.url, prefix, "b") as other:
        await node.documents.write("kind", "key", lambda _: {"owner": "old"})
        await eventually(lambda: other.documents.get("kind", "key"))
        with monkeypatch.context() as patch:
            news = asyncio.Event()
            patch.setattr(other.replicator, "_apply", lambda *_: news.set())
            await node.documents.write("kind", "key", lambda _: {})
            await node.documents.write("kind", "key", lambda _: {"owner": "new"})
            await news.wait()
            await other.documents.write("kind", "key", named)
        await eventually(lambda: "name" in (node.documents.get("kind", "key") or {}))

        assert node.documents.get("kind", "key") == {"owner": "new", "name": "x"}


async def test_writers_of_one_document_take_turns(node: Node) -> None:
    """However many want a number of one kind at once, each gets one, and none is left out."""
    numbers = await asyncio.gather(
        *(node.documents.number("kind", f"n{number}") for number in range(60))
    )

    assert sorted(numbers) == list(range(1, 61))


async def test_turn_at_a_document_that_does_not_come_is_told(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits too long for another writer hears so; one that was refused blocks nobody."""
    monkeypatch.setattr(keyed_lock_module, "ACQUIRE_S", 50 * MS)

    def refused(_: dict[str, Any]) -> dict[str, Any]:
        raise IdUnavailable

    with pytest.raises(IdUnavailable):
        await node.documents.write("kind", "key", refused)
    with monkeypatch.context() as patch:
        patch.setattr(node.store, "commit", lambda *_: asyncio.get_running_loop().create_future())
        first = asyncio.ensure_future(node.documents.write("kind", "key", lambda _: {"n": 1}))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable):
            await node.documents.write("kind", "key", lambda _: {"n": 2})
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    assert await node.documents.write("kind", "key", lambda _: {"n": 3}) == {"n": 3}
