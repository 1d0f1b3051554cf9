"""``gateway top``: sessions, rates and nodes on a whole terminal, until somebody presses q.

It asks for the rows that fit the terminal, once a second. The feed would tell every change of every
session, which at a hundred thousand of them is too much for a command that shows twenty.

Whatever ends it, the terminal is left as it was found.
"""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Annotated, Any, Final

from cyclopts import Parameter
from msgspec.structs import replace
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from gateway.cli.lists import NODES, node_cells
from gateway.cli.options import Duration, Filters, Reach
from gateway.cli.output import made_table, now_ms
from gateway.cli.sessions import HEADERS, first, session_cells
from gateway.client import Filter, Gateway, Session, Sort
from gateway.core.errors import Forbidden, GatewayError, Invalid
from gateway.core.model import State
from gateway.logs.formats import escaped

WINDOW_S: Final = 10  # of which rates are the mean
NODES_MAX: Final = 6  # lines; the nodes with most slow readers come first
Q_MAX: Final = 64  # characters that are looked for

_OTHER_LINES: Final = 6  # head, counts, rates, an empty one, the header of sessions, keys
_STATES: Final = (None, *(state for state in State if state != "closed"))
_SORTS: Final = (Sort.CREATED_AT_DESC, Sort.NUMBER_DESC, Sort.CLOSES_AT)
_BACKSPACE: Final = ("\x7f", "\b")


class TopView:
    """What is chosen by keys, and what was heard last; it draws both."""

    def __init__(self, url: str, wanted: Filter) -> None:
        self.url = url
        self.filter = wanted
        self.sort = _SORTS[0]
        self.is_typing = False
        self.typed = wanted.q or ""
        self.lost: str | None = None
        self.sessions: list[Session] = []
        self.stats: dict[str, Any] = {}
        self.nodes: list[dict[str, Any]] = []

    def press(self, key: str) -> bool:
        """Take a key; return whether it ends the command."""
        if self.is_typing:
            self._type(key)
        elif key == "/":
            self.is_typing = True
        elif key == "s":
            fields = [one.field for one in _SORTS]
            self.sort = _SORTS[(fields.index(self.sort.field) + 1) % len(_SORTS)]
        elif key == "r":
            self.sort = Sort(self.sort.field if self.sort.descending else f"-{self.sort.field}")
        elif key == "f":
            following = (_STATES.index(self.filter.state) + 1) % len(_STATES)
            self.filter = replace(self.filter, state=_STATES[following])
        return key == "q" and not self.is_typing

    def _type(self, key: str) -> None:
        if key in ("\r", "\n"):
            self.is_typing = False
        elif key == "\x1b":
            self.is_typing, self.typed = False, ""
        elif key in _BACKSPACE:
            self.typed = self.typed[:-1]
        elif key.isprintable():
            self.typed = (self.typed + key)[:Q_MAX]
        self.filter = replace(self.filter, q=self.typed or None)

    def rows(self, height: int) -> int:
        """Return how many sessions fit in *height* lines."""
        lines = min(len(self.nodes), NODES_MAX + 1)
        return max(1, height - _OTHER_LINES - (lines + 2 if lines else 0))

    async def refresh(self, gateway: Gateway, height: int) -> None:
        """Ask the gateway for what is shown.

        Raises:
            GatewayError: It cannot be reached, or refuses.
        """
        with suppress(Forbidden):  # without admin there are only sessions
            self.nodes = (await gateway.nodes())["nodes"]
        self.stats = await gateway.stats(window=WINDOW_S if self.nodes else None)
        rows = self.rows(height)
        page = gateway.list_sessions(self.filter, sort=self.sort, limit=rows)
        self.sessions = [session async for session in first(page, rows)]

    def draw(self, height: int) -> RenderableType:
        """Return the screen."""
        now = now_ms()
        states = self.stats["states"]
        counts = " ".join(f"{name} {count}" for name, count in states.items())
        lines: list[RenderableType] = [
            self._head(now),
            _line(
                f"sessions {self.stats['sessions']}: {counts}; watching {self.stats['watching']}"
            ),
            _line(_rates(self.stats.get("rates"))),
        ]
        if self.nodes:
            slowest = sorted(self.nodes, key=lambda node: -(node.get("slow_readers") or 0))
            lines += ["", made_table(NODES, map(node_cells, slowest[:NODES_MAX]))]
            if len(self.nodes) > NODES_MAX:
                lines.append(_line(f"and {len(self.nodes) - NODES_MAX} nodes more", "dim"))
        rows = [session_cells(one, now, wide=False) for one in self.sessions[: self.rows(height)]]
        lines += ["", made_table(HEADERS, rows) if rows else _line("no sessions", "dim")]
        return Group(*lines, self._keys())

    def _head(self, now: int) -> Text:
        if self.lost is not None:
            return _line(f"{self.url} is lost, trying again: {self.lost}", "bold red")
        return _line(f"{self.url} at {datetime.fromtimestamp(now / 1000):%H:%M:%S}", "bold")  # noqa: DTZ006 - a wall clock

    def _keys(self) -> Text:
        if self.is_typing:
            return _line(f"find: {self.typed}_  (Enter keeps it, Esc drops it)", "reverse")
        looked_for = f" {self.filter.q}" if self.filter.q else ""
        state = self.filter.state or "all"
        sorting = f"s sort: {self.sort}  r reverse"
        return _line(f"q quit  {sorting}  f state: {state}  / find:{looked_for}", "reverse")


