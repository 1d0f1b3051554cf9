"""Held-back reports: none is lost, none is done twice, and none undoes what is newer."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.core import command as c
from gateway.core.errors import NotFound, OutcomeUnknown, SessionClosed
from gateway.core.model import Session, Stream, Watch
from gateway.live import writer as writer_module
from gateway.node import Node
from gateway.store import group_commit as group_commit_module
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, running_node
from tests.support import MS, Proxy, S, eventually


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
    await other.wait_for_position(node.replica.position())
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
    await other.apply("s", c.StartWatch(watch=Watch(key="next", position_ms=0)))
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
    await other.apply("s", c.StartWatch(watch=Watch(key="next", position_ms=0)))
    await node.wait_for_position(other.replica.position())
    await node.report("s", c.Progress(state="paused"))
    session = await node.apply("s", c.Update(name="x"))

    assert watched(session) == ("next", 0)
    assert session.watch is not None
    assert session.watch.state == "paused"


async def test_report_counts_whatever_the_clock_says(node: Node, other: Node) -> None:
    """A report made on what another node wrote is newer than that, though the clock says no."""
    await holding(node)
    ahead = other.clock.now_ms() + 60_000
    await other.wait_for_position(node.replica.position())
    await other.apply(
        "s", c.StartWatch(watch=Watch(key="film", position_ms=3_000, position_at=ahead))
    )
    await node.wait_for_position(other.replica.position())
    await node.report("s", c.Progress(position_ms=4_000))
    session = await node.apply("s", c.Update(name="x"))

    assert watched(session) == ("film", 4_000)


@pytest.mark.parametrize("refused", [c.EndStream(key="none"), c.Leave(members=("nobody",))])
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


@pytest.mark.parametrize("way", ["cancelled", "unknown"])
async def test_report_that_may_have_been_done_is_not_done_again(
    valkey: EmbeddedValkey,
    prefix: str,
    other: Node,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """What went along with a write whose end nobody heard is not written over what came after."""
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        streams = (Stream(key="t", kind="k", state="old"),)
        await node.open(blank("s", watch=Watch(key="film"), streams=streams))
        await node.report("s", c.Progress(state="buffering"))
        await node.report("s", c.Progress(state="paused"))
        await node.report("s", c.UpdateStream(stream=Stream(key="t", kind="k", state="held")))
        monkeypatch.setattr(writer_module, "OUTCOME_S", 100 * MS)
        monkeypatch.setattr(group_commit_module, "ANSWER_S", (2 if way == "cancelled" else 0.1) * S)
        async with proxy.stalled(requests=False):
            work = asyncio.ensure_future(node.apply("s", c.StartWatch(watch=Watch(key="film"))))
            await eventually(lambda: other.replica.sessions["s"].streams[0].state == "held")
            if way == "cancelled":
                work.cancel()
            with pytest.raises((asyncio.CancelledError, OutcomeUnknown)):
                await work
        new = Stream(key="t", kind="k", state="new")
        await other.apply("s", c.StartStream(stream=new))
        monkeypatch.undo()
        session = await node.apply("s", c.Update(name="x"))

        assert (session.watch, session.streams) == (Watch(key="film"), (new,))


@pytest.mark.parametrize("way", ["cancelled", "unknown"])
async def test_report_of_a_write_that_was_not_done_is_kept(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """What went along with a write that never arrived is written with the next one."""
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        await holding(node)
        monkeypatch.setattr(writer_module, "OUTCOME_S", 100 * MS)
        monkeypatch.setattr(group_commit_module, "ANSWER_S", (2 if way == "cancelled" else 0.1) * S)
        async with proxy.stalled():
            work = asyncio.ensure_future(node.apply("s", c.Unwatch()))
            await eventually(node.store._group_commit._connection._lock.locked)  # noqa: SLF001
            if way == "cancelled":
                work.cancel()
            with pytest.raises((asyncio.CancelledError, OutcomeUnknown)):
                await work
            async with proxy.cut():
                pass
        monkeypatch.undo()
        session = await node.apply("s", c.Update(name="x"))

        assert watched(session) == ("film", 2_000)
