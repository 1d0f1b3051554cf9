"""What is shown: merge patches, levels, and that folding events gives the session."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins
from msgspec.json import decode, encode
from msgspec.structs import replace

from gateway.core.command import (
    AnyCommand,
    CancelClose,
    Close,
    Connect,
    Disconnect,
    Expire,
    ExtendClose,
    Join,
    Kick,
    Leave,
    Open,
    Progress,
    Report,
    RequestClose,
    Saving,
    StartStream,
    StopStream,
    Unwatch,
    Update,
    UpdateStream,
    Watch,
)
from gateway.core.errors import GatewayError
from gateway.core.event import HistoryRow
from gateway.core.model import Client, Closing, Profile, Session, Stream
from gateway.core.model import Watch as Watched
from gateway.core.public import diff, merge, public, public_event, public_row, rfc3339
from gateway.core.session import advance, deadlines, decide, evolve
from tests.core.build import (
    BOUNDED,
    NOW,
    SECOND,
    applied,
    busy,
    closed,
    closing,
    connected,
    connection,
    fresh,
    idle,
)

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

scalars = st.booleans() | st.integers(-3, 3) | st.floats(-1, 1) | st.text("ab", max_size=2)
without_null = st.recursive(
    scalars,
    lambda inner: (
        st.lists(st.none() | inner, max_size=2)
        | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text("ab", max_size=1), without_null, max_size=3)


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
    read: dict[str, Any] = decode(encode(public(session, full=full)))
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
            assert b"null" not in encode(public(session, full=full))


def test_opening_is_shown_whole_with_its_revision() -> None:
    """The first event of a session carries all of it, as of its commit."""
    events, session = applied(None, Open(session=fresh(name="Ann", connection=connection())))
    first = evolve(None, events[0], NOW)

    event = public_event(events[0], None, first, session.revision, NOW)

    assert (event.type, event.session_id, event.revision) == ("session.opened", "s1", 1)
    assert isinstance(event.changes, dict)
    assert event.changes["revision"] == 1
    assert event.changes["state"] == "idle"
    assert event.changes["name"] == "Ann"


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

    assert decode(encode(public_row(row))) == {
        "number": 5,
        "kind": "watch",
        "session_id": "s1",
        "session_number": 17,
        "started_at": rfc3339(NOW - 1),
        "at": rfc3339(NOW),
        "watch": {"key": "k", "position_ms": 1, "position_at": rfc3339(NOW)},
    }
    assert public_row(replace(row, kind="session", watch=None)).watch is None


keys = st.sampled_from(["k1", "k2"])
small = st.none() | st.sampled_from([0, 1, 20_000])
commands: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        Connect,
        connection=st.integers(1, 3).map(connection),
        displace=st.booleans(),
        readmit=st.booleans(),
    ),
    st.builds(
        Disconnect,
        connection=st.sampled_from(["c1", "c2", "c3"]),
        cause=st.sampled_from(["clean", "lost", "server", "kicked"]),
    ),
    st.builds(Kick),
    st.builds(Watch, watch=st.builds(Watched, key=keys, item=st.none() | objects)),
    st.builds(Progress, position_ms=small, state=st.none() | keys, bandwidth=small),
    st.builds(Unwatch),
    st.builds(Report),
    st.builds(Update, attributes=objects, labels=st.dictionaries(keys, keys)),
    st.builds(
        Update, name=st.none() | keys, profile=st.none() | st.builds(Profile, plugins=objects)
    ),
    st.builds(Update, linger_ms=small, keepalive_ms=small, ttl_ms=small, grace_ms=small),
    st.builds(Update, patch=st.fixed_dictionaries({"attributes": st.none() | objects})),
    st.builds(StartStream, stream=st.builds(Stream, key=keys, kind=keys, data=objects)),
    st.builds(UpdateStream, stream=st.builds(Stream, key=keys, kind=keys, data=objects)),
    st.builds(StopStream, key=keys),
    st.builds(Join, members=st.lists(keys, min_size=1).map(tuple)),
    st.builds(Leave, members=st.lists(keys, min_size=1).map(tuple)),
    st.builds(
        RequestClose,
        at=st.sampled_from([NOW + 10, NOW + 30_000]),
        extend_max_ms=st.sampled_from([0, 9000]),
    ),
    st.builds(ExtendClose, at=st.just(NOW + 35_000)),
    st.builds(CancelClose),
    st.builds(Saving),
    st.just("expire"),
)
openings = st.builds(
    Open,
    session=st.builds(
        fresh,
        connection=st.none() | st.just(connection()),
        watch=st.none() | st.just(Watched(key="k1", position_ms=5)),
        linger_ms=small,
        grace_ms=small,
        keepalive_ms=small,
        ttl_ms=st.none() | st.just(10**6),
        attributes=objects,
    ),
)


def due(session: Session) -> AnyCommand:
    """Return the Expire of the first deadline; a Report if there is none."""
    live = sorted(deadlines(session), key=lambda found: found[1])
    return Expire(kind=live[0][0], at=live[0][1]) if live else Report()


@BOUNDED
@given(openings, st.lists(st.tuples(commands, st.sampled_from([0, 1, 20_000])), max_size=12))
def test_fold_of_events_is_the_session(
    opening: Open, sequence: list[tuple[AnyCommand | str, int]]
) -> None:
    """Whatever happens, a watcher who folds the changes holds what REST shows, at both levels."""
    now = NOW
    session: Session | None = None
    folded: dict[bool, dict[str, Any]] = {False: {}, True: {}}
    for asked, wait_ms in [(opening, 0), *sequence]:
        now += wait_ms
        command = due(session) if isinstance(asked, str) and session else asked
        try:
            events = decide(session, command, now)  # type: ignore[arg-type]
        except GatewayError:
            continue
        if not events:
            continue
        after = advance(session, events, "op", now)
        step = session
        for event in events:
            former, step = step, evolve(step, event, now)
            for full in (False, True):
                told = public_event(event, former, step, after.revision, now, full=full)
                patch = decode(encode(told.changes))
                assert former is None or "revision" not in patch
                folded[full] = {**merge(folded[full], patch), "revision": told.revision}
        session = after
        for full in (False, True):
            assert encode(folded[full], order="sorted") == encode(
                shown(session, full=full), order="sorted"
            )
        assert not session.closed or deadlines(session) == []


def test_private_parts_of_a_close_are_not_shown() -> None:
    """When the budget is counted from and who may return is the gateway's business."""
    session = closing()

    assert isinstance(session.closing, Closing)
    assert shown(session)["closing"].keys().isdisjoint({"first_at", "readmit"})
