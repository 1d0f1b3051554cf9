"""Records: derived state, text form, unknown fields, and what may not be carried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import DecodeError
from msgspec.json import decode, encode
from msgspec.structs import replace

from gateway.core.command import Unwatch
from gateway.core.errors import Invalid
from gateway.core.model import (
    DEPTH_MAX,
    WORKING_PHASES,
    Profile,
    Session,
    State,
    Stream,
    Watch,
    check_object,
    decode_session,
    encode_session,
    same_json,
)
from tests.core.build import BOUNDED, applied, away, busy, closed, closing, connected, idle

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([0.5, 1.0])
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


def nested(depth: int) -> object:
    """Return maps and lists, *depth* of them within each other."""
    value: object = 1
    for number in range(depth):
        value = {"a": value} if number % 2 else [value]
    return value


def test_state_is_the_strongest_of_what_holds() -> None:
    """A session is closed, else closing, else connected, else away, else idle."""
    assert [
        session.state for session in (idle(), connected(), away(), closing(), closed(closing()))
    ] == [
        State.IDLE,
        State.CONNECTED,
        State.AWAY,
        State.CLOSING,
        State.CLOSED,
    ]


@pytest.mark.parametrize(
    "facts",
    [
        {"watch": Watch(key="101")},
        {"streams": (Stream(key="t1", kind="transcode"),)},
        {"members": ("ann",)},
        *({"phase": phase} for phase in sorted(WORKING_PHASES)),
    ],
)
def test_session_is_at_work_whatever_door_its_work_came_through(facts: dict[str, object]) -> None:
    """A watch, a stream, a member or a working phase is work, with or without a socket."""
    assert idle(**facts).is_at_work


def test_session_that_was_at_work_is_no_new_one() -> None:
    """A client that was here, or a watch that ended, is work that has begun."""
    watched = applied(idle(watch=Watch(key="101")), Unwatch())[1]

    assert connected().is_at_work
    assert away().is_at_work
    assert watched.watch is None
    assert watched.is_at_work


@pytest.mark.parametrize("phase", [None, "created", "exited", "dead", "warming up"])
def test_session_that_nobody_came_to_is_not_at_work(phase: str | None) -> None:
    """A session nobody has begun to use is not at work, whatever it is called and said to be."""
    assert not idle(phase=phase, name="Ann", labels={"a": "b"}, attributes={"c": 1}).is_at_work


def test_flags_are_independent_of_the_pending_close() -> None:
    """A closing session may be connected and watch."""
    session = closing(busy())

    assert session.is_connected
    assert session.is_watching
    assert session.closes_at is not None
    assert session.closed_at is None
    assert closed(session).closed_at is not None
    assert not closed(session).is_connected


@pytest.mark.parametrize("session", [idle(), busy(), away(), closing(), closed()])
def test_record_survives_its_text(session: Session) -> None:
    """What is read back from a record's text is that record."""
    assert decode_session(encode_session(session)) == session


def test_record_of_a_newer_version_keeps_its_fields() -> None:
    """Fields that this version does not know survive a change that this version makes."""
    newer = {**decode(encode_session(busy())), "zone": {"a": [1, None]}, "level": 1.5}
    session = decode_session(encode(newer))

    written = decode(encode_session(replace(session, name="Bob")))

    assert session.unknown == {"zone": {"a": [1, None]}, "level": 1.5}
    assert written == {**newer, "name": "Bob"}
    assert decode_session(encode(newer)) == session


@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b"[]", b'{"id":"s1"}', b'{"id":1,"zone":2}', b"\xff"]
)
def test_text_that_is_no_record_is_refused(data: bytes) -> None:
    """A damaged record is told as such, not read in part."""
    with pytest.raises(DecodeError):
        decode_session(data)


@pytest.mark.parametrize(
    "one, other, same",
    [
        (1, 1, True),
        (1, True, False),
        (0, False, False),
        (1, 1.0, False),
        ("1", 1, False),
        (None, None, True),
        (None, False, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {"a": 1, "b": 1}, False),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, True),
        ([1], [1, 2], False),
        ([1], [True], False),
        ((1,), (True,), False),
        ((1,), (1,), True),
        (
            Stream(key="k", kind="k", data={"a": 1}),
            Stream(key="k", kind="k", data={"a": True}),
            False,
        ),
        (Stream(key="k", kind="k", data={"a": 1}), Stream(key="k", kind="k", data={"a": 1}), True),
        (Profile(), Profile(plugins={"a": 1}), False),
    ],
)
def test_json_values_are_told_apart_by_type(one: object, other: object, same: bool) -> None:
    """True is not 1 and 1.0 is not 1, at any depth, because they are not in JSON."""
    assert same_json(one, other) is same
    assert same_json(other, one) is same


@BOUNDED
@given(json_values, json_values)
def test_json_values_are_the_same_exactly_when_their_text_is(one: object, other: object) -> None:
    """Two values count as the same when their sorted JSON text is."""
    assert same_json(one, other) is (encode(one, order="sorted") == encode(other, order="sorted"))
    assert same_json(decode(encode(one)), one)


def test_object_with_null_or_too_deep_is_refused() -> None:
    """Null in a map and nesting beyond the bound are unacceptable, however deep it goes."""
    check_object(nested(DEPTH_MAX), "item")
    with pytest.raises(Invalid, match="`item` is nested deeper than 32"):
        check_object(nested(DEPTH_MAX + 1), "item")
    with pytest.raises(Invalid, match="nested deeper"):
        check_object(nested(100_000), "item")
    with pytest.raises(Invalid, match="`item` holds null"):
        check_object({"a": [{"b": None}]}, "item")
    check_object({"a": [{"b": None}]}, "patch", nulls=True)
    check_object({"a": ("b", {"c": None})}, "patch", nulls=True)


@pytest.mark.parametrize("value", [("a",), {"a"}, b"a", Profile(), {"a": [("b",)]}])
def test_object_is_what_reading_json_gives(value: object) -> None:
    """What would be read back as something else is a mistake of ours, and is not written."""
    with pytest.raises(TypeError, match="no JSON"):
        check_object({"value": value}, "attributes")
