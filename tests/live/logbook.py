"""A log that a test writes with commands, without a store."""

from gateway.core import command as c
from gateway.core.event import SessionEntry, history_rows
from gateway.core.model import Session
from gateway.core.record_codec import changed_fields
from gateway.core.session import advance, decide
from gateway.live.hub import Hub
from gateway.live.replica import Replica
from gateway.store.log import HistoryPlace
from tests.nodes import blank


class Log:
    """A log that a test writes with commands, and its fold."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.gone: dict[str, Session] = {}
        self.entries: list[tuple[SessionEntry, tuple[HistoryPlace, ...]]] = []
        self.now_ms = 1_000
        self.rows = 0

    def do(self, session_id: str, command: c.AnyCommand) -> SessionEntry:
        """Append what follows from a command."""
        self.now_ms += 1
        before = self.sessions.get(session_id)
        events = decide(before, command, self.now_ms)
        after = advance(before, events, f"op{self.now_ms}", self.now_ms)
        rows = []
        for _ in history_rows(before, events, after, self.now_ms):
            self.rows += 1
            rows.append(HistoryPlace(self.rows, f"{self.now_ms}-{self.rows}"))
        if after.closed:
            del self.sessions[session_id]
            self.gone[session_id] = after
        else:
            self.sessions[session_id] = after
        entry = SessionEntry(
            at=self.now_ms,
            op=after.ops[-1],
            events=events,
            record=after,
            before=changed_fields(before, after),
        )
        self.entries.append((entry, tuple(rows)))
        return entry

    def open(self, session_id: str, **facts: object) -> SessionEntry:
        """Append an opening."""
        return self.do(session_id, c.Open(session=blank(session_id, **facts)))

    def play(self, replica: Replica, after: int = 0) -> None:
        """Let *replica* apply everything after an offset."""
        for offset, (entry, rows) in enumerate(self.entries[after:], after + 1):
            replica.apply(0, offset, entry, rows)

    def tell(self, replica: Replica, hub: Hub, batch: int = 1_000) -> None:
        """Let *replica* apply and *hub* tell what is new, in batches."""
        while replica.offsets[0] < len(self.entries):
            before = replica.position()
            start = replica.offsets[0]
            changes = []
            for offset, (entry, rows) in enumerate(self.entries[start : start + batch], start + 1):
                if change := replica.apply(0, offset, entry, rows):
                    changes.append(change)
            hub.publish(changes, before)
