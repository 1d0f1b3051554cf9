"""Writer: each operation happens once, whatever happens to the connection to the store."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.core import command as c
from gateway.core.document import BODY_MAX_BYTES, Message, Recipients
from gateway.core.errors import (
    Conflict,
    IdUnavailable,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    SessionClosed,
    StoreUnavailable,
    Unavailable,
)
from gateway.core.model import OPS_KEPT, Session
from gateway.live import read_barrier as read_barrier_module
from gateway.live import writer as writer_module
from gateway.node import Node
from gateway.store import group_commit as group_commit_module
from gateway.store.commit import Commit, Result
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, running_node
from tests.support import MS, Proxy, S, eventually


async def history(node: Node, session_id: str) -> list[int]:
    """Return the revisions that the log has of a session."""
    entries = await node.store.entries(node.store.partition(session_id), 0, 1_000)
    marker = b'"record":{"id":"%b"' % session_id.encode()
    return [offset for offset, data in entries if marker in data]


async def test_repeated_operation_changes_nothing(node: Node) -> None:
    """A command with an op that the record remembers is answered with the record as it is."""
    await node.open(blank("s"), op="o1")
    first = await node.apply("s", c.Update(name="Ann"), op="o2")
    later = await node.apply("s", c.Update(name="Bob"), op="o3")

    assert await node.apply("s", c.Update(name="Ann"), op="o2") == later
    assert (first.revision, later.revision) == (2, 3)
    assert await node.open(blank("s"), op="o1") == later
    with pytest.raises(IdUnavailable):
        await node.open(blank("s"), op="other")
    closed = await node.apply("s", c.Close(), op="o4")
    assert await node.apply("s", c.Close(), op="o4") == closed
    with pytest.raises(SessionClosed):
        await node.apply("s", c.Close(), op="o5")
    assert len(await history(node, "s")) == 4


async def test_repeated_operation_on_another_node_changes_nothing(
    valkey: EmbeddedValkey, prefix: str, node: Node
) -> None:
    """A repeat that arrives elsewhere at once is done once and seen there when it is answered."""
    async with running_node(valkey.url, prefix, "b") as other:
        await node.open(blank("s"))
        one, two = await asyncio.gather(
            node.apply("s", c.Update(name="Ann"), op="o"),
            other.apply("s", c.Update(name="Ann"), op="o"),
        )

        assert one == two == node.replica.sessions["s"] == other.replica.sessions["s"]
        assert len(await history(node, "s")) == 2


async def test_own_write_is_visible_at_once(node: Node) -> None:
    """When a write is answered, a read on the same node shows it."""
    for number in range(50):
        await node.open(blank(f"s{number}"))
        assert f"s{number}" in node.replica.sessions
        await node.apply(f"s{number}", c.Close())
        assert f"s{number}" in node.replica.gone


@pytest.mark.parametrize("way", ["open", "update", "close"])
async def test_write_without_an_answer_is_looked_up(
    valkey: EmbeddedValkey, prefix: str, way: str
) -> None:
    """A reply that was lost after the script ran: success is told, and it happened once."""
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        await node.open(blank("s" if way != "open" else "other"))  # connected, numbers reserved
        before = len(await history(node, "s"))
        commands: dict[str, c.AnyCommand] = {"update": c.Update(name="Ann"), "close": c.Close()}
        async with proxy.stalled(requests=False):
            work: asyncio.Future[Session] = asyncio.ensure_future(
                node.open(blank("s")) if way == "open" else node.apply("s", commands[way])
            )
            await asyncio.sleep(50 * MS)  # the script runs meanwhile
            async with proxy.cut():
                pass
        session = await work

        assert session.id == "s"
        assert len(await history(node, "s")) == before + 1
        known = node.replica.gone if way == "close" else node.replica.sessions
        assert known["s"].revision == session.revision


async def test_write_that_was_not_done_is_done_after_all(
    valkey: EmbeddedValkey, prefix: str
) -> None:
    """A request that was lost before the script ran is sent again, once."""
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        await node.open(blank("s"))
        async with proxy.stalled():
            work = asyncio.ensure_future(node.apply("s", c.Update(name="Ann")))
            await asyncio.sleep(50 * MS)
            async with proxy.cut():
                pass
        session = await work

        assert (session.revision, session.name) == (2, "Ann")
        assert len(await history(node, "s")) == 2


async def test_unknown_outcome_is_told_in_time(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store stays silent the caller hears so, and the same op finds out later."""
    monkeypatch.setattr(group_commit_module, "ANSWER_S", 200 * MS)
    monkeypatch.setattr(writer_module, "OUTCOME_S", 300 * MS)
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        await node.open(blank("s"))
        async with proxy.stalled(requests=False):
            started_s = time.monotonic()
            with pytest.raises(OutcomeUnknown):
                await node.apply("s", c.Update(name="Ann"), op="o")

            assert time.monotonic() - started_s < 2 * S
        session = await node.apply("s", c.Update(name="Ann"), op="o")

        assert session.revision == 2
        assert len(await history(node, "s")) == 2


