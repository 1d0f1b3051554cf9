"""The WebSocket messages of both directions, as types, without any I/O.

Every message is one JSON object with a ``type``. Both sides ignore types and fields they do not
know, so that either may be newer than the other. A client may set ``ref`` on a message; the ``ack``
or ``error`` that answers it repeats it.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, DecodeError, Meta, Raw, Struct, UnsetType, ValidationError
from msgspec.json import Decoder, encode

from gateway.core.errors import BadRequest, Invalid, excerpt
from gateway.core.model import AmountMs, Key, LabelName, LabelValue, Name, Object, Text
from gateway.core.public import PublicEvent, PublicSession, Time
from gateway.core.query import Filter

MESSAGE_MAX_BYTES: Final = 64 * 1024  # of a client's message; a longer one closes with 1009
NEED_MORE_MAX_MS: Final = 86_400_000  # a client may ask for at most a day

REF_MAX: Final = 64  # characters of a ref

Ref = Annotated[str, Meta(max_length=REF_MAX)]


class FromClient(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of the messages of a client."""

    ref: Ref | None = None


class WatchMessage(FromClient, tag="watch", frozen=True):
    """The client watches this now."""

    key: Key
    title: Text | None = None
    kind: Key | None = None
    state: Key | None = None
    position_ms: AmountMs | None = None
    duration_ms: AmountMs | None = None
    bandwidth: AmountMs | None = None
    item: Object | None = None


class ProgressMessage(FromClient, tag="progress", frozen=True):
    """The position of the current watch; after the ``ack`` it is written within 5 s."""

    position_ms: AmountMs | None = None
    state: Key | None = None
    bandwidth: AmountMs | None = None


class UnwatchMessage(FromClient, tag="unwatch", frozen=True):
    """The client stops watching."""


class ClientChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A merge patch of the description of the client's program; null removes."""

    key: Text | UnsetType | None = UNSET
    product: Text | UnsetType | None = UNSET
    version: Text | UnsetType | None = UNSET
    platform: Text | UnsetType | None = UNSET
    device: Text | UnsetType | None = UNSET
    model: Text | UnsetType | None = UNSET


class UpdateChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A merge patch of the fields that a client may change; null removes."""

    name: Name | UnsetType | None = UNSET
    labels: dict[LabelName, LabelValue | None] | UnsetType | None = UNSET
    attributes: Object | UnsetType | None = UNSET
    client: ClientChanges | UnsetType | None = UNSET


class UpdateMessage(FromClient, tag="update", frozen=True):
    """The client changes its own fields."""

    changes: UpdateChanges


class StreamMessage(FromClient, tag="stream", frozen=True):
    """A stream of the client was started or changed, or, with state ``stopped``, ended."""

    key: Key
    kind: Key
    state: Key | None = None
    data: Object = {}


class SavingMessage(FromClient, tag="saving", frozen=True):
    """The client got the warning and is saving."""


class SavedMessage(FromClient, tag="saved", frozen=True):
    """The client has saved; the session closes now."""


class NeedMoreMessage(FromClient, tag="need_more", frozen=True):
    """The client needs this long from now; it is granted within the budget of the close."""

    ms: Annotated[int, Meta(ge=0, le=NEED_MORE_MAX_MS, description="Milliseconds.")]


class LeaveMessage(FromClient, tag="leave", frozen=True):
    """The client is done; the session closes."""


class HeartbeatMessage(FromClient, tag="heartbeat", frozen=True):
    """A sign of life."""


class TokenMessage(FromClient, tag="token", frozen=True):
    """A new token in place of one that expires, of the same account, workspace and scopes."""

    token: str


class SubscribeMessage(FromClient, tag="subscribe", frozen=True):
    """Subscribe to events on this socket; this replaces an earlier subscription."""

    filter: Filter = Filter()
    since: str | None = None


class UnsubscribeMessage(FromClient, tag="unsubscribe", frozen=True):
    """End the subscription."""


ClientMessage = (
    WatchMessage | ProgressMessage | UnwatchMessage | UpdateMessage | StreamMessage | SavingMessage
    | SavedMessage | NeedMoreMessage | LeaveMessage | HeartbeatMessage | TokenMessage |
    SubscribeMessage | UnsubscribeMessage
)  # fmt: skip


class FromServer(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base of the messages of the gateway."""


class Hello(FromServer, tag="hello", frozen=True):
    """The first message of a session socket; its token lets the client come back."""

    session: PublicSession
    position: str
    heartbeat_ms: int
    session_token: str | None = None


