"""Rate limit: limits the requests of each caller, if the operator has set ``requests_per_s``.

Each caller has a token bucket; after a pause it may send two seconds' worth of requests at once.
Callers are principals; a caller without a valid credential is identified by its address. The number
of buckets is bounded: the least recently used one is dropped, which gives back at most one burst.

Not here: messages on sockets (``connections``), which requests count (``context``).
"""

from collections import OrderedDict
from collections.abc import Hashable
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final

from gateway.core.errors import RateLimited
from gateway.core.token_bucket import BURST_S, TokenBucket

CALLERS_MAX: Final = 10_000  # buckets kept; about 2 MiB
IPV6_HOST_BITS: Final = 64  # of an address are the holder's own choice (RFC 4291 section 2.5.1)


class RateLimiter:
    """The buckets of one process."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def consume(self, caller: Hashable, rate_per_s: float, now_ms: float) -> None:
        """Count one request of *caller*.

        Args:
            caller: The caller.
            rate_per_s: Requests a second; 0 is no limit.
            now_ms: Monotonic milliseconds.

        Raises:
            RateLimited: The bucket is empty; the error says when there is more.
        """
        if rate_per_s == 0:
            return
        capacity, now_s = max(rate_per_s * BURST_S, 1.0), now_ms / 1000
        bucket = self._buckets.pop(caller, None) or TokenBucket(rate_per_s, capacity, now_s)
        self._buckets[caller] = bucket
        if len(self._buckets) > CALLERS_MAX:
            self._buckets.popitem(last=False)
        if not bucket.take(now_s):
            raise RateLimited(retry_after_s=ceil(bucket.wait_s))

    def forfeit(self, caller: Hashable, now_ms: float) -> None:
        """Give *caller* nothing for the time since its last request.

        Else guesses that are slow to check, one after the other, would never be too many.
        """
        if (bucket := self._buckets.get(caller)) is not None:
            bucket.forfeit(now_ms / 1000)

    def give_back(self, caller: Hashable) -> None:
        """Take back one :meth:`consume` of *caller*, since the request turned out to be good."""
        if (bucket := self._buckets.get(caller)) is not None:
            bucket.give_back()


class LoginLimiter:
    """Limits the wrong passwords of a name, from all addresses together.

    An attacker could lock the owner of a name out by guessing, so the name does not count for an
    address from which its owner has logged in.
    """

    def __init__(self) -> None:
        self._names = RateLimiter()
        self._known: OrderedDict[tuple[Hashable, Hashable], None] = OrderedDict()

    def begin(self, name: str, address: Hashable, rate_per_s: float, now_ms: float) -> None:
        """Count a login before its password is checked.

        Args:
            name: As it was given.
            address: As :func:`address_key` returns it.
            rate_per_s: Logins a second; 0 is no limit.
            now_ms: Monotonic milliseconds.

        Raises:
            RateLimited: The name has used up what it may.
        """
        if (_name_key(name), address) not in self._known:
            self._names.consume(_name_key(name), rate_per_s, now_ms)

    def failed(self, name: str, now_ms: float) -> None:
        """Note that the password was wrong."""
        self._names.forfeit(_name_key(name), now_ms)

    def unchecked(self, name: str, address: Hashable) -> None:
        """Note that the password was not checked after all."""
        if (_name_key(name), address) not in self._known:
            self._names.give_back(_name_key(name))

    def succeeded(self, name: str, address: Hashable) -> None:
        """Note that the password was right."""
        self.unchecked(name, address)
        self._known[_name_key(name), address] = None
        self._known.move_to_end((_name_key(name), address))
        if len(self._known) > CALLERS_MAX:
            self._known.popitem(last=False)


def _name_key(name: str) -> Hashable:
    """Return a short key for a name, which may be long."""
    return blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest()


def address_key(address: str | None) -> Hashable:
    """Return the key of all callers behind *address*.

    One host usually holds a whole IPv6 network of 64 bits, so the network is counted.
    """
    try:
        known = ip_address(address or "")
    except ValueError:
        return "address", address
    if isinstance(known, IPv6Address):
        return "address", int(known) >> IPV6_HOST_BITS
    return "address", address
