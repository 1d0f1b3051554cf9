"""Lease: which nodes live, by Redis time; a node that was away declares no other one dead."""

from collections.abc import AsyncIterator

import pytest_asyncio

from gateway.live.lease import DEAD_AFTER_MS, RENEW_S, WATCH_S, Lease, rendezvous_owner
from gateway.store.clock import RedisClock
from gateway.store.embedded import EmbeddedValkey
from gateway.store.group_commit import OUTAGE_MS
from gateway.store.store import Store
from tests.nodes import open_store


class Hand:
    """A monotonic clock that a test moves."""

    ms = 1_000_000.0

    def __call__(self) -> float:
        """Return milliseconds."""
        return self.ms


@pytest_asyncio.fixture
async def store(valkey: EmbeddedValkey, prefix: str) -> AsyncIterator[Store]:
    """An open store of its own."""
    async with open_store(valkey.url, prefix) as store:
        yield store


async def age(store: Store, node_id: str, age_ms: int) -> None:
    """Make a lease older."""
    link = store.new_connection("test")
    nodes = store.keys[0].nodes
    at, _, rest = (await link.call("HGET", nodes, node_id)).partition(b" ")
    await link.call("HSET", nodes, node_id, b"%d %b" % (int(at) - age_ms, rest))
    await link.close()


async def test_renewed_leases_live(store: Store) -> None:
    """Nodes see each other as long as they renew, and are looked at closely when they do not."""
    one, two = (Lease(store, store.clock, node, lambda: b"{}") for node in ("a:1", "b:1"))
    await one.renew()

    assert await two.renew() == RENEW_S
    assert two.live == {"a:1", "b:1"}

    await age(store, "a:1", 7_000)
    assert await two.renew() == WATCH_S
    assert two.live == {"a:1", "b:1"}

    await age(store, "a:1", DEAD_AFTER_MS - 7_000)
    assert await two.renew() == RENEW_S
    assert two.live == {"b:1"}
    assert two.forgotten(store.clock.now_ms()) == []
    assert two.forgotten(store.clock.now_ms() + 55_000) == ["a:1"]

    await one.renew()
    assert one.live == {"a:1", "b:1"}


async def test_released_lease_is_gone(store: Store) -> None:
    """A node that leaves politely is not waited for."""
    one, two = (Lease(store, store.clock, node, lambda: b"{}") for node in ("a:1", "b:1"))
    await one.renew()
    await two.renew()
    await one.release()
    await two.renew()

    assert two.live == {"b:1"}


async def test_nobody_is_judged_before_ten_seconds_of_own_renewals(store: Store) -> None:
    """A node that has just come, or came back, gives the others time to speak first."""
    hand = Hand()
    lease = Lease(store, RedisClock(hand), "a:1", lambda: b"{}")

    assert not lease.may_declare_dead

    await lease.renew()
    for step_ms, judges in [
        *((3_000, False),) * 3,
        (1_000, True),
        (3_000, True),
        (OUTAGE_MS, False),
        *((3_000, False),) * 3,
        (3_000, True),
    ]:
        hand.ms += step_ms
        await lease.renew()

        assert lease.may_declare_dead is judges
    hand.ms += OUTAGE_MS
    assert not lease.is_fresh
    assert not lease.may_declare_dead


async def test_up_since_moves_after_an_outage(store: Store) -> None:
    """When nobody could renew, deadlines start over; a node that was away alone changes nothing."""
    one, two = (Lease(store, store.clock, node, lambda: b"{}") for node in ("a:1", "b:1"))
    await one.renew()
    await two.renew()

    assert one.up_since_ms == two.up_since_ms

    link = store.new_connection("test")
    beat = int(await link.call("HGET", store.keys[0].meta, "beat"))
    old = beat - OUTAGE_MS - 1_000
    await link.call("HSET", store.keys[0].meta, "beat", old, "up_since", old)
    await link.close()
    await one.renew()

    assert one.up_since_ms > two.up_since_ms
    await two.renew()
    assert one.up_since_ms == two.up_since_ms


def test_rank_moves_only_what_a_dead_node_had() -> None:
    """Every node names the same one; when one dies, the others keep what they had."""
    nodes = [f"n{number}:1" for number in range(4)]
    before = {key: rendezvous_owner(key, nodes) for key in map(str, range(400))}
    after = {key: rendezvous_owner(key, reversed(nodes[:3])) for key in before}

    assert rendezvous_owner("s", []) == ""
    assert min(list(before.values()).count(node) for node in nodes) > 60
    assert all(after[key] == node for key, node in before.items() if node in nodes[:3])
