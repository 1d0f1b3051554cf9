"""Schema for operators: counts, nodes, health, and closing in bulk.

Not here: what clients send and get (``schema``).
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.schema import CloseAfterS, Incoming, Limit, Outgoing
from gateway.core.model import LabelName, LabelValue, State, Text
from gateway.core.public import Time
from gateway.core.query import LIMIT_DEFAULT, Filter, Wanted
from gateway.node import WINDOW_MAX_S


class BulkFilter(Incoming, frozen=True, kw_only=True):
    """The filter of a list, but nothing in it may be null or empty: that would match all."""

    workspace: Wanted | UnsetType = UNSET
    account: Wanted | UnsetType = UNSET
    service: Wanted | UnsetType = UNSET
    state: State | UnsetType = UNSET
    connected: bool | UnsetType = UNSET
    watching: bool | UnsetType = UNSET
    node: Wanted | UnsetType = UNSET
    member: Wanted | UnsetType = UNSET
    labels: (
        Annotated[dict[LabelName, LabelValue], Meta(min_length=1, max_length=32)] | UnsetType
    ) = UNSET
    q: Wanted | UnsetType = UNSET

    def filter(self) -> Filter:
        """Return it as the filter of a list."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return Filter(**{name: value for name, value in given.items() if value is not UNSET})


class BulkClosing(Incoming, frozen=True, kw_only=True):
    """Which sessions to close, when and how fast; an empty filter is every session in view."""

    filter: BulkFilter
    after_s: CloseAfterS = 0
    reason: Text | UnsetType = UNSET
    rate_per_s: Annotated[
        float, Meta(ge=0.1, le=10_000, description="Sessions a second at most.")
    ] = 100
    dry_run: Annotated[bool, Meta(description="Only count, and show some ids.")] = False


class BulkProgress(Outgoing, frozen=True, kw_only=True):
    """A line of the reply: one each second, and a last one."""

    type: Literal["progress", "done", "aborted"]
    selected: Annotated[int, Meta(description="Sessions that match.")]
    closed: Annotated[int, Meta(description="Of these, closed or told to close.")] = 0
    skipped: Annotated[
        int, Meta(description="Of these, closed or changed by others meanwhile.")
    ] = 0
    failed: Annotated[dict[str, int], Meta(description="Errors by their code.")] = {}  # noqa: RUF012 - msgspec copies it
    elapsed_s: float = 0
    dry_run: bool = False
    sample: Annotated[tuple[str, ...], Meta(description="Some of the ids, of a dry run.")] = ()
    reason: Annotated[str | None, Meta(description="Why it was aborted.")] = None


class StatsQuery(Incoming, frozen=True, kw_only=True):
    """What to count beside what is there now."""

    window: (
        Annotated[int, Meta(ge=1, le=WINDOW_MAX_S, description="Rates of these last seconds.")]
        | None
    ) = None
    by: (
        Annotated[
            Literal["workspace", "account", "service", "node"],
            Meta(description="Counts by the values of this field, too."),
        ]
        | None
    ) = None
    limit: Annotated[Limit, Meta(description="At most this many values.")] = LIMIT_DEFAULT


class States(Struct, frozen=True, kw_only=True):
    """Open sessions by state."""

    idle: int
    connected: int
    away: int
    closing: int


class NodeRates(Struct, frozen=True, kw_only=True):
    """Rates of one node, one number for each second."""

    name: str
    deliveries_per_s: list[float]
    sockets: list[int]


class GatewayRates(Struct, frozen=True, kw_only=True):
    """Rates of the whole gateway, one number for each second, the oldest first.

    The last second ends at ``until``. There are fewer than asked for if the answering node does not
    run for so long.
    """

    until: Time
    connects_per_s: list[int]
    ends_per_s: list[int]
    events_per_s: list[int]
    nodes: tuple[NodeRates, ...]


class StatsGroup(Outgoing, frozen=True, kw_only=True):
    """Counts of the sessions with one value; without a value, of those that have none."""

    value: str | None = None
    sessions: int
    connected: int
    watching: int


class Stats(Outgoing, frozen=True, kw_only=True):
    """Counts of what the caller sees, and rates if they are asked for."""

    sessions: int
    connected: int
    watching: int
    streams: int
    states: States
    rates: GatewayRates | None = None
    groups: (
        Annotated[tuple[StatsGroup, ...], Meta(description="By value, the largest first.")] | None
    ) = None
    others: (
        Annotated[StatsGroup, Meta(description="All groups beyond the limit together.")] | None
    ) = None


class NodeInfo(Outgoing, frozen=True, kw_only=True):
    """A gateway process, its lease, and what it told with it: at most 3 s ago."""

    id: str
    name: str
    is_alive: bool
    is_this: bool
    connections: Annotated[int, Meta(description="How many sessions it holds.")]
    renewed_at: Time
    version: str | None = None
    uptime_s: Annotated[int, Meta(description="Seconds since it started.")] | None = None
    sockets: Annotated[int, Meta(description="WebSockets and event streams.")] | None = None
    feed_lag_s: Annotated[float, Meta(description="How old its reads may be.")] | None = None
    memory_bytes: int | None = None
    slow_readers: (
        Annotated[int, Meta(description="Times a subscriber fell behind, since its start.")] | None
    ) = None
    is_draining: bool | None = None


class Nodes(Struct, frozen=True, kw_only=True):
    """All nodes whose lease is known."""

    nodes: tuple[NodeInfo, ...]


class Health(Struct, frozen=True, kw_only=True):
    """All is well."""

    status: Literal["ok"] = "ok"
