"""Filters, visibility, indexes, orders and cursors."""

from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import encode
from msgspec.structs import replace

from gateway.core.errors import BadPosition
from gateway.core.model import Session, State
from gateway.core.query import (
    Filter,
    Sort,
    View,
    Visibility,
    cursor,
    indexes_of,
    node_of,
    parse_cursor,
    sort_key,
)
from tests.core.build import BOUNDED, away, busy, closing, connected, fresh, idle

EVERYTHING = Visibility(by="all")
FIELDS: dict[str, Any] = {
    "name": "Ann Müller",
    "account": "ann",
    "workspace": "ws-7",
    "service": "svc",
    "labels": {"env": "prod", "tier": "1"},
    "members": ("bob",),
}


@pytest.mark.parametrize(
    "wanted, matches",
    [
        (Filter(), True),
        (Filter(workspace="ws-7"), True),
        (Filter(workspace="ws-8"), False),
        (Filter(account="ann"), True),
        (Filter(account="bob"), False),
        (Filter(service="svc"), True),
        (Filter(service="other"), False),
        (Filter(state=State.CONNECTED), True),
        (Filter(state=State.AWAY), False),
        (Filter(connected=True), True),
        (Filter(connected=False), False),
        (Filter(watching=False), True),
        (Filter(watching=True), False),
        (Filter(node="n1"), True),
        (Filter(node="n1:boot"), False),
        (Filter(member="bob"), True),
        (Filter(member="ann"), False),
        (Filter(labels={"env": "prod"}), True),
        (Filter(labels={"env": "prod", "tier": "2"}), False),
        (Filter(labels={"zone": ""}), False),
        (Filter(q="S1"), True),
        (Filter(q="MÜLLER"), True),
        (Filter(q="svc"), False),
        (Filter(workspace="ws-7", account="bob"), False),
    ],
)
def test_filter_needs_everything_that_is_set(wanted: Filter, matches: bool) -> None:
    """A session matches a filter when it has every value the filter names."""
    assert wanted.matches(connected(**FIELDS)) is matches


def test_filter_does_not_match_what_is_unset() -> None:
    """A session without a name, account or live connection matches no filter that wants one."""
    bare = idle()

    assert not Filter(q="ann").matches(bare)
    assert not Filter(account="ann").matches(bare)
    assert not Filter(node="n1").matches(away())
    assert node_of(bare) is node_of(away()) is None


@pytest.mark.parametrize(
    "visibility, visible",
    [
        (Visibility(by="all"), True),
        (Visibility(by="workspace", value="ws-7"), True),
        (Visibility(by="workspace", value="ws-8"), False),
        (Visibility(by="account", value="ann"), True),
        (Visibility(by="account", value=""), False),
        (Visibility(by="session", value="s1"), True),
        (Visibility(by="session", value="s2"), False),
        (Visibility(by="nothing"), False),
        (Visibility(), False),
    ],
)
def test_visibility_shows_no_more_than_it_says(visibility: Visibility, visible: bool) -> None:
    """Somebody sees all, one workspace, one account, one session, or by default nothing."""
    assert visibility.allows(fresh(**FIELDS)) is visible


def test_unset_never_equals_unset() -> None:
    """A principal without an account does not see the sessions without an account."""
    for by in ("account", "workspace"):
        assert not Visibility(by=by).allows(idle())


def test_view_shows_what_is_asked_and_allowed() -> None:
    """A view is the filter and the visibility at once."""
    view = View(filter=Filter(workspace="ws-7"), visibility=Visibility(by="account", value="ann"))

    assert view.matches(fresh(**FIELDS))
    assert not view.matches(fresh(**{**FIELDS, "account": "bob"}))
    assert not view.matches(fresh(**{**FIELDS, "workspace": "ws-8"}))


def test_view_hash_is_the_same_in_every_process() -> None:
    """The hash depends neither on the process nor on the order in which labels were named."""
    view = View(filter=Filter(labels={"b": "2", "a": "1"}), visibility=EVERYTHING)
    same = View(filter=Filter(labels={"a": "1", "b": "2"}), visibility=EVERYTHING)

    assert (
        view.key == same.key == b'{"filter":{"labels":{"a":"1","b":"2"}},"visibility":{"by":"all"}}'
    )
    assert view.hash32 == same.hash32 == 4258767241


def test_view_hash_tells_levels_dialects_and_visibility_apart() -> None:
    """Whatever changes what is shown changes the hash; a hash is never 0."""
    views = [
        View(),
        View(full=True),
        View(dialect="plex"),
        View(visibility=EVERYTHING),
        View(filter=Filter(connected=False)),
        View(filter=Filter(connected=True)),
    ]

    assert len({view.hash32 for view in views}) == len(views)
    assert all(0 < view.hash32 < 2**32 for view in views)


