"""How tests are run, and fixtures for all: a real Valkey, a key prefix, a real browser."""

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.store.embedded import EmbeddedValkey, valkey_binary
from tests import canaries
from tests.processes import reserved_port
from tests.support import S, eventually

PROCESSES_A_CORE: Final = 2  # a test waits for half of its time
WIDE: Final = frozenset(
    {
        "test_described",
        "test_every_door",
        "test_mounting",
        "test_one_state",
        "test_people",
        "test_rates",
        "test_tenants",
        "test_transport_limits",
        "test_trouble",
    }
)
"""Modules that ask each promise of every door, or hash many passwords: slow together."""

IN_CI: Final = bool(os.environ.get("CI"))

WRONG_LINES: Final = pytest.StashKey[str]()

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

_prefixes = count()

# A shell that starts the tests in the background lets them, and all they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    """Keep every line that a gateway writes."""
    canaries.begin()


@pytest.hookimpl(trylast=True)  # when the processes of a parallel run have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a line of a log holds a secret, or a field that is not documented."""
    if hasattr(session.config, "workerinput"):
        return
    if wrong := canaries.found():
        shown = "\n".join(wrong[: canaries.FOUND_MAX])
        session.config.stash[WRONG_LINES] = f"{len(wrong)} wrong lines in the logs:\n{shown}"
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what is wrong in the logs."""
    if text := terminalreporter.config.stash.get(WRONG_LINES, None):
        terminalreporter.section("logs", red=True)
        terminalreporter.write_line(text)


def pytest_unconfigure() -> None:
    """Remove the lines."""
    canaries.end()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes ``-n auto`` starts."""
    return PROCESSES_A_CORE * (os.cpu_count() or 1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs what needs tools of its own."""
    parser.addoption("--deploy", action="store_true", help="run the tests marked deploy, no others")


@pytest.hookimpl(tryfirst=True)  # before marks are asked for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is slow as a whole, and let limits grow with the slowness of the machine."""
    wanted = config.getoption("deploy")
    items[:] = [item for item in items if bool(item.get_closest_marker("deploy")) == wanted]
    default = float(config.getini("timeout"))
    for item in items:
        if item.path.stem in WIDE:
            item.add_marker(pytest.mark.slow)
        own = item.get_closest_marker("timeout")
        limit_s = own.args[0] if own else default
        item.add_marker(pytest.mark.timeout(limit_s * S), append=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is marked ``alone`` wait until no other runs, and the others wait for it."""
    if not hasattr(item.config, "workerinput"):  # there is one process
        return (yield)
    with _machine(item.config, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def _machine(config: pytest.Config, *, alone: bool) -> Iterator[None]:
    """Have the machine together with other tests, or alone."""
    assert config.cache is not None
    place = Path(config.cache.mkdir("machine"))
    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with (place / "room").open("w") as room:
        # Everybody passes the gate, so that nobody enters the room while a test waits to be alone.
        with (place / "gate").open("w") as gate:
            fcntl.flock(gate, how)
            fcntl.flock(room, how)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail in CI what is skipped elsewhere."""
    return _told((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail in CI a module that is skipped elsewhere."""
    return _told((yield))


def _told(report: Report) -> Report:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (CI skips nothing)"
    return report


@dataclass(frozen=True)
class Server:
    """A server that a fixture started."""

    url: str


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedValkey]:
    """One Valkey for all tests that do not harm it; they keep apart by ``prefix``."""
    async with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One Valkey in cluster mode that holds every slot: it refuses what crosses slots."""
    port, bus_port = reserved_port(), reserved_port()
    process = subprocess.Popen(  # noqa: ASYNC220
        [
            *(str(valkey_binary()), "--bind", "127.0.0.1", "--port", str(port)),
            *("--cluster-enabled", "yes", "--cluster-port", str(bus_port), "--save", ""),
        ],
        cwd=tmp_path_factory.mktemp("cluster"),
        stdout=subprocess.DEVNULL,
    )
    try:
        async with Redis(port=port) as client:
            command: Callable[..., Awaitable[bytes]] = client.execute_command

            async def given_its_slots() -> bool:
                try:
                    return await command("CLUSTER", "ADDSLOTSRANGE", 0, 16383) == b"OK"
                except RedisConnectionError:
                    return False

            async def ready() -> bool:
                return b"cluster_state:ok" in await command("CLUSTER", "INFO")

            await eventually(given_its_slots, within=5 * S)
            await eventually(ready, within=5 * S)
        yield Server(f"redis://127.0.0.1:{port}/0")
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def prefix() -> str:
    """A start for key names that no other test uses."""
    return f"test-{next(_prefixes)}:"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a real browser."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    return path
