"""Times of a record: they never contradict each other, whichever node's clock they come from."""

import pytest
from msgspec.json import decode

from gateway.core import command as c
from gateway.core.evolve import SKEW_MAX_MS, happens_at
from gateway.core.model import Watch
from gateway.node import Node
from gateway.store.clock import RedisClock
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, connection, running_node
from tests.support import eventually

LATE_MS = 40


def fall_behind(clock: RedisClock) -> None:
    """Let the clock of a node take each moment for an earlier one."""
    assert clock._offset_ms is not None  # noqa: SLF001
    clock._offset_ms -= LATE_MS  # noqa: SLF001
    clock._trip_ms = 0  # noqa: SLF001 - no better estimate replaces it for a minute


async def test_session_of_a_socket_is_not_connected_before_it_is_created(node: Node) -> None:
    """A session that its socket opens is created and connected at the same moment."""
    early = connection(node)
    opened = await node.open(blank("s", connection=early))

    assert opened.connection is not None
    assert opened.created_at == opened.connected_at == opened.connection.connected_at


async def test_node_whose_clock_is_behind_ends_nothing_before_it_began(
    valkey: EmbeddedValkey, prefix: str, node: Node
) -> None:
    """What another node ends, whose clock is some milliseconds late, lasted no negative time."""
    async with running_node(valkey.url, prefix, "late") as late:
        fall_behind(late.clock)
        await node.open(blank("s", connection=connection(node)))
        await node.apply("s", c.StartWatch(watch=Watch(key="film")))
        await node.apply("s", c.RequestClose(at=node.clock.now_ms() + 60_000))
        await eventually(lambda: late.replica.sessions["s"].closing)
        ended = await late.apply("s", c.Disconnect(connection="c1", cause="server"))
        closed = await late.apply("s", c.Close())
        rows = [decode(data) for _, _, data in await late.store.history(0, "", 10)]

    since = ended.connected_at or 0
    assert ended.connection is not None
    assert ended.connection.ended_at is not None
    assert ended.closing is not None
    assert since <= (ended.watching_since or 0) <= ended.closing.requested_at
    assert ended.closing.requested_at <= ended.connection.ended_at == ended.disconnected_at
    assert closed.closed is not None
    assert closed.closed.at >= ended.connection.ended_at
    assert {row["kind"] for row in rows} == {"session", "watch"}
    assert all(row["started_at"] <= row["at"] for row in rows)


@pytest.mark.parametrize(
    "behind_ms, held_up", [(1, True), (SKEW_MAX_MS, True), (SKEW_MAX_MS + 1, False)]
)
async def test_step_of_the_clock_holds_nothing_up(
    node: Node, *, behind_ms: int, held_up: bool
) -> None:
    """A difference between nodes is evened out; after a step of Redis' clock its time counts."""
    session = await node.open(blank("s"))
    now_ms = session.created_at - behind_ms

    assert happens_at(session, now_ms) == (session.created_at if held_up else now_ms)
