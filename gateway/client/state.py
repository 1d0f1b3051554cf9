"""Feed state: the items of a feed, and the fold of them to the sessions in view; pure.

``fold(snapshot, events)`` equals what REST lists at the same position. ``Fold.apply`` also reports
where a feed broke its promises (a gap, a duplicate, an unknown session); ``gateway audit`` uses
that.
"""

from dataclasses import dataclass
from typing import Any, Literal

from gateway.core.public import merge

Session = dict[str, Any]
"""A public session, as JSON."""
Event = dict[str, Any]
"""A public event, as JSON: ``type`` and ``session_id``, and most have ``revision, at, changes``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A page of all sessions in view.

    Args:
        sessions: Those of this page.
        first: Whether a new snapshot begins here: forget earlier ones.
        more: Whether another page follows.
        position: Where to resume from; ``None`` until the last page.
    """

    sessions: list[Session]
    first: bool
    more: bool
    position: str | None = None
    kind: Literal["snapshot"] = "snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What happened at once, in order.

    Args:
        events: At least one.
        position: Where to resume from, after the last of them.
    """

    events: list[Event]
    position: str
    kind: Literal["events"] = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resync:
    """The feed could not go on where it was and starts over: a snapshot follows.

    Args:
        reason: Why, in a word.
        position: Always ``None``: there is nothing to resume from now.
    """

    reason: str
    position: None = None
    kind: Literal["resync"] = "resync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Nothing happened, and nothing was missed.

    Args:
        position: Where to resume from.
        at: The gateway's time, RFC 3339.
    """

    position: str
    at: str
    kind: Literal["heartbeat"] = "heartbeat"


Item = Snapshot | Changes | Resync | Heartbeat
"""An item of a feed; every type has a ``kind`` and a ``position``."""


class Fold:
    """The sessions of a feed.

    While a snapshot comes in, ``sessions`` stay as they were, so a reader never sees half of one.

    Args:
        position: The position of *sessions*.
        sessions: The sessions to start with.

    Attributes:
        sessions: Every session in view, by id.
        position: The position of ``sessions``; ``None`` before the first snapshot is whole and
            after a resync.
    """

    def __init__(
        self, position: str | None = None, sessions: dict[str, Session] | None = None
    ) -> None:
        self.position = position
        self.sessions: dict[str, Session] = dict(sessions or {})
        self._incoming: dict[str, Session] = {}

    def apply(self, item: Item) -> list[str]:
        """Apply one item, as far as possible.

        Returns:
            What is wrong with it, in words; empty if the feed keeps its promises.
        """
        match item:
            case Snapshot():
                return self._page(item)
            case Changes():
                advanced: set[str] = set()
                wrong = [text for event in item.events if (text := self._event(event, advanced))]
                self.position = item.position
                return wrong
            case Resync():
                self.position = None
            case Heartbeat():
                self.position = item.position
        return []

    def _page(self, page: Snapshot) -> list[str]:
        if page.first:
            self._incoming = {}
        wrong = []
        for session in page.sessions:
            if session["id"] in self._incoming:
                wrong.append(f"{session['id']} is in the snapshot twice")
            self._incoming[session["id"]] = session
        if not page.more:
            self.sessions, self._incoming = self._incoming, {}
            self.position = page.position
        return wrong

    def _event(self, event: Event, advanced: set[str]) -> str | None:
        """Apply one event; *advanced* holds the sessions that got a new revision in this item."""
        session_id, kind = event["session_id"], event["type"]
        known = self.sessions.get(session_id)
        match kind:
            case "session.enter":
                self.sessions[session_id] = event["session"]
            case "session.opened":
                self.sessions[session_id] = merge({}, event["changes"])
            case "session.exit" | "session.closed":
                self.sessions.pop(session_id, None)
            case _ if known is not None:
                after = merge(known, event["changes"])
                after["revision"] = event["revision"]
                self.sessions[session_id] = after
        wrong = _order(event, known, again=session_id in advanced)
        advanced.add(session_id)
        return wrong


def _order(event: Event, known: Session | None, *, again: bool) -> str | None:
    """Return what is wrong with the place of *event*; *again*: not the first of its item."""
    what = f"{event['type']} of {event['session_id']}"
    if event["type"] in ("session.enter", "session.opened"):
        return f"{what} which is known" if known is not None else None
    if known is None:
        return f"{what} which is not known"
    if event["type"] == "session.exit":
        return None
    # One commit is one revision and all its events come in one item.
    old, new = known["revision"], event["revision"]
    if new == old + 1 or (new == old and again):
        return None
    return f"{what} has revision {new} after {old}"
