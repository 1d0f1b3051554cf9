"""History over REST: closed sessions and finished watches, newest first.

The newest rows are in the replica; older ones come from Redis, a bounded number per request, so a
page may be short and still have a ``next``. Rows are in the order in which Redis stored them: by
time in milliseconds, then by number, which together are unique.

Not here: writing rows (``core.event``), how long they are kept (``store``).
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from datetime import datetime
from typing import Final

from msgspec.json import Decoder
from msgspec.structs import replace
from starlette.responses import Response

from gateway.api.schema import HistoryPage, HistoryQuery
from gateway.auth.principals import Principal
from gateway.core.errors import BadPosition
from gateway.core.event import HistoryRow
from gateway.core.public import render_row
from gateway.core.query import Filter, Sort, View, Visibility, cursor, parse_cursor
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing, reply
from gateway.live.replica import HISTORY_MAX, Place, place_of
from gateway.node import Node

ROWS_AT_ONCE: Final = 2_000  # rows of the replica looked at before others get a turn: about 2 ms
OLD_ROWS_MAX: Final = 4_000  # rows of Redis a request looks at: about 20 ms
OLD_ROWS_STEP: Final = 500  # of them in one command
ANY_PLACE: Final[Place] = (2**53, 0)  # later than any row's
SKEW_MS: Final = (
    10_000  # a row's ``at`` was there when it was sent; Redis took it later, at most so
)

_row: Final = Decoder(HistoryRow)


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
    reader = _Reader(call.node, min(bounds, default=None))
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


class _Reader:
    """Reads the history from a place on, into the past.

    Args:
        node: The node.
        before: Only rows that stand before this place; ``None`` is all.
    """

    def __init__(self, node: Node, before: Place | None) -> None:
        self.gave_up = False  # there may be more rows, but this request has read enough
        self._node = node
        self._before = before

    async def rows(self) -> AsyncGenerator[HistoryRow, None]:
        """Yield rows of both kinds, newest first."""
        floor = self._floor()
        for looked, row in enumerate(self._remembered(), 1):
            if looked % ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
            place = place_of(row)
            if floor is not None and place < floor:
                break
            if self._before is None or place < self._before:
                yield row
        if floor is None:
            return
        before = floor if self._before is None else min(floor, self._before)
        async with aclosing(self._stored(before)) as stored:
            async for row in stored:
                yield row

    def _remembered(self) -> Iterator[HistoryRow]:
        """Return the replica's rows; those of several partitions arrived in any order."""
        rows = reversed(self._node.replica.history.copy())
        if self._node.store.partitions > 1:
            return iter(sorted(rows, key=place_of, reverse=True))
        return rows

    def _floor(self) -> Place | None:
        """Return the place after which the replica has every row; ``None`` if it has all."""
        node, history = self._node, self._node.replica.history
        if len(history) + node.replica.erased_rows < HISTORY_MAX // node.store.partitions:
            return None
        oldest: dict[int, Place] = {}
        for row in history:
            oldest.setdefault(node.store.partition(row.session_id), place_of(row))
            if len(oldest) == node.store.partitions:
                break
        return max(oldest.values(), default=ANY_PLACE)

    async def _stored(self, before: Place) -> AsyncGenerator[HistoryRow, None]:
        """Yield Redis' rows of all partitions, newest first, as far as the budget goes."""
        store = self._node.store
        waiting: dict[int, deque[HistoryRow]] = {part: deque() for part in range(store.partitions)}
        starts = dict.fromkeys(waiting, f"{before[0] + 1}-0")
        budget = OLD_ROWS_MAX
        while waiting:
            for part in [part for part, rows in waiting.items() if not rows]:
                if budget <= 0:
                    self.gave_up = True
                    return
                step = max(OLD_ROWS_STEP // store.partitions, 1)
                found = await store.history(part, starts[part], step)
                budget -= len(found)
                if not found:
                    del waiting[part]
                    continue
                starts[part] = found[-1][0]
                rows = (
                    replace(_row.decode(text), number=number, key=key)
                    for key, number, text in found
                )
                waiting[part].extend(row for row in rows if place_of(row) < before)
            full = [rows for rows in waiting.values() if rows]
            if len(full) == len(waiting) and full:
                yield max(full, key=lambda rows: place_of(rows[0])).popleft()


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        method="GET",
        path="/v1/history",
        handler=list_history,
        query=HistoryQuery,
        returns={200: HistoryPage},
        errors=(BadPosition,),
        summary="List closed sessions or finished watches, newest first",
        tag="lists",
    ),
)
