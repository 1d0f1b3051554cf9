"""Write buffer: how much its client has not taken of what was written, and for how long.

Not here: what is written (``websocket``), who is judged how (``tcp``).
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Final

from gateway.transport.tcp import StallDetector, unacknowledged_bytes

HIGH_WATER_BYTES: Final = 256 * 1024  # unsent; more, and who sends has to wait
LOW_WATER_BYTES: Final = 64 * 1024  # until no more than this is unsent


class WriteBuffer(asyncio.Protocol, ABC):
    """The way out of one connection.

    Args:
        transport: The connection.
        stalled_s: Seconds without taking anything after which a client is given up.
    """

    __slots__ = ("_stall_detector", "_stalled_s", "_transport", "_writable", "is_full", "written")

    def __init__(self, transport: asyncio.Transport, stalled_s: float) -> None:
        self.is_full = False
        self.written = 0  # bytes, since it is open
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
        """Take that ``HIGH_WATER_BYTES`` are unsent."""
        self.is_full = True
        self._writable = asyncio.Event()
        if self._is_open():
            self._stall_detector = StallDetector(
                self.count_acknowledged, self._stall, self._stalled_s
            )

    def resume_writing(self) -> None:
        """Take that there is room again."""
        self.is_full = False
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        self._stop_stall_detector()
        if self._is_open():
            self._on_writable()

    async def wait_writable(self) -> None:
        """Wait as long as the client is too far behind."""
        if self._writable is not None:
            await self._writable.wait()

    def _stop_stall_detector(self) -> None:
        if self._stall_detector is not None:
            self._stall_detector.stop()
            self._stall_detector = None

    @abstractmethod
    def _is_open(self) -> bool:
        """Whether what is written still means anything."""

    @abstractmethod
    def _on_writable(self) -> None:
        """Take that there is room again."""

    @abstractmethod
    def _stall(self) -> None:
        """Give the client up: it took nothing for too long."""
