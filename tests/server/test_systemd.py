"""The service manager: it is told when a gateway is ready, stops, and that it does not hang."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.server.command import KEY, environment, start
from tests.server.test_workers import told
from tests.support import S

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),  # processes that import a whole server
]

WATCHDOG_S: Final = 2.0


@contextmanager
def manager(path: str) -> Iterator[socket.socket]:
    """Listen as a service manager does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asked:
        asked.bind(path.replace("@", "\0"))
        asked.settimeout(15 * S)
        yield asked


@pytest.mark.parametrize("kind", ["file", "abstract"])
@pytest.mark.parametrize("workers", [1, 2])
def test_manager_hears_of_a_life(tmp_path: Path, workers: int, kind: str) -> None:
    """It is ready once, well twice in an interval, and stopping before it ends."""
    path = f"@gateway-{tmp_path.name}-{os.getpid()}" if kind == "abstract" else str(tmp_path / "n")
    more = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    flags = ["serve", "--port", "0", "--admin-key", KEY, "--workers", str(workers)]
    with manager(path) as asked, start(flags, environment(tmp_path, **more)) as process:
        heard = [asked.recv(64) for _ in range(3)]
        assert sorted(heard) == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        process.send_signal(signal.SIGTERM)
        while (last := asked.recv(64)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"
        assert process.wait(8 * S) == 0


def test_watchdog_falls_silent_when_one_worker_hangs(tmp_path: Path) -> None:
    """A service manager that hears nothing restarts the gateway, though the other worker lives."""
    path = str(tmp_path / "n")
    more = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    flags = ["serve", "--port", "0", "--admin-key", KEY, "--workers", "2"]
    with manager(path) as asked, start(flags, environment(tmp_path, **more)) as process:
        while asked.recv(64) != b"READY=1":
            pass
        [worker] = [
            int(pid)
            for pid in told(process.pid, f"task/{process.pid}/children").split()
            if "valkey" not in told(int(pid), "cmdline")
        ][:1]
        os.kill(worker, signal.SIGSTOP)
        asked.settimeout(2 * WATCHDOG_S)
        try:
            for _ in range(4):  # the first may tell of the time before
                asked.recv(64)
        except TimeoutError:
            return
        finally:
            os.kill(worker, signal.SIGCONT)
        pytest.fail("the service manager still hears that all is well")
