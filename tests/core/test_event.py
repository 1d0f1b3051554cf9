"""Log entries: text form, entries of a newer version, the way back, and history rows."""

import pytest
from msgspec import DecodeError, to_builtins
from msgspec.json import decode, encode
from msgspec.structs import replace

from gateway.core.command import Close, Open, StartWatch, Unwatch, Update
from gateway.core.document import Document, Message, Recipients
from gateway.core.event import (
    HISTORY_ROW_MAX_BYTES,
    ActiveEntry,
    AnyEntry,
    AnyEvent,
    DocumentEntry,
    EpochEntry,
    MessageEntry,
    RowErasedEntry,
    SessionEnded,
    SessionEntry,
    decode_entry,
    encode_entry,
    history_rows,
)
from gateway.core.model import Client, Session, encode_session
from gateway.core.model import Watch as Watched
from gateway.core.record_codec import changed_fields
from tests.core.build import NOW, applied, busy, connected, fresh, idle


def entry_of(before: Session | None, events: list[AnyEvent], after: Session) -> SessionEntry:
    """Return what the log keeps of a commit."""
    return SessionEntry(
        at=NOW, op="op", events=events, record=after, before=changed_fields(before, after)
    )


def opened() -> SessionEntry:
    """Return the entry of a session that was opened."""
    return entry_of(None, *applied(None, Open(session=fresh(labels={"a": "b"}))))


def updated() -> SessionEntry:
    """Return the entry of a session whose name was changed."""
    before = busy()
    return entry_of(before, *applied(before, Update(name="Bob")))


@pytest.mark.parametrize(
    "entry",
    [
        opened(),
        updated(),
        DocumentEntry(at=1, op="op", document=Document(kind="neko.member", key="a", body={"x": 1})),
        MessageEntry(at=1, message=Message(to=Recipients(workspace="w"), topic="t", body=[1])),
        ActiveEntry(at=1, active={"s1": 5}),
        RowErasedEntry(at=1, number=7),
        EpochEntry(at=1, epoch="e2"),
    ],
)
def test_entry_survives_its_text(entry: AnyEntry) -> None:
    """What is read back from an entry's text is that entry."""
    text = encode_entry(entry)

    assert type(decode_entry(text)) is type(entry)
    assert encode_entry(decode_entry(text)) == text


def test_entry_is_written_as_ever() -> None:
    """The text of an entry is what nodes of every version read, with its encoded record."""
    before = replace(idle(), name="Ann")
    entry = entry_of(before, *applied(before, Update(name="Bob")))
    record = encode_session(entry.record)

    assert encode_entry(entry, record) == encode_entry(entry) == encode(entry)
    assert encode_entry(entry) == (
        b'{"kind":"s","op":"op",'
        b'"events":[{"type":"session.updated","name":"Bob"}],'
        b'"record":{"id":"s1","number":17,"revision":2,"created_at":1767323045678,"name":"Bob",'
        b'"ops":["op-1767323045678","op-1767323045678"]},'
        b'"before":{"revision":1,"name":"Ann","ops":["op-1767323045678"]},'
        b'"at":1767323045678}'
    )


def test_unknown_event_is_left_out_and_the_record_kept() -> None:
    """An event that only a newer version knows does not hide the rest of its commit."""
    entry = decode_entry(encode_entry(updated()))
    newer = decode(encode_entry(entry))
    newer["events"] = [{"type": "session.moved", "to": "n2"}, *newer["events"]]

    assert decode_entry(encode(newer)) == entry
    assert decode_entry(encode({**newer, "events": newer["events"][:1]})) == replace(
        entry, events=[]
    )


def test_unknown_fields_of_a_record_survive_in_the_log() -> None:
    """A record's unknown fields are read, restored and written again; those of an opening too."""
    plain = decode(encode_entry(opened()))
    plain["record"]["zone"] = plain["events"][0]["session"]["zone"] = "a"
    entry = decode_entry(encode(plain))

    assert isinstance(entry, SessionEntry)
    assert entry.record.unknown == {"zone": "a"}
    assert decode(encode_entry(entry)) == plain
    assert decode_entry(encode_entry(entry)) == entry


