"""Roles: whether the server accepts writes, judged by its error replies.

A server that was demoted, has lost its primary or its replicas, or is still loading its data
answers without writing anything. The log says when such replies begin and when writes succeed
again. All older connections are made anew, because an address that follows the primary (a managed
endpoint, a load balancer) leads to another server now.

Not here: one connection (``connection``), a server that does not answer (``log``, ``lease``).
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
    """Return the words of a server that accepts no writes; ``None`` for any other error."""
    for kind, word in _KINDS:
        if isinstance(error, kind):
            return f"{word} {error}"
    text = str(error)
    return text if text.startswith(_WORDS) else None


class WriteAccess:
    """The write access of a store, shared by all its connections.

    Args:
        monotonic_ms: A monotonic clock in milliseconds.
    """

    def __init__(self, monotonic_ms: Callable[[], float]) -> None:
        self.refusal: str | None = None
        """The words of a server that accepts no writes; ``None`` while it accepts them."""
        self.generation = 0
        """Raised when writes are refused and when they succeed; older connections are made anew."""
        self._monotonic_ms = monotonic_ms
        self._since_ms = 0.0

    def refused(self, reason: str) -> None:
        """Note that the server accepts no writes."""
        if self.refusal is None:
            self.generation += 1
            self._since_ms = self._monotonic_ms()
            log.warning("the store takes no writes", extra={"reason": reason})
        self.refusal = reason

    def accepted(self) -> None:
        """Note that a write succeeded."""
        if self.refusal is not None:
            self.generation += 1
            self.refusal = None
            down_s = round((self._monotonic_ms() - self._since_ms) / 1000, 1)
            log.warning("the store takes writes again", extra={"down_s": down_s})