words = st.sampled_from(["a", "b"])
wanted_filters = st.builds(
    Filter,
    workspace=st.none() | words,
    account=st.none() | words,
    service=st.none() | words,
    member=st.none() | words,
    state=st.none() | st.sampled_from(State),
    labels=st.dictionaries(words, words, max_size=2),
)
visibilities = st.builds(
    Visibility,
    by=st.sampled_from(["all", "workspace", "account", "session", "nothing"]),
    value=words | st.just("s1"),
)
shown_sessions = st.builds(
    lambda base, fields: base(**fields),
    st.sampled_from([idle, connected, away]),
    st.fixed_dictionaries(
        {
            "workspace": words,
            "account": words,
            "service": words,
            "members": st.lists(words, max_size=2).map(tuple),
            "labels": st.dictionaries(words, words, max_size=2),
        }
    ),
)


@BOUNDED
@given(wanted_filters, visibilities, shown_sessions)
def test_view_index_is_a_necessary_condition(
    wanted: Filter, visibility: Visibility, session: Session
) -> None:
    """A session that a view shows stands in the view's index: looking there alone misses none."""
    view = View(filter=wanted, visibility=visibility)

    if view.matches(session):
        assert view.index is None or view.index in indexes_of(session)


@BOUNDED
@given(wanted_filters, st.none() | st.booleans(), visibilities, shown_sessions)
def test_view_is_its_equalities_when_it_says_so(
    wanted: Filter, is_watching: bool | None, visibility: Visibility, session: Session
) -> None:
    """Who stands in all indexes of a view may be missing in it only if the view asks for more."""
    view = View(filter=replace(wanted, watching=is_watching), visibility=visibility)
    stands = view.equalities <= set(indexes_of(session))

    assert stands or not view.matches(session)
    assert not view.is_equalities or view.matches(session) == stands


def test_label_that_could_be_split_elsewhere_is_looked_at() -> None:
    """A label's name of an inner door may hold what separates names from values in an index."""
    view = View(filter=Filter(labels={"env=a": "b"}), visibility=EVERYTHING)

    assert not view.is_equalities
    assert view.equalities <= set(indexes_of(idle(labels={"env": "a=b"})))
    assert not view.matches(idle(labels={"env": "a=b"}))


def test_view_index_is_the_most_selective_one() -> None:
    """One session is looked up before one account, an account before a workspace or a state."""
    wanted = Filter(workspace="w", state=State.AWAY, labels={"a": "b"})

    assert View(filter=wanted, visibility=EVERYTHING).index == ("label", "a=b")
    assert View(filter=wanted, visibility=Visibility(by="account", value="x")).index == (
        "account",
        "x",
    )
    assert View(filter=wanted, visibility=Visibility(by="session", value="s")).index == ("id", "s")
    assert View(visibility=EVERYTHING).index is None


def test_orders_name_a_field_and_a_direction() -> None:
    """A leading minus reverses an order; a session without the field is not in it."""
    assert [(sort.field, sort.descending) for sort in (Sort.NUMBER, Sort.CLOSES_AT_DESC)] == [
        ("number", False),
        ("closes_at", True),
    ]
    assert sort_key(idle(), "number") == (17, "s1")
    assert sort_key(idle(), "closes_at") is None
    assert sort_key(closing(), "closes_at") is not None


@BOUNDED
@given(st.integers(-(2**53), 2**53), st.text(max_size=20), st.sampled_from(Sort))
def test_cursor_continues_its_own_list(value: int, last_id: str, sort: Sort) -> None:
    """A cursor read in the list it was made for gives the place it was made from."""
    view = View(visibility=EVERYTHING)

    assert parse_cursor(view, sort, cursor(view, sort, (value, last_id))) == (value, last_id)


@pytest.mark.parametrize(
    "view, sort",
    [
        (View(full=True, visibility=EVERYTHING), Sort.NUMBER),
        (View(visibility=EVERYTHING), Sort.NUMBER_DESC),
    ],
)
def test_cursor_of_another_list_is_refused(view: View, sort: Sort) -> None:
    """A cursor does not carry over to another view or order."""
    text = cursor(View(visibility=EVERYTHING), Sort.NUMBER, (17, "s1"))

    with pytest.raises(BadPosition, match="another list"):
        parse_cursor(view, sort, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!",
        "a",
        "aGFsbG8",
        "bnVsbA",
        "é",
        "\ud800",
        "/" * 9000,
        urlsafe_b64encode(b"[" * 5000).decode(),
        urlsafe_b64encode(encode([1, "number", True, "s1"])).decode(),
        urlsafe_b64encode(encode([1, "number", 1])).decode(),
        urlsafe_b64encode(b'[1,"number",1,"\xff"]').decode(),
    ],
)
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    """Whatever is given as a cursor, the answer is a bad request."""
    with pytest.raises(BadPosition):
        parse_cursor(View(), Sort.NUMBER, text)


def test_session_stands_in_every_index_of_its_values() -> None:
    """Each value that a filter can ask for has an index."""
    session = busy()

    assert ("id", "s1") in indexes_of(session)
    assert ("state", "connected") in indexes_of(session)
    assert ("member", "ann") in indexes_of(session)
    assert ("label", "env=prod") in indexes_of(connected(**FIELDS))
