"""Lists over REST: live streams, counts and nodes.

All of them show the caller's view only, counts too. A page that has scanned its limit of records
may be short and has a ``next``.

Not here: sessions (``endpoints_sessions``), history (``endpoints_history``), ``events``.
"""

from contextlib import aclosing
from typing import Any, Final

from starlette.responses import Response

from gateway.api.operator_schema import (
    GatewayRates,
    NodeInfo,
    NodeRates,
    Nodes,
    States,
    Stats,
    StatsGroup,
    StatsQuery,
)
from gateway.api.schema import SessionStream, StreamPage, StreamQuery
from gateway.auth.principals import Principal, Scope
from gateway.core.errors import BadPosition, Forbidden
from gateway.core.model import STREAMS_MAX, Session, State
from gateway.core.public import rfc3339
from gateway.core.query import Sort, SortKey, View, cursor, node_of, parse_cursor
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing, paced, reply
from gateway.node import NodeStatus, Window


async def list_streams(call: Call[Principal, StreamQuery, Nothing]) -> Response:
    """List the live streams of the sessions in view, oldest session first."""
    query, node = call.query, call.node
    view = call.caller.view(query)
    after: SortKey | None = None
    skip = 0
    found: list[tuple[Session, int]] = []  # a session and which of its streams
    if query.cursor:
        value, place = parse_cursor(view, Sort.CREATED_AT, query.cursor)
        session_id, _, done = place.partition("/")
        skip = int(done) if done.isdecimal() else STREAMS_MAX  # all of that session was shown
        after = (value, session_id)
        session = node.sessions.get(session_id)
        if session and session.created_at == value and view.matches(session):
            found.extend((session, number) for number in range(skip, len(session.streams)))
    async with aclosing(node.scan(view, after)) as parts:
        async for sessions, after in parts:  # noqa: B007 - where the next page starts
            for session in sessions:
                found.extend((session, number) for number in range(len(session.streams)))
            if len(found) > query.limit:
                break
    place_after = _after(found[: query.limit]) if len(found) > query.limit else after
    return reply(
        StreamPage(
            streams=tuple(_stream(session, number) for session, number in found[: query.limit]),
            next=cursor(view, Sort.CREATED_AT, place_after) if place_after else None,
        )
    )


def _after(found: list[tuple[Session, int]]) -> SortKey:
    session, number = found[-1]
    return session.created_at, f"{session.id}/{number + 1}"


def _stream(session: Session, number: int) -> SessionStream:
    stream = session.streams[number]
    return SessionStream(
        session_id=session.id,
        key=stream.key,
        kind=stream.kind,
        state=stream.state,
        data=stream.data,
    )


async def get_stats(call: Call[Principal, StatsQuery, Nothing]) -> Response:
    """Count what the caller sees; the picture is of one moment. Rates are of the whole gateway."""
    if call.query.window is not None:
        call.caller.require(Scope.ADMIN)
    by = call.query.by
    if by == "node" and not call.caller.is_full:
        raise Forbidden("Only those who may write see nodes.")
    sessions = call.node.all_in(View(visibility=call.caller.visibility()))
    states = dict.fromkeys(State, 0)
    groups: dict[str | None, list[int]] = {}
    connected = watching = streams = 0
    async for session in paced(sessions):
        if by is not None:
            value = node_of(session) if by == "node" else getattr(session, by)
            counts = groups.setdefault(value, [0, 0, 0])
            counts[0] += 1
            counts[1] += session.is_connected
            counts[2] += session.is_watching
        states[session.state] += 1
        connected += session.is_connected
        watching += session.is_watching
        streams += len(session.streams)
    return reply(
        Stats(
            sessions=len(sessions),
            connected=connected,
            watching=watching,
            streams=streams,
            states=States(
                idle=states[State.IDLE],
                connected=states[State.CONNECTED],
                away=states[State.AWAY],
                closing=states[State.CLOSING],
            ),
            rates=None
            if call.query.window is None
            else _rates(call.node.window(call.query.window)),
            **({} if by is None else _grouped(groups, call.query.limit)),
        )
    )


def _grouped(groups: dict[str | None, list[int]], limit: int) -> dict[str, Any]:
    """Return the largest groups, and the others together."""
    found = sorted(groups.items(), key=lambda group: (-group[1][0], group[0] or ""))
    rest = [sum(counts[part] for _, counts in found[limit:]) for part in range(3)]
    return {
        "groups": tuple(_group(value, counts) for value, counts in found[:limit]),
        "others": _group(None, rest) if found[limit:] else None,
    }


def _group(value: str | None, counts: list[int]) -> StatsGroup:
    sessions, connected, watching = counts
    return StatsGroup(value=value, sessions=sessions, connected=connected, watching=watching)


def _rates(window: Window) -> GatewayRates:
    return GatewayRates(
        until=rfc3339(window.until_s * 1000),
        connects_per_s=window.connects,
        ends_per_s=window.ends,
        events_per_s=window.events,
        nodes=tuple(
            NodeRates(name=name, deliveries_per_s=node.deliveries, sockets=node.sockets)
            for name, node in window.nodes.items()
        ),
    )


async def list_nodes(call: Call[Principal, Nothing, Nothing]) -> Response:
    """List the nodes and their leases."""
    nodes = tuple(_node(known, is_this=known.id == call.node.id) for known in call.node.nodes())
    return reply(Nodes(nodes=nodes))


def _node(known: NodeStatus, *, is_this: bool) -> NodeInfo:
    told = known.report
    return NodeInfo(
        id=known.id,
        name=known.id.partition(":")[0],
        is_alive=known.is_alive,
        is_this=is_this,
        connections=known.connections,
        renewed_at=rfc3339(known.renewed_at),
        version=told.version,
        uptime_s=None if told.uptime_s is None else int(told.uptime_s),
        sockets=told.sockets,
        feed_lag_s=None if told.feed_lag_ms is None else told.feed_lag_ms / 1000,
        memory_bytes=told.memory_bytes,
        slow_readers=told.slow_readers,
        is_draining=told.is_draining,
    )


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "GET", "/v1/streams", list_streams, "List live streams", query=StreamQuery,
        returns={200: StreamPage}, errors=(BadPosition,), tag="lists",
    ),
    Endpoint(
        "GET", "/v1/stats", get_stats, "Count what you see", query=StatsQuery,
        returns={200: Stats}, errors=(Forbidden,), tag="lists",
    ),
    Endpoint(
        "GET", "/v1/nodes", list_nodes, "List nodes", returns={200: Nodes}, scope=Scope.ADMIN,
        tag="operations",
    ),
)  # fmt: skip
