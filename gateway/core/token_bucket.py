"""Token bucket: the one way in which the gateway bounds how often something may happen.

Pure: time is an argument, from any clock that only goes forward.
"""

from typing import Final

BURST_S: Final = 2.0  # seconds' worth of messages or requests that may come at once

_ROUNDING: Final = 1e-9  # of a token: what sums of floating point numbers may miss


class TokenBucket:
    """A budget that refills at a steady rate up to its capacity.

    Args:
        per_s: Tokens gained in a second; more than 0.
        capacity: Tokens that it holds at most, and at first.
        now_s: When it is made.
    """

    __slots__ = ("_at_s", "_capacity", "_left", "_per_s")

    def __init__(self, per_s: float, capacity: float, now_s: float) -> None:
        self._per_s = per_s
        self._capacity = self._left = capacity
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one token; return whether there was one."""
        left = min(self._capacity, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if left < 1 - _ROUNDING:
            self._left = left
            return False
        self._left = left - 1
        return True

    def forfeit(self, now_s: float) -> None:
        """Gain nothing for the time until *now_s*."""
        self._at_s = max(self._at_s, now_s)

    def give_back(self) -> None:
        """Put back a token that was taken; what is over the capacity is lost at the next take."""
        self._left += 1

    @property
    def wait_s(self) -> float:
        """Seconds after the last :meth:`take` until there is a token."""
        return max(0.0, (1 - self._left) / self._per_s)
