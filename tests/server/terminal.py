"""The ``gateway`` command on a terminal, as people use it."""

import os
import pty
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.server.command import KEY, Served, environment, start

__all__ = ["Terminal", "on_terminal", "terminal"]


class Terminal(NamedTuple):
    """A command on a terminal: ``read`` returns what it shows in pieces, empty at the end."""

    process: subprocess.Popen[str]
    read: Callable[[], str]
    keyboard: int


@contextmanager
def terminal(served: Served, *arguments: str, columns: int = 120, **env: str) -> Iterator[Terminal]:
    """Run a command on a terminal of some size."""
    ours, theirs = pty.openpty()
    variables = environment(
        served.data_dir.parent,
        GATEWAY_URL=served.url,
        GATEWAY_TOKEN=KEY,
        TERM="xterm-256color",
        COLUMNS=str(columns),
        **env,
    )

    def read() -> str:
        try:
            return os.read(ours, 65536).decode()
        except OSError:  # how Linux says that nobody writes to it any more
            return ""

    try:
        with start(
            list(arguments), variables, stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            os.close(theirs)
            yield Terminal(process, read, ours)
    finally:
        os.close(ours)


def on_terminal(served: Served, *arguments: str, columns: int = 120, **env: str) -> str:
    """Run a command on a terminal and return all it shows."""
    with terminal(served, *arguments, columns=columns, **env) as shown:
        return "".join(iter(shown.read, ""))
