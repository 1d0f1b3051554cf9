"""History: what plays and what was played, as rows of the history and as items of a library.

A row is written when a watch ends, whatever was seen of it: a live stream has no "90 %". Plex pages
by offset and needs totals, so that all rows within reach are looked at: those in memory, and then,
when memory is full, the newest ``OLD_ROWS_MAX`` of the older ones in Redis.

Clients look up each item that they hear of by its number: monitors at every play, change and stop,
others before they show anything. An item is as the sessions and the finished watches in the
caller's view tell it; a workspace is a section.

Not here: who writes rows (``core.event``), how long they are kept (``store``).
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from hashlib import sha1
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.json import Decoder
from msgspec.structs import replace
from starlette.responses import Response

from gateway.core.errors import BadRequest, Forbidden, NotFound
from gateway.core.event import HistoryRow
from gateway.core.model import Watch
from gateway.core.query import Filter, View, Visibility
from gateway.dialects.plex.query import Condition, Order, conditions, orders
from gateway.dialects.plex.render import (
    ITEM_PATH,
    SECTION_PATH,
    history_item,
    is_live,
    item_fields,
    kind_of,
    parents,
)
from gateway.dialects.plex.schema import (
    OWNER,
    Container,
    HistoryItem,
    LibraryContainer,
    LibraryItem,
    Section,
)
from gateway.dialects.plex.state import ACCOUNT, DEVICE, ITEM, SECTION, Numbers, Plex
from gateway.dialects.plex.style import (
    METADATA,
    PlexCall,
    as_it_is,
    container,
    listing,
    paced,
)
from gateway.http.request import read_pairs
from gateway.live.replica import HISTORY_MAX
from gateway.node import Node

OLD_ROWS_MAX: Final = 4_000  # rows of Redis a request looks at: about 20 ms
OLD_ROWS_STEP: Final = 500  # of them in one command
ITEMS_MAX: Final = 256  # looked up by one request

LIBRARY: Final = LibraryContainer(title1="Plex Library")

_ITEM: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_row: Final = Decoder(HistoryRow)


class Seen(Struct, frozen=True):
    """A row of the history and what was watched."""

    row: HistoryRow
    watch: Watch


class HistoryEndpoints:
    """Answers what Plex's clients ask of the history.

    Args:
        plex: What this dialect shares.
    """

    def __init__(self, plex: Plex) -> None:
        self._node = plex.node
        self._numbers = plex.numbers

    async def list_history(self, call: PlexCall) -> Response:
        """List finished watches."""
        wanted = conditions(read_pairs(call.request.scope), self._node.clock.now_ms() // 1000)
        order = orders(call.query.sort)
        fields = _Fields(self._numbers)
        found = [
            seen
            async for seen in paced(await self._seen(call))
            if all(condition.holds(fields.numbers(condition, seen)) for condition in wanted)
        ]
        _sort(found, order, fields)
        return await listing(call, METADATA, found, self._render)

    async def history_row(self, call: PlexCall) -> Response:
        """Show one row."""
        return await listing(call, METADATA, [await self._one(call)], self._render)

    async def delete_history(self, call: PlexCall) -> Response:
        """Delete one row for good, on every node."""
        seen = await self._one(call)
        if not call.caller.covers(seen.row.workspace):
            raise Forbidden("This token is good for another library section")
        await self._node.erase_row(seen.row)
        return container(call, Container())

    async def _one(self, call: PlexCall) -> Seen:
        text = call.path["id"]
        if not (text.isascii() and text.isdecimal()):
            raise BadRequest("A history id is a number")
        for seen in await self._seen(call):
            if str(seen.row.number) == text:
                return seen
        raise NotFound

    async def _render(self, seen: Seen) -> HistoryItem:
        ids = await self._numbers.of(seen.row, seen.watch, self._node.clock.now_ms())
        return history_item(seen.row, seen.watch, ids)

    async def _seen(self, call: PlexCall) -> list[Seen]:
        """Return what the caller may see, oldest first."""
        visibility = call.caller.visibility()
        if visibility.by == "nothing":
            raise Forbidden("This token may see no history")
        return [
            Seen(row, row.watch)
            async for row in paced(await reachable(self._node))
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


# --- items and sections


class Played(Struct, frozen=True):
    """Something that is or was watched: what, where, and since when (milliseconds)."""

    watch: Watch
    workspace: str | None
    since_ms: int


class LibraryEndpoints:
    """Answers about items and sections.

    Args:
        plex: What this dialect shares.
    """

    def __init__(self, plex: Plex) -> None:
        self._plex = plex
        self._node = plex.node
        self._numbers = plex.numbers

    async def library(self, call: PlexCall) -> Response:
        """Say that there is a library."""
        return container(call, LIBRARY)

    async def metadata(self, call: PlexCall) -> Response:
        """Show items by their numbers."""
        texts = [text for text in call.path["ids"].split(",", ITEMS_MAX) if _ITEM.fullmatch(text)]
        wanted = dict.fromkeys(map(int, texts))
        found: dict[int, Played] = {}
        async for played in self._played(call):
            number = self._numbers.known(ITEM, played.watch.key)
            if number in wanted:
                found.setdefault(number, played)
                if len(found) == len(wanted):
                    break
        return await self._listed(call, [found[number] for number in wanted if number in found])

    async def sections(self, call: PlexCall) -> Response:
        """List the workspaces in which something plays or was played."""
        since: dict[str, int] = {}
        async for played in self._played(call):
            if played.workspace is not None:
                known_ms = since.get(played.workspace, played.since_ms)
                since[played.workspace] = min(known_ms, played.since_ms)
        found = [await self._section(name, since[name]) for name in sorted(since)]
        return await listing(call, "Directory", found, as_it_is, LIBRARY)

    async def section(self, call: PlexCall) -> Response:
        """List the items of one section, the newest first."""
        found: dict[str, Played] = {}
        async for played in self._played(call):
            number = played.workspace and self._numbers.known(SECTION, played.workspace)
            if str(number) == call.path["id"]:
                found.setdefault(played.watch.key, played)
        return await self._listed(call, list(found.values()))

    async def _played(self, call: PlexCall) -> AsyncIterator[Played]:
        """Yield what the caller may see: what plays now, then what was played, newest first."""
        visibility = call.caller.visibility()
        view = View(filter=Filter(watching=True), visibility=visibility)
        async for session in paced(self._node.replica.all_in(view)):
            if session.watch is not None:
                since_ms = session.watching_since or session.created_at
                yield Played(session.watch, session.workspace, since_ms)
        async for row in paced(reversed(await reachable(self._node))):
            if row.watch is not None and may_see(visibility, row):
                yield Played(row.watch, row.workspace, row.started_at)

    async def _listed(self, call: PlexCall, found: list[Played]) -> Response:
        if not found:
            raise NotFound
        around = LibraryContainer()
        if len(places := {played.workspace for played in found}) == 1 and (name := places.pop()):
            number = await self._numbers.give(SECTION, name)
            around = replace(around, library_section_id=number, library_section_title=name)
        return await listing(call, METADATA, found, self._render, around)

    async def _render(self, played: Played) -> LibraryItem:
        workspace, numbers = played.workspace, self._numbers
        section = None if workspace is None else await numbers.give(SECTION, workspace)
        number = await numbers.give(ITEM, played.watch.key)
        return library_item(played.watch, number, section, workspace, played.since_ms)

    async def _section(self, name: str, since_ms: int) -> Section:
        number = await self._numbers.give(SECTION, name)
        digest = sha1(f"{self._plex.machine} section {number}".encode(), usedforsecurity=False)
        uuid, since_s = UUID(bytes=digest.digest()[:16]), since_ms // 1000
        return Section(
            key=str(number),
            title=name,
            uuid=str(uuid),
            created_at=since_s,
            updated_at=since_s,
            scanned_at=since_s,
            content_changed_at=since_s,
        )


def library_item(
    watch: Watch, item: int, section: int | None, workspace: str | None, since_ms: int
) -> LibraryItem:
    """Return what is or was watched as an item of a library.

    Args:
        watch: What is known of it.
        item: Its number.
        section: The number of the workspace.
        workspace: Where it is watched.
        since_ms: Since when, in milliseconds.
    """
    return LibraryItem(
        **item_fields(watch),
        rating_key=str(item),
        key=f"{ITEM_PATH}{item}",
        title=watch.title or watch.key,
        type=kind_of(watch),
        duration=watch.duration_ms or 0,
        added_at=since_ms // 1000,
        updated_at=since_ms // 1000,
        live=is_live(watch) or None,
        library_section_id=None if section is None else str(section),
        library_section_key=None if section is None else f"{SECTION_PATH}{section}",
        library_section_title=workspace,
    )
