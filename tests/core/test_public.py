"""What is shown: merge patches, levels, and that folding events gives the session."""

from typing import Any

import pytest
from hypothesis import given
from msgspec import to_builtins
from msgspec.json import decode, encode
from msgspec.structs import replace

from gateway.core.command import (
    Close,
)
from gateway.core.event import HistoryRow
from gateway.core.model import Client, Closing, Profile, Session
from gateway.core.model import Watch as Watched
from gateway.core.public import diff, merge, render_row, render_session, rfc3339
from tests.core.build import (
    BOUNDED,
    NOW,
    SECOND,
    applied,
    busy,
    closed,
    closing,
    connected,
    idle,
)
from tests.core.lives import objects

RFC_7396_APPENDIX_A = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize("target, patch, result", RFC_7396_APPENDIX_A)
def test_merge_follows_the_rfc(
    target: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]
) -> None:
    """Each example of RFC 7396 appendix A whose ends are objects comes out as it says."""
    kept = decode(encode(target))

    assert merge(target, patch) == result
    assert target == kept


@BOUNDED
@given(objects, objects)
def test_diff_leads_from_one_object_to_the_other(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Merging the difference of two objects over the first gives the second, types and all."""
    merged = merge(before, diff(before, after))

    assert encode(merged, order="sorted") == encode(after, order="sorted")
    assert diff(after, after) == {}


def test_diff_of_equal_looking_values_keeps_their_types() -> None:
    """True in place of 1 is a change, in a list of streams as well."""
    assert diff({"a": 1}, {"a": True}) == {"a": True}
    assert diff({"s": ({"data": {"a": 1}},)}, {"s": ({"data": {"a": True}},)}) == {
        "s": ({"data": {"a": True}},)
    }


@pytest.mark.parametrize(
    "at, text",
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_323_045_678, "2026-01-02T03:04:05.678Z"),
        (1_767_323_045_007, "2026-01-02T03:04:05.007Z"),
    ],
)
def test_time_is_shown_in_utc_with_milliseconds(at: int, text: str) -> None:
    """Times are RFC 3339 text, always with three digits after the second."""
    assert rfc3339(at) == text


def shown(session: Session, *, full: bool = False) -> dict[str, Any]:
    """Return the public session as a client reads it."""
    read: dict[str, Any] = decode(encode(render_session(session, full=full)))
    return read


def test_session_is_shown_as_documented() -> None:
    """The public session has the documented members, and leaves out what is unset."""
    session = closing(busy(), budget_ms=60 * SECOND)

    assert shown(session) == {
        "id": "s1",
        "number": 17,
        "revision": 5,
        "state": "closing",
        "is_connected": True,
        "is_watching": True,
        "created_at": "2026-01-02T03:04:05.678Z",
        "connected_at": "2026-01-02T03:04:05.678Z",
        "watching_since": "2026-01-02T03:04:05.678Z",
        "closes_at": "2026-01-02T03:04:35.678Z",
        "members": ["ann"],
        "connection": {"id": "c1", "connected_at": "2026-01-02T03:04:05.678Z"},
        "watch": {"key": "movie/1", "state": "playing"},
        "streams": [{"key": "t1", "kind": "transcode", "data": {}}],
        "closing": {
            "at": "2026-01-02T03:04:35.678Z",
            "requested_at": "2026-01-02T03:04:05.678Z",
            "extend_max_ms": 60000,
            "reason": "maintenance",
            "by": "admin",
        },
    }
    assert shown(idle()).keys() == {
        "id", "number", "revision", "state", "is_connected", "is_watching", "created_at",
    }  # fmt: skip


def test_full_level_adds_where_a_client_is_and_what_it_may() -> None:
    """Address, node and profile are shown at the full level only, never the boot id or secrets."""
    session = connected(profile=Profile(is_admin=True), client=Client(product="Web"))

    plain, full = shown(session), shown(session, full=True)

    assert diff(plain, full) == {
        "profile": to_builtins(Profile(is_admin=True)),
        "connection": {"node": "n1", "address": "203.0.113.7", "tls": False},
    }
    assert plain["client"] == {"product": "Web"}


def test_closed_session_says_how_it_ended() -> None:
    """A closed session shows when, why and by whom."""
    session = applied(connected(), Close(outcome="left", reason="bye", by="ann"))[1]

    assert shown(session)["closed"] == {
        "at": rfc3339(NOW),
        "outcome": "left",
        "code": 4500,
        "reason": "bye",
        "by": "ann",
    }
    assert shown(session)["closed_at"] == rfc3339(NOW)
    assert "connection" in shown(session)


def test_null_never_appears_in_what_is_shown() -> None:
    """Whatever is unset in a record is left out."""
    for session in (idle(), busy(), closing(), closed()):
        for full in (False, True):
            assert b"null" not in encode(render_session(session, full=full))


def test_history_rows_are_shown() -> None:
    """A row is shown with its times as text; the place in Redis is not."""
    row = HistoryRow(
        kind="watch",
        session_id="s1",
        session_number=17,
        at=NOW,
        started_at=NOW - 1,
        number=5,
        key="1-0",
        watch=Watched(key="k", position_ms=1, position_at=NOW),
    )

    assert decode(encode(render_row(row))) == {
        "number": 5,
        "kind": "watch",
        "session_id": "s1",
        "session_number": 17,
        "started_at": rfc3339(NOW - 1),
        "at": rfc3339(NOW),
        "watch": {"key": "k", "position_ms": 1, "position_at": rfc3339(NOW)},
    }
    assert render_row(replace(row, kind="session", watch=None)).watch is None


def test_private_parts_of_a_close_are_not_shown() -> None:
    """When the budget is counted from and who may return is the gateway's business."""
    session = closing()

    assert isinstance(session.closing, Closing)
    assert shown(session)["closing"].keys().isdisjoint({"first_at", "readmit"})
