"""Metrics: what the gateway counts, in one place, so that names and labels stay few.

Only what somebody increments is here; a label's values are a fixed, small set, never input. The
registry is our own: nothing that another library registers by itself gets out.
Not here: the door that shows them.
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
