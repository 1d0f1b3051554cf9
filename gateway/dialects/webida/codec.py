"""Codec: Engine.IO and Socket.IO on one WebSocket, in the form of a generation of Webida.

A client of Socket.IO reconnects by itself after every end except when the server disconnects it
from its namespace. So it is disconnected if it should stay away, and only closed if it should
reconnect.

Not here: the protocol (``engineio``), the handling of packets (``session_socket``).
"""

from typing import Final

from gateway.connections.lifecycle import ServerClose
from gateway.core.document import Message
from gateway.core.errors import CloseCode
from gateway.core.event import CloseCancelled, CloseExtended, ClosingScheduled
from gateway.core.frames import TEXT, frame
from gateway.core.model import Closing, Session
from gateway.dialects.webida.engineio import EngineSocket, Heard
from gateway.dialects.webida.render import CALLED_OFF, Words, announced, warning
from gateway.node import Node, Subscription
from gateway.realtime.codec import Announcement, ClosingFrames


class RefusedInside(ServerClose):
    """The client is refused on the open connection with ``reason``."""

    def __init__(self, reason: str) -> None:
        super().__init__(CloseCode.FORBIDDEN, reason)


class EngineCodec:
    """The messages of one connection, in both directions.

    Args:
        node: This node.
        engine: The protocol.
        words: The names of this generation.
    """

    shares_frames: Final = False

    def __init__(self, node: Node, engine: EngineSocket, words: Words) -> None:
        self._node = node
        self._engine = engine
        self._words = words

    def open(self, interval_ms: int, timeout_ms: int) -> tuple[list[Heard], bytes]:
        """Begin the protocol; return the client's implied requests and the first frames."""
        heard = self._engine.open(interval_ms, timeout_ms)
        return heard, self.flush()

    def flush(self) -> bytes:
        """Return the frames that the protocol has queued."""
        return b"".join(frame(TEXT, text.encode()) for text in self._engine.texts_to_send())

    def receive(self, data: str | bytes) -> list[Heard]:
        """Parse a text; binary data belongs to events, which are ignored.

        Raises:
            BadRequest: It is no text of the protocol.
        """
        return self._engine.receive(data) if isinstance(data, str) else []

    def greet(self, subject: Session | Subscription, token: str | None) -> bytes:  # noqa: ARG002
        """Return the packet that lets the client into its namespace."""
        self._engine.accept()
        return self.flush()

    def notify(self, notice: Announcement) -> bytes:
        """Return the event for *notice*, if this generation has one."""
        match notice:
            case ClosingScheduled() | CloseExtended():
                self._warn_of(notice.closing)
            case CloseCancelled():  # Webida has no event for it
                self._engine.emit(self._words.announcement, CALLED_OFF)
            case Message() if (said := announced(notice)) is not None:
                self._engine.emit(self._words.announcement, said)
            case _:
                pass
        return self.flush()

    def _warn_of(self, closing: Closing) -> None:
        left_ms = closing.at - self._node.now_ms()
        self._engine.emit(self._words.closing, *warning(self._words, closing.reason, left_ms))

    def heartbeat(self, subscription: Subscription | None) -> bytes:  # noqa: ARG002
        """Return nothing, because in this protocol the client pings."""
        return b""

    def close(self, ended: ServerClose) -> ClosingFrames:
        """Return the refusal or the disconnect, if the client should stay away, and the close."""
        if isinstance(ended, RefusedInside):
            self._engine.refuse(ended.reason)
        elif not ended.message.reconnect:
            self._engine.dismiss()
        return ClosingFrames(last=self.flush(), code=int(ended.code))
