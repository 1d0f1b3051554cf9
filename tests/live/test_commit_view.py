"""Commit views: live and replayed log entries mean what their records say in every view."""

from typing import Any

from hypothesis import given
from msgspec import to_builtins
from msgspec.json import encode

from gateway.core.event import AnyEvent, Opened, SessionEntry, decode_entry, encode_entry
from gateway.core.model import Session
from gateway.core.public import PublicEvent, diff, render_session, rfc3339
from gateway.core.query import Filter, View, Visibility
from gateway.core.session import evolve
from gateway.live.commit_view import CommitView
from tests.core.build import BOUNDED
from tests.core.lives import Life, lived, lives

EVERYTHING = Visibility("all")
VIEWS = [
    View(visibility=EVERYTHING),
    View(visibility=EVERYTHING, full=True),
    View(filter=Filter(connected=True), visibility=EVERYTHING),
    View(filter=Filter(watching=True), visibility=EVERYTHING, full=True),
    View(filter=Filter(member="k1"), visibility=EVERYTHING),
]


def read(entry: SessionEntry) -> SessionEntry:
    """Return *entry* as a node reads it from the log."""
    copy = decode_entry(encode_entry(entry))
    assert isinstance(copy, SessionEntry)
    return copy


def shown(session: Session, *, full: bool) -> dict[str, Any]:
    """Return the public session as a map."""
    whole: dict[str, Any] = to_builtins(render_session(session, full=full))
    return whole


def told(
    event: AnyEvent, before: Session | None, after: Session, entry: SessionEntry, view: View
) -> bytes | None:
    """Return the JSON of one event in *view*, by its definition."""
    saw = before is not None and view.matches(before)
    sees = view.matches(after)
    if after.closed:
        sees = saw or (before is None and sees)
    if not saw and not sees:
        return None
    if not sees:
        return encode(PublicEvent(type="session.exit", session_id=after.id))
    new = shown(after, full=view.full)
    if not saw and before is not None:
        return encode({"type": "session.enter", "session_id": after.id, "session": new})
    revision = entry.record.revision
    if before is None or isinstance(event, Opened):
        changes = {**new, "revision": revision}
    else:
        changes = diff(shown(before, full=view.full), new)
        changes.pop("revision", None)
    kind, at = str(event.__struct_config__.tag), rfc3339(entry.at)
    return encode(
        PublicEvent(type=kind, session_id=after.id, revision=revision, at=at, changes=changes)
    )


@BOUNDED
@given(lives)
def test_change_is_told_as_its_records_say(life: Life) -> None:
    """Whatever a commit did, each view is told the difference of what is shown, byte for byte."""
    replicated: Session | None = None
    for before, written in lived(life):
        made = [evolve(before, event, written.at) for event in written.events[:1]]
        for event in written.events[1:]:
            made.append(evolve(made[-1], event, written.at))
        made[-1] = written.record
        entry = read(written)
        for change in (CommitView(entry, replicated), CommitView.from_log(entry)):
            for view in VIEWS:
                steps = zip(written.events, [before, *made], made, strict=False)
                wanted = [told(event, old, new, written, view) for event, old, new in steps]
                items = [item.data for item in change.native(view)]
                assert items == [item for item in wanted if item is not None]
        replicated = entry.record
