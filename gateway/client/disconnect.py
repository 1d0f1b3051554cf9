"""Disconnects: how a connection ended, whether and when to reconnect, and which error that is.

Pure; randomness is an argument. Clients do not reconnect after the close codes 4500 to 4999, and do
after all others, including those of RFC 6455 and unknown ones of proxies.
"""

from dataclasses import dataclass
from typing import Any, Final

from gateway.core.errors import (
    ERRORS,
    BadRequest,
    CloseCode,
    Draining,
    Forbidden,
    GatewayError,
    LimitExceeded,
    NotConnected,
    RateLimited,
    SessionClosed,
    StoreUnavailable,
    TokenExpired,
    Unauthorized,
    Unavailable,
)

BACKOFF_BASE_S: Final = 0.5  # the longest first wait; it doubles with every failure
BACKOFF_CAP_S: Final = 20.0  # the longest wait of our own choosing
RETRY_AFTER_MAX_S: Final = 300.0  # the longest wait that a gateway may ask for
ABNORMAL: Final = 1006  # RFC 6455 section 7.1.5: no close frame was received
NORMAL: Final = 1000  # RFC 6455 section 7.4.1
PROTOCOL_ERROR: Final = 1002  # RFC 6455 section 7.4.1

_FINAL_CODES: Final = range(4500, 5000)
_DETAIL_MAX: Final = 256  # characters of a reason in an error's text

_MEANING: Final[dict[int, tuple[type[GatewayError], str]]] = {
    CloseCode.DRAINING: (Draining, ""),
    CloseCode.TOO_SLOW: (Unavailable, "This client read too slowly."),
    CloseCode.NO_HEARTBEAT: (Unavailable, "This client did not answer a heartbeat."),
    CloseCode.TOKEN_EXPIRED: (TokenExpired, ""),
    CloseCode.RATE_LIMITED: (RateLimited, ""),
    CloseCode.STORE_UNAVAILABLE: (StoreUnavailable, ""),
    CloseCode.SERVER_ERROR: (Unavailable, "The gateway had an error."),
    CloseCode.SESSION_CLOSED: (SessionClosed, ""),
    CloseCode.KICKED: (NotConnected, "The connection was ended from outside."),
    CloseCode.BAD_TOKEN: (Unauthorized, ""),
    CloseCode.BAD_REQUEST: (BadRequest, ""),
    CloseCode.DISPLACED: (NotConnected, "A newer connection of this session took over."),
    CloseCode.LIMIT: (LimitExceeded, ""),
    CloseCode.FORBIDDEN: (Forbidden, ""),
    CloseCode.GONE: (SessionClosed, ""),
}


def failure(
    kind: type[GatewayError],
    detail: str,
    retry_after_s: int | None = None,
    extra: dict[str, Any] | None = None,
) -> GatewayError:
    """Return an error of *kind* with what the gateway said about it."""
    error = kind(detail)
    if retry_after_s is not None:
        error.retry_after_s = retry_after_s
    error.extra.update(extra or {})
    return error


@dataclass(frozen=True, slots=True)
class Closed:
    """How a connection ended.

    Args:
        code: The WebSocket close code; 1006 if the connection broke or was never open.
        reason: The reason of the close, or the code of an error; empty if neither is known.
        retry_after_ms: How long to wait, in milliseconds, if the gateway said so.
        error_code: The code of the error that refused the connection, if it is known.
        detail: A sentence for people that the gateway said, such as what was wrong in a request.
    """

    code: int
    reason: str = ""
    retry_after_ms: int | None = None
    error_code: str | None = None
    detail: str = ""

    @classmethod
    def from_close(cls, code: int, reason: str) -> "Closed":
        """Return the end that a close frame tells; ``reason`` may hold an error and its detail."""
        name, found, detail = reason.partition(": ")
        known = ERRORS.get(name)
        if found and known is not None and known.close_code == code:
            return cls(code, name, detail=detail)
        return cls(code, reason)

    @property
    def comes_back(self) -> bool:
        """Whether a client should reconnect after this."""
        return self.code not in _FINAL_CODES

    def error(self) -> GatewayError:
        """Return the error for a caller that still needed the connection."""
        retry_after_s = (
            None if self.retry_after_ms is None else -(-max(0, self.retry_after_ms) // 1000)
        )
        kind, detail = _MEANING.get(
            self.code, (Unavailable if self.comes_back else GatewayError, "")
        )
        # A reason is free text; it is an error's code only if that error closes with this code.
        known = ERRORS.get(self.error_code or self.reason)
        if known is not None and (self.error_code or known.close_code == self.code):
            kind, detail = known, ""
        detail = self.detail or detail
        if self.reason != kind.code:
            detail = " ".join(filter(None, (detail, self.reason[:_DETAIL_MAX])))
        return failure(kind, detail, retry_after_s)

    @classmethod
    def from_error(cls, error: GatewayError, retry_after_s: int | None = None) -> "Closed":
        """Return the end of a connection that *error* refused."""
        retry_after_ms = None if retry_after_s is None else retry_after_s * 1000
        return cls(int(error.close_code), error.detail, retry_after_ms, error.code)


def delay_s(closed: Closed, failures: int, *, chance: float) -> float:
    """Return how many seconds to wait before the next attempt.

    The backoff is exponential with full jitter, so that clients do not all reconnect at once. If
    the gateway gave a time it has spread its clients already: the first attempt is at that time,
    and later ones are at least as far apart.

    Args:
        closed: How the last attempt ended.
        failures: How many ended in a row, the last one included.
        chance: At least 0 and below 1, evenly spread.
    """
    ceiling_s = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(max(0, failures - 1), 16))
    if closed.retry_after_ms is None:
        return chance * ceiling_s
    told_s = min(RETRY_AFTER_MAX_S, max(0, closed.retry_after_ms) / 1000)
    return told_s if failures <= 1 else max(told_s, chance * ceiling_s)
