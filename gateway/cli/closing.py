"""``gateway close``: one session, or every session of a filter at a rate."""

import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from gateway.cli import FAILED, USAGE
from gateway.cli.options import Duration, Json, Reach, SessionId
from gateway.cli.output import complain, for_people, put_cells, put_json
from gateway.cli.sessions import full_id, tell
from gateway.client import Filter, Gateway
from gateway.http.request import read_query

ALL: Final = "all"  # the sessions, said aloud


async def close(
    session_id: SessionId | None = None,
    /,
    *,
    after: Annotated[
        Duration,
        Parameter(help="How long its client has to save: 30s, 2m, 1h; without it is now."),
    ] = 0.0,
    reason: Annotated[
        str | None, Parameter(help="What its client and its watchers are told.")
    ] = None,
    extend_max: Annotated[
        Duration | None, Parameter(help="How much more its client may ask for.")
    ] = None,
    where: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="NAME=VALUE",
            negative="",
            show_default=False,
            help="Instead of one: every session of which this is true; may be repeated; or: all.",
        ),
    ] = (),
    rate: Annotated[
        float | None, Parameter(show_default=False, help="Sessions a second at most; 100.")
    ] = None,
    dry_run: Annotated[
        bool, Parameter(negative="", show_default=False, help="Only count them.")
    ] = False,
    yes: Annotated[
        bool, Parameter(negative="", show_default=False, help="Do not ask on a terminal.")
    ] = False,
    json: Json = False,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> int:
    """Close a session, or with --where every one of a filter; a pending close is moved.

    Names are those of the filters of `sessions`: workspace, account, service, state, connected,
    watching, node, member, q, label.NAME. Ctrl-C stops a closing of many where it is.
    """
    if (session_id is None) == (not where):
        complain("Give the id of a session, or --where.")
        return USAGE
    async with Gateway(reach.url, token=reach.shown_token()) as gateway:
        if session_id is not None:
            session_id = await full_id(gateway, session_id)
            done = await gateway.close(
                session_id, after_s=after or None, reason=reason, extend_max_s=extend_max
            )
            at = done.get("closes_at")
            line = f"{session_id} closes at {at}" if at else f"{session_id} is closed"
            tell(done, line, json=json)
            return 0
        chosen = _filter(where)
        asks = sys.stdin.isatty() and not (yes or dry_run)
        if asks and not await _wanted(gateway, chosen):
            return FAILED  # it is not wanted after all
        lines = gateway.close_all(
            chosen, after_s=after, reason=reason, rate_per_s=rate, dry_run=dry_run
        )
        last = await (
            _with_bar(lines) if for_people() and not json else _in_lines(lines, json=json)
        )
        return 0 if last["type"] == "done" else FAILED


def _filter(where: tuple[str, ...]) -> Filter:
    """Return the filter that the texts say.

    Raises:
        BadRequest: One of them is no filter.
    """
    if where == (ALL,):
        return Filter()
    pairs = [(name, value) for name, _, value in (text.partition("=") for text in where)]
    return read_query(pairs, Filter, ())


async def _wanted(gateway: Gateway, chosen: Filter) -> bool:
    """Ask whether so many sessions are to be closed."""
    [found] = [line async for line in gateway.close_all(chosen, dry_run=True)]
    answer = Console(stderr=True, highlight=False).input(
        f"Close {found['selected']} sessions? [y/N] ",
        markup=False,  # the brackets are text
    )
    return answer.strip().lower() in ("y", "yes")


async def _in_lines(lines: AsyncIterator[dict[str, Any]], *, json: bool) -> dict[str, Any]:
    """Write a row for each line: what it is, closed, selected, skipped, failed."""
    line: dict[str, Any] = {}
    async for line in lines:
        if json:
            put_json(line)
        else:
            put_cells(_cells(line))
    return line


async def _with_bar(lines: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    """Show a bar that grows, and say at its end how it went."""
    line: dict[str, Any] = {}
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("close", total=None)
        async for line in lines:
            done = line.get("closed", 0) + line.get("skipped", 0)
            progress.update(bar, total=line["selected"], completed=done)
    put_cells(_cells(line))
    return line


def _cells(line: dict[str, Any]) -> list[object]:
    failed = sum(line.get("failed", {}).values())
    counts = (line.get("closed", 0), line["selected"], line.get("skipped", 0), failed)
    return [line["type"], *counts, line.get("reason")]
