"""History over REST: closed sessions, finished watches and events of a session, newest first.

Not here: who writes rows (``core.event``), how long they are kept (``store``).
"""

from contextlib import aclosing
from datetime import datetime
from typing import Final, cast

from msgspec import Raw
from msgspec.structs import replace
from starlette.responses import Response

from gateway.api.schema import HistoryPage, HistoryQuery, PastPage, PastQuery
from gateway.auth.principals import Principal
from gateway.core.errors import BadPosition, NotFound, SessionClosed, Unavailable
from gateway.core.event import HistoryRow
from gateway.core.model import Session
from gateway.core.public import PublicEvent, render_row, rfc3339
from gateway.core.query import Filter, Sort, View, Visibility, cursor, parse_cursor
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing, reply
from gateway.node import Place, place_of

SKEW_MS: Final = (
    10_000  # a row's ``at`` was there when it was sent; Redis took it later, at most so
)


async def list_history(call: Call[Principal, HistoryQuery, Nothing]) -> Response:
    """List closed sessions or finished watches."""
    query, visibility = call.query, call.caller.visibility()
    view = View(
        filter=Filter(
            workspace=query.workspace,
            account=query.account,
            service=query.service,
            labels=query.labels,
            q=query.q,
        ),
        visibility=visibility,
        dialect=f"history {query.kind}",
    )
    bounds: list[Place] = []
    if query.cursor:
        took_ms, number = parse_cursor(view, Sort.CREATED_AT_DESC, query.cursor)
        if not number.isdecimal():
            raise BadPosition
        bounds.append((took_ms, int(number)))
    if query.until:
        bounds.append((_ms(query.until) + SKEW_MS, 0))
    reader = call.node.history(min(bounds, default=None))
    found: list[HistoryRow] = []
    last: HistoryRow | None = None
    more = False
    async with aclosing(reader.rows()) as rows:
        async for row in rows:
            if query.since and place_of(row)[0] < _ms(query.since) - SKEW_MS:
                break
            if len(found) == query.limit:
                more = True
                break
            last = row
            if _matches(query, visibility, row):
                found.append(row)
    return reply(
        HistoryPage(
            history=tuple(map(render_row, found)),
            next=_next(view, last) if last and (more or reader.gave_up) else None,
        )
    )


def _next(view: View, last: HistoryRow) -> str:
    took_ms, number = place_of(last)
    return cursor(view, Sort.CREATED_AT_DESC, (took_ms, str(number)))


async def list_session_events(call: Call[Principal, PastQuery, Nothing]) -> Response:
    """List what happened to a session, newest first; also after it was closed.

    Raises:
        NotFound: There was no such session lately, or the caller does not see it.
        BadPosition: The cursor is not of this session.
        Unavailable: The store did not answer.
    """
    node, session_id = call.node, call.path["id"]
    try:
        session = await node.find(session_id)
    except SessionClosed as error:
        if not isinstance(error.record, Session):
            raise NotFound from None
        session = error.record
    view = call.caller.view(Filter())
    if not view.matches(session):
        raise NotFound
    place, before = replace(view, dialect=f"events {session_id}"), None
    if call.query.cursor:
        before, _ = parse_cursor(place, Sort.NUMBER_DESC, call.query.cursor)
    past = await node.events_of(session_id, view, before, call.query.limit)
    return reply(
        PastPage(
            events=cast(list[PublicEvent], [Raw(item.data) for item in past.items]),
            since=rfc3339(past.since_ms),
            is_whole=past.is_whole,
            next=cursor(place, Sort.NUMBER_DESC, (past.next, "")) if past.next else None,
        )
    )


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _matches(query: HistoryQuery, visibility: Visibility, row: HistoryRow) -> bool:
    q = query.q.casefold() if query.q else None
    return (
        row.kind == query.kind
        and visibility.allows_of(row.session_id, row.account, row.workspace)
        and (query.workspace is None or row.workspace == query.workspace)
        and (query.account is None or row.account == query.account)
        and (query.service is None or row.service == query.service)
        and (query.since is None or row.at >= _ms(query.since))
        and (query.until is None or row.at < _ms(query.until))
        and all(row.labels.get(name) == value for name, value in query.labels.items())
        and (q is None or q in row.session_id.casefold() or q in (row.name or "").casefold())
    )


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "GET", "/v1/history", list_history,
        "List closed sessions or finished watches, newest first", query=HistoryQuery,
        returns={200: HistoryPage}, errors=(BadPosition,), tag="lists",
    ),
    Endpoint(
        "GET", "/v1/sessions/{id}/events", list_session_events,
        "List what happened to a session, newest first", query=PastQuery,
        returns={200: PastPage}, errors=(NotFound, BadPosition, Unavailable), tag="lists",
    ),
)  # fmt: skip
