"""Session numbers: none is given twice."""

from pathlib import Path

from redis.asyncio import Redis

from gateway.node import Node
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, running_node
from tests.support import S, eventually


async def opened(node: Node, *session_ids: str) -> list[int]:
    """Open sessions on *node* and return their numbers."""
    return [(await node.open(blank(session_id))).number for session_id in session_ids]


async def test_no_number_is_given_twice_after_history_was_lost(tmp_path: Path, prefix: str) -> None:
    """Numbers that a node has reserved are void when the store begins anew, on every node."""
    async with (
        EmbeddedValkey(tmp_path) as server,
        running_node(server.url, prefix, "a") as node,
        running_node(server.url, prefix, "b") as other,
    ):
        before = await opened(node, "s")
        lost = node.replica.epochs[0]
        async with Redis.from_url(server.url) as client:
            await client.flushall()
        await eventually(
            lambda: lost != node.replica.epochs[0] == other.replica.epochs[0], within=10 * S
        )
        after = await opened(node, "a1", "a2", "a3") + await opened(other, "b1", "b2", "b3")

        assert len(set(after)) == 6
        assert min(after) > max(before)
