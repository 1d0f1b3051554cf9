"""Checker: compares what several probes show of the same sessions with a gateway's promises.

Probes are feeds (every item is checked), lists and Redis (read again and again). One feed is the
reference. No two probes are at the same position, so:

* Content is compared by revision: all probes must show the same session at a revision.
* Membership is compared by *looks*. A look asks every probe, after all of them were given the
  time to reach the position where it began. Two that disagree about a session in the same way in
  two looks in a row were both unchanged where the second look began, and did disagree there.

Pure: no clock and no connection; ``probes`` and ``redis_probe`` do the reading.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import Struct

from gateway.cli.output import moment_ms
from gateway.client import Changes, Event, Fold, Item, Resync, Session, Snapshot
from gateway.core.model import same_json
from gateway.core.position import Position
from gateway.core.public import merge

REVISIONS_KEPT: Final = 8  # newest revisions of a session that are compared
TOLD_MAX: Final = 20  # violations of one promise that are described; all are counted
LATE_MS: Final = 100  # a close is later than this in one of a hundred cases at most
GHOST_MS: Final = 12_000  # a session of a dead node is away within this

PROMISES: Final = {
    1: "the folded feeds, the lists and Redis show the same sessions",
    2: "no event is missing, doubled or out of order, also after resuming",
    3: "each session is closed once, not before its deadline and less than 100 ms after it",
    4: "a closed session never comes back",
    5: "sessions of a dead node are away within 12 s",
}

_DEADLINE_OUTCOMES: Final = frozenset({"unsaved", "lost"})

Revisions = dict[str, int]  # of sessions, by id
Disagreement = tuple[str, str, int | None, int | None]  # probe, session, reference's, probe's


class Finding(Struct):
    """The findings about one promise."""

    checked: Counter[str]
    violations: int = 0
    told: list[str] = []


class FeedCheck:
    """Checks a feed item by item; made by :meth:`PromiseChecker.feed`.

    Args:
        name: Its name in the report.
        checker: Compares the probes.
        expects: Whether this feed must show a session of the reference.
    """

    def __init__(
        self, name: str, checker: "PromiseChecker", expects: Callable[[Session], bool]
    ) -> None:
        self.name = name
        self.expects = expects
        self.fold = Fold()
        self.restarts: Counter[str] = Counter()  # by reason
        self.resumes = 0
        self._checker = checker
        self._closed: set[str] = set()

    def hear(self, item: Item) -> None:
        """Check and apply an item of the feed."""
        self._check_position(item)
        match item:
            case Resync(reason=reason):
                self.restarts[reason] += 1
            case Changes(events=events):
                self._check_closes(events)
        for wrong in self.fold.apply(item):
            self._checker.violated(2, f"{self.name}: {wrong}")
        match item:
            case Changes(events=events):
                self._checker.checked(2, "events", len(events))
                for session_id in {event["session_id"] for event in events}:
                    if session := self.fold.sessions.get(session_id):
                        self._checker.shows(self.name, session)
            case Snapshot(more=False):
                for session in self.fold.sessions.values():
                    self._checker.shows(self.name, session)

    def _check_position(self, item: Item) -> None:
        if item.position is None or self.fold.position is None:
            return
        before, now = Position.parse(self.fold.position), Position.parse(item.position)
        if before.epoch == now.epoch and not now.covers(before):
            self._checker.violated(2, f"{self.name}: went back from {before} to {now}")

    def _check_closes(self, events: Iterable[Event]) -> None:
        """Check every close against the session just before it."""
        states: dict[str, Session] = {}
        for event in events:
            session_id = event["session_id"]
            before = states.get(session_id) or self.fold.sessions.get(session_id, {})
            if session_id in self._closed and event["type"] != "session.exit":
                twice = event["type"] == "session.closed"
                self._checker.violated(
                    3 if twice else 4,
                    f"{self.name}: {event['type']} of {session_id}, which was closed",
                )
            if event["type"] == "session.closed":
                self._closed.add(session_id)
                self._checker.closed(self.name, before, event)
            states[session_id] = merge(before, event.get("session") or event.get("changes") or {})


class PromiseChecker:
    """Collects what probes show and reports violations; see the module."""

    def __init__(self) -> None:
        self.findings = {number: Finding(Counter()) for number in PROMISES}
        self.feeds: list[FeedCheck] = []
        self.late_ms: dict[str, int] = {}  # of closes at their deadline, by session
        self.ended: set[str] = set()  # sessions that were closed during the audit
        self._ended_before: frozenset[str] = frozenset()  # those already at the last look
        self._shown: defaultdict[str, dict[int, tuple[Session, str]]] = defaultdict(dict)
        self._disagreed: frozenset[Disagreement] = frozenset()
        self._silent_since_ms: dict[str, int] = {}

    @property
    def is_satisfied(self) -> bool:
        """Whether no promise was broken."""
        return not any(finding.violations for finding in self.findings.values())

    def feed(self, name: str, expects: Callable[[Session], bool] = lambda _: True) -> FeedCheck:
        """Add a feed; the first one is the reference and must show all sessions."""
        self.feeds.append(FeedCheck(name, self, expects))
        return self.feeds[-1]

    def violated(self, number: int, what: str) -> None:
        """Record a violation of a promise."""
        finding = self.findings[number]
        finding.violations += 1
        if len(finding.told) < TOLD_MAX:
            finding.told = [*finding.told, what]

    def checked(self, number: int, what: str, count: int = 1) -> None:
        """Count what was checked for a promise."""
        self.findings[number].checked[what] += count

    def shows(self, probe: str, *forms: Session) -> None:
        """Compare a session with what other probes showed at the same revision.

        Args:
            probe: The name of the probe.
            forms: The session at one level of detail, or at each level that it may show.
        """
        known = self._shown[forms[0]["id"]]
        revision: int = forms[0]["revision"]
        if revision not in known:
            if len(forms) == 1:
                known[revision] = forms[0], probe
                for old in sorted(known)[:-REVISIONS_KEPT]:
                    del known[old]
            return
        session, other = known[revision]
        if other == probe:
            return
        self.checked(1, "comparisons")
        if not any(same_json(session, form) for form in forms):
            differing = sorted(
                name
                for name in session.keys() | forms[-1].keys()
                if not same_json(session.get(name), forms[-1].get(name))
            )
            self.violated(
                1,
                f"{forms[0]['id']} revision {revision}: {probe} and {other} differ in "
                f"{', '.join(differing)}",
            )

    def closed(self, probe: str, before: Session, event: Event) -> None:
        """Check whether a close was due, and how late it was."""
        session_id = event["session_id"]
        ended = event["changes"].get("closed", {})
        self.checked(3, "closes", session_id not in self.ended)
        self.ended.add(session_id)
        closing = before.get("closing")
        if not closing or ended.get("outcome") not in _DEADLINE_OUTCOMES:
            return
        late_ms = moment_ms(ended["at"]) - moment_ms(closing["at"])
        if late_ms >= 0:
            self.late_ms[session_id] = late_ms
        elif ended["outcome"] == "unsaved":  # a client that was lost ends its session earlier
            self.violated(3, f"{probe}: {session_id} was closed {-late_ms} ms too early")

    def look(self, seen: Mapping[str, Revisions], *, sees_all: bool) -> None:
        """Compare which sessions the probes show.

        Args:
            seen: What each list and Redis show; feeds are read here.
            sees_all: Whether the reference sees every session there is. Redis does.
        """
        reference = self.feeds[0].fold.sessions
        disagreed: set[Disagreement] = set()
        for probe, (expected, shown) in self._comparisons(seen).items():
            for session_id in expected.keys() | shown.keys():
                ours, theirs = expected.get(session_id), shown.get(session_id)
                if theirs is not None and session_id in self._ended_before:
                    self.violated(4, f"{probe} shows {session_id}, which was closed")
                elif ours != theirs and (ours is not None or probe != "Redis" or sees_all):
                    disagreed.add((probe, session_id, ours, theirs))
            self.checked(1, "looks")
        for probe, session_id, ours, theirs in sorted(
            disagreed & self._disagreed, key=lambda found: found[:2]
        ):
            self.violated(
                1,
                f"{session_id}: {self.feeds[0].name} has {_revision(ours)}, "
                f"{probe} has {_revision(theirs)}",
            )
        self.checked(4, "sessions looked at", len(reference))
        self._disagreed = frozenset(disagreed)
        self._ended_before = frozenset(self.ended)

    def _comparisons(self, seen: Mapping[str, Revisions]) -> dict[str, tuple[Revisions, Revisions]]:
        reference = self.feeds[0].fold.sessions
        everything = _revisions(reference.values())
        sides = {name: (everything, shown) for name, shown in seen.items()}
        for feed in self.feeds[1:]:
            expected = filter(feed.expects, reference.values())
            sides[feed.name] = _revisions(expected), _revisions(feed.fold.sessions.values())
        return sides

    def leases(
        self,
        connected: Mapping[str, str],
        renewed_ms: Mapping[str, int],
        up_since_ms: int,
        now_ms: int,
    ) -> None:
        """Check that no session is connected to a dead node.

        Args:
            connected: The node of each connected session.
            renewed_ms: When each node renewed its lease.
            up_since_ms: Since when some node is up; silence before that does not count.
            now_ms: Redis time.
        """
        for session_id, node in connected.items():
            # A lease that is gone was given up or removed at an unknown time.
            since_ms = renewed_ms.get(node) or self._silent_since_ms.setdefault(node, now_ms)
            silent_ms = now_ms - max(since_ms, up_since_ms)
            if silent_ms > GHOST_MS:
                self.violated(
                    5, f"{session_id} is connected to {node}, silent for {silent_ms // 1000} s"
                )
        self.checked(5, "connected sessions looked at", len(connected))
        self.checked(5, "leases looked at", len(renewed_ms))

    def conclude(self) -> None:
        """Check what can be checked only at the end."""
        if not self.late_ms:
            return
        late = sorted(self.late_ms.values())
        worst = late[max(0, -(-len(late) * 99 // 100) - 1)]
        self.checked(3, "deadlines", len(late))
        self.findings[3].checked["ms late (p99)"] = worst
        if worst >= LATE_MS:
            self.violated(3, f"one of a hundred closes is {worst} ms late or more")


def _revisions(sessions: Iterable[Session]) -> Revisions:
    return {session["id"]: session["revision"] for session in sessions}


def _revision(revision: int | None) -> str:
    return "nothing" if revision is None else f"revision {revision}"
