"""Library: what plays and what was played, as items of a library that is not there.

Plex's clients look up each item that they hear of by its number: monitors at every play, change and
stop, others before they show anything. An item is as the sessions and the finished watches in the
caller's view tell it; a workspace is a section.

Not here: numbers (``numbers``), the history itself (``history``).
"""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha1
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace
from starlette.responses import Response

from gateway.core.errors import NotFound
from gateway.core.model import Watch
from gateway.core.query import Filter, View
from gateway.dialects.plex import words
from gateway.dialects.plex.door import Call, as_it_is, container, listing
from gateway.dialects.plex.history import may_see, reachable
from gateway.dialects.plex.numbers import ITEM, SECTION
from gateway.dialects.plex.shapes import ITEM_PATH, SECTION_PATH, is_live, item_fields, kind_of
from gateway.dialects.plex.state import Plex
from gateway.dialects.plex.xml import METADATA

BREATH: Final = 500  # sessions and rows looked at between two looks at other requests
ITEMS_MAX: Final = 256  # looked up by one request
LIBRARY: Final = words.LibraryContainer(
    size=0, identifier=words.IDENTIFIER_LIBRARY, allow_sync=False, title1="Plex Library"
)
ITEMS: Final = replace(LIBRARY, title1=None)


class Played(Struct, frozen=True):
    """Something that is or was watched: what, where, and since when (milliseconds)."""

    watch: Watch
    workspace: str | None
    since_ms: int


class Library:
    """Answers about items and sections.

    Args:
        plex: What this dialect shares.
    """

    def __init__(self, plex: Plex) -> None:
        self._plex = plex
        self._node = plex.node
        self._numbers = plex.numbers

    async def root(self, call: Call) -> Response:
        """Say that there is a library."""
        return container(call, LIBRARY)

    async def empty(self, call: Call) -> Response:
        """List what this server has not: recorders of live television."""
        return container(call, words.Container(size=0))

    async def items(self, call: Call) -> Response:
        """Show items by their numbers."""
        texts = dict.fromkeys(call.path["ids"].split(",", ITEMS_MAX))
        wanted = {int(text) for text in texts if text.isascii() and text.isdecimal()}
        found: dict[int, Played] = {}
        async for played in self._played(call):
            number = self._numbers.known(ITEM, played.watch.key)
            if number in wanted:
                found.setdefault(number, played)
                if len(found) == len(wanted):
                    break
        if not found:
            raise NotFound
        ordered = [found[int(text)] for text in texts if text.isdecimal() and int(text) in found]
        return await self._listed(call, ordered)

    async def sections(self, call: Call) -> Response:
        """List the workspaces in which something plays or was played."""
        since: dict[str, int] = {}
        async for played in self._played(call):
            if played.workspace is not None:
                known_ms = since.get(played.workspace, played.since_ms)
                since[played.workspace] = min(known_ms, played.since_ms)
        found = [await self._section(name, since[name]) for name in sorted(since)]
        return await listing(call, "Directory", found, as_it_is, around=LIBRARY)

    async def section(self, call: Call) -> Response:
        """List the items of one section, the newest first."""
        found: dict[str, Played] = {}
        async for played in self._played(call):
            number = played.workspace and self._numbers.known(SECTION, played.workspace)
            if str(number) == call.path["id"]:
                found.setdefault(played.watch.key, played)
        if not found:
            raise NotFound
        return await self._listed(call, list(found.values()))

    async def _played(self, call: Call) -> AsyncIterator[Played]:
        """Yield what the caller may see: what plays now, then what was played, newest first."""
        visibility = call.principal.visibility()
        view = View(filter=Filter(watching=True), visibility=visibility)
        for count, session in enumerate(self._node.replica.all_in(view), 1):
            if session.watch is not None:
                since_ms = session.watching_since or session.created_at
                yield Played(session.watch, session.workspace, since_ms)
            if count % BREATH == 0:
                await asyncio.sleep(0)
        for count, row in enumerate(reversed(await reachable(self._node)), 1):
            if row.watch is not None and may_see(visibility, row):
                yield Played(row.watch, row.workspace, row.started_at)
            if count % BREATH == 0:
                await asyncio.sleep(0)

    async def _listed(self, call: Call, found: list[Played]) -> Response:
        around = ITEMS
        if len(places := {played.workspace for played in found}) == 1 and (name := places.pop()):
            number = await self._numbers.give(SECTION, name)
            around = replace(around, library_section_id=number, library_section_title=name)
        return await listing(call, METADATA, found, self._render, around=around)

    async def _render(self, played: Played) -> words.LibraryItem:
        workspace, numbers = played.workspace, self._numbers
        section = None if workspace is None else await numbers.give(SECTION, workspace)
        number = await numbers.give(ITEM, played.watch.key)
        return library_item(played.watch, number, section, workspace, played.since_ms)

    async def _section(self, name: str, since_ms: int) -> words.Section:
        number = await self._numbers.give(SECTION, name)
        digest = sha1(f"{self._plex.machine} section {number}".encode(), usedforsecurity=False)
        return words.Section(
            key=str(number),
            title=name,
            uuid=str(UUID(bytes=digest.digest()[:16])),
            type="movie",
            agent="com.plexapp.agents.none",
            scanner="Plex Video Files Scanner",
            language="xn",
            allow_sync=False,
            art="",
            composite="",
            thumb="",
            filters=False,
            refreshing=False,
            content=True,
            directory=True,
            created_at=since_ms // 1000,
            updated_at=since_ms // 1000,
            scanned_at=since_ms // 1000,
            content_changed_at=since_ms // 1000,
            location=(),
        )


def library_item(
    watch: Watch, item: int, section: int | None, workspace: str | None, since_ms: int
) -> words.LibraryItem:
    """Return what is or was watched as an item of a library.

    Args:
        watch: What is known of it.
        item: Its number.
        section: The number of the workspace.
        workspace: Where it is watched.
        since_ms: Since when, in milliseconds.
    """
    return words.LibraryItem(
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
