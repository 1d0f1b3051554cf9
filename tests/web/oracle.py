"""The oracle of the browser client: what a feed must have told, by a fold of its own.

It reads what a page recorded: every text that a socket received, and at every batch what differs
in the Map, found by looking at the whole Map. Both are folded here, apart from each other, and
compared at each batch.
"""

from collections import deque
from typing import Any

from msgspec.json import decode

from gateway.client.state import Changes, Fold, Heartbeat, Item, Resync, Snapshot

Json = dict[str, Any]


class Oracle:
    """What one feed was sent, beside what it showed.

    Attributes:
        shown: The feed's Map, as the page showed it at the last batch.
        batches: How many batches were compared.
        resyncs: Why each batch with a resync said that it was one.
    """

    def __init__(self, feed: str) -> None:
        self.shown: dict[str, Json] = {}
        self.batches = 0
        self.events = 0
        self.resyncs: list[str] = []
        self._feed = feed
        self._fold = Fold()
        self._frames: deque[Json] = deque()
        self._starts_over = True  # the next page of a snapshot is its first
        self._kinds: dict[str, list[str]] = {}  # of the events of a batch, by session
        self._touched: set[str] = set()

    @property
    def position(self) -> str | None:
        """Where the sockets led to."""
        self._read(None)
        return self._fold.position

    @property
    def sessions(self) -> dict[str, Json]:
        """What the frames add up to."""
        self._read(None)
        return self._fold.sessions

    def take(self, told: list[Json]) -> None:
        """Compare what was recorded since the last time.

        Raises:
            AssertionError: The feed did not show what its sockets received.
        """
        for entry in told:
            if entry.get("feed") != self._feed:
                continue
            if "frame" in entry:
                self._frames.append(decode(entry["frame"]))
            elif "moved" in entry:
                self._compare(entry)

    def _compare(self, batch: Json) -> None:
        was_whole = self._fold.position is not None or bool(self.batches)
        is_snapshot = self._read(batch["position"])
        assert self._fold.position == batch["position"], "no frame leads to this position"
        moved = dict(decode(batch["moved"]))
        for session_id, session in moved.items():
            assert self.shown.get(session_id) != session, "a record was replaced by its equal"
            if session is None:
                del self.shown[session_id]
            else:
                self.shown[session_id] = session
        assert len(self.shown) == batch["size"]
        for session_id in self._touched | moved.keys():
            assert self.shown.get(session_id) == self._fold.sessions.get(session_id), session_id
        if is_snapshot:
            assert self.shown == self._fold.sessions
        changed = [session_id for session_id, _ in batch["changes"]]
        assert sorted(changed) == sorted(moved), "the changes are not the difference"
        if is_snapshot:
            assert bool(batch.get("resync")) == was_whole, "a resync is told as one"
            self.resyncs += [batch["resync"]] if was_whole else []
        else:
            assert "resync" not in batch
            for session_id, kinds in batch["changes"]:
                assert set(kinds) == set(self._kinds[session_id])
        self._touched, self._kinds = set(), {}
        self.batches += 1

    def _read(self, position: str | None) -> bool:
        """Fold frames up to the first that leads to *position*, or all; was one a snapshot?"""
        is_snapshot = False
        while self._frames:
            frame = self._frames.popleft()
            item = self._item(frame)
            if item is None:
                continue
            problems = self._fold.apply(item)
            assert problems == []
            if isinstance(item, Snapshot):
                is_snapshot = not item.more
                self._touched |= {session["id"] for session in item.sessions}
            elif isinstance(item, Changes):
                self.events += len(item.events)
                for event in item.events:
                    self._touched.add(event["session_id"])
                    self._kinds.setdefault(event["session_id"], []).append(event["type"])
            if isinstance(item, Snapshot | Changes) and position == self._fold.position:
                break
        return is_snapshot

    def _item(self, frame: Json) -> Item | None:
        match frame["type"]:
            case "hello":
                self._starts_over = frame["mode"] == "snapshot"
            case "snapshot":
                first, self._starts_over = self._starts_over, not frame["more"]
                return Snapshot(
                    sessions=frame["sessions"],
                    first=first,
                    more=frame["more"],
                    position=frame["position"],
                )
            case "events":
                return Changes(events=frame["events"], position=frame["position"])
            case "resync":
                self._starts_over = True
                return Resync(reason=frame["reason"])
            case "heartbeat" if self._fold.position:
                return Heartbeat(position=frame["position"], at=frame["at"])
        return None
