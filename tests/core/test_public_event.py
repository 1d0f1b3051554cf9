"""Public events: openings whole, changes as merge patches that fold to the session."""

from typing import Any

from hypothesis import given
from msgspec import to_builtins
from msgspec.json import decode, encode
from msgspec.structs import replace

from gateway.core.command import Open
from gateway.core.event import Settled
from gateway.core.model import Session, decode_session, encode_session
from gateway.core.public import diff, merge, render_session
from gateway.core.public_event import render_event
from gateway.core.session import deadlines, evolve
from tests.core.build import BOUNDED, NOW, applied, busy, connection, fresh
from tests.core.lives import Life, lived, lives


def shown(session: Session, *, full: bool) -> dict[str, Any]:
    """Return the public session as a map."""
    whole: dict[str, Any] = to_builtins(render_session(session, full=full))
    return whole


def defined(before: Session, after: Session, *, full: bool) -> dict[str, Any]:
    """Return what an event tells, by its definition: the patch between two sessions as shown."""
    changes = diff(shown(before, full=full), shown(after, full=full))
    changes.pop("revision", None)
    return changes


def test_opening_is_shown_whole_with_its_revision() -> None:
    """The first event of a session carries all of it, as of its commit."""
    events, session = applied(None, Open(session=fresh(name="Ann", connection=connection())))
    first = evolve(None, events[0], NOW)

    event = render_event(events[0], None, first, session.revision, NOW)

    assert (event.type, event.session_id, event.revision) == ("session.opened", "s1", 1)
    assert isinstance(event.changes, dict)
    assert event.changes["revision"] == 1
    assert event.changes["state"] == "idle"
    assert event.changes["name"] == "Ann"


@BOUNDED
@given(lives)
def test_fold_of_events_is_the_session(life: Life) -> None:
    """Whatever happens, a watcher who folds the changes holds what REST shows, at both levels."""
    folded: dict[bool, dict[str, Any]] = {False: {}, True: {}}
    for session, entry in lived(life):
        after, step = entry.record, session
        for event in entry.events:
            former, step = step, evolve(step, event, entry.at)
            for full in (False, True):
                told = render_event(event, former, step, after.revision, entry.at, full=full)
                patch = decode(encode(told.changes))
                assert former is None or "revision" not in patch
                folded[full] = {**merge(folded[full], patch), "revision": told.revision}
        for full in (False, True):
            assert encode(folded[full], order="sorted") == encode(
                shown(after, full=full), order="sorted"
            )
        assert not after.closed or deadlines(after) == []


@BOUNDED
@given(lives, lives)
def test_event_tells_exactly_the_difference_of_what_is_shown(one: Life, other: Life) -> None:
    """Between any two records, evolved or read from text, the patch is byte for byte as defined."""
    records = [entry.record for life in (one, other) for _, entry in lived(life)]
    for before, evolved in zip(records, [*records[1:], records[0]], strict=True):
        for after in (evolved, decode_session(encode_session(evolved))):
            for full in (False, True):
                event = render_event(Settled(), before, after, after.revision, NOW, full=full)
                assert encode(event.changes) == encode(defined(before, after, full=full))


def test_change_of_type_alone_is_told() -> None:
    """True in place of 1 is told, also deep in a record that was read from text."""
    before = replace(busy(), attributes={"a": 1, "b": {"c": 1}})
    after = replace(before, attributes={"a": 1, "b": {"c": True}})

    event = render_event(Settled(), before, decode_session(encode_session(after)), 7, NOW)

    assert encode(event.changes) == b'{"attributes":{"b":{"c":true}}}'
