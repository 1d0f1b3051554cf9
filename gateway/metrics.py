"""Metrics: what the gateway counts, in one place, so that names and labels stay few.

The values of a label are a small, fixed set and never a client's input. The registry is our own, so
that metrics of other libraries are not published. What can be read off the state when somebody asks
is not counted here (``api.exposition``).

Times are in seconds; buckets span what a healthy and a sick gateway show.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY: Final = CollectorRegistry(auto_describe=True)

_BRIEF: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LONG: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_POWERS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def _counter(name: str, about: str, *labels: str) -> Counter:
    return Counter(f"gateway_{name}", about, labels, registry=REGISTRY)


def _histogram(name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"gateway_{name}", about, buckets=buckets, registry=REGISTRY)


def total(counter: Counter) -> int:
    """Return what a counter without labels has counted."""
    [metric] = counter.collect()
    return int(metric.samples[0].value)


# --- connections

CONNECTS: Final = _counter("connects", "WebSockets and event streams that were opened.")
CLOSES: Final = _counter("closes", "WebSockets that ended, by close code.", "code")
PING_PONG: Final = _histogram(
    "ping_pong_seconds", "Time from a ping to the frame that answered it.", _LONG
)
SLOW_READERS: Final = _counter("slow_readers", "Times a subscriber fell behind.")
RESUMES: Final = _counter(
    "resumes", "Subscriptions from a position, by what they got: events or a snapshot.", "kind"
)
DELIVERIES: Final = _counter("deliveries", "Events written to subscribers.")
DELIVERY_LAG: Final = _histogram(
    "delivery_lag_seconds", "Age of the oldest event of a batch when it was delivered.", _LONG
)

# --- requests

AUTH_FAILURES: Final = _counter(
    "auth_failures", "Credentials that were refused, by door and error.", "door", "code"
)
REFUSALS: Final = _counter("refusals", "Requests and WebSockets refused, by error.", "code")
KEY_FETCH_FAILURES: Final = _counter(
    "key_fetch_failures", "Times the key set of JWTs could not be read."
)
OVERFLOWS: Final = _counter("overflows", "Times a bounded queue was full.", "queue")

# --- sessions

SESSION_ENDS: Final = _counter(
    "session_ends", "Sessions that this node closed, by outcome.", "outcome"
)
DEADLINE_LATENESS: Final = _histogram(
    "deadline_lateness_seconds", "Time from a deadline to its effect in the store.", _LONG
)
TAKEOVERS: Final = _counter("takeovers", "Nodes whose sessions this node ended because they died.")

# --- store

COMMIT: Final = _histogram("commit_seconds", "Round trip of a group of commits.", _BRIEF)
COMMIT_BATCH: Final = _histogram("commit_batch", "Commits sent together.", _POWERS)
STORE_RECONNECTS: Final = _counter(
    "store_reconnects", "Connections to the store made again after one was lost."
)
CLOCK_STEPS: Final = _counter("clock_steps", "Times Redis time jumped by more than a second.")
