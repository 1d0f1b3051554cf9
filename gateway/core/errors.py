"""Every error of the gateway: raised anywhere, translated at the doors.

An error class holds what each door needs: ``code`` (stable text for programs), ``status`` (HTTP,
RFC 9110), ``close_code`` (WebSocket, RFC 6455 section 7.4.2: 4000-4499 come back, 4500-4999 do not)
and ``retry`` (the same request may succeed later). The message is for people and may change.

GatewayError
 ├── BadRequest ─ BadPosition            the request itself is malformed
 ├── Invalid ─ IdempotencyMismatch       well-formed, but its content is not acceptable
 ├── Unauthorized ─ TokenExpired         who are you
 ├── Forbidden                           you may not
 ├── NotFound ─ UnknownStream, UnknownMember
 ├── MethodNotAllowed, NotAcceptable, PayloadTooLarge, UriTooLong, UnsupportedMediaType,
 │   UpgradeRequired
 ├── Conflict ─ IdUnavailable, SessionClosing, AlreadyConnected, NotConnected, NotClosing,
 │              NotWatching, ExtensionRefused, LimitExceeded
 ├── SessionClosed                       gone for good
 ├── RevisionMismatch                    If-Match did not match
 ├── RateLimited
 └── Unavailable ─ StoreUnavailable, OutcomeUnknown, StoreFull, Repairing, Draining,
                   PositionAhead, Overloaded
"""

from enum import IntEnum
from typing import Any, ClassVar, Final

FINAL_FROM: Final = 4500  # close codes from here on tell a client not to come back

EXCERPT_MAX: Final = 120  # characters of a parser's message that are repeated to the client


class CloseCode(IntEnum):
    """WebSocket close codes of this gateway; below 4500 a client should come back."""

    DRAINING = 4001
    TOO_SLOW = 4002
    NO_HEARTBEAT = 4003
    TOKEN_EXPIRED = 4005
    RATE_LIMITED = 4006
    STORE_UNAVAILABLE = 4008
    SERVER_ERROR = 4009
    SESSION_CLOSED = 4500
    KICKED = 4501
    BAD_TOKEN = 4502
    BAD_REQUEST = 4503
    DISPLACED = 4505
    LIMIT = 4506
    FORBIDDEN = 4507
    GONE = 4511

    @property
    def reconnect(self) -> bool:
        """Whether a client that gets this code should come back."""
        return self < FINAL_FROM


