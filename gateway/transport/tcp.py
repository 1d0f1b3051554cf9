"""TCP: what every connection needs: tuning, a detector of stalled readers, a lingering close.

Progress is measured by what the client's TCP has acknowledged, because bytes that left our buffer
may still be in the kernel's.
"""

import asyncio
import socket
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gateway.transport.limits import USER_TIMEOUT_MS

LINGER_S: Final = 1.0  # for the last bytes to arrive before the connection is reset
DISCARD_MAX_BYTES: Final = 1 << 20  # that a client may send after our last byte
STALL_CHECKS: Final = 10  # in a row without progress, before a reader is given up

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # pragma: no cover - not a POSIX system: the kernel's queue counts as taken
    ioctl = None  # type: ignore[assignment]


def tune(transport: asyncio.Transport) -> None:
    """Set the TCP user timeout, which finds dead peers; the event loops set TCP_NODELAY already."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """Return how many written bytes the client's machine has not acknowledged."""
    queued = array("i", (0,))
    sock: socket.socket | None = transport.get_extra_info("socket")
    if ioctl is not None and sock is not None:
        with suppress(OSError, ValueError):  # it is closed
            ioctl(sock.fileno(), TIOCOUTQ, queued)
    return transport.get_write_buffer_size() + queued[0]


class StallDetector:
    """Detects that a client whose write buffer is full takes nothing.

    It counts checks instead of time, so that a pause of this process is not held against clients.

    Args:
        taken: Returns how many bytes the client has taken; only differences count.
        give_up: Called once, after ``STALL_CHECKS`` checks without progress.
        stalled_s: Seconds that those checks take.
    """

    __slots__ = ("_checks", "_every_s", "_give_up", "_loop", "_taken", "_taken_before", "_timer")

    def __init__(
        self, taken: Callable[[], int], give_up: Callable[[], None], stalled_s: float
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._taken = taken
        self._give_up = give_up
        self._every_s = stalled_s / STALL_CHECKS
        self._taken_before = taken()
        self._checks = 0
        self._timer = self._loop.call_later(self._every_s, self._check)

    def _check(self) -> None:
        taken = self._taken()
        self._checks = self._checks + 1 if taken == self._taken_before else 0
        self._taken_before = taken
        if self._checks >= STALL_CHECKS:
            self._give_up()
        else:
            self._timer = self._loop.call_later(self._every_s, self._check)

    def stop(self) -> None:
        """Stop checking."""
        self._timer.cancel()


class LingeringClose:
    """Closes a connection whose client may still be sending.

    Closing a socket with unread bytes resets it, and the client may lose our last response. So only
    our side is closed first, and what still arrives is thrown away, within bounds. TLS has no half
    close here: the client has the same time to read the response and to close by itself.
    """

    __slots__ = ("_discarded", "_timer", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._discarded = 0
        loop = asyncio.get_running_loop()
        is_tls = not transport.can_write_eof()
        end = transport.close if is_tls else transport.abort  # close has a deadline in TLS
        self._timer = loop.call_later(LINGER_S, end)
        if transport.is_closing():
            return
        try:
            if not is_tls:
                transport.write_eof()
            transport.resume_reading()
        except OSError:  # the client has reset it; connection_lost follows
            transport.abort()

    def discard(self, size: int) -> None:
        """Count *size* bytes that arrived and are thrown away."""
        self._discarded += size
        if self._discarded > DISCARD_MAX_BYTES:
            self._transport.abort()

    def done(self) -> None:
        """Stop the timer: the connection is gone."""
        self._timer.cancel()
