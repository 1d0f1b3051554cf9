"""Metrics: all counters of the gateway in one place, so that names and labels stay few.

The values of a label are a small, fixed set and never a client's input. The registry is our own, so
that metrics of other libraries are not published.

Not here: the endpoint that publishes them.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter

REGISTRY: Final = CollectorRegistry(auto_describe=True)

OVERFLOWS: Final = Counter(
    "gateway_overflows", "Times a bounded queue was full.", ["queue"], registry=REGISTRY
)
CLOCK_STEPS: Final = Counter(
    "gateway_clock_steps", "Times Redis time jumped by more than a second.", registry=REGISTRY
)
SLOW_READERS: Final = Counter(
    "gateway_slow_readers", "Times a subscriber fell behind.", registry=REGISTRY
)
KEY_FETCH_FAILURES: Final = Counter(
    "gateway_key_fetch_failures", "Times the key set of JWTs could not be read.", registry=REGISTRY
)
