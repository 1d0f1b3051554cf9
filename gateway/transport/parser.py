"""Parser: websockets' sans-I/O ``Protocol`` after our handshake, with limits on what is received.

This is the one file that overrides websockets: ``recv_frame`` of ``Protocol`` is replaced, and its
``current_size``, ``parser`` and ``parser_exc`` are used. :mod:`gateway.versions` refuses to start
with another version. Not here: joining fragments, and the limits (:mod:`gateway.core.frames`).
"""

import logging
from typing import Final

from websockets.frames import Frame
from websockets.protocol import OPEN, SERVER, Protocol

from gateway.core.frames import Assembly, Caps, ProtocolViolation

_CLOSE: Final = 0x8  # RFC 6455 section 5.2: control frames from here on
_PONG: Final = 0xA

_quiet = logging.getLogger(f"{__name__}.quiet")
_quiet.setLevel(logging.WARNING)  # at DEBUG websockets logs whole frames, and with them tokens


class Parser(Protocol):
    """Both directions of one open connection, as bytes.

    Args:
        caps: What the client may send.
        now_s: Any clock that only goes forward, in seconds.
    """

    def __init__(self, caps: Caps, now_s: float) -> None:
        super().__init__(SERVER, state=OPEN, max_size=caps.message_bytes, logger=_quiet)
        self.messages: list[str | bytes] = []
        self.has_frame = False  # a frame came since this was reset
        self.pong: bytes | None = None  # payload of the last pong since then
        self._now_ms = now_s * 1000
        self._assembly = Assembly(caps, self._now_ms)

    @property
    def is_unfinished(self) -> bool:
        """Whether a message has begun and not ended."""
        return self.current_size is not None

    @property
    def is_orderly(self) -> bool:
        """Whether the client has closed as it should."""
        return self.close_rcvd is not None and self.parser_exc is None

    def receive(self, data: bytes, now_s: float) -> bytes:
        """Parse received bytes; return the bytes to send in response.

        The results are in ``messages``, ``has_frame`` and ``pong``; ``eof_sent`` is set at the end.
        """
        self._now_ms = now_s * 1000
        self.receive_data(data)
        self.events.clear()
        return self.take_outgoing()

    def take_outgoing(self) -> bytes:
        """Return the bytes that are to be sent."""
        return b"".join(self.data_to_send())

    def recv_frame(self, frame: Frame) -> None:
        """Process a well-formed frame; called while parsing, so that frames do not pile up."""
        self.has_frame = True
        try:
            self._assembly.count(self._now_ms)
            super().recv_frame(frame)
            if frame.opcode < _CLOSE:
                message = self._assembly.take(frame.opcode, frame.data, fin=frame.fin)
                if message is not None:
                    self.messages.append(message)
            elif frame.opcode == _PONG:
                self.pong = bytes(frame.data)
        except ProtocolViolation as refused:
            self.fail(refused.code, refused.reason)

    def release(self) -> None:
        """Break the reference cycle between this object and its parsing generator."""
        self.parser.close()
        del self.parser
