"""Key names in Redis.

All keys of a partition carry the same hash tag, in standalone too, so that one script may touch
them in a cluster (Redis Cluster specification, *Hash tags*). A session's partition follows from
its id alone.
"""

from typing import Final
from zlib import crc32

from msgspec import Struct

CLUSTER_PARTITIONS: Final = 16  # default in a cluster; fixed when the data is created


class Keys(Struct, frozen=True):
    """The keys of one partition.

    Args:
        live: HASH, session id or document field to ``revision JSON``.
        log: STREAM, one entry a commit; ids are consecutive: ``1-0``, ``2-0``, …
        gone: HASH, session id to the final ``revision JSON`` of a closed session.
        history: STREAM, closed sessions and finished watches.
        meta: HASH, epoch, schema, counters and ``up_since``.
        nodes: HASH, node id to its lease; used in partition 0 only.
    """

    live: str
    log: str
    gone: str
    history: str
    meta: str
    nodes: str


def keys(prefix: str, partition: int) -> Keys:
    """Return the key names of *partition* under *prefix*."""
    tag = f"{{{prefix}:{partition}}}"
    return Keys(*(f"{tag}:{name}" for name in Keys.__struct_fields__))


def partition_of(session_id: str, partitions: int) -> int:
    """Return the partition that holds *session_id*."""
    return crc32(session_id.encode()) % partitions if partitions > 1 else 0
