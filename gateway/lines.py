"""Lines: connections on which the gateway speaks whenever it has something to say.

A :class:`Line` sends with a deadline, beats when it was silent, ends when its token expires, and
can be ended from outside. How it ends is one of two exceptions, :class:`Left` and :class:`Goodbye`;
they are raised anywhere and caught in one place, so that every end goes the same way.

Not here: all of them together (``sockets``), what is said (``api``, ``dialects``).
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVar

from gateway.core.errors import CloseCode, GatewayError
from gateway.core.model import Cause
from gateway.core.protocol import Bye

SEND_WITHIN_S: Final = 10.0  # a client that took nothing for so long is too slow (4002)
CLOSE_WITHIN_S: Final = 1.0  # for the last message and the close frame to leave
BEAT_JITTER: Final = 0.1  # of the heartbeat's interval, so that lines do not beat together
EXPIRY_LOOK_S: Final = 3600.0  # the wall clock may step; look at least so often
AWAY_MIN_MS: Final = 250  # a client that is sent away comes back after this at the earliest
AWAY_SPREAD_MS: Final = 2_000  # and so much later at the latest

_OURS: Final = frozenset(
    {CloseCode.DRAINING, CloseCode.TOO_SLOW, CloseCode.STORE_UNAVAILABLE, CloseCode.SERVER_ERROR}
)

E = TypeVar("E", bound=Exception)

log = logging.getLogger(__name__)


class Ended(Exception):
    """A line is over; ``cause`` is what the record shall say."""

    cause: Cause = "lost"


class Left(Ended):
    """The client ended it."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause = cause


