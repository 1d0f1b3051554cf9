"""Record codec: what may be stored, what a commit changed, and the record before."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import ValidationError
from msgspec.json import decode, encode
from msgspec.structs import replace

from gateway.core.command import AnyCommand, Close, Open, StartWatch, Unwatch, Update, UpdateStream
from gateway.core.errors import Invalid, LimitExceeded
from gateway.core.event import AnyEvent, SessionEntry, Updated, decode_entry, encode_entry
from gateway.core.model import (
    RECORD_MAX_BYTES,
    Bounded,
    Client,
    Profile,
    Session,
    Stream,
    decode_session,
    encode_session,
    same_json,
    touched,
)
from gateway.core.model import Watch as Watched
from gateway.core.record_codec import (
    changed_fields,
    encode_checked,
    merge_unchanged,
    restore,
    reuse_evolved,
)
from gateway.core.session import advance, decide
from tests.core.build import BOUNDED, NOW, applied, busy, closing, connected, idle
from tests.core.lives import Life, lived, lives


def entry_of(before: Session | None, events: list[AnyEvent], after: Session) -> SessionEntry:
    """Return what the log keeps of a commit."""
    return SessionEntry(
        at=NOW, op="op", events=events, record=after, before=changed_fields(before, after)
    )


def updated() -> SessionEntry:
    """Return the entry of a session whose name was changed."""
    before = busy()
    return entry_of(before, *applied(before, Update(name="Bob")))


def test_former_value_of_an_unknown_field_is_restored() -> None:
    """What a newer version says a field was before is kept on the way back."""
    plain = decode(encode_entry(updated()))
    plain["record"]["zone"], plain["before"]["zone"] = "b", "a"
    entry = decode_entry(encode(plain))

    assert isinstance(entry, SessionEntry)
    former = restore(entry.record, entry.before)
    assert former is not None
    assert former.unknown == {"zone": "a"}


@pytest.mark.parametrize(
    "before, command",
    [
        (busy(), Update(name="Bob")),
        (busy(), Update(attributes={"a": {"b": 1}})),
        (busy(), Close()),
        (idle(attributes={"a": 1}), Update(attributes={"a": True})),
        (idle(attributes={"a": 1}, name="Ann"), Update(attributes={}, name=None)),
        (closing(), Unwatch()),
        (connected(), StartWatch(watch=Watched(key="k", item={"a": [1]}))),
    ],
)
def test_session_before_a_commit_is_restored(before: Session, command: AnyCommand) -> None:
    """From the record and its former values comes exactly the session before, through JSON too."""
    after = advance(before, decide(before, command, NOW), "op", NOW)
    former = changed_fields(before, after)

    restored = restore(after, decode(encode(former)))

    assert encode_session(restored or after) == encode_session(before)
    assert restored == before


def test_opening_has_nothing_before_it() -> None:
    """There is no session before the first commit."""
    assert changed_fields(None, idle()) is None
    assert restore(idle(), None) is None


def test_record_that_a_client_fills_is_refused_when_it_gets_too_large() -> None:
    """What a client adds must fit; taking away, reporting and closing always work."""
    part = "x" * 4000
    streams = tuple(Stream(key=f"t{number}", kind="k", data={"a": part}) for number in range(4))
    full = replace(busy(), streams=streams, attributes={"a": "x" * 400})
    assert len(encode_session(full)) > RECORD_MAX_BYTES

    def seal(command: AnyCommand) -> bytes:
        events = decide(full, command, NOW)
        return encode_checked(full, entry_of(full, events, advance(full, events, "op", NOW)))

    adding: list[AnyCommand] = [
        UpdateStream(stream=Stream(key="t0", kind="k", data={"a": part + "y"})),
        Update(name="Bob"),
        StartWatch(watch=Watched(key="movie/1", title="x" * 1000)),
    ]
    for command in adding:
        with pytest.raises(LimitExceeded):
            seal(command)
    always: list[AnyCommand] = [
        Update(attributes={"a": "b"}, labels={}),
        Close(reason="x" * 1000),
        Unwatch(),
    ]
    for command in always:
        assert len(seal(command)) > RECORD_MAX_BYTES - 1000
    with pytest.raises(LimitExceeded):
        encode_checked(None, entry_of(None, decide(None, Open(session=full), NOW), full))
    assert encode_checked(busy(), entry_of(busy(), [Updated()], full))


def test_value_that_no_node_could_read_back_is_refused() -> None:
    """A value that a door failed to check stops before the log, not in every reader of it."""
    before = idle()
    events = decide(before, Update(name="x" * 9000), NOW)

    with pytest.raises(Invalid, match=r"length <= 256 - at `\$.name`"):
        encode_checked(before, entry_of(before, events, advance(before, events, "op", NOW)))


def test_record_within_its_bounds_is_encoded_as_its_text() -> None:
    """The encoded text is the record's."""
    before = idle()
    events, after = applied(before, Update(name="Bob"))

    assert encode_checked(before, entry_of(before, events, after)) == encode_session(after)


