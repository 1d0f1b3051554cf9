"""Commit view: a log entry with the session before and after it, rendered once for all channels.

Channels ask a :class:`CommitView` for the JSON they need. Each piece is encoded at the first
request and shared by all views of the same level.
"""

from typing import Self

from msgspec import Struct
from msgspec.json import encode

from gateway.core.event import AnyEntry, AnyEvent, SessionEntry, Updated
from gateway.core.model import Session
from gateway.core.public import PublicEvent, render_session
from gateway.core.public_event import render_event
from gateway.core.query import View
from gateway.core.record_codec import merge_unchanged, restore, reuse_evolved
from gateway.core.session import evolve


class EventItem(Struct, frozen=True, gc=False):
    """One event for one channel: its type and its JSON."""

    type: str
    data: bytes


class Step(Struct, frozen=True, gc=False):
    """One event of a commit, with the session before and after it."""

    event: AnyEvent
    before: Session | None
    after: Session


class CommitView:
    """A log entry, with the session before and after it.

    Args:
        entry: The log entry.
        before: The session before the commit; ``None`` if there was none.
    """

    def __init__(self, entry: AnyEntry, before: Session | None = None) -> None:
        self.entry = entry
        self.before = before
        self.after = entry.record if isinstance(entry, SessionEntry) else None
        self._steps: list[Step] | None = None
        self._items: dict[tuple[int, str, bool], EventItem] = {}

    @classmethod
    def from_log(cls, entry: AnyEntry) -> Self:
        """Return the view of an entry, with the session before it restored from the entry."""
        if isinstance(entry, SessionEntry):
            return cls(entry, restore(entry.record, entry.before))
        return cls(entry)

    @property
    def steps(self) -> list[Step]:
        """The events of a session's commit, in order; none for other entries."""
        if self._steps is None:
            self._steps = self._walk(self.entry) if isinstance(self.entry, SessionEntry) else []
        return self._steps

    def _walk(self, entry: SessionEntry) -> list[Step]:
        before = self.before
        *events, last = entry.events or [Updated()]
        record = merge_unchanged(before, entry) if before else entry.record
        steps: list[Step] = []
        for event in events:
            after = evolve(before, event, entry.at)
            steps.append(Step(event, before, after))
            before = after
        if before and not self.before:
            record = reuse_evolved(evolve(before, last, entry.at), record)
        return [*steps, Step(last, before, record)]

    def native(self, view: View) -> list[EventItem]:
        """Return the events of this commit in *view*, in the native form."""
        items: list[EventItem] = []
        for number, step in enumerate(self.steps):
            saw = step.before is not None and view.matches(step.before)
            sees = view.matches(step.after)
            if step.after.closed:
                # Every view that saw the session gets its close.
                sees = saw or (step.before is None and sees)
            if sees and (saw or step.before is None):
                items.append(self._item(number, "event", full=view.full))
            elif sees:
                items.append(self._item(number, "enter", full=view.full))
            elif saw:
                items.append(self._item(number, "exit", full=False))
        return items

    def _item(self, number: int, kind: str, *, full: bool) -> EventItem:
        key = (number, kind, full)
        item = self._items.get(key)
        if item is None:
            item = self._items[key] = self._render(self.steps[number], kind, full=full)
        return item

    def _render(self, step: Step, kind: str, *, full: bool) -> EventItem:
        after, entry = step.after, self.entry
        if kind == "exit" or not isinstance(entry, SessionEntry):
            gone = PublicEvent(type="session.exit", session_id=after.id)
            return EventItem(gone.type, encode(gone))
        if kind == "enter":
            whole = render_session(after, full=full)
            shown = PublicEvent(type="session.enter", session_id=after.id, session=whole)
            return EventItem(shown.type, encode(shown))
        event = render_event(
            step.event, step.before, after, entry.record.revision, entry.at, full=full
        )
        return EventItem(event.type, encode(event))
