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
from gateway.transport.limits import Limits

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
        limits: How often it is pinged, and how long it may take to answer and to take anything.
        loop: Where it runs.
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
        self._moved_at_s = loop.time()  # when the client was last seen to take something
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
        """Take it that a whole frame came; whatever it is, the client lives.

        A pong need not echo our ping (clients send pongs by themselves, RFC 6455 section 5.5.3),
        and who sends messages or pings of its own is alive as well.

        Args:
            pong: The payload, if it was a pong.
        """
        if self._is_waiting:
            self._is_waiting = False
            self._timer.cancel()
            self._timer = self._later()
        if pong is not None and self._answered is not None and pong == self._payload:
            answered, self._answered = self._answered, None
            answered()

    def stop(self) -> None:
        """Ping no more."""
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
            target.cut(CloseCode.TOO_SLOW)  # it talks, but has not taken even the last ping
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
