"""Admission: which of the accepted connections are served.

A connection counts from the moment TCP accepts it, whatever it says afterwards, and before TLS.
At the limit, the connection that has been idle between two requests for longest is closed for the
newcomer; if none is idle, the newcomer is refused. Refused connections are bounded as well, and a
connection on a reserved descriptor is closed at once (``descriptors``).
"""

import asyncio
import logging
from collections import OrderedDict
from enum import Enum, auto
from typing import Final, Protocol

from gateway.metrics import OVERFLOWS
from gateway.transport.descriptors import REFUSED_MAX, is_reserved

WARN_EVERY_S: Final = 10.0  # at most one line in the log, however many are refused

log = logging.getLogger(__name__)


class Idle(Protocol):
    """A connection between two requests."""

    transport: asyncio.Transport


class Verdict(Enum):
    """What happens to a new connection."""

    SERVE = auto()
    REFUSE = auto()  # with a status, if one can be said
    CUT = auto()  # at once


class AdmissionControl:
    """The connections of one server.

    Args:
        maximum: How many connections are served at a time.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._idle: OrderedDict[Idle, None] = OrderedDict()  # the one that is idle longest first
        self._warned_at_s = -WARN_EVERY_S

    def admit(self, count: int, transport: asyncio.Transport) -> Verdict:
        """Return what happens to a connection that has just been accepted.

        Args:
            count: Open connections, this one included.
            transport: Of this one.
        """
        sock = transport.get_extra_info("socket")
        if sock is not None and is_reserved(sock.fileno()):
            self._close_idle()
            if self._report("descriptors"):
                log.warning("connections are cut: too few file descriptors are left")
            return Verdict.CUT
        if count <= self._maximum or self._close_idle():
            return Verdict.SERVE
        if self._report("connections"):
            log.warning(
                "connections are refused: there are too many", extra={"limit": self._maximum}
            )
        return Verdict.REFUSE if count <= self._maximum + REFUSED_MAX else Verdict.CUT

    def add_idle(self, connection: Idle) -> None:
        """Note that *connection* waits for its next request."""
        self._idle[connection] = None

    def remove_idle(self, connection: Idle) -> None:
        """Note that *connection* waits no more."""
        self._idle.pop(connection, None)

    def _close_idle(self) -> bool:
        while self._idle:
            connection, _ = self._idle.popitem(last=False)
            if not connection.transport.is_closing():
                connection.transport.close()
                return True
        return False

    def _report(self, queue: str) -> bool:
        """Count an overflow; return whether the log should tell it."""
        OVERFLOWS.labels(queue).inc()
        now_s = asyncio.get_running_loop().time()
        if now_s - self._warned_at_s < WARN_EVERY_S:
            return False
        self._warned_at_s = now_s
        return True
