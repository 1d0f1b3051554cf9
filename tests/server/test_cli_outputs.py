"""The ``gateway`` command where its output cannot be written, and as a probe."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.server.command import KEY, Served, environment, run, serve
from tests.support import S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]  # processes that import a whole server

GATEWAY: Final = f"{sys.executable} -m gateway"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with an operations port."""
    home = tmp_path_factory.mktemp("outputs")
    with serve(home, "--admin-key", KEY, "--node-name", "a", "--ops-port", "0", lines=2) as gateway:
        asking = httpx2.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {KEY}"})
        with asking as client:
            for session in ({"id": "open"}, {"id": "closed"}):
                assert client.post("/v1/sessions", json=session).status_code == 201
            assert client.delete("/v1/sessions/closed").is_success
        yield gateway


def in_shell(command: str, home: Path, **more: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a shell's command."""
    done = subprocess.run(  # noqa: S602 - redirections are the shell's
        command,
        shell=True,
        check=False,
        capture_output=True,
        text=True,
        env=environment(home, **more),
        timeout=8 * S,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "where, why", [(">&-", "it is closed"), (">/dev/full", "No space left on device")]
)
@pytest.mark.parametrize(
    "command", ["sessions", "history", "nodes", "watch --snapshot", "config --default", "--help"]
)
def test_output_that_cannot_be_written_is_told_in_a_line(
    served: Served, tmp_path: Path, command: str, where: str, why: str
) -> None:
    """A closed or full output ends a command with exit code 1 and one line, not a traceback."""
    ended = in_shell(
        f"{GATEWAY} {command} {where}", tmp_path, GATEWAY_URL=served.url, GATEWAY_TOKEN=KEY
    )

    assert ended == (1, "", f"gateway: the output: {why}\n")


def test_command_without_outputs_ends_by_its_code(tmp_path: Path) -> None:
    """With stdout and stderr closed only the exit code is left, and it is right."""
    assert in_shell(f"{GATEWAY} config >&- 2>&-", tmp_path) == (1, "", "")


def test_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """``| head`` ends a command quietly."""
    command = f"{GATEWAY} config --json | true; exit ${{PIPESTATUS[0]}}"
    code, _, err = in_shell(f"bash -c '{command}'", tmp_path)

    assert (code in (0, 141), err) == (True, "")


def test_ping_says_whether_a_gateway_is_ready(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 0 of one that is ready, at its port and its operations port."""
    operations = served.greeting[1].split()[-1]
    for url in (served.url, operations):
        for more in ((), ("--live",)):
            ran = run(capsys, "ping", "--url", url, *more)
            assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_empty_variable_is_not_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty address, as compose files make them, is the default one and no error of usage."""
    monkeypatch.setenv("GATEWAY_URL", "")
    ran = run(capsys, "ping", "--within", "1ms")

    assert "is no http:// or https:// address" not in ran.err
    assert ran.code in (0, 1)  # somebody may have a gateway at the default port


@pytest.mark.parametrize(
    "url, code, why",
    [
        ("http://127.0.0.1:1", 1, "does not answer"),
        ("http://127.0.0.1:1/\n", 1, "does not answer"),
        ("file:///etc/passwd?", 2, "no http:// or https:// address"),
    ],
)
def test_ping_says_why_a_gateway_is_not_ready(
    url: str, code: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What does not answer, or is no address, is told in one line."""
    ran = run(capsys, "ping", "--url", url)

    assert ran.code == code
    assert why in ran.err
    assert ran.err.count("\n") == 1
