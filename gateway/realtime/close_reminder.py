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


class CloseReminder:
    """The timer of one connection.

    Args:
        now_ms: Returns Redis time in milliseconds.
    """

    __slots__ = ("_now_ms", "_timer")

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self, closing: Closing, remind: Callable[[Closing], None]) -> None:
        """Call *remind* when it is time, in place of what was scheduled before."""
        self.stop()
        now_ms = self._now_ms()
        if times := reminder_times(closing, now_ms):
            wait_s = (times[0] - now_ms) / 1000
            self._timer = asyncio.get_running_loop().call_later(wait_s, remind, closing)

    def stop(self) -> None:
        """Cancel the reminders."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
