"""Close reminder: when a client is reminded that its session will be closed."""

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.core.model import Closing

REMIND_BEFORE_MS: Final = (10_000, 3_000)  # before the deadline, besides half of the time


def reminder_times(closing: Closing, now_ms: int) -> list[int]:
    """Return when a client is reminded of a pending close, after *now_ms*."""
    half = closing.requested_at + (closing.at - closing.requested_at) // 2
    times = {half, *(closing.at - before_ms for before_ms in REMIND_BEFORE_MS)}
    return sorted(at for at in times if now_ms < at < closing.at)


def schedule_reminder(
    closing: Closing, now_ms: int, remind: Callable[[Closing], None]
) -> asyncio.TimerHandle | None:
    """Call *remind* when it is time for the next reminder; return the timer if there is one.

    Args:
        closing: The pending close.
        now_ms: Redis time in milliseconds.
        remind: Called with *closing*.
    """
    times = reminder_times(closing, now_ms)
    if not times:
        return None
    wait_s = (times[0] - now_ms) / 1000
    return asyncio.get_running_loop().call_later(wait_s, remind, closing)
