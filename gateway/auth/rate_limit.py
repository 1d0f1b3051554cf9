"""Rate limit: how many requests a second one caller may send, if the operator set a limit.

A token bucket a caller: a caller that was quiet may send two seconds' worth at once. Callers are
principals; a caller without a good credential is known by its address. The number of buckets is
bounded: the caller that was quiet for longest is forgotten, which gives back at most one burst.
Not here: messages on sockets (``connections``), which requests count (``context``).
"""

from collections import OrderedDict
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final

from msgspec import Struct

from gateway.core.errors import RateLimited

BURST_S: Final = 2.0  # seconds' worth of requests that may come at once
CALLERS_MAX: Final = 10_000  # buckets kept; about 2 MiB
IPV6_HOST_BITS: Final = 64  # of an address are the holder's own choice (RFC 4291 section 2.5.1)


class _Bucket(Struct, gc=False):
    left: float
    at_ms: float


class RateLimiter:
    """The buckets of one process."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def consume(self, caller: Hashable, rate_per_s: float, now_ms: float) -> None:
        """Count one request of *caller*.

        Args:
            caller: Who.
            rate_per_s: Requests a second; 0 is no limit.
            now_ms: Monotonic milliseconds.

        Raises:
            RateLimited: It has used up what it may; tells when there is more.
        """
        if rate_per_s == 0:
            return
        most = max(rate_per_s * BURST_S, 1.0)
        bucket = self._buckets.pop(caller, None) or _Bucket(most, now_ms)
        self._buckets[caller] = bucket
        if len(self._buckets) > CALLERS_MAX:
            self._buckets.popitem(last=False)
        gained = (now_ms - bucket.at_ms) / 1000 * rate_per_s
        bucket.left, bucket.at_ms = min(bucket.left + gained, most), now_ms
        if bucket.left < 1:
            raise RateLimited(retry_after_s=ceil((1 - bucket.left) / rate_per_s))
        bucket.left -= 1

    def forfeit(self, caller: Hashable, now_ms: float) -> None:
        """Give *caller* nothing for the time since its last request.

        Else guesses that are slow to check, one after the other, would never be too many.
        """
        if (bucket := self._buckets.get(caller)) is not None:
            bucket.at_ms = max(bucket.at_ms, now_ms)

    def give_back(self, caller: Hashable) -> None:
        """Take back one :meth:`consume` of *caller*, since the request turned out to be good."""
        if (bucket := self._buckets.get(caller)) is not None:
            bucket.left += 1  # the next ``consume`` cuts it to what a bucket holds


def address_key(address: str | None) -> Hashable:
    """Return what stands for everybody behind *address*.

    One host usually holds a whole IPv6 network of 64 bits, so the network is counted.
    """
    try:
        known = ip_address(address or "")
    except ValueError:
        return "address", address
    if isinstance(known, IPv6Address):
        return "address", int(known) >> IPV6_HOST_BITS
    return "address", address
