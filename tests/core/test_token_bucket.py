"""Token bucket: a rate, and how much of it may come at once."""

import pytest

from gateway.core.token_bucket import TokenBucket


def test_bucket_gives_its_capacity_at_once_and_then_its_rate() -> None:
    """A quiet caller may take all that a bucket holds; then one token for each gained."""
    bucket = TokenBucket(2, 4, 10)

    assert [bucket.take(10) for _ in range(5)] == [True] * 4 + [False]
    assert bucket.wait_s == pytest.approx(0.5)
    assert [bucket.take(10.5), bucket.take(10.5)] == [True, False]
    assert [bucket.take(100) for _ in range(5)] == [True] * 4 + [False]


def test_refusals_cost_nothing() -> None:
    """A caller that asks too often gets its rate all the same."""
    bucket = TokenBucket(1, 1, 0)
    given = [bucket.take(tenth / 10) for tenth in range(101)]

    assert sum(given) == pytest.approx(11, abs=1)


def test_token_given_back_can_be_taken_again_and_time_forfeited_gains_nothing() -> None:
    """What turned out to be free is free; what was slow on purpose gains nothing."""
    bucket = TokenBucket(1, 2, 0)
    assert [bucket.take(0), bucket.take(0)] == [True, True]
    bucket.give_back()
    assert [bucket.take(0), bucket.take(0)] == [True, False]
    bucket.forfeit(5)
    assert not bucket.take(5)
    for _ in range(3):
        bucket.give_back()
    assert [bucket.take(5) for _ in range(3)] == [True, True, False]
