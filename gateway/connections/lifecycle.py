"""Life of a long-lived connection: heartbeat, token expiry, deadlines of writes, and its end.

A :class:`LiveConnection` sends with a deadline, beats when it was silent, ends when its token
expires, and can be ended from outside. How it ends is one of two exceptions, :class:`ClientClosed`
and :class:`ServerClose`; they are raised anywhere and caught in one place, so that every end goes
the same way.

Not here: all of them together (``connections.registry``), what is said (``api``, ``dialects``).
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVar

from gateway.core.errors import ERRORS, CloseCode, GatewayError
from gateway.core.model import Cause
from gateway.core.protocol import Bye

SEND_WITHIN_S: Final = 10.0  # a client that took nothing for so long is too slow (4002)
CLOSE_WITHIN_S: Final = 1.0  # for the last message and the close frame to leave
HEARTBEAT_JITTER: Final = 0.1  # of the interval, so that heartbeats do not coincide
EXPIRY_CHECK_S: Final = 3600.0  # the wall clock may step, so check at least so often
RECONNECT_MIN_MS: Final = 250  # a client that is sent away comes back after this at the earliest
RECONNECT_SPREAD_MS: Final = 2_000  # and so much later at the latest

SERVICE_RESTART: Final = 1012  # what the transport says when this process stops
NO_STATUS: Final = 1005  # RFC 6455 section 7.4.1: a close frame without a code

_CLEAN: Final = (1000, 1001)  # RFC 6455 section 7.4.1: done; going away, as a page reload does
_FROM_HERE: Final = (CloseCode.TOO_SLOW, SERVICE_RESTART)  # our doing, not the client's
_SERVER_CAUSED: Final = frozenset(
    {CloseCode.DRAINING, CloseCode.TOO_SLOW, CloseCode.STORE_UNAVAILABLE, CloseCode.SERVER_ERROR}
)

_DETAILS: Final[dict[str, str]] = {code: kind.title for code, kind in ERRORS.items()} | {
    "cut_off": "Another node ended this connection, by mistake or not; come back.",
    "displaced": "A newer connection of this session took over.",
    "kicked": "The connection was ended from outside.",
    "no_heartbeat": "Nothing was heard of the client for too long.",
    "too_slow": "The client took too little of what it was sent.",
}
"""What people are told of an end of which nothing more is known, by its reason."""

E = TypeVar("E", bound=Exception)

log = logging.getLogger(__name__)


class ConnectionEnded(Exception):
    """A connection has ended; ``cause`` goes into the record."""

    cause: Cause = "lost"


class ClientClosed(ConnectionEnded):
    """The client ended the connection."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause = cause