@pytest.mark.parametrize("newer", [OPS_KEPT - 1, OPS_KEPT])
async def test_write_that_the_record_has_forgotten_is_not_done_again(
    valkey: EmbeddedValkey, prefix: str, node: Node, newer: int
) -> None:
    """A write without an answer is never done over newer ones: if too many, its end is unknown."""
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix, "b") as cut_off:
        await cut_off.open(blank("s"))
        async with proxy.stalled(requests=False):
            work = asyncio.ensure_future(cut_off.apply("s", c.Update(name="first")))
            await eventually(lambda: node.replica.sessions["s"].name == "first")
            for number in range(newer):
                await node.apply("s", c.Update(name=f"n{number}"))
            async with proxy.cut():
                pass
        if newer < OPS_KEPT:
            assert (await work).name == f"n{newer - 1}"
        else:
            with pytest.raises(OutcomeUnknown):
                await work

        assert len(await history(node, "s")) == 2 + newer


@pytest.mark.parametrize("way", ["find", "close", "open"])
@pytest.mark.parametrize("end", ["cut", "silence"])
async def test_nothing_is_unknown_when_no_change_was_sent(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch, way: str, end: str
) -> None:
    """Who waits for a read only, before any change, hears that the store is away and no more."""
    monkeypatch.setattr(writer_module, "OUTCOME_S", 100 * MS)
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        calls: dict[str, Callable[[], Awaitable[Session]]] = {
            "find": lambda: node.find("nobody"),
            "close": lambda: node.apply("nobody", c.Close()),
            "open": lambda: node.open(blank("s")),
        }
        async with proxy.stalled(requests=False):
            work = asyncio.ensure_future(calls[way]())
            await eventually(node.store._read_connection._lock.locked)  # noqa: SLF001
            if end == "cut" or way == "find":  # nobody else bounds a read
                async with proxy.cut():
                    pass
            with pytest.raises(StoreUnavailable):
                await work


