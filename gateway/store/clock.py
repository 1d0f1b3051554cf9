"""Redis time: the clock of every deadline and timestamp.

The wall clocks of nodes do not matter: each node keeps the offset between Redis ``TIME`` and its
own monotonic clock, from the quickest round trip of the last minute.

Not here: reading a clock (``app`` passes one in).
"""

from collections.abc import Callable
from typing import Final

from gateway.core.errors import StoreUnavailable
from gateway.metrics import CLOCK_STEPS

SAMPLE_AGE_MS: Final = 60_000  # after this the best sample gives way to a newer one
STEP_MS: Final = 1_000  # a larger jump than this is a step of the server's clock, not drift
FREEZE_MS: Final = 5_000  # no deadline fires for this long after a step


class RedisClock:
    """Estimates Redis time.

    Args:
        monotonic_ms: A monotonic clock in milliseconds.
    """

    def __init__(self, monotonic_ms: Callable[[], float]) -> None:
        self.monotonic_ms = monotonic_ms
        self.steps = 0
        self._offset_ms: float | None = None
        self._trip_ms = 0.0
        self._sampled_ms = 0.0
        self._frozen_until_ms = 0.0
        self._told_ms = 0

    def sample(self, sent_ms: float, received_ms: float, redis_ms: int) -> None:
        """Add a sample: the answer of ``TIME`` between two readings of the monotonic clock."""
        trip_ms = received_ms - sent_ms
        offset_ms = redis_ms + 0.5 - (sent_ms + received_ms) / 2
        if self._offset_ms is not None:
            if abs(offset_ms - self._offset_ms) > STEP_MS + trip_ms:
                self.steps += 1
                CLOCK_STEPS.inc()
                self._frozen_until_ms = received_ms + FREEZE_MS
                self._told_ms = 0
            elif trip_ms > self._trip_ms and received_ms - self._sampled_ms < SAMPLE_AGE_MS:
                return
        self._offset_ms, self._trip_ms, self._sampled_ms = offset_ms, trip_ms, received_ms

    def now_ms(self) -> int:
        """Return Redis time in milliseconds; it goes back only with the server's own clock.

        Raises:
            StoreUnavailable: Redis has not told its time yet.
        """
        if self._offset_ms is None:
            raise StoreUnavailable
        now_ms = int(self.monotonic_ms() + self._offset_ms)
        # A better sample may say that it is earlier: what happened later would look earlier.
        if now_ms < self._told_ms:
            return self._told_ms
        self._told_ms = now_ms
        return now_ms

    @property
    def is_frozen(self) -> bool:
        """Whether the server's clock stepped so recently that no deadline may fire."""
        return self.monotonic_ms() < self._frozen_until_ms
