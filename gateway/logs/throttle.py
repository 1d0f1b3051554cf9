"""Throttle: bounds how many lines clients can cause, so that a flood does not fill a disk."""

import time
from typing import Final

from gateway.core.token_bucket import TokenBucket

LINES_PER_S: Final = 1.0  # of one kind and node, in the long run: 86,400 lines a day, some 30 MB
LINES_AT_ONCE: Final = 100


class Throttle:
    """The budget of one kind of line; what is over it is counted and told by the next line."""

    def __init__(self) -> None:
        self._bucket = TokenBucket(LINES_PER_S, LINES_AT_ONCE, time.monotonic())
        self._suppressed = 0

    def admit(self) -> dict[str, int] | None:
        """Return the fields of a line that may be written now, or ``None`` if it may not."""
        if not self._bucket.take(time.monotonic()):
            self._suppressed += 1
            return None
        suppressed, self._suppressed = self._suppressed, 0
        return {"suppressed": suppressed} if suppressed else {}
