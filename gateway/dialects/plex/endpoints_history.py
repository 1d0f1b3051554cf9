"""History: current and past playbacks, as history rows and as items of a library.

A row is written when a watch ends, however much of it was watched, because a live stream has no
"90 %". Plex pages by offset and needs totals, so all rows within reach are scanned.

Clients look up each item of a notification by its number: monitors at every play, change and stop,
others before they show anything. An item has the data of the sessions and finished watches in the
caller's view; a workspace is a section.

Not here: writing rows (``core.event``), how long they are kept (``store``).
"""

import re
from collections.abc import AsyncIterator, Sequence
from hashlib import sha1
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace
from starlette.responses import Response

from gateway.core.errors import BadRequest, Forbidden, NotFound
from gateway.core.event import HistoryRow
from gateway.core.model import Watch
from gateway.core.query import Filter, View, Visibility
from gateway.dialects.plex import render, schema
from gateway.dialects.plex.query import Order, conditions, orders
from gateway.dialects.plex.state import ACCOUNT, DEVICE, ITEM, SECTION, PlexEndpoints
from gateway.dialects.plex.style import METADATA, PlexCall, container, listing
from gateway.http.endpoint import paced
from gateway.http.request import read_pairs

ITEMS_MAX: Final = 256  # looked up by one request
LIBRARY: Final = schema.LibraryContainer(title1="Plex Library")

Seen = tuple[HistoryRow, Watch]

_ITEM: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


def may_see(visibility: Visibility, row: HistoryRow) -> bool:
    """Whether the caller may see the session of a row."""
    return visibility.allows_of(row.session_id, row.account, row.workspace)


class HistoryEndpoints(PlexEndpoints):
    """The endpoints of the history."""

    async def list_history(self, call: PlexCall) -> Response:
        """List finished watches; of equal ones the first field's direction decides."""
        wanted = conditions(read_pairs(call.request.scope), self._node.now_ms() // 1000)
        order = orders(call.query.sort)
        found = [
            seen
            async for seen in paced(await self._seen(call))
            if all(condition.holds(self._numbers_in(condition.field, seen)) for condition in wanted)
        ]
        if order and order[0].descending:
            found.reverse()
        for by in reversed(order):
            found.sort(key=lambda seen: self._sort_key(by, seen), reverse=by.descending)
        return await listing(call, METADATA, found, self._render)

    async def history_row(self, call: PlexCall) -> Response:
        """Show one row."""
        return await listing(call, METADATA, [await self._one(call)], self._render)

    async def delete_history(self, call: PlexCall) -> Response:
        """Delete one row for good, on every node."""
        row, _ = await self._one(call)
        if not call.caller.covers(row.workspace):
            raise Forbidden("This token is good for another library section")
        await self._node.erase_row(row)
        return container(call, schema.Container())

    async def _one(self, call: PlexCall) -> Seen:
        text = call.path["id"]
        if not (text.isascii() and text.isdecimal()):
            raise BadRequest("A history id is a number")
        for row, watch in await self._seen(call):
            if str(row.number) == text:
                return row, watch
        raise NotFound

    async def _render(self, seen: Seen) -> schema.HistoryItem:
        ids = await self._numbers.of(*seen, self._node.now_ms())
        return render.history_item(*seen, ids)

    async def _seen(self, call: PlexCall) -> list[Seen]:
        """Return the rows that the caller may see, oldest first, and what was watched."""
        visibility = call.caller.visibility()
        if visibility.by == "nothing":
            raise Forbidden("This token may see no history")
        return [
            (row, row.watch)
            async for row in paced(await self._node.history_rows())
            if row.kind == "watch" and row.watch and may_see(visibility, row)
        ]

    def _numbers_in(self, name: str, seen: Seen) -> Sequence[int]:
        """Return the numbers in a field of a row; a name that nobody heard of has none yet."""
        row, watch = seen
        match name:
            case "viewedAt":
                return (row.at // 1000,)
            case "historyKey":
                return (row.number,)
            case "accountID":
                return (schema.OWNER,) if row.account is None else self._known(ACCOUNT, row.account)
            case "deviceID":
                return self._known(DEVICE, row.client.key if row.client else None)
            case "librarySectionID":
                return self._known(SECTION, row.workspace)
            case "metadataItemID":
                return (*self._known(ITEM, watch.key), *map(int, render.parents(watch)))
            case _:
                return self._known(ITEM, watch.key)

    def _known(self, kind: str, name: str | None) -> Sequence[int]:
        number = None if name is None else self._numbers.known(kind, name)
        return () if number is None else (number,)

    def _sort_key(self, order: Order, seen: Seen) -> tuple[int, int, str]:
        """Return what a row is ordered by; rows without a value come first."""
        watch = seen[1]
        if order.field == "title":
            return 1, 0, (watch.title or watch.key).casefold()
        if order.field == "type":
            return 1, 0, render.kind_of(watch)
        found = self._numbers_in(order.field, seen)
        return (1, found[0], "") if found else (0, 0, "")


# --- items and sections


class Played(Struct, frozen=True):
    """Something that is or was watched: what, where, and since when (milliseconds)."""

    watch: Watch
    workspace: str | None
    since_ms: int


class LibraryEndpoints(PlexEndpoints):
    """The endpoints of items and sections."""

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
        return await listing(call, "Directory", found, around=LIBRARY)

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
        async for session in paced(self._node.all_in(view)):
            if session.watch is not None:
                since_ms = session.watching_since or session.created_at
                yield Played(session.watch, session.workspace, since_ms)
        async for row in paced(reversed(await self._node.history_rows())):
            if row.watch is not None and may_see(visibility, row):
                yield Played(row.watch, row.workspace, row.started_at)

    async def _listed(self, call: PlexCall, found: list[Played]) -> Response:
        if not found:
            raise NotFound
        around = schema.LibraryContainer()
        if len(places := {played.workspace for played in found}) == 1 and (name := places.pop()):
            number = await self._numbers.give(SECTION, name)
            around = replace(around, library_section_id=number, library_section_title=name)
        return await listing(call, METADATA, found, self._render, around)

    async def _render(self, played: Played) -> schema.LibraryItem:
        watch, workspace, since_s = played.watch, played.workspace, played.since_ms // 1000
        section = None if workspace is None else await self._numbers.give(SECTION, workspace)
        return schema.LibraryItem(
            **render.item_fields(watch, await self._numbers.give(ITEM, watch.key)),
            **render.section_fields(section, workspace),
            duration=watch.duration_ms or 0,
            added_at=since_s,
            updated_at=since_s,
            live=render.is_live(watch) or None,
        )

    async def _section(self, name: str, since_ms: int) -> schema.Section:
        number = await self._numbers.give(SECTION, name)
        digest = sha1(f"{self._plex.machine} section {number}".encode(), usedforsecurity=False)
        uuid, since_s = str(UUID(bytes=digest.digest()[:16])), since_ms // 1000
        return schema.Section(
            key=str(number), title=name, uuid=uuid, created_at=since_s, updated_at=since_s
        )
