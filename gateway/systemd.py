"""Service manager: tells systemd that the gateway is ready, stops, and is not hanging.

Does nothing where no service manager asks. Follows ``sd_notify(3)``,
https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import math
import os
import socket
from contextlib import suppress
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
WATCHDOG: Final = "WATCHDOG=1"


def notify(state: str) -> None:
    """Tell the service manager the state of this service; a failure to tell is no failure."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # in Linux' abstract namespace
        address = f"\0{address[1:]}"
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asked:
        asked.connect(address)
        asked.sendall(state.encode())


class Watchdog:
    """Tells the service manager twice in each of its intervals that the gateway is not hanging."""

    def __init__(self) -> None:
        wanted_us = os.environ.get("WATCHDOG_USEC", "")
        is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every_s = int(wanted_us) / 2e6 if is_for_us and wanted_us.isdecimal() else math.inf
        self._told_s = -math.inf

    def is_due(self, now_s: float) -> bool:
        """Whether it should be told again, by a monotonic clock."""
        return now_s - self._told_s >= self._every_s

    def beat(self, now_s: float) -> None:
        """Tell it, if that is due."""
        if self.is_due(now_s):
            self._told_s = now_s
            notify(WATCHDOG)