def test_entry_of_an_unknown_kind_says_nothing() -> None:
    """An entry of a kind that only a newer version knows takes its place in the log, no more."""
    assert decode_entry(b'{"kind":"z","at":5,"new":1}') == ActiveEntry(at=5, active={})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b'{"at":1}',
        b'{"kind":"s","at":1}',
        b'{"kind":"d","at":1,"op":"x"}',
        b'{"kind":"s","at":1,"op":"x","events":[{"type":"stream.stopped"}],"record":{}}',
        b'{"kind":"s","at":1,"op":"x","events":[{}],"record":{}}',
    ],
)
def test_damaged_entry_is_refused(data: bytes) -> None:
    """What is no entry of any version is not read as one."""
    with pytest.raises(DecodeError):
        decode_entry(data)


def test_damaged_event_in_a_whole_entry_is_refused() -> None:
    """A known event that lacks a field is damage, not news."""
    plain = decode(encode_entry(updated()))
    plain["events"] = [{"type": "stream.stopped"}]

    with pytest.raises(DecodeError):
        decode_entry(encode(plain))


def test_finished_watch_and_closed_session_become_history() -> None:
    """A close while watching leaves two rows: what was watched since when, and the session."""
    before = replace(busy(), name="Ann", watching_since=NOW - 500)
    events, after = applied(before, Close(outcome="left", reason="bye"))
    watch, session = history_rows(before, events, after, NOW)

    assert (watch.kind, watch.started_at, watch.at) == ("watch", NOW - 500, NOW)
    assert watch.watch == before.watch
    assert watch.outcome is None
    assert (session.kind, session.started_at, session.at) == ("session", before.created_at, NOW)
    assert (session.outcome, session.reason, session.name) == ("left", "bye", "Ann")
    assert session.watch is None
    assert {row.session_number for row in (watch, session)} == {17}


def test_next_watch_ends_the_one_before() -> None:
    """Looking at something else writes a row for the former watch, as it was last."""
    before = busy()
    same, again = applied(before, StartWatch(watch=Watched(key="movie/1", state="paused")))
    other, after = applied(again, StartWatch(watch=Watched(key="movie/2")))

    assert history_rows(before, same, again, NOW) == []
    (row,) = history_rows(again, other, after, NOW)
    assert row.watch == Watched(key="movie/1", state="paused")


def test_watch_changed_and_ended_in_one_commit_is_kept_as_it_was_last() -> None:
    """A flushed progress and the end of its watch make one row with the last position."""
    before = busy()
    last = Watched(key="movie/1", position_ms=9)
    progress, later = applied(before, StartWatch(watch=last))
    end, after = applied(later, Close())
    rows = history_rows(before, [*progress, *end], after, NOW)

    assert rows[0].watch is not None
    assert rows[0].watch.position_ms == 9
    assert [row.kind for row in history_rows(None, end, after, NOW)] == ["session"]


@pytest.mark.parametrize("kind", ["watch", "session"])
def test_history_row_drops_what_is_large(kind: str) -> None:
    """A row keeps its bound by leaving out the item, then labels, client and long texts."""
    labels = {f"label{number}": "x" * 100 for number in range(20)}
    client = Client(product="p" * 400)
    item = {"a": "x" * 3000}
    before = applied(
        connected(labels=labels, client=client, name="n" * 200),
        StartWatch(watch=Watched(key="k", title="t" * 1000, item=item)),
    )[1]
    events, after = applied(before, Close(reason="r" * 1000))
    row = next(row for row in history_rows(before, events, after, NOW) if row.kind == kind)

    assert len(encode(row)) <= HISTORY_ROW_MAX_BYTES
    assert row.session_id == "s1"
    assert to_builtins(row).keys().isdisjoint({"labels", "client"})


def test_history_row_keeps_labels_when_the_item_alone_is_large() -> None:
    """What is left out is no more than needed."""
    before = applied(
        connected(labels={"env": "prod"}),
        StartWatch(watch=Watched(key="k", item={"a": "x" * 3000})),
    )[1]
    events, after = applied(before, Unwatch())
    (row,) = history_rows(before, events, after, NOW)

    assert row.labels == {"env": "prod"}
    assert row.watch == Watched(key="k")


def test_history_row_of_the_longest_names_stays_bounded() -> None:
    """Whose row it is is never cut, so the longest names bound it, not the usual 1 KiB."""
    long = dict.fromkeys(("name", "account", "workspace", "service"), "\U0001f600" * 256)
    before = connected(**long, labels={"a": "b"})
    events, after = applied(before, Close(reason="\U0001f600" * 1024))
    (row,) = history_rows(before, events, after, NOW)

    assert isinstance(events[-1], SessionEnded)
    assert (row.account, row.workspace, row.service) == ("\U0001f600" * 256,) * 3
    assert len(encode(row)) < 4 * HISTORY_ROW_MAX_BYTES
