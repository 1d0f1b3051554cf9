"""WebSocket frames in both directions (RFC 6455 section 5), without any I/O.

Outgoing: :func:`frame` encodes a whole message as one frame. A server's frames are not masked, so
one frame serves every connection that gets the same message: it is *prepared* once and written many
times through a :class:`Writer`. The gateway never sends fragments, so frames of different senders
may follow each other in any order.

Incoming: an :class:`Assembly` joins the fragments of one connection to messages, decodes text as
UTF-8 and limits the work that a client can cause. It takes frames that are well-formed already.

Not here: the parser checks the form of a frame (1002) and the size of a message (1009).
"""

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from gateway.core.protocol import MESSAGE_MAX_BYTES
from gateway.core.token_bucket import TokenBucket

CONTINUATION: Final = 0x0  # RFC 6455 section 11.8
TEXT: Final = 0x1
BINARY: Final = 0x2
PING: Final = 0x9

INVALID_DATA: Final = 1007  # RFC 6455 section 7.4.1
POLICY_VIOLATION: Final = 1008

FRAGMENTS_MAX: Final = 64  # of one message; 1 KiB each makes the longest one
FRAMES_PER_S: Final = 200  # of any kind; ten times the messages that a client may send

_FIN: Final = 0x80
_LENGTH_16: Final = 126  # these two say that 16 or 64 bits of length follow
_LENGTH_64: Final = 127

_Utf8: Final = getincrementaldecoder("utf-8")


class Caps(Struct, frozen=True, kw_only=True):
    """What one connection may send.

    Args:
        message_bytes: Of a message, all fragments together.
        fragments: Of a message, empty ones included.
        frames_per_s: Frames a second of any kind, control frames included; a second's worth may
            come at once.
    """

    message_bytes: int = MESSAGE_MAX_BYTES
    fragments: int = FRAGMENTS_MAX
    frames_per_s: float = FRAMES_PER_S


class ProtocolViolation(Exception):
    """A client broke the protocol; the connection has to end with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Listener(Protocol):
    """The receiver of a connection's input; called synchronously, it must not block or raise."""

    def on_message(self, message: str | bytes) -> None:
        """The client sent a message."""
        ...

    def on_writable(self) -> None:
        """The write buffer drained below the low-water mark."""
        ...

    def on_close(self, code: int, reason: str | None) -> None:
        """The connection ended, other than by ``Writer.close``; no further call follows.

        Args:
            code: The client's close code, or a code for what happened.
            reason: The client's close reason; ``None`` if it sent no close frame.
        """
        ...


class Writer(Protocol):
    """The output of a connection, in frames.

    No method waits or fails: what is written to a connection that has ended is discarded.
    """

    @property
    def unsent(self) -> int:
        """How many bytes wait in the write buffer."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the write buffer is above its high-water mark, so that callers should wait."""
        ...

    def write(self, data: bytes) -> bool:
        """Send whole frames, even if the buffer is full; return whether it has room for more."""
        ...

    def close(self, code: int | None, reason: str, last: bytes = b"") -> None:
        """Send the frames *last* and a close frame, then end; later input is ignored.

        Without a *code* the connection ends without a close frame, once *last* is out.
        """
        ...

    def abort(self) -> None:
        """End the connection at once; unsent bytes are discarded."""
        ...

    def probe(self, answered: Callable[[], None]) -> None:
        """Ping the client now; *answered* is called when it has answered, if it does."""
        ...

    def adopt(self, listener: Listener) -> None:
        """Deliver the client's input to *listener* from now on; the application may return."""
        ...


def frame(opcode: int, payload: bytes) -> bytes:
    """Return an unmasked frame that is a whole message, or a control frame (section 5.2)."""
    length = len(payload)
    if length < _LENGTH_16:
        head = bytes((_FIN | opcode, length))
    elif length < 1 << 16:
        head = bytes((_FIN | opcode, _LENGTH_16)) + length.to_bytes(2)
    else:
        head = bytes((_FIN | opcode, _LENGTH_64)) + length.to_bytes(8)
    return head + payload


class Assembly:
    """Joins the fragments of one connection to messages.

    Args:
        caps: What the client may send.
        now_ms: Any clock that only goes forward, in milliseconds.
    """

    __slots__ = (
        "_binary",
        "_bucket",
        "_caps",
        "_decoder",
        "_fragments",
        "_text",
    )

    def __init__(self, caps: Caps, now_ms: float) -> None:
        self._caps = caps
        self._bucket = TokenBucket(caps.frames_per_s, caps.frames_per_s, now_ms / 1000)
        self._fragments = 0
        self._decoder: IncrementalDecoder | None = None
        self._text: list[str] = []
        self._binary = bytearray()

    def count(self, now_ms: float) -> None:
        """Count one frame, of any kind.

        Raises:
            ProtocolViolation: The client sent too many frames.
        """
        if not self._bucket.take(now_ms / 1000):
            raise ProtocolViolation(POLICY_VIOLATION, "too many frames")

    def take(
        self, opcode: int, payload: bytes | bytearray | memoryview, *, fin: bool
    ) -> str | bytes | None:
        """Add a data frame; return the message that it ends, if it does.

        Args:
            opcode: ``TEXT`` or ``BINARY`` begins a message, ``CONTINUATION`` goes on with it.
            payload: Unmasked.
            fin: Whether it is the message's last frame.

        Raises:
            ProtocolViolation: The text is not UTF-8, or the message has too many fragments.
        """
        try:
            if opcode != CONTINUATION:
                if fin:
                    return str(payload, "utf-8") if opcode == TEXT else bytes(payload)
                self._decoder = _Utf8() if opcode == TEXT else None
            if self._decoder is None:
                self._binary += payload
            else:
                self._text.append(self._decoder.decode(payload, fin))
        except UnicodeDecodeError:
            raise ProtocolViolation(INVALID_DATA, "not UTF-8") from None
        self._fragments += 1
        if self._fragments > self._caps.fragments:
            raise ProtocolViolation(POLICY_VIOLATION, "too many fragments")
        return self._whole() if fin else None

    def _whole(self) -> str | bytes:
        whole = bytes(self._binary) if self._decoder is None else "".join(self._text)
        self._fragments = 0
        self._text, self._binary = [], bytearray()
        return whole
