"""Keyed lock: one holder at a time, in order, and never lost."""

import asyncio

import pytest

from gateway.live.keyed_lock import KeyedLock
from tests.support import MS, S


async def test_turns_come_in_order() -> None:
    """Whoever waits gets the turn after those who came before; other sessions do not wait."""
    turns = KeyedLock()
    done: list[int] = []

    async def work(number: int) -> None:
        if not turns.try_acquire("s"):
            await turns.acquire_within("s", 1 * S)
        assert turns.try_acquire("other")
        turns.release("other")
        await asyncio.sleep(0)
        done.append(number)
        turns.release("s")

    await asyncio.gather(*(work(number) for number in range(10)))

    assert done == list(range(10))
    assert len(turns) == 0


async def test_turn_that_does_not_come_is_told() -> None:
    """Who waits in vain hears so, and is passed over afterwards."""
    turns = KeyedLock()
    assert turns.try_acquire("s")
    late = asyncio.ensure_future(turns.acquire_within("s", 10 * MS))
    next_one = asyncio.ensure_future(turns.acquire_within("s", 1 * S))
    with pytest.raises(TimeoutError):
        await late
    turns.release("s")
    await next_one
    turns.release("s")

    assert len(turns) == 0


async def test_turn_of_somebody_who_left_goes_on() -> None:
    """Who goes away while waiting, or in the moment when the turn comes, keeps nobody else."""
    turns = KeyedLock()
    assert turns.try_acquire("s")
    leaving, left, last = (
        asyncio.ensure_future(turns.acquire_within("s", 1 * S)) for _ in range(3)
    )
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    turns.release("s")
    leaving.cancel()
    await last

    assert leaving.cancelled()
    assert left.cancelled()
    turns.release("s")
    assert len(turns) == 0
