"""What a store refuses to start on, and what it takes over."""

from pathlib import Path

import pytest

from gateway.store.embedded import EmbeddedValkey
from gateway.store.keys import keys
from gateway.store.store import Store, StoreRefused
from tests.nodes import clock, open_store, token


@pytest.fixture(params=["valkey", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """A server alone, and one in cluster mode."""
    server: EmbeddedValkey = request.getfixturevalue(request.param)
    return server.url


@pytest.mark.parametrize(
    "meta,partitions,what",
    [
        ({"schema": 2}, None, "schema 2"),
        ({"partitions": 4}, 8, "4 partitions"),
    ],
)
async def test_foreign_data_refuses_the_start(
    url: str, prefix: str, meta: dict[str, int], partitions: int | None, what: str
) -> None:
    """Data of a newer schema or of other partitions is left alone."""
    async with open_store(url, "other") as store:
        connection = store.new_connection("test")
        for name, value in meta.items():
            await connection.call("HSET", keys(prefix, 0).meta, name, value)
        await connection.close()
    refused = Store(url, clock(), prefix=prefix, partitions=partitions)
    try:
        with pytest.raises(StoreRefused, match=what):
            await refused.open(token)
    finally:
        await refused.close()


async def test_partitions_of_the_data_are_taken_over(url: str, prefix: str) -> None:
    """Who does not say how many partitions there are takes what the data was created with."""
    async with open_store(url, prefix, 3), open_store(url, prefix) as store:
        assert store.partitions == len(store.keys) == 3


async def test_partitions_that_were_taken_over_stay(url: str, prefix: str) -> None:
    """Who took over a number of partitions begins lost data again with as many."""
    async with open_store(url, prefix, 3), open_store(url, prefix) as store:
        connection = store.new_connection("test")
        await connection.call("DEL", store.keys[0].meta)
        await connection.close()
        await store.open(token)

        assert store.partitions == len(store.keys) == 3


async def test_evicting_server_refuses_the_start(tmp_path: Path) -> None:
    """A server that may drop sessions when memory is short is refused, with the remedy."""
    async with EmbeddedValkey(tmp_path) as server, open_store(server.url, "test") as store:
        connection = store.new_connection("test")
        await connection.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await connection.close()
        with pytest.raises(StoreRefused, match="noeviction"):
            await store.open(token)