class ServerClose(ConnectionEnded):
    """The gateway ends the connection.

    Args:
        code: The close code.
        reason: For programs: an error's code, or the reason of a close.
        retry_after_ms: When the client should come back, if it should.
        detail: For people: what REST says of the same error.
    """

    def __init__(
        self, code: int, reason: str, retry_after_ms: int | None = None, *, detail: str = ""
    ) -> None:
        super().__init__(code, reason, detail)
        self.code = code
        self.reason = reason
        self.retry_after_ms = retry_after_ms
        is_free_text = code == CloseCode.SESSION_CLOSED  # a reason that somebody else chose
        self.detail = detail or ("" if is_free_text else _DETAILS.get(reason, ""))
        self.cause = "server" if code in _SERVER_CAUSED else "lost"

    @classmethod
    def from_error(cls, error: GatewayError, reconnect_after_ms: int) -> "ServerClose":
        """Return the close for *error*; *reconnect_after_ms* spreads returning clients."""
        comes_back = error.close_code.reconnect
        retry_after_ms = (
            (error.retry_after_s or 0) * 1000 + reconnect_after_ms if comes_back else None
        )
        return cls(error.close_code, error.code, retry_after_ms, detail=error.detail)

    @property
    def message(self) -> Bye:
        """The ``bye`` message before the close."""
        known = self.code in CloseCode.__members__.values()
        return Bye(
            code=int(self.code),
            reason=self.reason,
            reconnect=known and CloseCode(self.code).reconnect,
            retry_after_ms=self.retry_after_ms,
            detail=self.detail or None,
        )

    @property
    def close_reason(self) -> str:
        """What stands in the close frame: ``reason``, and why."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def close_cause(code: int, reason: str | None) -> Cause:
    """Return what the record shall say of an end that the client or the network brought about.

    Args:
        code: Of the close frame, or what happened; see ``core.frames.Listener``.
        reason: Of the close frame; ``None`` if there was none.
    """
    if code in _FROM_HERE and reason is None:
        return "server"
    return "clean" if code in _CLEAN or (code == NO_STATUS and reason is not None) else "lost"


class LiveConnection(ABC):
    """A long-lived connection to a client.

    Args:
        chance: Returns a number of at least 0 and below 1, evenly spread.
        heartbeat_s: Seconds of silence before a heartbeat, give or take ``HEARTBEAT_JITTER``.
        loop: The event loop; by default the running one.
    """

    __slots__ = (
        "_chance",
        "_expiry_timer",
        "_heartbeat_s",
        "_heartbeat_timer",
        "_loop",
        "_sent_at_s",
        "heartbeat_ms",
    )

    def __init__(
        self,
        chance: Callable[[], float],
        heartbeat_s: float,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        jitter = 1 - HEARTBEAT_JITTER + 2 * HEARTBEAT_JITTER * chance()
        self._chance = chance
        self.heartbeat_ms = int(heartbeat_s * 1000)
        self._loop = loop or asyncio.get_running_loop()
        self._heartbeat_s = heartbeat_s * jitter
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._sent_at_s = self._loop.time()
        self._expiry_timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def end(self, ended: ConnectionEnded) -> None:
        """End this connection as soon as it can; the first one to say so decides how."""

    def reconnect_after_ms(self, spread_ms: int = RECONNECT_SPREAD_MS) -> int:
        """Return a random delay after which this client should reconnect."""
        return RECONNECT_MIN_MS + int(spread_ms * self._chance())

    def expire_at(self, at_ms: int | None, wall_ms: Callable[[], int]) -> None:
        """End with 4005 at *at_ms* of the clock *wall_ms*; this replaces an earlier expiry."""
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        if at_ms is None:
            return
        left_s = (at_ms - wall_ms()) / 1000
        if left_s <= 0:
            self.end(ServerClose(CloseCode.TOKEN_EXPIRED, "token_expired", 0))
        else:
            wait_s = min(left_s, EXPIRY_CHECK_S)
            self._expiry_timer = self._loop.call_later(wait_s, self.expire_at, at_ms, wall_ms)

    def start_heartbeat(self) -> None:
        """Call :meth:`_on_heartbeat` regularly from now on."""
        self._heartbeat_timer = self._loop.call_later(self._heartbeat_s, self._heartbeat_tick)

    def _heartbeat_tick(self) -> None:
        silent_s = self._loop.time() - self._last_sent_at_s()
        is_due = silent_s >= self._heartbeat_s
        wait_s = self._heartbeat_s - (0 if is_due else silent_s)
        self._heartbeat_timer = self._loop.call_later(wait_s, self._heartbeat_tick)
        self._on_heartbeat(is_due=is_due)

    def _last_sent_at_s(self) -> float:
        """Return when a message was last sent, in loop time."""
        return self._sent_at_s

    @abstractmethod
    def _on_heartbeat(self, *, is_due: bool) -> None:
        """Check the connection, and send a heartbeat if it *is_due*."""

    def stop_timers(self) -> None:
        """Stop the heartbeat and the expiry."""
        for timer in (self._heartbeat_timer, self._expiry_timer):
            if timer is not None:
                timer.cancel()
        self._heartbeat_timer = self._expiry_timer = None


class TaskConnection(LiveConnection):
    """A connection that is served by a task, so that reads and writes may wait."""

    def __init__(self, chance: Callable[[], float], heartbeat_s: float) -> None:
        super().__init__(chance, heartbeat_s)
        self._group: asyncio.TaskGroup | None = None
        self._ended: ConnectionEnded | None = None

    @abstractmethod
    async def _write(self, data: bytes) -> None:
        """Hand *data* to the server; returns when it may have more.

        Raises:
            ClientClosed: The connection is gone.
        """

    @abstractmethod
    async def _listen(self) -> NoReturn:
        """Read from the client until the connection ends.

        Raises:
            ConnectionEnded: The client left, or may not stay.
        """

    async def send(self, data: bytes) -> None:
        """Send *data*.

        Raises:
            ConnectionEnded: The connection is gone, or the client took nothing for
            ``SEND_WITHIN_S``.
        """
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                await self._write(data)
        except TimeoutError:
            raise ServerClose(CloseCode.TOO_SLOW, "too_slow", self.reconnect_after_ms()) from None
        self._sent_at_s = self._loop.time()

    def end(self, ended: ConnectionEnded) -> None:
        """End this connection as soon as it can; the first one to say so decides how."""
        if self._ended is None:
            self._ended = ended
            if self._group is not None:
                self.spawn(_raise(ended))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run *work* as long as the connection lives; one that is ending starts nothing new."""
        try:
            if self._group is not None:
                return self._group.create_task(work)
        except RuntimeError:  # the group is shutting down
            pass
        work.close()
        return None

    async def run(
        self, heartbeat: Callable[[], bytes], *companions: Coroutine[Any, Any, None]
    ) -> ConnectionEnded:
        """Serve the connection until it ends; return how it ended.

        Args:
            heartbeat: Asked regularly for what is sent if nothing else was; what it raises ends
                the connection.
            companions: Run beside; one that returns is done, one that raises ends the connection.
        """
        ended: ConnectionEnded | None = None
        self._heartbeat = heartbeat
        self.start_heartbeat()
        try:
            async with asyncio.TaskGroup() as self._group:
                for companion in companions:
                    self._group.create_task(companion)
                if self._ended is not None:
                    raise self._ended
                await self._listen()
        except* ConnectionEnded as group:
            ended = _first(group, ConnectionEnded)
        except* GatewayError as group:
            refused = ServerClose.from_error(_first(group, GatewayError), self.reconnect_after_ms())
            ended = refused if ended is None else ended
        except* Exception:
            log.exception("a connection failed")
            ended = ServerClose(CloseCode.SERVER_ERROR, "internal", self.reconnect_after_ms())
        finally:
            self._group = None
            self.stop_timers()
        if self._ended is not None:
            return self._ended
        return ClientClosed("lost") if ended is None else ended

    def _on_heartbeat(self, *, is_due: bool) -> None:
        self.spawn(self._send_heartbeat(is_due=is_due))

    async def _send_heartbeat(self, *, is_due: bool) -> None:
        data = self._heartbeat()
        if is_due:
            await self.send(data)


async def _raise(ended: ConnectionEnded) -> None:
    raise ended


def _first(group: BaseExceptionGroup[E], kind: type[E]) -> E:
    return next(error for error in group.exceptions if isinstance(error, kind))
