"""The wire protocol of the client: addresses, queries, messages and errors.

Messages of the gateway are decoded to Structs here; sessions and events in them stay JSON objects,
so that a client passes on fields that are newer than itself.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args
from urllib.parse import quote, urlencode, urlsplit

from msgspec import DecodeError, Struct, ValidationError, to_builtins
from msgspec.json import Decoder, encode

from gateway.client.disconnect import failure
from gateway.core import protocol
from gateway.core.errors import (
    ERRORS,
    BadRequest,
    Forbidden,
    GatewayError,
    Invalid,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    SessionClosed,
    Unauthorized,
    Unavailable,
)
from gateway.core.query import Filter

Object = dict[str, Any]
Query = list[tuple[str, str]]

_PLAIN: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_SOCKET: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_SERVER_ERROR: Final = 500  # RFC 9110 section 15.6: from here on the server is at fault


class HelloFrame(Struct, tag_field="type", tag="hello", frozen=True):
    """First of a connection: ``session`` on a session's socket, ``mode`` on an observer's."""

    position: str
    heartbeat_ms: int
    session: Object | None = None
    session_token: str | None = None
    mode: Literal["snapshot", "resume"] | None = None
    reason: str | None = None
    node: str | None = None


class SnapshotFrame(Struct, tag_field="type", tag="snapshot", frozen=True):
    """A page of all sessions in view."""

    sessions: list[Object]
    position: str
    more: bool = False


class EventsFrame(Struct, tag_field="type", tag="events", frozen=True):
    """What happened, in order."""

    position: str
    events: list[Object]


Notice = (
    protocol.ClosingNotice | protocol.CloseExtendedNotice | protocol.CloseCancelledNotice |
    protocol.StopStream | protocol.MessageNotice
)  # fmt: skip
GatewayMessage = (
    HelloFrame | SnapshotFrame | EventsFrame | protocol.ResyncMessage | protocol.ServerHeartbeat |
    protocol.Bye | protocol.Ack | protocol.Error | Notice
)  # fmt: skip


class _Head(Struct):
    type: str


_head: Final = Decoder(_Head)
_message: Final[Decoder[GatewayMessage]] = Decoder(GatewayMessage)
_problem: Final = Decoder(Object)
_KNOWN: Final = frozenset(
    kind.__struct_config__.tag for kind in get_args(GatewayMessage) if issubclass(kind, Struct)
)


def parse(text: bytes) -> GatewayMessage | None:
    """Decode a message of the gateway; return ``None`` if its type is unknown.

    Raises:
        BadRequest: This is no message of a gateway.
    """
    try:
        return _message.decode(text)
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        try:
            unknown = _head.decode(text).type not in _KNOWN
        except (DecodeError, RecursionError, UnicodeDecodeError):
            unknown = False
        if unknown and isinstance(error, ValidationError):
            return None
        raise BadRequest(f"This is no message of a gateway: {str(error)[:200]}") from error


def render(message: protocol.FromClient) -> bytes:
    """Encode a message of the client, without its unset fields.

    Raises:
        PayloadTooLarge: It is longer than a gateway takes.
    """
    said = {name: value for name, value in to_builtins(message).items() if value is not None}
    text = encode(said)
    if len(text) > protocol.MESSAGE_MAX_BYTES:
        raise PayloadTooLarge(f"A message has at most {protocol.MESSAGE_MAX_BYTES} bytes.")
    return text


def address(url: str, path: str, *, socket: bool) -> str:
    """Return the address of *path* on the gateway at *url*.

    Args:
        url: Where the gateway is: ``http``, ``https``, ``ws`` or ``wss``, a host, and a prefix if
            it is behind one.
        path: From the gateway's root, such as ``/v1/events``.
        socket: Whether this becomes a WebSocket.

    Raises:
        Invalid: *url* is no such address.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _SOCKET and parts.hostname and parts.port != 0
    except ValueError as error:
        raise Invalid(f"The gateway's address cannot be read: {error}") from error
    if not usable:
        raise Invalid("The gateway's address is http(s)://host:port or ws(s)://host:port.")
    if parts.query or parts.fragment or parts.username is not None:
        raise Invalid("The gateway's address holds no user, query or fragment; pass the token.")
    scheme = (_SOCKET if socket else _PLAIN)[parts.scheme]
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{path}"


def with_query(target: str, query: Query) -> str:
    """Return *target* with *query* appended."""
    return f"{target}?{urlencode(query, quote_via=quote)}" if query else target


def labels_query(labels: Mapping[str, str]) -> Query:
    """Return *labels* as query parameters."""
    return [(f"label.{name}", value) for name, value in labels.items()]


def filter_query(wanted: Filter) -> Query:
    """Return a filter as query parameters."""
    query: Query = []
    for name, value in to_builtins(wanted).items():
        if name == "labels":
            query += labels_query(value)
        else:
            query.append((name, str(value).lower() if isinstance(value, bool) else value))
    return query


def given(**parameters: str | float | bool | None) -> Query:
    """Return the parameters that are set, as a query."""
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in parameters.items()
        if value is not None
    ]


_BY_STATUS: Final[dict[int, type[GatewayError]]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    410: SessionClosed,
    413: PayloadTooLarge,
    422: Invalid,
    429: RateLimited,
}


def error_of(code: str, message: str = "") -> GatewayError:
    """Return the error with this *code*; one that this client does not know is a GatewayError."""
    return ERRORS.get(code, GatewayError)(message)


def retry_after_s(headers: Mapping[str, str]) -> int | None:
    """Return the seconds of a ``Retry-After``; its other form, a date, is not used by gateways."""
    told = headers.get("Retry-After", "")
    return int(told) if told.isdecimal() and len(told) < 10 else None  # noqa: PLR2004 - a bound


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """Return the error for an HTTP reply: a problem (RFC 9457), or the status of a proxy.

    Args:
        status: 300 or more.
        headers: Its headers; names are case-insensitive.
        body: As far as it is known.
    """
    problem: Object = {}
    if "json" in headers.get("Content-Type", ""):
        try:
            problem = _problem.decode(body)
        except (DecodeError, RecursionError, UnicodeDecodeError):
            problem = {}
    fallback = Unavailable if status >= _SERVER_ERROR else GatewayError
    kind = ERRORS.get(str(problem.get("code"))) or _BY_STATUS.get(status, fallback)
    detail = str(problem.get("detail") or f"The answer was HTTP {status}.")
    extra = {
        name: value
        for name, value in problem.items()
        if name not in ("type", "title", "status", "detail", "code", "instance")
    }
    return failure(kind, detail, retry_after_s(headers), extra)
