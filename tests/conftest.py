"""Fixtures for every test: a real Valkey, a key prefix of its own, a real browser."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.store.embedded import EmbeddedValkey, valkey_binary
from tests.support import S, eventually

_prefixes = count()

# A shell that starts the tests in the background lets them, and all they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
    with socket.socket() as free, socket.socket() as bus:
        free.bind(("127.0.0.1", 0))
        bus.bind(("127.0.0.1", 0))
        port, bus_port = free.getsockname()[1], bus.getsockname()[1]
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
    """Path of a real browser; a machine that cannot have one skips its tests, CI does not."""
    path = shutil.which("chromium")
    if path is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain("chromium is not installed")
    return path
