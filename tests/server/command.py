"""The ``gateway`` command as people run it: in this process, or as one of its own that serves."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.cli import main
from tests.canaries import keep
from tests.support import S

__all__ = ["KEY", "Ran", "Served", "environment", "run", "serve"]

KEY = "K-of-the-tests"


@dataclass(frozen=True)
class Ran:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The lines of stdout, cut at their tabs."""
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """Stdout as one JSON document."""
        return msgspec.json.decode(self.out)

    @property
    def lines(self) -> list[Any]:
        """Stdout as JSON, one a line."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run a command in this process; not in a test that has an event loop."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return Ran(code or 0, said.out, said.err)


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment in which nobody has set anything for the gateway."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    kept.pop("XDG_DATA_HOME", None)
    return {**kept, "HOME": str(home), "PYTHONUNBUFFERED": "1", **more}


@dataclass(frozen=True)
class Served:
    """A gateway in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    data_dir: Path
    greeting: tuple[str, ...]

    def stop(self, how: int = signal.SIGTERM) -> Ran:
        """End it by a signal and return what it said since its greeting."""
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=8 * S)
        keep(f"command-{self.process.pid}", "".join((*self.greeting, out, err)))
        return Ran(self.process.returncode, out, err)


@contextmanager
def start(
    arguments: list[str],
    env: Mapping[str, str],
    **more: Any,  # noqa: ANN401 - of Popen
) -> Iterator[subprocess.Popen[str]]:
    """Run the command in a process of its own; one that has not ended by then is killed."""
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        env=dict(env),
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@contextmanager
def serve(home: Path, *flags: str, lines: int = 1) -> Iterator[Served]:
    """Serve on a free port until the end of the block.

    Args:
        home: Home of whoever runs it; its data directory is ``data`` there.
        flags: For ``gateway serve``.
        lines: How many its greeting has.
    """
    data_dir = home / "data"
    arguments = ["serve", "--port", "0", "--data-dir", str(data_dir), *flags]
    with start(arguments, environment(home)) as process:
        assert process.stdout
        greeting = tuple(process.stdout.readline() for _ in range(lines))
        match = re.search(r"(http://[^\s\"]+:\d+)", greeting[0])
        assert match, process.stderr and process.stderr.read()
        yield Served(process, match[1], data_dir, greeting)