class Goodbye(Ended):
    """The gateway ends it.

    Args:
        code: The close code.
        reason: For programs: an error's code, or the reason of a close.
        retry_after_ms: When the client should come back, if it should.
    """

    def __init__(self, code: int, reason: str, retry_after_ms: int | None = None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.retry_after_ms = retry_after_ms
        self.cause = "server" if code in _OURS else "lost"

    @classmethod
    def by(cls, error: GatewayError, away_ms: int) -> "Goodbye":
        """Return the end that *error* means; *away_ms* keeps those apart whom it sends away."""
        comes_back = error.close_code.reconnect
        retry_after_ms = (error.retry_after_s or 0) * 1000 + away_ms if comes_back else None
        return cls(error.close_code, error.code, retry_after_ms)

    @property
    def message(self) -> Bye:
        """What is told before the close."""
        known = self.code in CloseCode.__members__.values()
        return Bye(
            code=int(self.code),
            reason=self.reason,
            reconnect=known and CloseCode(self.code).reconnect,
            retry_after_ms=self.retry_after_ms,
        )


class Line(ABC):
    """A connection on which the gateway speaks.

    Args:
        chance: Returns a number of at least 0 and below 1, evenly spread.
        heartbeat_s: Seconds of silence after which it beats, give or take ``BEAT_JITTER``.
        loop: Where it runs; the running one if it is not said.
    """

    __slots__ = ("_beat_s", "_beats", "_chance", "_expiry", "_loop", "_sent_at_s", "heartbeat_ms")

    def __init__(
        self,
        chance: Callable[[], float],
        heartbeat_s: float,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        jitter = 1 - BEAT_JITTER + 2 * BEAT_JITTER * chance()
        self._chance = chance
        self.heartbeat_ms = int(heartbeat_s * 1000)
        self._loop = loop or asyncio.get_running_loop()
        self._beat_s = heartbeat_s * jitter
        self._beats: asyncio.TimerHandle | None = None
        self._sent_at_s = self._loop.time()
        self._expiry: asyncio.TimerHandle | None = None

    @abstractmethod
    def end(self, ended: Ended) -> None:
        """End this line as soon as it can; the first one to say so decides how."""

    def away_ms(self, spread_ms: int = AWAY_SPREAD_MS) -> int:
        """Return after how long this client should come back, by chance."""
        return AWAY_MIN_MS + int(spread_ms * self._chance())

    def expire_at(self, at_ms: int | None, wall_ms: Callable[[], int]) -> None:
        """End with 4005 at *at_ms* of the clock *wall_ms*; replaces what was said before."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if at_ms is None:
            return
        left_s = (at_ms - wall_ms()) / 1000
        if left_s <= 0:
            self.end(Goodbye(CloseCode.TOKEN_EXPIRED, "token_expired", 0))
        else:
            wait_s = min(left_s, EXPIRY_LOOK_S)
            self._expiry = self._loop.call_later(wait_s, self.expire_at, at_ms, wall_ms)

    def start_beating(self) -> None:
        """Call :meth:`_on_beat` regularly from now on."""
        self._beats = self._loop.call_later(self._beat_s, self._time_to_beat)

    def _time_to_beat(self) -> None:
        silent_s = self._loop.time() - self._spoke_at_s()
        is_due = silent_s >= self._beat_s
        wait_s = self._beat_s - (0 if is_due else silent_s)
        self._beats = self._loop.call_later(wait_s, self._time_to_beat)
        self._on_beat(is_due=is_due)

    def _spoke_at_s(self) -> float:
        """Return when something was said last, by the loop's time."""
        return self._sent_at_s

    @abstractmethod
    def _on_beat(self, *, is_due: bool) -> None:
        """Look whether all is well; say so to the client if nothing else was said of late."""

    def stop_timers(self) -> None:
        """Beat and expire no more."""
        for timer in (self._beats, self._expiry):
            if timer is not None:
                timer.cancel()
        self._beats = self._expiry = None


class TaskLine(Line):
    """A line that lives in a task: what it hears and what it sends may wait."""

    def __init__(self, chance: Callable[[], float], heartbeat_s: float) -> None:
        super().__init__(chance, heartbeat_s)
        self._group: asyncio.TaskGroup | None = None
        self._ended: Ended | None = None

    @abstractmethod
    async def _write(self, data: bytes) -> None:
        """Hand *data* to the server; returns when it may have more.

        Raises:
            Left: The connection is gone.
        """

    @abstractmethod
    async def _listen(self) -> NoReturn:
        """Hear the client until it leaves.

        Raises:
            Ended: It did, or it may not stay.
        """

    async def send(self, data: bytes) -> None:
        """Send *data*.

        Raises:
            Ended: The connection is gone, or the client took nothing for ``SEND_WITHIN_S``.
        """
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                await self._write(data)
        except TimeoutError:
            raise Goodbye(CloseCode.TOO_SLOW, "too_slow", self.away_ms()) from None
        self._sent_at_s = self._loop.time()

    def end(self, ended: Ended) -> None:
        """End this line as soon as it can; the first one to say so decides how."""
        if self._ended is None:
            self._ended = ended
            if self._group is not None:
                self.spawn(_raise(ended))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Do *work* as long as the line lives; nothing new begins on one that is ending."""
        try:
            if self._group is not None:
                return self._group.create_task(work)
        except RuntimeError:  # the group is shutting down
            pass
        work.close()
        return None

    async def run(
        self, heartbeat: Callable[[], bytes], *companions: Coroutine[Any, Any, None]
    ) -> Ended:
        """Live until somebody ends this line; return how.

        Args:
            heartbeat: Asked regularly for what is sent if nothing else was; what it raises ends
                the line.
            companions: Run beside; one that returns is done, one that raises ends the line.
        """
        ended: Ended | None = None
        self._heartbeat = heartbeat
        self.start_beating()
        try:
            async with asyncio.TaskGroup() as self._group:
                for companion in companions:
                    self._group.create_task(companion)
                if self._ended is not None:
                    raise self._ended
                await self._listen()
        except* Ended as group:
            ended = _first(group, Ended)
        except* GatewayError as group:
            refused = Goodbye.by(_first(group, GatewayError), self.away_ms())
            ended = refused if ended is None else ended
        except* Exception:
            log.exception("a line failed")
            ended = Goodbye(CloseCode.SERVER_ERROR, "internal", self.away_ms())
        finally:
            self._group = None
            self.stop_timers()
        if self._ended is not None:
            return self._ended
        return Left("lost") if ended is None else ended

    def _on_beat(self, *, is_due: bool) -> None:
        self.spawn(self._say_heartbeat(is_due=is_due))

    async def _say_heartbeat(self, *, is_due: bool) -> None:
        data = self._heartbeat()
        if is_due:
            await self.send(data)


async def _raise(ended: Ended) -> None:
    raise ended


def _first(group: BaseExceptionGroup[E], kind: type[E]) -> E:
    return next(error for error in group.exceptions if isinstance(error, kind))