@pytest.mark.parametrize(
    "field, value",
    [
        ("id", ""),
        ("id", "a/b"),
        ("id", "a\n"),
        ("id", "x" * 129),
        ("name", ""),
        ("name", "a\x00b"),
        ("name", "x" * 257),
        ("labels", {"a b": "c"}),
        ("labels", {f"l{number}": "" for number in range(33)}),
        ("members", ["m"] * 257),
        ("linger_ms", -1),
        ("linger_ms", True),
        ("ttl_ms", 367 * 86_400_000),
    ],
)
def test_value_out_of_bounds_is_not_written(field: str, value: object) -> None:
    """A record holds only ids, names, labels and durations within their bounds."""
    before = idle()
    with pytest.raises(Invalid, match=f"`\\$.{field}"):
        encode_checked(before, entry_of(before, [Updated()], replace(before, **{field: value})))
    with pytest.raises(Invalid, match=f"`\\$.{field}"):
        encode_checked(None, entry_of(None, [Updated()], replace(before, **{field: value})))


def test_opening_with_fields_of_a_newer_version_is_encoded() -> None:
    """What this version does not know has no bounds; what it knows has."""
    newer = replace(idle(), unknown={"zone": {"a": 1}})

    assert decode_session(encode_checked(None, entry_of(None, [], newer))) == newer
    with pytest.raises(Invalid):
        encode_checked(None, entry_of(None, [], replace(newer, name="")))


# Values that some door could have failed to check: right ones and wrong ones of each kind.
FIELDS: dict[str, list[Any]] = {
    "name": [None, "Ann", "", "x" * 257, "a\x00b", 7],
    "labels": [{}, {"a": "b"}, {"a b": "c"}, {"a": "x" * 257}, {"a": 1}],
    "attributes": [{}, {"a": {"b": [1, None, 0.5]}}, [1]],
    "profile": [None, Profile(), Profile(name="x" * 1025), Profile(is_admin=1)],  # type: ignore[arg-type]
    "client": [None, Client(), Client(key="a\x00")],
    "members": [(), ("ann",), ("",), tuple(map(str, range(257)))],
    "phase": [None, "ready", ""],
    "linger_ms": [None, 0, -1, True, 367 * 86_400_000, 1.5],
    "watch": [None, Watched(key="k"), Watched(key=""), Watched(key="k", position_ms=-1)],
    "streams": [(), (Stream(key="k", kind="k"),), (Stream(key="k", kind=""),)],
    "connected_at": [None, NOW, "now"],
}


@BOUNDED
@given(st.fixed_dictionaries({}, optional={n: st.sampled_from(v) for n, v in FIELDS.items()}))
def test_record_is_encoded_exactly_when_all_of_it_is_within_bounds(values: dict[str, Any]) -> None:
    """A look at what a commit changed refuses what a look at all of the record would."""
    before = decode_session(encode_session(busy()))
    after = replace(before, revision=before.revision + 1, **values)
    try:
        decode(encode(after), type=Bounded)
    except ValidationError:
        with pytest.raises(Invalid):
            encode_checked(before, entry_of(before, [Updated()], after))
    else:
        text = encode_checked(before, entry_of(before, [Updated()], after))
        assert text == encode_session(after)
        assert decode_session(text) == after


@BOUNDED
@given(lives)
def test_record_is_joined_with_the_session_before(life: Life) -> None:
    """A record from the log, joined with what a replica holds, is the same and shares the rest."""
    replicated: Session | None = None
    for _, written in lived(life):
        entry = decode_entry(encode_entry(written))
        assert isinstance(entry, SessionEntry)
        if replicated:
            after = merge_unchanged(replicated, entry)
            assert same_json(after, entry.record)
            assert set(touched(replicated, after)) <= (entry.before or {}).keys()
        replicated = entry.record


def test_record_that_does_not_follow_is_left_as_it_is() -> None:
    """Nothing is taken over from another revision, or past what a newer version changed."""
    entry = updated()
    former = restore(entry.record, entry.before)
    assert former is not None

    assert merge_unchanged(former, entry) == entry.record
    assert merge_unchanged(replace(former, revision=former.revision - 1), entry) is entry.record
    assert merge_unchanged(former, replace(entry, before=None)) is entry.record
    newer = replace(entry, before={**(entry.before or {}), "zone": "a"})
    assert merge_unchanged(former, newer) is entry.record


def test_record_is_recognized_as_what_its_events_made() -> None:
    """A record that says the same as the evolved session is that session, but for its commit."""
    evolved = busy()
    record = decode_session(encode_session(replace(evolved, revision=9, ops=("op",))))
    other = replace(record, attributes={"a": True})

    assert reuse_evolved(evolved, record) == record
    assert reuse_evolved(evolved, record).streams is evolved.streams
    assert reuse_evolved(replace(evolved, attributes={"a": 1}), other) is other
