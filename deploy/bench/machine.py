"""Machine: processes of the benchmark, what they cost, and what they ran on (Linux).

Ends only what it started, by process id. Costs are those of a whole process tree: user and system
time from ``/proc/<pid>/stat``, memory as PSS, so that pages shared by workers count once.
"""

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.store.embedded import valkey_binary

TICKS_A_S: Final = os.sysconf("SC_CLK_TCK")
START_WITHIN_S: Final = 20.0
STOP_WITHIN_S: Final = 15.0  # a gateway with thousands of sockets drains first
HERE: Final = Path(__file__).resolve().parent
CACHE: Final = HERE / ".cache"


class Broken(Exception):
    """A contestant did not start or did not do its job; the others go on."""


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Process:
    """A server process, with those that it starts.

    Args:
        command: What to run.
        folder: Its working directory; what it prints goes to ``<folder>/<name>.log``.
        name: Of the log.
        env: Added to the environment, from which our own settings are taken.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, name: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = folder / f"{name}.log"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**kept, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def tree(self) -> list[int]:
        """Return the ids of the process and all that descend from it."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))):
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self._process.pid]
        for pid in found:
            found.extend(parents.get(pid, ()))
        return found

    def cpu_s(self) -> float:
        """Return the seconds of processor time used so far, in 10 ms steps."""
        stats = [_stat(pid) for pid in self.tree()]
        return sum((int(fields[11]) + int(fields[12])) / TICKS_A_S for fields in stats if fields)

    def pss_kib(self) -> int:
        """Return the proportional memory."""
        return sum(_pss_kib(pid) for pid in self.tree())

    def until(self, is_ready: Callable[[], bool]) -> None:
        """Wait until it serves.

        Raises:
            Broken: It ended, or took too long.
        """
        until_s = time.monotonic() + START_WITHIN_S
        while time.monotonic() < until_s and self._process.poll() is None:
            if is_ready():
                return
            time.sleep(0.02)
        last = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        raise Broken(f"{self._log.stem} does not start: {' / '.join(last)}")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def listens(port: int) -> bool:
    """Return whether somebody accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


class Redis(Process):
    """A Valkey server on a unix socket, the same for everybody who needs one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "redis.sock"
        options = f"--port 0 --unixsocket {self.path} --appendonly yes --appendfsync everysec"
        command = [str(valkey_binary()), *options.split(), "--save", "", "--dir", str(folder)]
        super().__init__(command, folder, "redis")
        self.until(lambda: self.ask("PING") == "+PONG")

    @property
    def url(self) -> str:
        """Its address for redis-py."""
        return f"unix://{self.path}"

    def ask(self, command: str) -> str:
        """Return the answer to an inline command as it stands on the wire, or an empty text."""
        with socket.socket(socket.AF_UNIX) as line:
            try:
                line.settimeout(2)
                line.connect(str(self.path))
                line.sendall(f"{command}\r\n".encode())
                return line.recv(1 << 16).decode().strip()
            except OSError:
                return ""

    def commands(self) -> int:
        """Return how many commands it has processed; scripts count with what they call."""
        for line in self.ask("INFO stats").splitlines():
            if line.startswith("total_commands_processed:"):
                return int(line.partition(":")[2])
        return 0


class Clock:
    """What a server and its Redis spend from the start of a measurement on."""

    def __init__(self, server: Process, redis: Process | None = None) -> None:
        self._processes = [process for process in (server, redis) if process is not None]
        self._began_s = [process.cpu_s() for process in self._processes]

    def spent_s(self) -> float:
        """Return the processor seconds of both."""
        return sum(self.each_s())

    def each_s(self) -> list[float]:
        """Return the processor seconds of the server, and of Redis if there is one."""
        return [
            process.cpu_s() - began_s
            for process, began_s in zip(self._processes, self._began_s, strict=True)
        ]


def _stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/<pid>/stat`` after the name; ``None`` for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _pss_kib(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def output(*command: str) -> str:
    """Return what a command prints, on whichever stream; empty if it cannot run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip()


def find(name: str) -> str | None:
    """Return where a program is, also where only the administrator looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def described() -> str:
    """Return one line about this machine."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    redis = next(
        (
            word.removeprefix("v=")
            for word in output(str(valkey_binary()), "--version").split()
            if word.startswith("v=")
        ),
        "of unknown version",
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{cpu}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Linux {platform.release()}, "
        f"Python {sys.version.split()[0]}, Valkey {redis} for all who use one"
    )
