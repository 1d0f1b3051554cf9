"""Events: what happens to the sessions in view, pushed by WebSocket or SSE, or polled as JSON.

All three use :meth:`Node.subscribe`. A client that sends the position where it stopped gets exactly
the events that it missed, on any node; others get a snapshot and the reason for it.

By WebSocket and SSE: ``hello`` (which of both follows), ``snapshot`` pages, ``events``; ``resync``
when the reader has to start over; ``heartbeat`` in silence; ``bye`` before the gateway ends it.

The JSON page without ``since`` returns the position to start at, and with it the events since then.
A poller that gets ``mode: snapshot`` although it sent a position has to read the list again.
"""

from contextlib import suppress
from functools import partial
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Raw, UnsetType
from starlette.responses import Response

from gateway.api.access import subscribed_view
from gateway.api.codec import NativeStreamCodec
from gateway.api.schema import Outgoing
from gateway.api.socket_handlers import NativeObserver
from gateway.api.websockets import WebSocketRequest
from gateway.auth.credentials import read_credential
from gateway.auth.principals import Principal
from gateway.context import Context
from gateway.core.errors import (
    BadPosition,
    Overloaded,
)
from gateway.core.position import Position
from gateway.core.public import PublicEvent
from gateway.core.query import Filter, View
from gateway.http.endpoint import JSON, AnyEndpoint, Call, Endpoint, Nothing, reply
from gateway.http.problems import problem
from gateway.http.request import read_query
from gateway.node import Node, Tick, Trimmed
from gateway.realtime.sse import SSE, EventStream
from gateway.realtime.subscriber import position_of, resume_point

WAIT_MAX_S: Final = 25.0  # of a long poll; proxies give up at 30 s or 60 s
PAGE_EVENTS: Final = 1_000  # a JSON page ends with the frame that passes this

PositionText = Annotated[
    str,
    Meta(min_length=1, max_length=8192, description="Where to go on; a `position` told before."),
]


class Since(Filter, frozen=True, kw_only=True):
    """The events of which sessions, and from where on."""

    since: PositionText | None = None


class EventsQuery(Since, frozen=True, kw_only=True):
    """The events of which sessions, from where on, and how long to wait for some."""

    wait: (
        Annotated[
            float,
            Meta(ge=0, le=WAIT_MAX_S, description="Seconds to wait if nothing happened (JSON)."),
        ]
        | None
    ) = None


class EventsPage(Outgoing, frozen=True):
    """What happened since a position."""

    position: Annotated[str, Meta(description="After the last event; the next `since`.")]
    mode: Annotated[
        Literal["snapshot", "resume"],
        Meta(description="`snapshot`: nothing can be told from there; read the list."),
    ]
    events: list[PublicEvent]
    reason: Annotated[str, Meta(description="Why not from there.")] | UnsetType = UNSET
    more: Annotated[bool, Meta(description="Whether there is more at once.")] = False


class _Page(Outgoing, frozen=True):
    """The same, of events that are JSON already."""

    position: str
    mode: Literal["snapshot", "resume"]
    events: list[Raw]
    reason: str | None = None
    more: bool = False


# --- WebSocket


async def observe(request: WebSocketRequest) -> None:
    """Serve ``WS /v1/events``."""
    principal = await request.principal()
    query = read_query(request.pairs, Since, ())
    view = subscribed_view(principal, query)
    if query.since is not None:
        Position.parse(query.since)
    observer = NativeObserver(request.context, request.connection, principal)
    await observer.subscriber.start(view, query.since)
    request.connection.bind(observer)
    request.connection.start()


# --- HTTP


async def read_events(call: Call[Principal, EventsQuery, Nothing]) -> Response:
    """Tell what happens: as a stream, or as a page."""
    query = call.query
    view = subscribed_view(call.caller, query)
    last_id = call.request.header("last-event-id") if call.media == SSE else None
    since = last_id or query.since  # a browser repeats the address it began with
    position, reason = await resume_point(call.node, view, since)
    if call.media == SSE:
        heartbeat_s = call.context.settings.heartbeat_s
        return EventStream(
            call.context,
            call.caller,
            NativeStreamCodec(call.node, int(heartbeat_s * 1000)),
            partial(call.node.subscribe, view, position, reason),
            refuse=lambda error: problem(
                error, call.request.id, call.caller, root=call.request.root
            ),
            heartbeat_s=heartbeat_s,
        )
    read_credential(call.request.scope)  # ?token= is for streams, whose readers set no header
    if position is None:
        return reply(_started_over(call.node, view, reason))
    return reply(await _page(call.context, view, position, query.wait or 0))


async def _page(context: Context, view: View, since: Position, wait_s: float) -> _Page:
    node = context.node
    events: list[Raw] = []
    upto = since
    try:
        while not upto.covers(now := node.position(view.hash32)):
            async for tick in node.replay(view, upto, now):
                events.extend(Raw(item.data) for item in tick.items)
                if len(events) >= PAGE_EVENTS:
                    return _resumed(tick.position, events, more=tick.position != now)
            upto = now
    except Trimmed:
        return _started_over(node, view, "trimmed")
    if events or not wait_s:
        return _resumed(upto, events)
    with node.subscribe(view, upto) as subscription, suppress(TimeoutError):
        async with context.connections.bounded_wait(wait_s):
            while len(events) < PAGE_EVENTS and (subscription.is_behind or not events):
                delivery = await subscription.next()
                if not isinstance(delivery, Tick):
                    return _started_over(node, view, getattr(delivery, "reason", None))
                events.extend(Raw(item.data) for item in delivery.items)
    return _resumed(position_of(node, subscription), events, more=subscription.is_behind)


def _resumed(
    position: Position | str,
    events: list[Raw],
    *,
    more: bool = False,
) -> _Page:
    return _Page(position=str(position), mode="resume", events=events, more=more)


def _started_over(node: Node, view: View, reason: str | None) -> _Page:
    position = str(node.position(view.hash32))
    return _Page(position=position, mode="snapshot", reason=reason, events=[])


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "GET", "/v1/events", read_events,
        "What happens: a page, or a stream (SSE); as WebSocket see /asyncapi.json",
        query=EventsQuery, returns={200: EventsPage}, errors=(BadPosition, Overloaded),
        tag="events", token_in_query=True, produces=(JSON, SSE), headers=("Last-Event-ID",),
    ),
)  # fmt: skip
