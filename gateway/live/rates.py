"""Rates: what happened in each second of the last ten minutes, in memory.

What happens to sessions is counted from the log, by the time of its entries, so all nodes count the
same. What only a node itself knows is taken from its reports; between two of them it is spread
evenly. A window ends a few seconds ago, where the reports of all nodes have come.

A second without anything takes no memory; above the bounds the oldest second is dropped, and nodes
beyond the maximum are left out.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from gateway.core.event import Connected, SessionEnded, SessionEntry
from gateway.live.commit_view import CommitView
from gateway.live.report import read_report

WINDOW_MAX_S: Final = 600
LATE_S: Final = 4  # a report is known after two renewals of a lease, its own and the reader's
NODES_MAX: Final = 256  # names; more than live at once, because those that left are still shown

_KEPT: Final = WINDOW_MAX_S + LATE_S + 1


class NodeWindow(Struct, frozen=True):
    """What one node did in each second: events written to subscribers, and its sockets."""

    deliveries: list[float]
    sockets: list[int]


class Window(Struct, frozen=True):
    """What happened in each of the seconds before ``until_s``, the oldest first."""

    until_s: int
    connects: list[int]
    ends: list[int]
    events: list[int]
    nodes: dict[str, NodeWindow]


class _Series(dict[int, float]):
    """A number by second."""

    def put(self, second: int, value: float) -> None:
        self[second] = value
        if len(self) > _KEPT:
            del self[next(iter(self))]

    def add(self, second: int, value: float) -> None:
        self.put(second, self.get(second, 0) + value)


class Rates:
    """Counts of the whole gateway and of each node, by second of Redis time."""

    def __init__(self) -> None:
        self._since_s: int | None = None
        self._connects, self._ends, self._events = _Series(), _Series(), _Series()
        self._told: dict[str, tuple[int, int]] = {}  # time and deliveries of the last report, by id
        self._nodes: dict[str, tuple[_Series, _Series]] = {}  # deliveries and sockets, by name

    def count(self, changes: Iterable[CommitView]) -> None:
        """Count the events of a batch of the log."""
        for change in changes:
            entry = change.entry
            if not isinstance(entry, SessionEntry):
                continue
            second = entry.at // 1000
            self._events.add(second, len(entry.events) or 1)
            for event in entry.events:
                if type(event) is Connected:
                    self._connects.add(second, 1)
                elif type(event) is SessionEnded:
                    self._ends.add(second, 1)

    def observe(self, nodes: Mapping[str, tuple[int, bytes]], now_ms: int) -> None:
        """Take the reports of all nodes: when each was made, and what it says, by id."""
        if self._since_s is None:
            self._since_s = now_ms // 1000
        self._told = {node_id: told for node_id, told in self._told.items() if node_id in nodes}
        for node_id, (at, announced) in nodes.items():
            report = read_report(announced)
            if report.sockets is None or report.deliveries is None:
                continue  # an older version
            before_ms, before = self._told.get(node_id, (at, report.deliveries))
            self._told[node_id] = at, report.deliveries
            if report.name not in self._nodes and not self._has_room(now_ms // 1000):
                continue
            deliveries, sockets = self._nodes.setdefault(report.name, (_Series(), _Series()))
            since_ms = max(before_ms, at - 1000 * WINDOW_MAX_S)
            for second in range(since_ms // 1000, at // 1000 + 1):
                share = min(at, 1000 * second + 1000) - max(since_ms, 1000 * second)
                if share > 0:
                    deliveries.add(second, (report.deliveries - before) * share / (at - since_ms))
                sockets.put(second, report.sockets)

    def _has_room(self, now_s: int) -> bool:
        """Forget the nodes that were not there in the window, and return if one more may be."""
        self._nodes = {
            name: series
            for name, series in self._nodes.items()
            if max(series[1], default=0) > now_s - _KEPT
        }
        return len(self._nodes) < NODES_MAX

    def window(self, seconds: int, now_ms: int) -> Window:
        """Return what happened in the last *seconds*, or since this node started."""
        until_s = now_ms // 1000 - LATE_S
        since_s = max(until_s - seconds, until_s if self._since_s is None else self._since_s)

        def told(series: _Series) -> list[float]:
            return [series.get(second, 0) for second in range(since_s, until_s)]

        def counted(series: _Series) -> list[int]:
            return list(map(int, told(series)))

        return Window(
            until_s=until_s,
            connects=counted(self._connects),
            ends=counted(self._ends),
            events=counted(self._events),
            nodes={
                name: NodeWindow(
                    [round(number, 3) for number in told(deliveries)], counted(sockets)
                )
                for name, (deliveries, sockets) in sorted(self._nodes.items())
            },
        )
