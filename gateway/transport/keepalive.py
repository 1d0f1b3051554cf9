"""Keepalive: pings, and what follows when a pong does not come.

A dead client is found whatever our write buffer holds: the deadline runs from the ping. But one
that takes what is before the ping in its queue, slowly, is not dead: it gets the time again for as
long as its TCP acknowledges more (else a slow link could never take a long snapshot: it would be
cut, come back, and begin anew). A pong that we have not read is not missing either.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final, Protocol

from gateway.core.errors import CloseCode
from gateway.core.frames import PING, frame

JITTER: Final = 0.1  # of the interval, so that connections do not ping together
LATE_S: Final = 0.1  # if this process was held up the pong may be here: what came is read first


class PingTarget(Protocol):
    """The connection that is pinged."""

    @property
    def is_reading(self) -> bool:
        """Whether we read what the client sends."""
        ...

    @property
    def written(self) -> int:
        """Bytes written so far."""
        ...

    def count_acknowledged(self) -> int:
        """Return how many of them the client's machine has acknowledged."""
        ...

    def write(self, data: bytes) -> bool:
        """Send a frame."""
        ...

    def cut(self, code: int) -> None:
        """End it: no pong came."""
        ...


class Keepalive:
    """The heartbeat of one open WebSocket.

    Args:
        target: The connection.
        heartbeat_s: Seconds between two pings, give or take a tenth.
        pong_s: Seconds for the answer.
    """

    __slots__ = (
        "_answered",
        "_heartbeat_s",
        "_loop",
        "_payload",
        "_ping_ends",
        "_pong_s",
        "_taken",
        "_target",
        "_timer",
    )

    def __init__(
        self,
        target: PingTarget,
        heartbeat_s: float,
        pong_s: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._target = target
        self._heartbeat_s = heartbeat_s
        self._pong_s = pong_s
        self._loop = loop
        self._payload = b""
        self._answered: Callable[[], None] | None = None
        self._taken = self._ping_ends = 0
        self._timer = self._later()

    def probe(self, answered: Callable[[], None]) -> None:
        """Ping now, unless a pong is due anyway, and call *answered* when the pong has come."""
        self._answered = answered
        if not self._payload:
            self._timer.cancel()
            self._ping()

    def pong(self, payload: bytes) -> None:
        """Take a pong; one that answers nothing means nothing (RFC 6455 section 5.5.3)."""
        if self._payload and payload == self._payload:
            self._payload = b""
            self._timer.cancel()
            self._timer = self._later()
            answered, self._answered = self._answered, None
            if answered is not None:
                answered()

    def stop(self) -> None:
        """Ping no more."""
        self._timer.cancel()

    def _later(self) -> asyncio.TimerHandle:
        jitter = 1 - JITTER + 2 * JITTER * random.random()
        return self._loop.call_later(self._heartbeat_s * jitter, self._ping)

    def _ping(self) -> None:
        target = self._target
        self._payload = random.getrandbits(32).to_bytes(4)
        target.write(frame(PING, self._payload))
        self._ping_ends, self._taken = target.written, target.count_acknowledged()
        self._timer = self._loop.call_later(self._pong_s, self._miss)

    def _miss(self) -> None:
        target = self._target
        taken = target.count_acknowledged()
        is_on_its_way = self._taken < taken < self._ping_ends
        if is_on_its_way or not target.is_reading:
            self._taken = taken
            self._timer = self._loop.call_later(self._pong_s, self._miss)
        else:
            self._timer = self._loop.call_later(LATE_S, target.cut, CloseCode.NO_HEARTBEAT)
