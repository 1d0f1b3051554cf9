"""Report: what a node tells the others about itself each time that it renews its lease.

So every node knows the state of all, at most two renewals late, and nothing more is written to
Redis than the lease that is written anyway.
"""

from pathlib import Path
from resource import getpagesize
from typing import Final

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

_STATM: Final = Path("/proc/self/statm")


class NodeReport(Struct, frozen=True):
    """The state of a node; unset fields are of an older version, which does not tell them.

    Args:
        name: How operators call it.
        boot: Tells its run from others of the same name.
        version: The version of the gateway.
        uptime_s: Since it started.
        sockets: WebSockets and event streams right now.
        feed_lag_ms: How old its reads may be.
        memory_bytes: What it has in memory; unset where there is no ``/proc``.
        slow_readers: Times a subscriber fell behind.
        deliveries: Events written to subscribers.
        is_draining: Whether it is shutting down.
    """

    name: str = ""
    boot: str = ""
    version: str | None = None
    uptime_s: float | None = None
    sockets: int | None = None
    feed_lag_ms: int | None = None
    memory_bytes: int | None = None
    slow_readers: int | None = None
    deliveries: int | None = None
    is_draining: bool | None = None


_decoder: Final = Decoder(NodeReport)


def read_report(announced: bytes) -> NodeReport:
    """Return the report that a node announced; an empty one if it cannot be read."""
    try:
        return _decoder.decode(announced)
    except DecodeError:
        return NodeReport()


def resident_bytes() -> int | None:
    """Return the memory that this process has; ``None`` where the system does not tell it."""
    try:
        return int(_STATM.read_text().split()[1]) * getpagesize()
    except OSError:
        return None
