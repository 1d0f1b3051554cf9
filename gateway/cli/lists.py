"""``gateway history`` and ``gateway nodes``: what was, and who serves."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter, Token

from gateway.cli.options import Json, Owners, Reach, Wide, seconds
from gateway.cli.output import (
    for_people,
    moment_ms,
    now_ms,
    put_document,
    put_json,
    put_table,
    short_id,
    shown_time,
    span,
)
from gateway.client import Gateway
from gateway.core.public import rfc3339

_HISTORY: Final = ("ID", "ENDED", "LASTED", "OUTCOME", "NAME", "ACCOUNT", "WORKSPACE", "WATCHED")
NODES: Final = (
    *("NAME", "STATE", "SESSIONS", "SOCKETS", "SLOW", "LAG", "MEMORY", "UPTIME", "VERSION"),
)
_CLOCK: Final = re.compile(r"\d{4}-\d\d-\d\d")  # how a time begins that is no duration


def _to_moment(_kind: type, tokens: Sequence[Token]) -> str:
    text = tokens[0].value
    if _CLOCK.match(text):
        return text
    try:
        return rfc3339(now_ms() - round(seconds(text) * 1000))
    except (OverflowError, OSError):
        raise ValueError(f"{text} ago there was no time yet.") from None


Moment = Annotated[
    str | None,
    Parameter(
        converter=_to_moment,
        n_tokens=1,
        accepts_keys=False,
        metavar="TIME",
        help="A time (RFC 3339), or how long ago: 30m, 2h, 1d.",
    ),
]


async def history(
    *,
    kind: Annotated[Literal["session", "watch"], Parameter(help="What has ended.")] = "session",
    owners: Owners = Owners(),  # noqa: B008 - immutable
    since: Moment = None,
    until: Moment = None,
    limit: Annotated[int, Parameter(help="At most this many; 0: all.")] = 100,
    wide: Wide = False,
    json: Json = False,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> None:
    """List closed sessions or finished watches, the newest first.

    Columns: the session's id, when it ended, how long it lasted, its outcome and reason, name,
    account, workspace, what was watched.
    """
    now = now_ms()
    rows: list[dict[str, Any]] = []
    async with Gateway(reach.url, token=reach.shown_token()) as gateway:
        found = gateway.list_history(owners.filter(), kind=kind, since=since, until=until)
        async for row in found:
            rows.append(row)
            if len(rows) == limit:
                break
    if json:
        for row in rows:
            put_json(row)
        return
    put_table(_HISTORY, [_row(row, now, wide=wide) for row in rows], cut=not wide)


def _row(row: dict[str, Any], now: int, *, wide: bool) -> list[str | None]:
    lasted_ms = moment_ms(row["at"]) - moment_ms(row["started_at"])
    watch = row.get("watch") or {}
    return [
        short_id(row["session_id"], wide=wide),
        shown_time(row["at"], now),
        span(lasted_ms) if for_people() else str(lasted_ms / 1000),
        ", ".join(filter(None, (row.get("outcome"), row.get("reason")))),
        *(row.get(name) for name in ("name", "account", "workspace")),
        watch.get("title") or watch.get("key"),
    ]


async def nodes(
    *,
    json: Json = False,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> None:
    """List the nodes of the gateway; needs the scope admin.

    Columns: name, whether it is alive or draining, sessions it holds, sockets, how often a reader
    was too slow, seconds its reads may be old, memory, how long it runs, version.
    """
    async with Gateway(reach.url, token=reach.shown_token()) as gateway:
        told = await gateway.nodes()
    if json:
        put_document(told)
        return
    put_table(NODES, [node_cells(node) for node in told["nodes"]])


def node_cells(node: dict[str, Any]) -> list[str | None]:
    """Return a node's row of the table; units are for people only."""
    state = "draining" if node.get("is_draining") else "alive"
    memory, uptime_s = node.get("memory_bytes"), node.get("uptime_s")
    if for_people():
        memory = None if memory is None else f"{memory / 1_048_576:.0f} MiB"
        uptime_s = None if uptime_s is None else span(uptime_s * 1000)
    return [
        node["name"],
        state if node["is_alive"] else "gone",
        *(
            None if told is None else str(told)
            for told in (
                node["connections"],
                node.get("sockets"),
                node.get("slow_readers"),
                node.get("feed_lag_s"),
                memory,
                uptime_s,
                node.get("version"),
            )
        ),
    ]
