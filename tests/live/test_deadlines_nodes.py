"""Deadline scheduler over a store: each deadline fires once, however many nodes run one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import pytest
from msgspec.json import decode

from gateway.core import command as c
from gateway.core.errors import SessionClosed
from gateway.core.query import View, Visibility
from gateway.live.outbound import Tick
from gateway.node import Node
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, connection, running_node
from tests.support import eventually

ALL = View(visibility=Visibility(by="all"))


@pytest.fixture
async def nodes(valkey: EmbeddedValkey, prefix: str) -> AsyncIterator[list[Node]]:
    """Two nodes on one store."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running_node(valkey.url, prefix, name))
            for name in ("a", "b")
        ]


def is_empty(node: Node) -> bool:
    """Return whether a node knows of no session."""
    return not node.replica.sessions


async def test_two_nodes_close_once(nodes: list[Node]) -> None:
    """However many nodes run a scheduler: one closed event a session, none early by Redis time."""
    one, two = nodes
    with one.subscribe(ALL) as here, two.subscribe(ALL) as there:
        await here.next()
        await there.next()
        at = one.clock.now_ms() + 300
        for number in range(60):
            opened = await nodes[number % 2].open(blank(f"s{number}"))
            if number % 3 == 0:
                joined = c.Connect(connection=connection(nodes[number % 2], f"c{number}"))
                await nodes[number % 2].apply(opened.id, joined)
            await nodes[number % 2].apply(opened.id, c.RequestClose(at=at))
        for node, subscription in ((one, here), (two, there)):
            await eventually(partial(is_empty, node))
            closed = []
            while subscription.is_behind:
                tick = await subscription.next()
                assert isinstance(tick, Tick)
                closed += [
                    event
                    for event in decode(tick.message)["events"]
                    if event["type"] == "session.closed"
                ]

            assert sorted(event["session_id"] for event in closed) == sorted(
                f"s{number}" for number in range(60)
            )
            assert all(node.replica.gone[f"s{number}"].at >= at for number in range(60))


async def test_deadline_by_a_wrong_clock_waits_for_redis(nodes: list[Node]) -> None:
    """A node whose clock is ahead does not close early: Redis has the last word."""
    one, two = nodes
    at = two.clock.now_ms() + 300
    await one.open(blank("s"))
    await one.apply("s", c.RequestClose(at=at))
    one.clock._offset_ms = (one.clock._offset_ms or 0) + 250  # noqa: SLF001
    await eventually(lambda: "s" in two.replica.gone)
    with pytest.raises(SessionClosed) as caught:
        await two.find("s")

    assert caught.value.record is not None
    assert two.clock.now_ms() >= at