class GatewayError(Exception):
    """Base of all errors that a client may see.

    Args:
        detail: One sentence for people; never holds a secret or more than 64 characters of input.
        retry_after_s: Seconds after which a repeat makes sense; sent as ``Retry-After``.
        extra: Members added to the problem document (RFC 9457 section 3.2).
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    close_code: ClassVar[CloseCode] = CloseCode.SERVER_ERROR
    retry: ClassVar[bool] = False
    title: ClassVar[str] = "The gateway failed to handle this request."

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after_s: int | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after_s = (
            retry_after_s if retry_after_s is not None else (1 if self.retry else None)
        )
        self.extra: dict[str, Any] = extra or {}


class BadRequest(GatewayError):
    """The request, its query or its frame cannot be read."""

    code, status, close_code = "bad_request", 400, CloseCode.BAD_REQUEST
    title = "The request is malformed."


class BadPosition(BadRequest):
    """The text given as a position or cursor was not issued by this gateway."""

    code = "bad_position"
    title = "This position or cursor cannot be read."


class Invalid(GatewayError):
    """The request can be read, but a value in it is not acceptable."""

    code, status, close_code = "invalid", 422, CloseCode.BAD_REQUEST
    title = "A value in the request is not acceptable."


class IdempotencyMismatch(Invalid):
    """The Idempotency-Key was used before with another request."""

    code = "idempotency_mismatch"
    title = "This Idempotency-Key was used with another request."


class Unauthorized(GatewayError):
    """No credential, or one that is not valid; unknown and wrong ones are answered alike."""

    code, status, close_code = "unauthorized", 401, CloseCode.BAD_TOKEN
    title = "A valid token is required."


class TokenExpired(Unauthorized):
    """The token was valid once; refresh it and come back."""

    code, close_code = "token_expired", CloseCode.TOKEN_EXPIRED
    title = "The token has expired."


class Forbidden(GatewayError):
    """The principal is known and lacks the scope or the right."""

    code, status, close_code = "forbidden", 403, CloseCode.FORBIDDEN
    title = "This token may not do that."


class NotFound(GatewayError):
    """Nothing of this name is visible to the principal."""

    code, status, close_code = "not_found", 404, CloseCode.GONE
    title = "There is nothing here."


class UnknownStream(NotFound):
    """The session has no stream of this key."""

    code, close_code = "unknown_stream", CloseCode.BAD_REQUEST
    title = "The session has no such stream."


class UnknownMember(NotFound):
    """The session has no member of this name."""

    code, close_code = "unknown_member", CloseCode.BAD_REQUEST
    title = "The session has no such member."


class MethodNotAllowed(GatewayError):
    """The path exists, the method does not; ``Allow`` lists those that do."""

    code, status, close_code = "method_not_allowed", 405, CloseCode.BAD_REQUEST
    title = "This path does not take this method."


class NotAcceptable(GatewayError):
    """None of the media types in ``Accept`` can be produced."""

    code, status, close_code = "not_acceptable", 406, CloseCode.BAD_REQUEST
    title = "None of the accepted media types can be produced."


class PayloadTooLarge(GatewayError):
    """The body or message is over the limit."""

    code, status, close_code = "payload_too_large", 413, CloseCode.BAD_REQUEST
    title = "The body is too large."


class UriTooLong(GatewayError):
    """The request target is over 8 KiB."""

    code, status, close_code = "uri_too_long", 414, CloseCode.BAD_REQUEST
    title = "The address is too long."


class UnsupportedMediaType(GatewayError):
    """The body is not in a media type this path reads."""

    code, status, close_code = "unsupported_media_type", 415, CloseCode.BAD_REQUEST
    title = "The body must be JSON."


class UpgradeRequired(GatewayError):
    """A WebSocket address was asked by plain HTTP."""

    code, status, close_code = "upgrade_required", 426, CloseCode.BAD_REQUEST
    title = "This address speaks WebSocket."


class Conflict(GatewayError):
    """Others changed the session faster than this command could be decided; try again."""

    code, status, close_code, retry = "conflict", 409, CloseCode.SERVER_ERROR, True
    title = "The session changed meanwhile."


class IdUnavailable(Conflict):
    """The id is taken, was used before, or belongs to somebody else."""

    code, close_code, retry = "id_unavailable", CloseCode.FORBIDDEN, False
    title = "This session id cannot be used."


class SessionClosing(Conflict):
    """A delayed close is pending and new connections are refused."""

    code, close_code, retry = "session_closing", CloseCode.GONE, False
    title = "This session is closing."


class AlreadyConnected(Conflict):
    """The session has a live connection and the door does not displace it."""

    code, close_code, retry = "already_connected", CloseCode.LIMIT, False
    title = "This session is connected already."


class NotConnected(Conflict):
    """There is no live connection to act on."""

    code, close_code, retry = "not_connected", CloseCode.BAD_REQUEST, False
    title = "This session has no live connection."


class NotClosing(Conflict):
    """There is no pending close to cancel, extend or answer."""

    code, close_code, retry = "not_closing", CloseCode.BAD_REQUEST, False
    title = "No close is pending."


class NotWatching(Conflict):
    """Progress was reported while nothing is watched."""

    code, close_code, retry = "not_watching", CloseCode.BAD_REQUEST, False
    title = "This session watches nothing."


class ExtensionRefused(Conflict):
    """The pending close may not be extended further."""

    code, close_code, retry = "extension_refused", CloseCode.BAD_REQUEST, False
    title = "The close cannot be extended further."


class LimitExceeded(Conflict):
    """A bound of the record would be passed: streams, members, labels or its size."""

    code, close_code, retry = "limit_exceeded", CloseCode.LIMIT, False
    title = "A limit would be exceeded."


class TooManySessions(LimitExceeded):
    """There are as many open sessions as the settings allow."""

    title = "There are too many sessions."


class SessionClosed(GatewayError):
    """The session is closed for good.

    Args:
        record: The final ``Session``, for a door to show as far as the principal may see it.
    """

    code, status, close_code = "session_closed", 410, CloseCode.GONE
    title = "This session is closed."

    def __init__(self, detail: str = "", *, record: object = None) -> None:
        super().__init__(detail)
        self.record = record


class RevisionMismatch(GatewayError):
    """``If-Match`` names another revision than the session has."""

    code, status, close_code = "revision_mismatch", 412, CloseCode.BAD_REQUEST
    title = "The session has another revision."


class RateLimited(GatewayError):
    """Too many requests or messages."""

    code, status, close_code, retry = "rate_limited", 429, CloseCode.RATE_LIMITED, True
    title = "Too many requests."


class Unavailable(GatewayError):
    """The gateway cannot do this right now; base of the temporary failures."""

    code, status, close_code, retry = "unavailable", 503, CloseCode.STORE_UNAVAILABLE, True
    title = "Not available right now."


class StoreUnavailable(Unavailable):
    """Redis did not answer; nothing was changed."""

    code = "store_unavailable"
    title = "The store does not answer."


class OutcomeUnknown(Unavailable):
    """Redis stopped answering after the write was sent; repeat with the same Idempotency-Key."""

    code = "outcome_unknown"
    title = "It is not known whether this was done; repeat it with the same Idempotency-Key."


class StoreFull(Unavailable):
    """Redis is above 90 % of its memory: opens are refused, closes still work."""

    code = "store_full"
    title = "The store is full."


class Repairing(Unavailable):
    """The gateway is restoring what Redis lost."""

    code = "repairing"
    title = "The gateway is restoring its sessions."


class Draining(Unavailable):
    """This node is shutting down; another one will serve."""

    code, close_code = "draining", CloseCode.DRAINING
    title = "This node is shutting down."


class PositionAhead(Unavailable):
    """This node has not reached the asked position in time."""

    code = "position_ahead"
    title = "This node has not seen that position yet."


class Overloaded(Unavailable):
    """A bounded queue of the gateway is full."""

    code, close_code = "overloaded", CloseCode.RATE_LIMITED
    title = "The gateway is overloaded."


def excerpt(text: str) -> str:
    """Return *text* with its middle cut out, because it may quote the client's input."""
    return text if len(text) <= EXCERPT_MAX else f"{text[:60]}…{text[-30:]}"


def _tree(base: type[GatewayError]) -> list[type[GatewayError]]:
    found = [base]
    for child in base.__subclasses__():
        found.extend(_tree(child))
    return found


ERRORS: Final[dict[str, type[GatewayError]]] = {
    error.code: error for error in _tree(GatewayError) if "code" in vars(error)
}
"""Every error by its ``code``; documents and tests are made from it."""
