"""Roles: whether the server that answers takes writes, as far as its answers tell.

A server that was demoted, has lost its primary or its replicas, or still reads its data answers all
the same: the connection lives, and nothing is written. Such an answer is told in the log when it
begins and when writes go on, and the connections that were made before are made anew, since an
address that follows the primary (a managed endpoint, a load balancer) leads to another server now.

Not here: one connection (``connection``), what is not answered at all (``log``, ``lease``).
"""

import logging
from collections.abc import Callable
from typing import Final

from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
)

_KINDS: Final[tuple[tuple[type[RedisError], str], ...]] = (  # redis-py cuts these words off
    (ReadOnlyError, "READONLY"),
    (BusyLoadingError, "LOADING"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
)
_WORDS: Final = ("NOREPLICAS", "MISCONF")  # and keeps these

log = logging.getLogger(__name__)


def refusal_of(error: object) -> str | None:
    """Return what a server says that takes no writes now; ``None`` for every other error."""
    for kind, word in _KINDS:
        if isinstance(error, kind):
            return f"{word} {error}"
    text = str(error)
    return text if text.startswith(_WORDS) else None


class WriteAccess:
    """What all connections to one store know of it together.

    Args:
        monotonic_ms: A monotonic clock in milliseconds.
    """

    def __init__(self, monotonic_ms: Callable[[], float]) -> None:
        self.refusal: str | None = None
        """What the server said that takes no writes; ``None`` while they are taken."""
        self.generation = 0
        """Goes up when writes are refused and when they go on; older connections are made anew."""
        self._monotonic_ms = monotonic_ms
        self._since_ms = 0.0

    def refused(self, reason: str) -> None:
        """Note that the server takes no writes."""
        if self.refusal is None:
            self.generation += 1
            self._since_ms = self._monotonic_ms()
            log.warning("the store takes no writes: %s", reason)
        self.refusal = reason

    def accepted(self) -> None:
        """Note that something was written."""
        if self.refusal is not None:
            self.generation += 1
            self.refusal = None
            log.warning(
                "the store takes writes again after %.1f s",
                (self._monotonic_ms() - self._since_ms) / 1000,
            )
