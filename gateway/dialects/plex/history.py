"""History: finished watches as Plex's history, with its filters, orders and totals.

A row is written when a watch ends, whatever was seen of it: a live stream has no "90 %". Plex pages
by offset and needs totals, so that all rows within reach are looked at: those in memory, and then,
when memory is full, the newest ``OLD_ROWS_MAX`` of the older ones in Redis.

Not here: who writes rows (``core.event``), how long they are kept (``store``).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from msgspec import Struct
from msgspec.json import Decoder
from msgspec.structs import replace
from starlette.responses import Response

from gateway.auth.principals import Scope
from gateway.core.errors import BadRequest, Forbidden, NotFound
from gateway.core.event import HistoryRow
from gateway.core.model import Watch
from gateway.core.query import Visibility
from gateway.dialects.plex.door import Call, container, listing
from gateway.dialects.plex.grammar import Condition, Order, conditions, orders
from gateway.dialects.plex.numbers import ACCOUNT, DEVICE, ITEM, SECTION, Numbers
from gateway.dialects.plex.shapes import OWNER, history_item, kind_of, parents
from gateway.dialects.plex.state import Plex
from gateway.dialects.plex.words import Container, HistoryItem
from gateway.dialects.plex.xml import METADATA
from gateway.live.replica import HISTORY_MAX
from gateway.node import Node

OLD_ROWS_MAX: Final = 4_000  # rows of Redis a request looks at: about 20 ms
OLD_ROWS_STEP: Final = 500  # of them in one command

_row: Final = Decoder(HistoryRow)


class Seen(Struct, frozen=True):
    """A row of the history and what was watched."""

    row: HistoryRow
    watch: Watch


class History:
    """Answers what Plex's clients ask of the history.

    Args:
        plex: What this dialect shares.
    """

    def __init__(self, plex: Plex) -> None:
        self._node = plex.node
        self._numbers = plex.numbers

    async def all(self, call: Call) -> Response:
        """List finished watches."""
        wanted = conditions(call.pairs, self._node.clock.now_ms() // 1000)
        order = orders(call.parameter("sort"))
        fields = _Fields(self._numbers)
        found = [
            seen
            for seen in await self._seen(call)
            if all(condition.holds(fields.numbers(condition, seen)) for condition in wanted)
        ]
        _sort(found, order, fields)
        return await listing(call, METADATA, found, partial(self._render, call))

    async def one(self, call: Call) -> Response:
        """Show one row."""
        return await listing(call, METADATA, await self._one(call), partial(self._render, call))

    async def delete(self, call: Call) -> Response:
        """Delete one row for good, on every node."""
        principal = call.principal
        principal.require(Scope.WRITE)
        (seen,) = await self._one(call)
        if not principal.covers(seen.row.workspace):
            raise Forbidden("This token is good for another library section")
        await self._node.erase_row(seen.row)
        return container(call, Container(size=0))

    async def _one(self, call: Call) -> list[Seen]:
        text = call.path["id"]
        if not (text.isascii() and text.isdecimal()):
            raise BadRequest("A history id is a number")
        found = [seen for seen in await self._seen(call) if str(seen.row.number) == text]
        if not found:
            raise NotFound
        return found

    async def _render(self, _call: Call, seen: Seen) -> HistoryItem:
        now_ms = self._node.clock.now_ms()
        ids = await self._numbers.of(seen.row, seen.watch, now_ms)
        return history_item(seen.row, seen.watch, ids)

    async def _seen(self, call: Call) -> list[Seen]:
        """Return what the caller may see, oldest first."""
        visibility = call.principal.visibility()
        if visibility.by == "nothing":
            raise Forbidden("This token may see no history")
        return [
            Seen(row, row.watch)
            for row in await reachable(self._node)
            if row.kind == "watch" and row.watch and may_see(visibility, row)
        ]


async def reachable(node: Node) -> Sequence[HistoryRow]:
    """Return all rows within reach, oldest first.

    Raises:
        Unavailable: The store did not answer.
    """
    rows = list(node.replica.history)
    partitions = node.store.partitions
    kept = len(rows) + node.replica.erased_rows
    if kept >= HISTORY_MAX // partitions:  # memory may be full: there may be older ones
        oldest: dict[int, str] = {}
        for row in rows:
            oldest.setdefault(node.store.partition(row.session_id), row.key)
        for partition in range(partitions):
            rows += await _older(node, partition, oldest.get(partition, ""))
    rows.sort(key=_place)
    return rows


async def _older(node: Node, partition: int, before: str) -> list[HistoryRow]:
    budget = OLD_ROWS_MAX // node.store.partitions
    rows: list[HistoryRow] = []
    while budget > 0:
        found = await node.store.history(partition, before, min(budget, OLD_ROWS_STEP))
        rows += (replace(_row.decode(text), number=no, key=key) for key, no, text in found)
        if not found:
            break
        before = found[-1][0]
        budget -= len(found)
    return rows


def _place(row: HistoryRow) -> tuple[int, int]:
    """Return where a row stands: when Redis took it, in milliseconds, and its number."""
    return int(row.key.partition("-")[0] or 0), row.number


def may_see(visibility: Visibility, row: HistoryRow) -> bool:
    """Whether a row is of a session that may be seen."""
    return visibility.allows_of(row.session_id, row.account, row.workspace)


class _Fields:
    """The fields of rows as numbers; each name is looked up once a request.

    A name that has no number yet equals none: nobody can have heard of it.
    """

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._found: dict[tuple[str, str], int | None] = {}
        self._readers: Mapping[str, Callable[[Seen], Sequence[int]]] = {
            "viewedAt": lambda seen: (seen.row.at // 1000,),
            "historyKey": lambda seen: (seen.row.number,),
            "accountID": self._account,
            "deviceID": lambda seen: self._named(
                DEVICE, seen.row.client.key if seen.row.client else None
            ),
            "librarySectionID": lambda seen: self._named(SECTION, seen.row.workspace),
            "ratingKey": lambda seen: self._named(ITEM, seen.watch.key),
            "metadataItemID": self._items,
        }

    def numbers(self, condition: Condition, seen: Seen) -> Sequence[int]:
        """Return the numbers in the field of *condition*."""
        return self._readers[condition.field](seen)

    def sort_key(self, order: Order, seen: Seen) -> tuple[int, int, str]:
        """Return what a row is ordered by; rows without a value come first."""
        if order.field == "title":
            return 1, 0, (seen.watch.title or seen.watch.key).casefold()
        if order.field == "type":
            return 1, 0, kind_of(seen.watch)
        found = self._readers[order.field](seen)
        return (1, found[0], "") if found else (0, 0, "")

    def _account(self, seen: Seen) -> Sequence[int]:
        return (OWNER,) if seen.row.account is None else self._named(ACCOUNT, seen.row.account)

    def _items(self, seen: Seen) -> Sequence[int]:
        return (*self._named(ITEM, seen.watch.key), *map(int, parents(seen.watch)))

    def _named(self, kind: str, name: str | None) -> Sequence[int]:
        if name is None:
            return ()
        if (kind, name) not in self._found:
            self._found[kind, name] = self._numbers.known(kind, name)
        number = self._found[kind, name]
        return () if number is None else (number,)


def _sort(found: list[Seen], order: Sequence[Order], fields: _Fields) -> None:
    """Sort rows, given oldest first; of equal ones the first field's direction decides."""
    if order and order[0].descending:
        found.reverse()
    for field in reversed(order):
        found.sort(key=partial(fields.sort_key, field), reverse=field.descending)
