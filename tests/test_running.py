"""How tests are run: what CI does not forgive, who has the machine, whose a port is."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.processes import reserved_port

ROOT: Final = Path(__file__).parents[1]

SKIPS: Final = """
import pytest

def test_that_lacks_something():
    pytest.skip("no such program")

@pytest.mark.skipif(True, reason="not on this system")
def test_of_another_system():
    pass
"""

SHARES: Final = """
import time
from pathlib import Path

import pytest

def note(name):
    log = Path(__file__).with_suffix(".log")
    for word in ("begin", "end"):
        with log.open("a") as out:
            out.write(f"{word} {name}\\n")
        time.sleep(0.05)

@pytest.mark.parametrize("number", range(6))
def test_that_shares(number):
    note("shared")

@pytest.mark.alone
@pytest.mark.parametrize("number", range(3))
def test_that_measures(number):
    note("alone")

@pytest.mark.parametrize("number", range(6))
def test_that_shares_too(number):
    note("shared")
"""


def run(place: Path, module: str, *options: str, **environment: str) -> str:
    """Run a module of tests under the rules of this suite; return what pytest said."""
    (place / "test_given.py").write_text(module)
    command = [
        *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-o", "addopts=", "-q"),
        *("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(place), *options, str(place)),
    ]
    known = {name: value for name, value in os.environ.items() if name != "CI"}
    known = {name: value for name, value in known.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=known | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_skipped_test_fails_in_ci_alone(tmp_path: Path) -> None:
    """What a laptop may lack, CI has to have: a test that is skipped there has failed."""
    assert "2 skipped" in run(tmp_path, SKIPS)

    told = run(tmp_path, SKIPS, CI="true")
    assert "1 failed, 1 error" in told
    assert "no such program (CI skips nothing)" in told


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_test_that_measures_has_the_machine_to_itself(tmp_path: Path) -> None:
    """While a test that is marked ``alone`` runs, no other process runs one."""
    assert "15 passed" in run(tmp_path, SHARES, "-n", "3")

    steps = (tmp_path / "test_given.log").read_text().splitlines()
    assert len(steps) == 30
    for number, step in enumerate(steps):
        if step == "begin alone":
            assert steps[number + 1] == "end alone"
            assert steps[:number].count("begin shared") == steps[:number].count("end shared")


def test_reserved_port_is_for_a_server_that_names_it() -> None:
    """Nobody else gets the port by chance, and the server that is told it may listen there."""
    port = reserved_port()

    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
