"""``gateway sessions``, ``show``, ``close``, ``cancel``, ``kick``: each a request or a few."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from gateway.cli.options import Filters, Json, Reach, SessionId, Wide
from gateway.cli.output import (
    SHORT_ID,
    TABLE_ROWS_MAX,
    flattened,
    for_people,
    now_ms,
    put,
    put_cells,
    put_document,
    put_json,
    put_table,
    short_id,
    shown_time,
)
from gateway.client import Filter, Gateway, Session, Sort
from gateway.core.errors import Forbidden, Invalid, SessionClosed
from gateway.logs.formats import escaped

PAGE: Final = 500  # sessions a request; about half a megabyte

_SHORT: Final = re.compile(f"[0-9a-f]{{{SHORT_ID}}}")
HEADERS: Final = ("ID", "STATE", "NAME", "ACCOUNT", "WORKSPACE", "WATCHING", "SINCE", "CLOSES")


async def list_sessions(
    *,
    filters: Filters = Filters(),  # noqa: B008 - immutable
    sort: Annotated[
        Literal["created_at", "-created_at", "number", "-number", "closes_at", "-closes_at"],
        Parameter(help="The order; a leading minus reverses it.", allow_leading_hyphen=True),
    ] = "created_at",
    limit: Annotated[int | None, Parameter(help="At most this many.")] = None,
    wide: Wide = False,
    json: Json = False,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> None:
    """List open sessions.

    Columns: id, state, name, account, workspace, what is watched, since when it is connected, away
    or there, and when it closes.
    """
    if limit is not None and limit < 1:
        return
    async with Gateway(reach.url, token=reach.shown_token()) as gateway:
        page = PAGE if limit is None else min(limit, PAGE)
        found = first(gateway.list_sessions(filters.filter(), sort=Sort(sort), limit=page), limit)
        if json:
            async for session in found:
                put_json(session)
        elif for_people():
            rows = [session async for session in first(found, TABLE_ROWS_MAX + 1)]
            put_table(HEADERS, _rows(rows, wide=wide), cut=not wide)
        else:
            async for session in found:
                put_cells(session_cells(session, 0, wide=True))


async def first(sessions: AsyncIterator[Session], limit: int | None) -> AsyncIterator[Session]:
    """Yield at most *limit* of *sessions*, and ask for no page more."""
    count = 0
    async for session in sessions:
        yield session
        count += 1
        if count == limit:
            return


def _rows(sessions: list[Session], *, wide: bool) -> Iterator[list[str | None]]:
    now = now_ms()
    return (session_cells(session, now, wide=wide) for session in sessions)


def session_cells(session: Session, now: int, *, wide: bool) -> list[str | None]:
    """Return a session's row of the table."""
    since = {"connected": "connected_at", "away": "disconnected_at"}.get(session["state"], "")
    watch = session.get("watch", {})
    return [
        short_id(session["id"], wide=wide),
        session["state"],
        *(session.get(name) for name in ("name", "account", "workspace")),
        watch.get("title") or watch.get("key"),
        shown_time(session.get(since) or session["created_at"], now),
        shown_time(session.get("closes_at"), now),
    ]


async def full_id(gateway: Gateway, text: str) -> str:
    """Return the id of the one open session that *text*, a short id, means; else *text*.

    Raises:
        Invalid: Several end like that.
    """
    if not _SHORT.fullmatch(text):
        return text
    try:
        found: list[str] = [
            one["id"] async for one in gateway.list_sessions(Filter(q=text), limit=PAGE)
        ]
    except Forbidden:  # a token that may close, but not read, has to know whole ids
        return text
    meant = [one for one in found if one.endswith(text)]
    if text in meant or not meant:
        return text
    if len(meant) > 1:
        raise Invalid(f"{len(meant)} sessions end with {text}; see sessions --wide.")
    return meant[0]


async def show(
    session_id: SessionId,
    /,
    *,
    json: Json = False,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> None:
    """Show one session."""
    async with Gateway(reach.url, token=reach.shown_token()) as gateway:
        try:
            session = await gateway.get(await full_id(gateway, session_id))
        except SessionClosed as error:
            if "session" not in error.extra:
                raise
            session = error.extra["session"]
    if json:
        put_document(session)
    else:
        put_table(("FIELD", "VALUE"), list(flattened(session)))


async def cancel(
    session_id: SessionId,
    /,
    *,
    json: Json = False,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> None:
    """Cancel the pending close of a session."""
    async with Gateway(reach.url, token=reach.shown_token()) as gateway:
        session_id = await full_id(gateway, session_id)
        tell(await gateway.cancel(session_id), f"{session_id} stays open", json=json)


async def kick(
    session_id: SessionId,
    /,
    *,
    json: Json = False,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> None:
    """End the connection of a session."""
    async with Gateway(reach.url, token=reach.shown_token()) as gateway:
        session_id = await full_id(gateway, session_id)
        tell(await gateway.kick(session_id), f"{session_id} is disconnected", json=json)


def tell(session: Session, line: str, *, json: bool) -> None:
    """Write what was done to a session: a line for people, or the session."""
    if json:
        put_document(session)
    else:
        put(escaped(line))
