"""Output: tables for people, lines with tabs for programs, JSON for both.

A terminal gets aligned columns and relative times; everything else gets one line per row with cells
separated by tabs, no header and no colour. Text that clients chose is escaped in both.
"""

import re
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from msgspec.json import encode
from msgspec.json import format as indent
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.logs.formats import escaped

TABLE_ROWS_MAX: Final = 1_000  # a table is printed when all its rows are there

SHORT_ID: Final = 8  # digits; the first ones of a UUIDv7 are the time, the last ones are random

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MINUTE_MS: Final = 60_000
_UNITS: Final = (("d", 1440 * _MINUTE_MS), ("h", 60 * _MINUTE_MS), ("m", _MINUTE_MS), ("s", 1000))


def now_ms() -> int:
    """Return milliseconds since the Unix epoch by this machine's clock."""
    return time.time_ns() // 1_000_000


def for_people() -> bool:
    """Whether the output is a terminal."""
    return sys.stdout.isatty()


def complain(*lines: str) -> None:
    """Write an error to stderr."""
    for line in lines:
        print(f"gateway: {escaped(line)}", file=sys.stderr)  # noqa: T201 - a command line


def note(line: str) -> None:
    """Write a remark to stderr, which is not part of the result."""
    print(escaped(line), file=sys.stderr)  # noqa: T201 - a command line


def put(line: str) -> None:
    """Write one line and flush it, because a program may be waiting for it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def put_json(value: object) -> None:
    """Write *value* as one line of JSON."""
    put(encode(value).decode())


def put_document(value: object) -> None:
    """Write one JSON document, indented on a terminal."""
    data = encode(value)
    put((indent(data) if for_people() else data).decode())


def put_cells(cells: Iterable[object]) -> None:
    """Write one row for programs."""
    put("\t".join(map(escaped, cells)))


def put_table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, cut: bool = False
) -> None:
    """Write rows: a table on a terminal, otherwise lines with tabs, each as soon as it is there.

    A table has no empty columns. It ends after ``TABLE_ROWS_MAX`` rows and says so.

    Args:
        headers: The titles of the columns.
        rows: A cell for each header; ``None`` is empty.
        cut: Whether rows are cut to one line; the first column is never cut.
    """
    if not for_people():
        for row in rows:
            put_cells(row)
        return
    shown = [list(map(escaped, row)) for row in islice(rows, TABLE_ROWS_MAX + 1)]
    more = len(shown) > TABLE_ROWS_MAX
    shown = shown[:TABLE_ROWS_MAX]
    if shown:
        Console(highlight=False).print(_table(headers, shown, cut=cut))
    if more:
        note(f"The first {TABLE_ROWS_MAX} are shown; use a filter, --json or a pipe for the rest.")


def made_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table for people with a line for each row, cut at the width of the terminal."""
    return _table(headers, [list(map(escaped, row)) for row in rows], cut=True)


def _table(headers: Sequence[str], shown: list[list[str]], *, cut: bool) -> Table:
    filled = [n for n in range(len(headers)) if any(row[n] for row in shown)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number in filled:
        table.add_column(headers[number], no_wrap=number == 0, overflow="fold")
    for row in shown:
        table.add_row(*(_cell(row[number], cut=cut and number > 0) for number in filled))
    return table


def _cell(text: str, *, cut: bool) -> Text:
    # Not set on the column, because a table narrows wrapping columns first.
    return Text(text, no_wrap=True, overflow="ellipsis") if cut else Text(text)


def short_id(session_id: str, *, wide: bool) -> str:
    """Return a session's id; on a terminal the last random digits of a long one, unless *wide*."""
    if wide or not for_people() or not _UUID.fullmatch(session_id):
        return session_id
    return session_id[-SHORT_ID:]


def moment_ms(text: str) -> int:
    """Return a time of the API (RFC 3339) in milliseconds since the Unix epoch."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def shown_time(text: str | None, now: int) -> str:
    """Return a time of the API: relative to now on a terminal, unchanged elsewhere.

    Args:
        text: RFC 3339, or ``None`` for none.
        now: Milliseconds since the Unix epoch.
    """
    if text is None or not for_people():
        return text or ""
    away_ms = moment_ms(text) - now
    return f"in {span(away_ms)}" if away_ms > 0 else f"{span(-away_ms)} ago"


def span(length_ms: int) -> str:
    """Return a duration roughly: its largest unit, and minutes with their seconds."""
    for unit, unit_ms in _UNITS:
        if length_ms >= unit_ms:
            whole, rest_ms = divmod(length_ms, unit_ms)
            seconds = f" {rest_ms // 1000}s" if unit == "m" and rest_ms >= 1000 else ""  # noqa: PLR2004
            return f"{whole}{unit}{seconds}"
    return "0s"


def flattened(value: object, name: str = "") -> Iterable[tuple[str, str]]:
    """Yield the leaves of a JSON value with their paths, such as ``connection.address``."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flattened(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from flattened(inner, f"{name}.{number}")
    else:
        yield name, value if isinstance(value, str) else encode(value).decode()