class ObserverHello(FromServer, tag="hello", frozen=True):
    """The first message of a subscription: whether a snapshot or only missed events follow.

    Before a snapshot ``position`` is only for ``at``: with it as ``since`` a snapshot comes again.
    """

    position: str
    mode: Literal["snapshot", "resume"]
    heartbeat_ms: int
    node: str
    reason: str | None = None


class SnapshotMessage(FromServer, tag="snapshot", frozen=True):
    """A page of all sessions in view; ``more`` says that another one follows.

    The last page's ``position`` is the first to go on from: as ``since``, that of an earlier page
    leads to a snapshot again.
    """

    sessions: list[PublicSession | Raw]
    position: str
    more: bool


class Events(FromServer, tag="events", frozen=True):
    """Events in order; ``position`` is after the last of them."""

    position: str
    events: list[PublicEvent | Raw]


class ResyncMessage(FromServer, tag="resync", frozen=True):
    """The feed starts over: a snapshot follows and replaces all earlier sessions."""

    reason: str


class ServerHeartbeat(FromServer, tag="heartbeat", frozen=True):
    """Nothing happened since the last message.

    While a snapshot is still coming, ``position`` is like that of its pages before the last.
    """

    position: str
    at: Time


class Bye(FromServer, tag="bye", frozen=True):
    """The last message before the gateway closes the socket; ``reason`` is for programs.

    ``detail`` is a sentence for people, the one that REST gives for the same error.
    """

    code: int
    reason: str
    reconnect: bool
    retry_after_ms: int | None = None
    detail: str | None = None


class Ack(FromServer, tag="ack", frozen=True):
    """The gateway has done what the message asked."""

    ref: str | None = None
    revision: int | None = None


class Error(FromServer, tag="error", frozen=True):
    """The gateway refused a message; nothing was changed and the socket stays open."""

    code: str
    message: str
    ref: str | None = None


class ClosingNotice(FromServer, tag="closing", frozen=True):
    """The session will be closed: save and send ``saved``, or ask with ``need_more``."""

    closes_at: Time
    in_ms: int
    extend_max_ms: int
    reason: str | None = None


class CloseExtendedNotice(FromServer, tag="close_extended", frozen=True):
    """The pending close was extended."""

    closes_at: Time
    in_ms: int


class CloseCancelledNotice(FromServer, tag="close_cancelled", frozen=True):
    """The pending close was cancelled."""


class StopStream(FromServer, tag="stop_stream", frozen=True):
    """Another caller ended this stream; the client should stop it."""

    key: str


class MessageNotice(FromServer, tag="message", frozen=True):
    """A message to the client."""

    topic: str
    body: Any = None
    sender: str | None = None


SessionSocketMessage = (
    Hello | Ack | Error | ClosingNotice | CloseExtendedNotice | CloseCancelledNotice | StopStream
    | MessageNotice | Bye
)  # fmt: skip
ObserverMessage = ObserverHello | SnapshotMessage | Events | ResyncMessage | ServerHeartbeat | Bye


class _Head(Struct):
    type: str
    ref: Any = None  # checked separately, so that the error can name it


_head: Final = Decoder(_Head)
_message: Final[Decoder[ClientMessage]] = Decoder(ClientMessage)
_KNOWN: Final = frozenset(str(kind.__struct_config__.tag) for kind in FromClient.__subclasses__())


def parse(text: str | bytes) -> ClientMessage | None:
    """Decode a client's message; return ``None`` if its type is unknown.

    Raises:
        BadRequest: This is not a JSON object with a ``type``, or its ``ref`` is not acceptable.
        Invalid: A field of a known message is missing or wrong; ``extra['ref']`` is its ``ref``.
    """
    try:
        head = _head.decode(text)
    except (DecodeError, RecursionError, UnicodeError) as error:
        raise BadRequest("A message is a JSON object with a text `type`.") from error
    if head.ref is not None and not (isinstance(head.ref, str) and len(head.ref) <= REF_MAX):
        raise BadRequest(f"The `ref` of a message is a text of at most {REF_MAX} characters.")
    if head.type not in _KNOWN:
        return None
    try:
        return _message.decode(text)
    except ValidationError as error:
        raise Invalid(excerpt(str(error)), extra={"ref": head.ref}) from error
    except (DecodeError, RecursionError, UnicodeError) as error:
        raise BadRequest("This message cannot be read.") from error


def render(message: FromServer) -> bytes:
    """Return the JSON text of *message*."""
    return encode(message)
