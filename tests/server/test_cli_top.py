"""``gateway top`` on a terminal of 80 columns and 24 lines."""

import asyncio
import os
import re
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from gateway.client import Gateway
from tests.processes import reserved_port
from tests.server.command import KEY, Served, environment, run, serve, start
from tests.server.terminal import Terminal, terminal
from tests.support import S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(40)]

HOME: Final = "\x1b[H"  # with which each screen begins
ENTER, LEAVE, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
NAME: Final = "Ann \x1b[31m"  # nobody should choose such a name


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with two sessions and more than fit."""

    async def fill(url: str) -> None:
        async with Gateway(url, token=KEY) as gateway:
            for number in range(40):
                await gateway.open({"name": f"guest-{number}", "workspace": "crowd"})
            for name in (NAME, "Ben"):
                await gateway.open({"name": name})

    home = tmp_path_factory.mktemp("top")
    with serve(home, "--admin-key", KEY, "--node-name", "node-a") as running:
        asyncio.run(fill(running.url))
        yield running


class Top:
    """The command, its screens as people see them, and its keys."""

    def __init__(self, shown: Terminal) -> None:
        self.process = shown.process
        self.keyboard = shown.keyboard
        self.all = ""
        self._shown = shown

    def until(self, *wanted: str, without: str = "nowhere") -> list[str]:
        """Return the lines of a screen that holds all of this, and not that."""
        while True:
            piece = self._shown.read()
            assert piece, self.all[-3000:]
            self.all += piece
            for screen in self.all.split(HOME)[-2:]:
                text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen).replace("\r", "")
                if all(word in text for word in wanted) and without not in text:
                    return text.splitlines()

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self.keyboard, keys.encode())

    def end(self) -> int:
        """Read to the end and return the exit code."""
        self.all += "".join(iter(self._shown.read, ""))
        return self.process.wait(timeout=5 * S)


@contextmanager
def running_top(served: Served, *flags: str) -> Iterator[Top]:
    """Run it; whatever ends it, the terminal has to be as it was."""
    with terminal(served, "top", *flags, columns=80, LINES="24") as shown:
        before = termios.tcgetattr(shown.keyboard)
        top = Top(shown)
        yield top
        assert termios.tcgetattr(shown.keyboard) == before
        assert top.all.count(ENTER) == top.all.count(LEAVE) == 1
        assert CURSOR in top.all[top.all.index(LEAVE) - 40 :]


def test_top_shows_sessions_rates_and_nodes(served: Served) -> None:
    """All is on one small screen; keys filter and sort, and q leaves."""
    with running_top(served, "--every", "100ms") as top:
        screen = top.until("node-a", "Ann \\x1b[31m", "deliveries", "q quit")
        assert max(map(len, screen)) <= 80
        assert len(screen) <= 24
        assert "sessions 42: idle 42" in screen[1]
        assert "sort: -created_at" in screen[-1]

        top.press("r")
        top.until("sort: created_at", "guest-0", without="Ben")
        top.press("s")
        top.until("sort: -number", "Ben")
        top.press("f")
        top.until("state: idle", "Ben")
        top.press("f")
        top.until("state: connected", "no sessions")
        top.press("fff\x1b[A/Bem\x7f")
        top.until("find: Be_")
        top.press("q\x7fn\n")
        top.until("state: all", "find: Ben", "Ben", without="guest")
        top.press("/\x1b")
        top.until("guest-39")
        top.press("q")

        assert top.end() == 0
    assert "\x1b[31m" not in top.all


@pytest.mark.parametrize(
    "how, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_top_leaves_the_terminal_as_it_found_it(served: Served, how: int, code: int) -> None:
    """Ctrl-C and a signal end it without a traceback."""
    with running_top(served) as top:
        top.until("q quit")
        assert termios.tcgetattr(top.keyboard)[3] & termios.ISIG  # Ctrl-C is SIGINT
        top.process.send_signal(how)

        assert top.end() == code
    assert "Traceback" not in top.all


def test_top_outlives_a_gateway_that_is_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A lost gateway is told with what was known last; when it is back, that goes on."""
    home, port = tmp_path_factory.mktemp("away"), reserved_port()
    command = ["serve", "--port", str(port), "--admin-key", KEY, "--node-name", "node-b"]
    env = environment(home, GATEWAY_DATA_DIR=str(home / "data"))
    url = f"http://127.0.0.1:{port}"
    with start(command, env) as process:
        assert process.stdout
        assert process.stdout.readline()
        with running_top(Served(process, url, home / "data", ()), "--every", "100ms") as top:
            top.until("node-b")
            process.terminate()
            process.communicate(timeout=8 * S)
            top.until("is lost, trying again: unavailable", "node-b")
            with start(command, env) as again:
                top.until("node-b", without="is lost")
                top.press("q")
                assert top.end() == 0
                again.terminate()
                again.communicate(timeout=8 * S)


def test_top_needs_a_terminal(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe it says what to use instead."""
    ran = run(capsys, "top", "--url", served.url, "--token", KEY)

    assert (ran.code, ran.out) == (1, "")
    assert "needs a terminal" in ran.err
