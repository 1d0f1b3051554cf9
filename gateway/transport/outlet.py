"""Outlet: how much of what is written to one connection its client has not taken, and for how long.

Not here: what is written (``websocket``), who is judged how (``tcp``).
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Final

from gateway.transport.tcp import Judge, untaken

HIGH_WATER_BYTES: Final = 256 * 1024  # unsent; more, and who sends has to wait
LOW_WATER_BYTES: Final = 64 * 1024  # until no more than this is unsent


class Outlet(asyncio.Protocol, ABC):
    """The way out of one connection.

    Args:
        transport: The connection.
        stalled_s: Seconds without taking anything after which a client is given up.
    """

    __slots__ = ("_judge", "_room", "_stalled_s", "_transport", "is_full", "written")

    def __init__(self, transport: asyncio.Transport, stalled_s: float) -> None:
        self.is_full = False
        self.written = 0  # bytes, since it is open
        self._transport = transport
        self._stalled_s = stalled_s
        self._room: asyncio.Event | None = None  # set when there is room again
        self._judge: Judge | None = None

    @property
    def unsent(self) -> int:
        """How many bytes wait for the client to take them."""
        return self._transport.get_write_buffer_size()

    def count_taken(self) -> int:
        """Return how many written bytes the client's machine has acknowledged."""
        return self.written - untaken(self._transport)

    def pause_writing(self) -> None:
        """Take that ``HIGH_WATER_BYTES`` are unsent."""
        self.is_full = True
        self._room = asyncio.Event()
        if self._is_open():
            self._judge = Judge(self.count_taken, self._stall, self._stalled_s)

    def resume_writing(self) -> None:
        """Take that there is room again."""
        self.is_full = False
        if self._room is not None:
            self._room.set()
            self._room = None
        self._dismiss()
        if self._is_open():
            self._go_on()

    async def has_room(self) -> None:
        """Wait as long as the client is too far behind."""
        if self._room is not None:
            await self._room.wait()

    def _dismiss(self) -> None:
        if self._judge is not None:
            self._judge.dismiss()
            self._judge = None

    @abstractmethod
    def _is_open(self) -> bool:
        """Whether what is written still means anything."""

    @abstractmethod
    def _go_on(self) -> None:
        """Take that there is room again."""

    @abstractmethod
    def _stall(self) -> None:
        """Give the client up: it took nothing for too long."""
