"""Keepalive: pings a WebSocket and ends it when no frame answers.

The deadline runs from the ping, so a dead client is found whatever our write buffer holds. A slow
client that is still receiving what was sent before the ping gets the time again for as long as its
TCP acknowledges more, because a slow link could otherwise never take a long snapshot. Time during
which we do not read from the client does not count either.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final, Protocol

from gateway.core.errors import CloseCode
from gateway.core.frames import PING, frame
from gateway.metrics import PING_PONG
from gateway.transport.limits import Limits

JITTER: Final = 0.1  # of the interval, so that connections do not ping together
LATE_S: Final = 0.1  # if this process was held up: a frame that has arrived is read first


class PingTarget(Protocol):
    """The connection that is pinged."""

    @property
    def is_reading(self) -> bool:
        """Whether we read what the client sends."""
        ...

    @property
    def written(self) -> int:
        """How many bytes were written so far."""
        ...

    def count_acknowledged(self) -> int:
        """Return how many of them the client's machine has acknowledged."""
        ...

    def write(self, data: bytes) -> bool:
        """Send a frame."""
        ...

    def cut(self, code: int) -> None:
        """Close the connection with *code*."""
        ...


class Keepalive:
    """The heartbeat of one open WebSocket.

    Args:
        target: The connection.
        limits: ``heartbeat_s``, ``pong_s`` and ``stalled_s`` are used.
        loop: Event loop of the connection.
    """

    __slots__ = (
        "_answered",
        "_is_waiting",
        "_limits",
        "_loop",
        "_moved_at_s",
        "_payload",
        "_ping_ends",
        "_taken",
        "_target",
        "_timer",
    )

    def __init__(self, target: PingTarget, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._limits = limits
        self._loop = loop
        self._answered: Callable[[], None] | None = None
        self._payload = b""
        self._is_waiting = False  # for a frame, since the last ping
        self._taken = self._ping_ends = 0
        self._moved_at_s = loop.time()  # when the client last acknowledged something
        self._timer = self._later()

    def probe(self, answered: Callable[[], None]) -> None:
        """Ping now, unless an answer is due anyway, and call *answered* when the pong has come.

        Here another frame will not do: it may have been sent before the client went, while the pong
        that echoes our ping follows everything that was sent before it.
        """
        self._answered = answered
        if not self._is_waiting:
            self._timer.cancel()
            self._ping()

    def on_frame(self, pong: bytes | None = None) -> None:
        """Note that a whole frame came: whatever it is, it proves that the client lives.

        A pong need not echo our ping, because clients may send pongs unasked (RFC 6455 section
        5.5.3); messages and pings of the client prove as much.

        Args:
            pong: The payload, if it was a pong.
        """
        if self._is_waiting:
            self._is_waiting = False
            pinged_at_s = self._timer.when() - self._limits.pong_s
            PING_PONG.observe(max(self._loop.time() - pinged_at_s, 0.0))
            self._timer.cancel()
            self._timer = self._later()
        if pong is not None and self._answered is not None and pong == self._payload:
            answered, self._answered = self._answered, None
            answered()

    def stop(self) -> None:
        """Stop pinging."""
        self._timer.cancel()

    def _later(self) -> asyncio.TimerHandle:
        jitter = 1 - JITTER + 2 * JITTER * random.random()
        return self._loop.call_later(self._limits.heartbeat_s * jitter, self._ping)

    def _ping(self) -> None:
        target = self._target
        taken = target.count_acknowledged()
        now_s = self._loop.time()
        if taken != self._taken or taken >= self._ping_ends:
            self._moved_at_s = now_s
        elif now_s - self._moved_at_s >= self._limits.stalled_s:
            target.cut(CloseCode.TOO_SLOW)  # it sends frames, but has not taken even the last ping
            return
        self._is_waiting = True
        self._payload = random.getrandbits(32).to_bytes(4)
        target.write(frame(PING, self._payload))
        self._ping_ends, self._taken = target.written, taken
        self._timer = self._loop.call_later(self._limits.pong_s, self._miss)

    def _miss(self) -> None:
        target = self._target
        taken = target.count_acknowledged()
        is_on_its_way = self._taken < taken < self._ping_ends
        if is_on_its_way or not target.is_reading:
            self._taken, self._moved_at_s = taken, self._loop.time()
            self._timer = self._loop.call_later(self._limits.pong_s, self._miss)
        else:
            self._timer = self._loop.call_later(LATE_S, target.cut, CloseCode.NO_HEARTBEAT)
