"""Write buffer: how many written bytes a client has not taken, and for how long.

Not here: what is written (``websocket``), how a stalled client is detected (``tcp``).
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Final

from gateway.transport.tcp import StallDetector, unacknowledged_bytes

HIGH_WATER_BYTES: Final = 256 * 1024  # unsent; above it writers wait
LOW_WATER_BYTES: Final = 64 * 1024  # unsent; below it writers continue


class WriteBuffer(asyncio.Protocol, ABC):
    """The sending side of one connection.

    Args:
        transport: The connection.
        stalled_s: Seconds without taking anything after which a client is given up.
    """

    __slots__ = ("_stall_detector", "_stalled_s", "_transport", "_writable", "is_full", "written")

    def __init__(self, transport: asyncio.Transport, stalled_s: float) -> None:
        self.is_full = False
        self.written = 0  # bytes, since the WebSocket is open
        self._transport = transport
        self._stalled_s = stalled_s
        self._writable: asyncio.Event | None = None  # set when there is room again
        self._stall_detector: StallDetector | None = None

    @property
    def unsent(self) -> int:
        """How many bytes wait for the client to take them."""
        return self._transport.get_write_buffer_size()

    def count_acknowledged(self) -> int:
        """Return how many written bytes the client's machine has acknowledged."""
        return self.written - unacknowledged_bytes(self._transport)

    def pause_writing(self) -> None:
        """Mark the buffer full: ``HIGH_WATER_BYTES`` are unsent."""
        self.is_full = True
        self._writable = asyncio.Event()
        if self._is_open():
            self._stall_detector = StallDetector(
                self.count_acknowledged, self._stall, self._stalled_s
            )

    def resume_writing(self) -> None:
        """Mark the buffer writable: it drained below the low-water mark."""
        self.is_full = False
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        self._stop_stall_detector()
        if self._is_open():
            self._on_writable()

    async def wait_writable(self) -> None:
        """Wait until the buffer is writable."""
        if self._writable is not None:
            await self._writable.wait()

    def _stop_stall_detector(self) -> None:
        if self._stall_detector is not None:
            self._stall_detector.stop()
            self._stall_detector = None

    @abstractmethod
    def _is_open(self) -> bool:
        """Whether written bytes still reach the client."""

    @abstractmethod
    def _on_writable(self) -> None:
        """React to the buffer being writable again."""

    @abstractmethod
    def _stall(self) -> None:
        """Give up a client that took nothing for too long."""
