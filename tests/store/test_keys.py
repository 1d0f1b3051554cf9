"""Keys: one spelling, one slot a partition, sessions spread evenly."""

from collections import Counter

from redis.crc import key_slot

from gateway.store.keys import CLUSTER_PARTITIONS, keys, partition_of


def test_keys_of_a_partition_share_a_slot() -> None:
    """All keys of a partition live in one slot of a cluster, so that one script may touch them."""
    for partition in range(CLUSTER_PARTITIONS):
        names = keys("gateway", partition)
        slots = {key_slot(getattr(names, field).encode()) for field in names.__struct_fields__}

        assert len(slots) == 1


def test_keys_of_other_partitions_or_prefixes_differ() -> None:
    """No key name belongs to two partitions or two gateways."""
    names = [
        getattr(keys(prefix, partition), field)
        for prefix in ("a", "b")
        for partition in range(16)
        for field in keys("a", 0).__struct_fields__
    ]

    assert len(set(names)) == len(names)


def test_partitions_spread_over_a_cluster() -> None:
    """Sixteen partitions reach each of three primaries."""
    slots = [key_slot(keys("gateway", number).live.encode()) for number in range(16)]

    assert {slot * 3 // 16384 for slot in slots} == {0, 1, 2}


def test_sessions_spread_over_partitions() -> None:
    """No partition gets more than twice its share, and one partition takes all there are."""
    counts = Counter(partition_of(f"session-{number}", 16) for number in range(16_000))

    assert set(counts) == set(range(16))
    assert max(counts.values()) < 2_000
    assert partition_of("anything", 1) == 0
