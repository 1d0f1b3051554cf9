"""``gateway watch``: what happens, one line an event, until somebody stops it.

After a lost connection the feed is resumed; if that is not possible, a ``resync`` line says so,
because the events in between are missing.
"""

from collections.abc import Callable
from contextlib import aclosing
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from gateway.cli.options import Filters, Json, Reach, Wide
from gateway.cli.output import flattened, for_people, put_cells, put_json, short_id
from gateway.client import Changes, Event, Fold, Item, Resync, Session, Snapshot, events
from gateway.logs.formats import escaped

_STYLES: Final = {
    "session.opened": "green",
    "session.connected": "green",
    "session.enter": "green",
    "session.closing": "yellow",
    "session.close_extended": "yellow",
    "session.closed": "red",
    "session.disconnected": "magenta",
    "resync": "bold red",
}
_WHO: Final[tuple[str, ...]] = ("account", "workspace", "service", "labels")
_DERIVED: Final = frozenset({"state", "is_connected", "is_watching", "position_at"})
_CLOCK: Final = slice(11, 23)  # of an RFC 3339 time: 12:34:56.789
_TYPE_WIDTH: Final = 22  # of the longest type: session.close_extended

Line = tuple[str, str, str, str, str]  # time, type, session, its name, what is new


async def watch(
    *,
    filters: Filters = Filters(),  # noqa: B008 - immutable
    snapshot: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Begin with the sessions there are."),
    ] = False,
    wide: Wide = False,
    json: Json = False,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> None:
    """Follow what happens.

    Columns: time, type, session, its name, what is new. With --json each line is an event of the
    API, {"type":"snapshot","session_id":…,"session":…}, or {"type":"resync","reason":…}: what
    happened before it was missed.
    """
    tell = _json(snapshot=snapshot) if json else _lines(snapshot=snapshot, wide=wide)
    # The first connection is tried once, so that a mistyped address is reported at once.
    feed = events(reach.url, token=reach.shown_token(), filter=filters.filter(), open_within_s=0)
    async with aclosing(feed):
        async for item in feed:
            tell(item)


def _json(*, snapshot: bool) -> Callable[[Item], None]:
    def tell(item: Item) -> None:
        match item:
            case Snapshot(sessions=sessions) if snapshot:
                for one in sessions:
                    put_json({"type": "snapshot", "session_id": one["id"], "session": one})
            case Resync(reason=reason):
                put_json({"type": "resync", "reason": reason})
            case Changes(events=told):
                for event in told:
                    put_json(event)
            case _:
                pass

    return tell


def _lines(*, snapshot: bool, wide: bool) -> Callable[[Item], None]:
    put = _for_people(wide=wide) if for_people() else put_cells
    fold = Fold()  # events hold what changed; the name of a session is older

    def tell(item: Item) -> None:
        match item:
            case Snapshot(sessions=sessions):
                fold.apply(item)
                for one in sessions if snapshot else ():
                    put(
                        (
                            one["created_at"],
                            "snapshot",
                            one["id"],
                            one.get("name", ""),
                            one["state"],
                        )
                    )
            case Resync(reason=reason):
                fold.apply(item)
                put(("", "resync", "", "", f"what happened meanwhile was missed: {reason}"))
            case Changes(events=told, position=position):
                for event in told:
                    known = fold.sessions.get(event["session_id"], {})
                    fold.apply(Changes(events=[event], position=position))
                    known = fold.sessions.get(event["session_id"], known)
                    put(_line(event, known.get("name", "")))
            case _:
                pass

    return tell


def _line(event: Event, name: str) -> Line:
    return event.get("at", ""), event["type"], event["session_id"], name, _news(event)


def _news(event: Event) -> str:
    """Return what an event is about, in a few words."""
    session: Session = event.get("changes") or event.get("session") or {}
    match event["type"]:
        case "session.closed" if ended := session.get("closed"):
            return ", ".join(filter(None, (ended.get("outcome"), ended.get("reason"))))
        case "session.closing" | "session.close_extended" if at := session.get("closes_at"):
            return ", ".join(filter(None, (f"at {at}", session.get("closing", {}).get("reason"))))
        case "session.watching" if watch := session.get("watch"):
            return str(watch.get("title") or watch.get("key", ""))
        case "session.opened" | "session.enter":
            told = {key: session[key] for key in _WHO if key in session}
        case _:
            told = {key: value for key, value in session.items() if key not in _DERIVED}
    return " ".join(f"{path}={text}" for path, text in flattened(told) if path)


def _for_people(*, wide: bool) -> Callable[[Line], None]:
    console = Console(highlight=False)

    def put(line: Line) -> None:
        at, kind, session_id, name, news = map(escaped, line)
        console.print(
            Text.assemble(
                (f"{at[_CLOCK]:12} ", "dim"),
                (f"{kind:{_TYPE_WIDTH}} ", _STYLES.get(kind, "")),
                short_id(session_id, wide=wide),
                " ",
                (name, "bold"),
                "  " if name else " ",
                (news, "dim"),
            ),
            no_wrap=not wide,
            overflow="fold" if wide else "ellipsis",
        )

    return put
