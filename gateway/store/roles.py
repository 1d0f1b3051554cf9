"""Roles: whether the server answers, accepts writes, has room and permits the commands.

A server that was demoted, has lost its primary or its replicas, or is still loading its data
answers without writing anything. All older connections are then made anew, because an address that
follows the primary (a managed endpoint, a load balancer) leads to another server now.

The log has one line when such a state begins and one when it ends, however many requests fail
meanwhile.

Not here: one connection (``connection``), reading the log (``log``), the lease (``lease``).
"""

import logging
import os
import re
import socket
import ssl
from collections.abc import Callable
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

FULL_SHARE: Final = 0.9  # of maxmemory; above it opens are refused
FULL_MIN_MS: Final = 5_000  # a server that refused a write for want of memory is full for so long

_KINDS: Final[tuple[tuple[type[RedisError], str], ...]] = (  # redis-py cuts these words off
    (ReadOnlyError, "READONLY"),
    (BusyLoadingError, "LOADING"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
)
_WORDS: Final = ("NOREPLICAS", "MISCONF")  # and keeps these
_ERRNO: Final = re.compile(r"Errno (\d+)")

log = logging.getLogger(__name__)


def refusal_of(error: object) -> str | None:
    """Return the words of a server that accepts no writes; ``None`` for any other error."""
    for kind, word in _KINDS:
        if isinstance(error, kind):
            return f"{word} {error}"
    text = str(error)
    return text if text.startswith(_WORDS) else None


def reason_of(error: BaseException | None) -> str:
    """Return in words why a server did not answer; ``None``: it did not in time."""
    if isinstance(error, AuthenticationError):
        return f"authentication failed: {error}".removesuffix(".")
    if isinstance(error, ResponseError):
        return refusal_of(error) or str(error)
    root = error if error is None or error.__context__ is None else error.__context__
    if error is None or isinstance(error, TimeoutError) or isinstance(root, TimeoutError):
        return "no answer in time"
    if isinstance(root, socket.gaierror):
        return "unknown host"
    if isinstance(root, ssl.SSLError):
        return f"TLS: {root.reason or root.strerror}"
    if isinstance(root, OSError):
        number = _ERRNO.search(str(root))  # in the text only, if several addresses were tried
        return os.strerror(int(number[1])).lower() if number else "the connection failed"
    return str(error).removesuffix(".")


class WriteAccess:
    """The state of a store, shared by all its connections.

    Args:
        monotonic_ms: A monotonic clock in milliseconds.
    """

    def __init__(self, monotonic_ms: Callable[[], float]) -> None:
        self.refusal: str | None = None
        """The words of a server that accepts no writes; ``None`` while it accepts them."""
        self.generation = 0
        """Raised when writes are refused and when they succeed; older connections are made anew."""
        self.is_full = False
        """Whether the server has no room for new sessions."""
        self.is_open = False
        """Whether the gateway has started with this store."""
        self.forbidden: set[str] = set()
        """Commands that the user of this gateway may not run."""
        self._monotonic_ms = monotonic_ms
        self._since_ms = 0.0
        self._lost: set[int] = set()
        self._lost_ms = self._full_ms = self._rejected_ms = float("-inf")

    @property
    def is_writable(self) -> bool:
        """Whether the server accepts writes, as far as is known; all are scripts."""
        return self.refusal is None and "EVALSHA" not in self.forbidden

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
            log.warning("the store takes writes again", extra=self._down(self._since_ms))

    def lost(self, partition: int, since_ms: float, reason: str) -> None:
        """Note that the log of *partition* cannot be read since then."""
        if self.refusal is not None and self.refusal.split()[0] == reason.split(maxsplit=1)[0]:
            return  # a server without its data: that was told already
        if not self._lost:
            self._lost_ms = since_ms
            log.warning("the store is lost", extra={"reason": reason})
        self._lost.add(partition)

    def found(self, partition: int) -> None:
        """Note that the log of *partition* can be read."""
        if partition in self._lost:
            self._lost.discard(partition)
            if not self._lost:
                log.warning("the store is back", extra=self._down(self._lost_ms))

    def rejected(self, reason: str) -> None:
        """Note that the server refused a write for want of memory."""
        self._rejected_ms = self._monotonic_ms()
        self._fill({"reason": reason})

    def measured(self, used_bytes: int, limit_bytes: int) -> None:
        """Note how much memory the server uses; a limit of 0 is none."""
        about: dict[str, object] = {"used_bytes": used_bytes, "limit_bytes": limit_bytes}
        if limit_bytes > 0 and used_bytes > FULL_SHARE * limit_bytes:
            self._fill(about)
        elif self.is_full and self._monotonic_ms() - self._rejected_ms > FULL_MIN_MS:
            self.is_full = False
            log.warning("the store has room again", extra=about | self._down(self._full_ms))

    def _fill(self, about: dict[str, object]) -> None:
        if not self.is_full:
            self.is_full = True
            self._full_ms = self._monotonic_ms()
            log.warning("the store is full", extra=about)

    def forbade(self, command: str, keys: str, reason: str) -> None:
        """Note that the user of this gateway may not run *command* on *keys*."""
        if command not in self.forbidden and self.is_open:  # else the start fails, and says why
            self.forbidden.add(command)
            about = {"command": command, "keys": keys, "reason": reason}
            log.warning("the store forbids a command", extra=about)

    def permitted(self, command: str) -> None:
        """Note that *command* was run."""
        if command in self.forbidden:
            self.forbidden.discard(command)
            log.warning("the store permits a command again", extra={"command": command})

    def _down(self, since_ms: float) -> dict[str, object]:
        return {"down_s": round((self._monotonic_ms() - since_ms) / 1000, 1)}