def _line(text: str, style: str = "") -> Text:
    return Text(escaped(text), style, no_wrap=True, overflow="ellipsis")


def _rates(rates: dict[str, Any] | None) -> str:
    if rates is None:
        return "rates and nodes are shown to admin"
    told = {
        "connects": _mean(rates["connects_per_s"]),
        "ends": _mean(rates["ends_per_s"]),
        "events": _mean(rates["events_per_s"]),
        "deliveries": sum(_mean(node["deliveries_per_s"]) for node in rates["nodes"]),
    }
    return "a second: " + ", ".join(f"{name} {rate:.1f}" for name, rate in told.items())


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


@contextmanager
def _keys_at_once(terminal: int) -> Iterator[None]:
    """Get keys without Enter and without echo; Ctrl-C stays a signal."""
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


async def top(
    *,
    filters: Filters = Filters(),  # noqa: B008 - immutable
    every: Annotated[Duration, Parameter(help="How often the gateway is asked.")] = 1.0,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> int:
    """Show sessions, rates and nodes, live; nodes and rates need the scope admin.

    Keys: q quits, s changes the order and r reverses it, f changes the state that is shown, /
    finds sessions by name or id.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Invalid("top needs a terminal; sessions, nodes and watch do not.")
    console = Console(highlight=False)
    view = TopView(reach.url, filters.filter())
    async with Gateway(reach.url, token=reach.shown_token()) as gateway:
        await view.refresh(gateway, console.height)  # what is wrong now is told as by any command
        with (
            _keys_at_once(sys.stdin.fileno()),
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            return await _follow(view, gateway, live, max(every, 0.1))


async def _follow(view: TopView, gateway: Gateway, live: Live, every: float) -> int:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    changed = asyncio.Event()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    def draw() -> None:
        live.update(view.draw(live.console.height), refresh=True)

    def on_key() -> None:
        keys = os.read(sys.stdin.fileno(), 1024).decode(errors="ignore")
        if not keys:
            end(0)
        for key in [keys] if keys.startswith("\x1b") else keys:  # such as of an arrow
            if view.press(key):
                end(0)
        draw()
        changed.set()

    async def ask() -> None:
        while True:
            draw()
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), every)
            changed.clear()
            try:
                await view.refresh(gateway, live.console.height)
                view.lost = None
            except GatewayError as error:
                view.lost = f"{error.code}: {error.detail}"
                draw()
                await asyncio.sleep(every)

    asking = asyncio.create_task(ask())
    asking.add_done_callback(lambda _: end(1))
    loop.add_reader(sys.stdin.fileno(), on_key)
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    loop.add_signal_handler(signal.SIGTERM, end, 128 + signal.SIGTERM)
    try:
        code = await ended
        if asking.done():
            await asking  # raises why
        return code
    finally:
        loop.remove_reader(sys.stdin.fileno())
        asking.cancel()
