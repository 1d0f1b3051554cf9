"""Redis time, estimated from round trips of a hand-wound monotonic clock."""

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.store.clock import FREEZE_MS, SAMPLE_AGE_MS, RedisClock


class Hand:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.ms = 1_000.0

    def __call__(self) -> float:
        """Return milliseconds."""
        return self.ms


@pytest.fixture
def hand() -> Hand:
    """Return a clock at one second."""
    return Hand()


def test_no_sample_no_time(hand: Hand) -> None:
    """Nothing is decided before Redis has told its time."""
    with pytest.raises(StoreUnavailable):
        RedisClock(hand).now_ms()


def test_quickest_trip_counts(hand: Hand) -> None:
    """A slow round trip does not spoil what a quick one has told."""
    clock = RedisClock(hand)
    clock.sample(1_000, 1_002, 50_001)
    clock.sample(1_000, 1_900, 50_001)

    assert clock.now_ms() == 50_000


def test_old_sample_gives_way_to_a_newer_one(hand: Hand) -> None:
    """After a minute the quickest trip is forgotten, so that drift is followed."""
    clock = RedisClock(hand)
    clock.sample(1_000, 1_001, 50_000)
    hand.ms += SAMPLE_AGE_MS + 1
    clock.sample(hand.ms, hand.ms + 10, 50_500 + SAMPLE_AGE_MS)

    assert clock.now_ms() == 50_500 + SAMPLE_AGE_MS - 5
    assert clock.steps == 0


def test_better_sample_takes_no_time_back(hand: Hand) -> None:
    """When a quicker trip shows that it is earlier than was said, time stands until that is so."""
    clock = RedisClock(hand)
    clock.sample(1_000, 1_000 + 40, 50_040)
    assert clock.now_ms() == 50_020

    clock.sample(1_000, 1_000, 50_000)
    assert clock.now_ms() == 50_020
    hand.ms += 30
    assert clock.now_ms() == 50_030


@pytest.mark.parametrize("step_ms", [5_000, -5_000])
def test_step_freezes_deadlines_for_a_while(hand: Hand, step_ms: int) -> None:
    """A server clock that jumps is followed, counted, and fires nothing for five seconds."""
    clock = RedisClock(hand)
    clock.sample(1_000, 1_000, 50_000)

    assert not clock.is_frozen
    assert clock.now_ms() == 50_000

    clock.sample(1_000, 1_000, 50_000 + step_ms)

    assert clock.now_ms() == 50_000 + step_ms
    assert clock.steps == 1
    assert clock.is_frozen

    hand.ms += FREEZE_MS

    assert not clock.is_frozen