async def test_done_write_is_never_an_error(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that is done and not seen in time is a success all the same."""
    monkeypatch.setattr(read_barrier_module, "APPLIED_WITHIN_S", 100 * MS)
    async with running_node(valkey.url, prefix) as node:
        await node.open(blank("s"))
        apply = node.replica.apply
        monkeypatch.setattr(node.replicator, "_apply", lambda *_: None)  # news do not arrive
        session = await node.apply("s", c.Update(name="Ann"))

        assert session.name == "Ann"
        assert node.replica.sessions["s"].name is None
        assert apply == node.replica.apply


async def test_stale_decision_is_made_again(
    valkey: EmbeddedValkey, prefix: str, node: Node
) -> None:
    """Two nodes that change one session at once both get their change in."""
    async with running_node(valkey.url, prefix, "b") as other:
        await node.open(blank("s"))
        await other.wait_for_position(node.replica.position())
        await asyncio.gather(
            *(
                (node, other)[number % 2].apply("s", c.Join(members=(f"m{number}",)))
                for number in range(20)
            )
        )
        await node.wait_for_position(other.replica.position())

        assert set(node.replica.sessions["s"].members) == {f"m{number}" for number in range(20)}
        assert len(await history(node, "s")) == 21


async def test_endless_conflict_is_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that others change faster than it can be decided is a conflict, not a loop."""
    await node.open(blank("s"))
    commit = node.store.commit
    tries = 0

    async def late(partition: int, wanted: Commit, _: object) -> Result:
        nonlocal tries
        tries += 1
        value, _ = await node.store.read(partition, "s")
        assert value is not None
        moved = Commit(
            field="s",
            expected=wanted.expected,
            value=b"%d %b"
            % (
                wanted.expected + 1,
                value.split(b" ", 1)[1].replace(
                    b'"revision":%d' % wanted.expected, b'"revision":%d' % (wanted.expected + 1)
                ),
            ),
            entry=b'{"kind":"a","at":1,"active":{}}',
        )
        await commit(partition, moved)
        return await commit(partition, wanted)

    monkeypatch.setattr(node.store, "commit", late)
    with pytest.raises(Conflict):
        await node.apply("s", c.Update(name="Ann"))

    assert tries == writer_module.ATTEMPTS


async def test_unknown_session_is_not_found(node: Node) -> None:
    """A command to nobody, or a deadline of nobody, changes nothing."""
    for command in (c.Update(name="x"), c.Disconnect(connection="c", cause="lost")):
        with pytest.raises(NotFound):
            await node.apply("nobody", command)


async def test_record_has_a_size(node: Node) -> None:
    """A record over 16 KiB is refused and changes nothing; it can still be closed."""
    await node.open(blank("s"))
    for number in range(5):
        await node.apply("s", c.Update(attributes={"a": "x" * 4_000}, name=f"n{number}"))
    with pytest.raises(LimitExceeded):
        await node.apply("s", c.Update(members=tuple(f"{number:0200d}" for number in range(100))))

    assert node.replica.sessions["s"].members == ()
    assert (await node.apply("s", c.Close())).closed


async def test_opens_get_numbers_of_their_own(
    valkey: EmbeddedValkey, prefix: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many nodes open however many sessions at once, no number is given twice."""
    monkeypatch.setattr(writer_module, "NUMBERS", 8)
    async with running_node(valkey.url, prefix, "b") as other:
        opened = await asyncio.gather(
            *((node, other)[number % 2].open(blank(f"s{number}")) for number in range(100))
        )

    assert len({session.number for session in opened}) == 100


async def test_open_that_went_away_keeps_nobody_from_a_number(node: Node) -> None:
    """When the one who fetches numbers for all goes away, the others fetch them."""
    wanted = [asyncio.ensure_future(node._writer.number(0)) for _ in range(3)]  # noqa: SLF001
    await asyncio.sleep(0)
    wanted[0].cancel()

    assert len({await number for number in wanted[1:]}) == 2


async def test_opens_do_not_queue_behind_a_hung_store(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty who want a number while the store hangs all hear within one deadline."""
    monkeypatch.setattr(writer_module, "OUTCOME_S", 300 * MS)
    async with Proxy(valkey.url) as proxy, running_node(proxy.url, prefix) as node:
        async with proxy.stalled():
            started_s = time.monotonic()
            found = await asyncio.gather(
                *(node.open(blank(f"s{number}")) for number in range(50)), return_exceptions=True
            )

        assert time.monotonic() - started_s < 3 * S
        assert all(isinstance(error, Unavailable) for error in found)


# --- documents and messages


async def test_document_is_written_read_and_deleted(
    valkey: EmbeddedValkey, prefix: str, node: Node
) -> None:
    """A document is visible at once here and soon elsewhere; empty removes it."""
    async with running_node(valkey.url, prefix, "b") as other:
        await node.documents.write("kind", "key", lambda _: {"x": 1})
        assert node.documents.get("kind", "key") == {"x": 1}
        await eventually(lambda: other.documents.get("kind", "key") == {"x": 1})
        await other.documents.write("kind", "key", lambda _: {})
        await eventually(lambda: node.documents.get("kind", "key") is None)
        await node.documents.write("kind", "key", lambda body: {**body, "y": 2})

        assert node.documents.get("kind", "key") == {"y": 2}
        assert node.replica.sessions == {}


async def test_documents_lose_no_change(valkey: EmbeddedValkey, prefix: str, node: Node) -> None:
    """Changes of one document from two nodes are applied one after the other."""

    def count(body: dict[str, Any]) -> dict[str, Any]:
        return {"n": body.get("n", 0) + 1}

    async with running_node(valkey.url, prefix, "b") as other:
        for _ in range(10):
            await asyncio.gather(
                *(known.documents.write("counter", "c", count) for known in (node, other))
            )
        await node.wait_for_position(other.replica.position())

        assert node.documents.get("counter", "c") == {"n": 20}


async def test_document_has_a_size(node: Node) -> None:
    """A document over 16 KiB is refused."""
    with pytest.raises(LimitExceeded):
        await node.documents.write("kind", "key", lambda _: {"x": "y" * BODY_MAX_BYTES})
    assert node.documents.get("kind", "key") is None


async def test_message_is_said_once_on_every_node(
    valkey: EmbeddedValkey, prefix: str, node: Node
) -> None:
    """A message reaches the socket of its session, on whichever node it is, and no watcher."""
    async with running_node(valkey.url, prefix, "b") as other:
        session = await node.open(blank("s", workspace="w"))
        await other.wait_for_position(node.replica.position())
        said = Message(to=Recipients(session="s"), topic="news", body={"n": 1})
        with other.hub.mailbox(session) as box:
            await node.publish(said)
            notice = await box.get()

            assert notice.message == said
            await node.publish(Message(to=Recipients(workspace="other"), topic="news"))
            await node.publish(Message(to=Recipients(), topic="all"))
            notice = await box.get()
            assert notice.message is not None
            assert notice.message.topic == "all"
