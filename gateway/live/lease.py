"""Lease: which nodes are alive, and since when the gateway as a whole is up.

Each node renews its lease in Redis; a lease is dead ``DEAD_AFTER_MS`` after its last renewal by
Redis time, so idle sessions cost Redis nothing. A node declares others dead only after it has
renewed its own lease without a break for as long: after an outage every node gets a chance to
renew.

Not here: what happens to a dead node's sessions (``node``).
"""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

from gateway.store.clock import RedisClock
from gateway.store.commit import LeaseState
from gateway.store.group_commit import OUTAGE_MS
from gateway.store.store import Store

RENEW_S: Final = 1.5  # between two renewals; an idle node learns of a demoted server by them
WATCH_S: Final = 0.5  # between two while another node is overdue
OVERDUE_MS: Final = 6_000  # four renewals missed
DEAD_AFTER_MS: Final = 10_000
FORGET_AFTER_MS: Final = 60_000  # a dead lease is removed


def rendezvous_owner(key: str, node_ids: Iterable[str]) -> str:
    """Return the node that owns *key* by rendezvous hashing; empty if there is no node."""
    return max(
        node_ids,
        key=lambda node_id: blake2b(f"{key}\0{node_id}".encode(), digest_size=8).digest(),
        default="",
    )


class Lease:
    """This node's lease and its view of the others'.

    Args:
        store: Where leases are kept.
        clock: Redis time and the monotonic clock.
        node_id: ``name:boot``; another boot of the same name is another node.
        announcement: Returns JSON that is shown to others, at each renewal.
    """

    def __init__(
        self, store: Store, clock: RedisClock, node_id: str, announcement: Callable[[], bytes]
    ) -> None:
        self.node_id = node_id
        self.up_since_ms = 0
        self.live: set[str] = {node_id}
        self.nodes: dict[str, tuple[int, bytes]] = {}
        self._store = store
        self._clock = clock
        self._announcement = announcement
        self._renewed_ms = float("-inf")  # monotonic
        self._unbroken_since_ms = float("-inf")

    @property
    def is_fresh(self) -> bool:
        """Whether this node renewed so recently that it cannot have missed an outage."""
        return self._clock.monotonic_ms() - self._renewed_ms < OUTAGE_MS

    @property
    def may_declare_dead(self) -> bool:
        """Whether this node has renewed without a break for as long as a lease lasts."""
        return self.is_fresh and self._renewed_ms - self._unbroken_since_ms >= DEAD_AFTER_MS

    async def renew(self) -> float:
        """Renew once; return the seconds to the next time.

        Raises:
            Unavailable: The store did not answer.
        """
        renewed_ms = self._clock.monotonic_ms()  # before it is sent: Redis counts from later
        beat = await self._store.renew_lease(self.node_id, self._announcement())
        if renewed_ms - self._renewed_ms >= OUTAGE_MS:
            self._unbroken_since_ms = renewed_ms
        self._renewed_ms = renewed_ms
        self._apply(beat)
        overdue = any(
            at < beat.time_ms - OVERDUE_MS
            for node, (at, _) in self.nodes.items()
            if node in self.live
        )
        return WATCH_S if overdue else RENEW_S

    def _apply(self, beat: LeaseState) -> None:
        self.up_since_ms = beat.up_since_ms
        self.nodes = beat.nodes
        self.live = {
            node for node, (at, _) in beat.nodes.items() if at > beat.time_ms - DEAD_AFTER_MS
        } | {self.node_id}

    def forgotten(self, now_ms: int) -> list[str]:
        """Return the nodes that have been dead so long that their leases can be removed."""
        return [node for node, (at, _) in self.nodes.items() if at < now_ms - FORGET_AFTER_MS]

    async def release(self) -> None:
        """Give up the lease, because this node stops."""
        await self._store.forget_node(self.node_id)
