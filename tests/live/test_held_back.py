"""Held-back reports: none is lost, none is done twice, and none undoes what is newer."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.core import command as c
from gateway.core.errors import NotFound, SessionClosed
from gateway.core.model import Session, Watch
from gateway.node import Node
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, running_node
from tests.support import eventually


@pytest_asyncio.fixture
async def node(valkey: EmbeddedValkey, prefix: str) -> AsyncIterator[Node]:
    """One running node."""
    async with running_node(valkey.url, prefix) as node:
        yield node


@pytest_asyncio.fixture
async def other(valkey: EmbeddedValkey, prefix: str) -> AsyncIterator[Node]:
    """Another one over the same store."""
    async with running_node(valkey.url, prefix, "b") as other:
        yield other


async def holding(node: Node, position_ms: int = 2_000) -> None:
    """Open a session that watches a film, and let *node* hold back where that is."""
    await node.open(blank("s", watch=Watch(key="film", position_ms=0)))
    await node.report("s", c.Progress(position_ms=1_000))
    await node.report("s", c.Progress(position_ms=position_ms))
    assert node._coalescer.sessions() == ["s"]  # noqa: SLF001


async def later(node: Node, other: Node) -> None:
    """Wait until *other* has seen what *node* has, and its clock shows a later time."""
    await other.reached(node.mirror.position())
    now_ms = node.clock.now_ms()
    await eventually(lambda: min(node.clock.now_ms(), other.clock.now_ms()) > now_ms + 50)


def watched(session: Session) -> tuple[str, int | None]:
    """Return what a session watches and where it is."""
    assert session.watch is not None
    return session.watch.key, session.watch.position_ms


async def test_report_of_a_former_watch_does_not_move_the_next(node: Node, other: Node) -> None:
    """A report that was held back while another node began another watch is left out."""
    await holding(node)
    await later(node, other)
    await other.apply("s", c.Watch(watch=Watch(key="next", position_ms=0)))
    session = await node.apply("s", c.Update(name="x"))

    assert watched(session) == ("next", 0)


async def test_older_report_does_not_undo_a_newer_one(node: Node, other: Node) -> None:
    """A position that was held back is left out when another node has written a newer one."""
    await holding(node)
    await later(node, other)
    await other.report("s", c.Progress(position_ms=3_000))
    session = await node.apply("s", c.Update(name="x"))

    assert watched(session) == ("film", 3_000)


async def test_report_takes_no_older_one_along_to_another_watch(node: Node, other: Node) -> None:
    """What is reported of a watch is not joined with what was held back of the one before."""
    await holding(node)
    await later(node, other)
    await other.apply("s", c.Watch(watch=Watch(key="next", position_ms=0)))
    await node.reached(other.mirror.position())
    await node.report("s", c.Progress(state="paused"))
    session = await node.apply("s", c.Update(name="x"))

    assert watched(session) == ("next", 0)
    assert session.watch is not None
    assert session.watch.state == "paused"


async def test_report_counts_whatever_the_clock_says(node: Node, other: Node) -> None:
    """A report made on what another node wrote is newer than that, though the clock says no."""
    await holding(node)
    ahead = other.clock.now_ms() + 60_000
    await other.reached(node.mirror.position())
    await other.apply("s", c.Watch(watch=Watch(key="film", position_ms=3_000, position_at=ahead)))
    await node.reached(other.mirror.position())
    await node.report("s", c.Progress(position_ms=4_000))
    session = await node.apply("s", c.Update(name="x"))

    assert watched(session) == ("film", 4_000)


@pytest.mark.parametrize("refused", [c.StopStream(key="none"), c.Leave(members=("nobody",))])
async def test_command_about_an_unknown_part_keeps_what_was_held_back(
    node: Node, refused: c.AnyCommand
) -> None:
    """An accepted report survives a command that is refused because a part is not there."""
    await holding(node)
    with pytest.raises(NotFound):
        await node.apply("s", refused)
    session = await node.apply("s", c.Update(name="x"))

    assert watched(session) == ("film", 2_000)


async def test_reports_of_a_session_that_is_gone_are_forgotten(node: Node) -> None:
    """What was held back goes with its session, however that ended."""
    await holding(node)
    await node.apply("s", c.Close())
    node._coalescer.hold("s", c.Progress(position_ms=3_000), node.clock.now_ms())  # noqa: SLF001
    node._coalescer.hold("no", c.Progress(position_ms=1), node.clock.now_ms())  # noqa: SLF001
    node._coalescer.hold("no", c.Progress(position_ms=2), node.clock.now_ms())  # noqa: SLF001
    with pytest.raises(SessionClosed):
        await node.apply("s", c.Update(name="x"))
    with pytest.raises(NotFound):
        await node.apply("no", c.Update(name="x"))

    assert node._coalescer.sessions() == []  # noqa: SLF001
