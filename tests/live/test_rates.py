"""Rates: what happens is counted in the second in which it happened, and kept for ten minutes."""

from msgspec.json import encode

from gateway.core.event import Connected, Opened, SessionEnded, SessionEntry, Updated
from gateway.core.model import Closure, Connection
from gateway.live.commit_view import CommitView
from gateway.live.rates import LATE_S, NODES_MAX, WINDOW_MAX_S, Rates
from gateway.live.report import NodeReport
from tests.nodes import blank

START_S = 1_000


def reported(deliveries: int, sockets: int, name: str = "a") -> bytes:
    """Return the report of a node."""
    return encode(NodeReport(name=name, deliveries=deliveries, sockets=sockets))


def commit(at: int, *events: Opened | Connected | SessionEnded | Updated) -> CommitView:
    """Return a commit of one session."""
    entry = SessionEntry(at=at, op="o", record=blank("s"), before={}, events=[*events])
    return CommitView(entry)


def seconds_after(rates: Rates, seconds: int) -> int:
    """Return when the window that ends so many seconds after the start can be read, in ms."""
    rates.observe({}, START_S * 1000)
    return (START_S + seconds + LATE_S) * 1000


def test_events_count_in_the_second_of_their_entry() -> None:
    """Connects, ends and all events are told by the time at which they were decided."""
    rates = Rates()
    now_ms = seconds_after(rates, 3)
    connected = Connected(connection=Connection(id="c", node="a:1", connected_at=0))
    ended = SessionEnded(closed=Closure(outcome="closed", at=0))
    rates.count([commit(1_000_000, Opened(session=blank("s")), connected), commit(1_000_999)])
    rates.count([commit(1_002_500, ended)])

    window = rates.window(3, now_ms)

    assert (window.connects, window.ends, window.events) == ([1, 0, 0], [0, 0, 1], [3, 0, 1])
    assert window.until_s == START_S + 3


def test_deliveries_are_spread_between_two_reports() -> None:
    """What a node delivered between two reports is shared out by time; sockets are as reported."""
    rates = Rates()
    now_ms = seconds_after(rates, 4)
    for at, deliveries, sockets in (
        (1_000_500, 70, 1),
        (1_002_000, 100, 2),
        (1_002_000, 100, 2),
        (1_003_500, 130, 3),
    ):
        rates.observe({"a:1": (at, reported(deliveries, sockets)), "b:1": (at, b"{}")}, at)

    window = rates.window(4, now_ms)

    assert window.nodes.keys() == {"a"}
    assert window.nodes["a"].deliveries == [10, 20, 20, 10]
    assert window.nodes["a"].sockets == [2, 2, 3, 3]


def test_node_that_starts_again_keeps_its_name() -> None:
    """Another run of a node continues its numbers, and counts from its own first report."""
    rates = Rates()
    now_ms = seconds_after(rates, 4)
    for at, node_id, deliveries in (
        (1_000_000, "a:1", 5_000),
        (1_001_000, "a:1", 5_010),
        (1_002_000, "a:2", 0),
        (1_003_000, "a:2", 7),
    ):
        rates.observe({node_id: (at, reported(deliveries, 1))}, at)

    assert rates.window(4, now_ms).nodes["a"].deliveries == [10, 0, 7, 0]


def test_window_begins_with_the_node() -> None:
    """A node has no number for the time before it started."""
    rates = Rates()

    assert rates.window(WINDOW_MAX_S, START_S * 1000).events == []
    assert len(rates.window(WINDOW_MAX_S, seconds_after(rates, 7)).events) == 7
    assert len(rates.window(5, seconds_after(rates, 7)).events) == 5


def test_memory_is_bounded() -> None:
    """Neither time nor nodes that come and go make it grow."""
    rates = Rates()
    for second in range(2 * WINDOW_MAX_S):
        at = (START_S + second) * 1000
        rates.count([commit(at)])
        rates.observe({f"{second}:1": (at, reported(0, 1, str(second)))}, at)
    window = rates.window(WINDOW_MAX_S, seconds_after(rates, 2 * WINDOW_MAX_S))

    assert window.events == [1] * WINDOW_MAX_S
    assert len(window.nodes) <= NODES_MAX
