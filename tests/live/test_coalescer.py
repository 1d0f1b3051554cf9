"""Coalescer: at most one commit in five seconds, and nothing accepted is lost."""

from gateway.core.command import Progress, UpdateStream
from gateway.core.model import Stream
from gateway.live.coalescer import EVERY_MS, Coalescer, Reported


def stream(key: str, number: int) -> UpdateStream:
    """Return an update of a stream."""
    return UpdateStream(stream=Stream(key=key, kind="k", data={"n": number}))


def test_first_report_is_written_at_once_the_next_are_held() -> None:
    """The first of a burst is written now, the rest once its five seconds are over."""
    coalescer = Coalescer()

    assert not coalescer.hold("s", Progress(position_ms=1), 10_000)
    assert coalescer.hold("s", Progress(position_ms=2), 10_001)
    assert not coalescer.hold("other", Progress(position_ms=2), 10_001)
    assert coalescer.due(10_000 + EVERY_MS - 1) == []
    assert coalescer.due(10_000 + EVERY_MS) == ["s"]


def test_newest_of_a_kind_is_kept() -> None:
    """Progress is merged field by field, a stream's update replaced; each stream for itself."""
    coalescer = Coalescer()
    coalescer.written("s", 0)
    commands: list[Progress | UpdateStream] = [
        Progress(position_ms=1, state="playing"),
        stream("a", 1),
        Progress(position_ms=2, via="c2"),
        stream("b", 1),
        stream("a", 2),
        Progress(bandwidth=7, via="c2"),
    ]
    for number, command in enumerate(commands):
        assert coalescer.hold("s", command, 10 + number)

    assert coalescer.take("s") == [
        Reported(Progress(position_ms=2, state="playing", bandwidth=7, via="c2"), 15),
        Reported(stream("a", 2), 14),
        Reported(stream("b", 1), 13),
    ]
    assert coalescer.take("s") == []


def test_what_was_not_written_is_held_again() -> None:
    """What is given back yields to what came meanwhile."""
    coalescer = Coalescer()
    coalescer.written("s", 0)
    coalescer.hold("s", Progress(position_ms=1, state="playing"), 10)
    coalescer.hold("s", stream("a", 1), 10)
    coalescer.hold("s", stream("b", 1), 10)
    taken = coalescer.take("s")
    coalescer.hold("s", Progress(position_ms=2), 20)
    coalescer.hold("s", stream("b", 2), 20)
    coalescer.give_back("s", taken)
    coalescer.give_back("other", [])

    assert coalescer.sessions() == ["s"]
    assert coalescer.take("s") == [
        Reported(stream("a", 1), 10),
        Reported(Progress(position_ms=2, state="playing"), 20),
        Reported(stream("b", 2), 20),
    ]


def test_written_sessions_are_forgotten_in_time() -> None:
    """When a session was written last is remembered for five seconds only."""
    coalescer = Coalescer()
    coalescer.written("s", 0)
    coalescer.due(EVERY_MS)

    assert not coalescer._written_ms  # noqa: SLF001


def test_what_may_be_done_is_not_joined_with_newer() -> None:
    """Of what went along with a write without an answer, nothing is told in the name of later."""
    coalescer = Coalescer()
    coalescer.written("s", 0)
    tried = Reported(Progress(position_ms=1, state="playing"), 10).tried_as("op")
    for is_first in (True, False):
        if is_first:
            coalescer.give_back("s", [tried])
        coalescer.hold("s", Progress(position_ms=2), 20)
        if not is_first:
            coalescer.give_back("s", [tried])

        assert coalescer.take("s") == [Reported(Progress(position_ms=2), 20)]
