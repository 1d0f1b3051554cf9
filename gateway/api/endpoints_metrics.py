"""Metrics: what the answering node counts and what its state shows, in Prometheus' text format.

Most is counted where it happens (``gateway.metrics``). Sizes and limits are read when somebody asks
and cost nothing in between; sessions by state come from an index, whatever their number.

Follows https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4).
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from gateway import __version__
from gateway.auth.principals import Principal, Scope
from gateway.context import Context
from gateway.core.model import State
from gateway.core.query import Filter, View, Visibility
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing
from gateway.metrics import REGISTRY

OF_ALL: Final = frozenset({"gateway_sessions"})  # of the whole gateway, so not told by node
PATH: Final = "/metrics"
TEXT: Final = "text/plain"

_EVERYTHING: Final = Visibility(by="all")
_PROCESS: Final = ProcessCollector(registry=None)


class NodeCollector(Collector):
    """Collects the metrics of one node, and labels them with its name.

    Args:
        context: The node and its surroundings.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        for found in (*self._of_state(), *REGISTRY.collect(), *_PROCESS.collect()):
            if found.name not in OF_ALL:
                name = self._context.node.name
                found.samples = [
                    sample._replace(labels={"node": name, **sample.labels})
                    for sample in found.samples
                    if not sample.name.endswith("_created")
                ]
            yield found

    def _of_state(self) -> Iterator[Metric]:
        node, settings = self._context.node, self._context.settings
        sessions = _gauge("sessions", "Open sessions of the whole gateway, by state.", "state")
        for state in State:
            if state is not State.CLOSED:
                view = View(filter=Filter(state=state), visibility=_EVERYTHING)
                sessions.add_metric([state.value], node.count(view))
        yield sessions
        build = _gauge("build_info", "1; the version is a label.", "version")
        build.add_metric([__version__], 1)
        yield build
        channels, ring_bytes = node.channel_sizes()
        for name, about, value in (
            (
                "connections",
                "WebSockets and event streams right now.",
                self._context.connections.count,
            ),
            ("connection_limit", "Connections that this node accepts.", settings.max_connections),
            ("session_limit", "Open sessions that the gateway accepts.", settings.max_sessions),
            ("store_up", "Whether the store answers and takes writes.", node.is_store_up),
            (
                "feed_lag_seconds",
                "How old reads may be; 0 while the log is followed.",
                node.lag_ms() / 1000,
            ),
            ("channels", "Different views that are subscribed to.", channels),
            ("ring_bytes", "Bytes of events kept for subscribers that are behind.", ring_bytes),
        ):
            gauge = _gauge(name, about)
            gauge.add_metric([], float(value))
            yield gauge


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gateway_{name}", about, labels=labels)


def exposition(context: Context) -> bytes:
    """Return all metrics of this node as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(context))
    return generate_latest(registry)


async def read_metrics(call: Call[Principal, Nothing, Nothing]) -> Response:
    """Return what this node counts."""
    return Response(exposition(call.context), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        method="GET",
        path=PATH,
        handler=read_metrics,
        returns={200: str},
        produces=(TEXT,),
        scope=Scope.ADMIN,
        summary="What the answering node counts, for Prometheus",
        tag="operations",
    ),
)
