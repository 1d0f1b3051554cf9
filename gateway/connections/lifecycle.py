"""Life of a long-lived connection: heartbeat, token expiry, deadlines of writes, and its end.

A :class:`LiveConnection` sends with a deadline, sends heartbeats after silence, ends when its token
expires, and can be ended from outside. An end is one of two exceptions, :class:`ClientClosed` and
:class:`ServerClose`; they are raised anywhere and caught in one place, so that every end takes the
same path.

Not here: the registry of all (``connections.registry``), messages (``api``, ``dialects``).
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, TypeVar

from gateway.core.errors import ERRORS, CloseCode, GatewayError
from gateway.core.model import Cause
from gateway.core.protocol import Bye

SEND_WITHIN_S: Final = 10.0  # a client that took nothing for so long is too slow (4002)
CLOSE_WITHIN_S: Final = 1.0  # for the last message and the close frame to leave
HEARTBEAT_JITTER: Final = 0.1  # of the interval, so that heartbeats do not coincide
EXPIRY_CHECK_S: Final = 3600.0  # the wall clock may step, so check at least so often
RECONNECT_MIN_MS: Final = 250  # a client that should reconnect waits at least so long
RECONNECT_SPREAD_MS: Final = 2_000  # and so much later at the latest

SERVICE_RESTART: Final = 1012  # the transport's code when this process stops
NO_STATUS: Final = 1005  # RFC 6455 section 7.4.1: a close frame without a code

_CLEAN: Final = (1000, 1001)  # RFC 6455 section 7.4.1: done; going away, as a page reload does
_FROM_HERE: Final = (CloseCode.TOO_SLOW, SERVICE_RESTART)  # the gateway's doing, not the client's
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
"""The text for people of an end without a detail, by its reason."""

E = TypeVar("E", bound=Exception)

log = logging.getLogger(__name__)


class ConnectionEnded(Exception):
    """A connection has ended; ``cause`` goes into the record."""

    cause: Cause = "lost"


class ClientClosed(ConnectionEnded):
    """The client ended the connection, with this close code if it is known."""

    def __init__(self, cause: Cause, code: int | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.code = code


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
        is_free_text = code == CloseCode.SESSION_CLOSED  # a reason that a caller chose
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
        """The reason of the close frame: ``reason`` and the detail."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def close_cause(code: int, reason: str | None) -> Cause:
    """Return the cause, for the record, of an end by the client or the network.

    Args:
        code: The code of the close frame, or of what happened; see ``core.frames.Listener``.
        reason: The reason of the close frame; ``None`` if there was none.
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
        """End this connection as soon as possible; the first call decides how."""

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

    def closing_of(self, error: Exception) -> ConnectionEnded:
        """Return the end for *error*; an unexpected error is logged."""
        if isinstance(error, ConnectionEnded):
            return error
        if isinstance(error, GatewayError):
            return ServerClose.from_error(error, self.reconnect_after_ms())
        log.error("a socket failed", exc_info=error, extra=self._request_facts())
        return ServerClose(CloseCode.SERVER_ERROR, "internal", self.reconnect_after_ms())

    def _request_facts(self) -> dict[str, str | None]:
        """Return the names of its request for the log, if the current request is another one."""
        return {}

    def too_slow(self) -> ServerClose:
        """Return the end of a connection whose client is too slow."""
        return ServerClose(CloseCode.TOO_SLOW, "too_slow", self.reconnect_after_ms())
