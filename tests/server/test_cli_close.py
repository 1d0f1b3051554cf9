"""``gateway close --where``: many sessions by one command, counted, bounded and confirmed."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.server.command import KEY, Served, environment, run, serve
from tests.support import S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]  # processes that import a whole server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway."""
    with serve(tmp_path_factory.mktemp("closes"), "--admin-key", KEY) as gateway:
        yield gateway


@pytest.fixture
def http(served: Served) -> Iterator[httpx2.Client]:
    """A client of a gateway with three sessions, two of which are in ws-1."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=served.url, headers=headers, timeout=8 * S) as client:
        client.post("/v1/closings", json={"filter": {}, "rate_per_s": 10_000})
        for workspace in ("ws-1", "ws-1", "ws-2"):
            body = {"workspace": workspace, "labels": {"env": workspace}}
            assert client.post("/v1/sessions", json=body).status_code == 201
        yield client


def still_open(http: httpx2.Client) -> int:
    """Return how many sessions are open."""
    return int(http.get("/v1/stats").json()["sessions"])


def reach(served: Served) -> tuple[str, ...]:
    """Return the flags that lead to it."""
    return ("--url", served.url, "--token", KEY)


def test_filter_is_closed_and_told_in_rows(
    served: Served, http: httpx2.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """For programs each line is a row; a dry run only counts."""
    where = ("close", "--where", "workspace=ws-1", "--where", "label.env=ws-1")
    dry = run(capsys, *where, "--dry-run", *reach(served))
    assert (dry.code, dry.rows[-1][:3]) == (0, ["done", "0", "2"])
    assert still_open(http) == 3

    ran = run(capsys, *where, "--json", "--rate", "1000", *reach(served))
    assert (ran.code, ran.lines[-1]["type"], ran.lines[-1]["closed"]) == (0, "done", 2)
    assert still_open(http) == 1
    assert run(capsys, "close", "--where", "all", *reach(served)).code == 0
    assert still_open(http) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("id", "--where", "all"),
        ("--where", "workspac=ws-1"),
        ("--where", "all", "--where", "workspace=ws-1"),
        ("--where", "state=sleeping"),
        ("--where", "all", "--rate", "0"),
    ],
)
def test_wrong_command_closes_nothing(
    served: Served,
    http: httpx2.Client,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    """A misspelt filter, or none, is refused in a line."""
    ran = run(capsys, "close", *arguments, *reach(served))

    assert ran.code in (1, 2)
    assert ran.err.count("\n") == 1
    assert still_open(http) == 3


@pytest.mark.parametrize("answer, left", [("y", 0), ("n", 3), ("", 3)])
def test_terminal_is_asked_first(
    served: Served, http: httpx2.Client, tmp_path: Path, answer: str, left: int
) -> None:
    """On a terminal somebody has to say yes, having read how many it will be."""
    ours, theirs = pty.openpty()
    command = [*(sys.executable, "-m", "gateway", "close", "--where", "all"), *reach(served)]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(tmp_path)
    ) as process:
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 1024)
        os.write(ours, f"{answer}\n".encode())
        try:
            while chunk := os.read(ours, 1024):
                said += chunk
        except OSError:  # it has ended
            pass
        code = process.wait(8 * S)
    os.close(ours)

    assert b"Close 3 sessions?" in said
    assert code == (0 if left == 0 else 1)
    assert still_open(http) == left


def test_interrupt_stops_it_where_it_is(
    served: Served, http: httpx2.Client, tmp_path: Path
) -> None:
    """Ctrl-C hangs up, and the rest stays open."""
    command = [*("close", "--where", "all", "--rate", "0.2", "--json"), *reach(served)]
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", *command],
        stdout=subprocess.PIPE,
        env=environment(tmp_path),
    ) as process:
        assert process.stdout
        assert b"progress" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(8 * S) == 130

    assert still_open(http) == 2
