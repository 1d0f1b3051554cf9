"""Entry cache: entries of this node need no decoding, and mean the same as decoded ones."""

import pytest

from gateway.core import command as c
from gateway.core.errors import GatewayError
from gateway.core.event import SessionEntry, decode_entry, encode_entry
from gateway.core.model import Stream, Watch
from gateway.live import entry_cache as entry_cache_module
from gateway.live.entry_cache import EntryCache
from gateway.node import Node
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, connection, running_node


def entry(session_id: str) -> SessionEntry:
    """Return some entry."""
    return SessionEntry(at=1, op="o", events=[], record=blank(session_id))


async def test_own_entries_mean_what_they_say(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the writer says of an entry is what everybody else reads in it."""
    kept: list[tuple[bytes, SessionEntry]] = []
    keep = node.replica.entry_cache.put

    def noted(data: bytes, entry: SessionEntry) -> None:
        kept.append((data, entry))
        keep(data, entry)

    monkeypatch.setattr(node.replica.entry_cache, "put", noted)
    await node.open(blank("s", labels={"a": "b"}, attributes={"x": [1, 1.0, {"y": True}]}))
    for command in (
        c.Connect(connection=connection(node)),
        c.StartWatch(watch=Watch(key="m", position_ms=5)),
        c.StartStream(stream=Stream(key="t", kind="k", data={"n": 1})),
        c.Join(members=("a", "b")),
        c.Update(name="Ann", attributes={"z": {}}),
        c.RequestClose(at=node.clock.now_ms() + 60_000),
        c.Disconnect(connection="c1", cause="server"),
        c.Close(reason="enough"),
    ):
        await node.apply("s", command)

    assert len(kept) == 9
    for data, known in kept:
        read = decode_entry(data)
        assert isinstance(read, SessionEntry)
        assert (read.record, read.events, read.at) == (known.record, known.events, known.at)
        assert encode_entry(known) == data
    assert node.replica.entry_cache.pop(kept[-1][0]) is None


async def test_unchanged_parts_are_the_same_objects(node: Node) -> None:
    """After a commit of this node its replica holds what the commit did not touch, not a copy."""
    await node.open(blank("s", labels={"a": "b"}, attributes={"x": {}}))
    before = node.replica.sessions["s"]
    after = await node.apply("s", c.Update(name="Ann"))

    assert node.replica.sessions["s"] is after
    assert after.labels is before.labels
    assert after.attributes is before.attributes


async def test_write_that_was_overtaken_is_read_as_it_happened(
    valkey: EmbeddedValkey, prefix: str, node: Node
) -> None:
    """A commit that did not come about leaves no trace in what this node sees."""
    async with running_node(valkey.url, prefix, "b") as other:
        await node.open(blank("s"))
        await other.wait_for_position(node.replica.position())
        await other.apply("s", c.Close())
        with pytest.raises(GatewayError):
            await node.apply("s", c.Update(name="late"))
        await node.wait_for_position(other.replica.position())

        assert node.replica.gone == other.replica.gone
        assert node.replica.sessions == {}


def test_memo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When too much is kept all of it is forgotten: it is decoded then."""
    monkeypatch.setattr(entry_cache_module, "BYTES_MAX", 100)
    cache = EntryCache()
    for number in range(12):
        cache.put(b"%010d" % number, entry(f"s{number}"))

    assert cache.pop(b"%010d" % 0) is None
    last = cache.pop(b"%010d" % 11)
    assert last is not None
    assert last.record.id == "s11"
    assert cache.pop(b"%010d" % 11) is None
