"""Workers: several nodes behind one port, each a process, and the parent that supervises them.

The parent serves no requests. It binds the address, runs the Valkey if there is no ``redis_url``,
and starts workers again when they die. A worker is forked while no event loop and no thread exists,
so it shares the memory of all imported code, starts at once, and runs the same code even after an
upgrade on the disk. It stops when the pipe from its parent ends, which also happens if the parent
is killed.

Each worker listens on its own socket (``SO_REUSEPORT``): Linux spreads connections over them by
their addresses, and leaves out a dead worker at once. With one shared socket, of 200 connections
one of two workers got 127 to 189. So the parent keeps the port bound, but does not listen. Not
here: what a worker does (``serving``).
"""

import asyncio
import gc
import logging
import math
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Final

from msgspec.structs import replace

from gateway import systemd
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey

LOOK_EVERY_S: Final = 0.05  # one system call per worker
STEADY_S: Final = 10.0  # a worker that lived so long did not fail to start
RETRY_S: Final = 0.2  # before a restart; doubled each time a worker dies within STEADY_S
DEATHS_MAX: Final = 5  # in a row within STEADY_S, of one worker; then all stop
LEAVE_WITHIN_S: Final = 45.0  # for a polite stop; the longest drain and all that follows take less
HURRY_WITHIN_S: Final = 5.0  # for a stop at once; a worker that is left then hangs, and is killed
NAME_MAX: Final = 61  # characters of a node's name, so that "-64" has room behind

log = logging.getLogger(__name__)

Work = Callable[[Settings, int, Callable[[], None]], int]
"""Serves as the node of these settings until the file of this number can be read, which is its end;
calls back once it serves; returns the exit code."""


def worker_names(settings: Settings) -> list[str]:
    """Return the names of the nodes that the workers are."""
    name = settings.node_name[:NAME_MAX]
    return [f"{name}-{number + 1}" for number in range(settings.workers)]


class _Worker:
    """A worker: its current process, and how earlier ones ended."""

    def __init__(self, number: int, name: str, work: Work) -> None:
        self.number = number
        self.name = name
        self.work = work
        self.process: ForkProcess | None = None
        self.started_s = 0.0
        self.due_s = 0.0  # when to start it again
        self.deaths = 0  # in a row, each within STEADY_S


class Workers:
    """All workers of this process.

    Args:
        settings: Of the gateway, with the port it has.
        work: What each of them does.
        greet: Called once, when all serve for the first time.
        beside: What a process beside them does, if there is one.
    """

    def __init__(
        self,
        settings: Settings,
        work: Work,
        greet: Callable[[], None],
        beside: Work | None = None,
    ) -> None:
        self._settings = settings
        self._greet = greet
        self._valkey = None if settings.redis_url else EmbeddedValkey(settings.data_dir)
        self._workers = [_Worker(n, name, work) for n, name in enumerate(worker_names(settings))]
        if beside is not None:
            self._workers.append(_Worker(settings.workers, settings.node_name, beside))
        self._serving = mmap.mmap(-1, len(self._workers))  # shared; each worker counts in its byte
        self._watchdog = systemd.Watchdog()
        self._seen = bytes(len(self._workers))  # the counts when the watchdog was last told
        self._all_served = False
        self._life, self._life_pipe = os.pipe()
        self._is_leaving = False
        self._kill_at_s = math.inf
        self._told = self._obeyed = 0  # signals
        self._code = 0

    def run(self) -> int:
        """Supervise the workers until all have stopped; return the exit code.

        Raises:
            StoreUnavailable: Our own Valkey does not start.
        """
        try:
            if self._valkey is not None:
                asyncio.run(self._valkey.start())
                self._settings = replace(self._settings, redis_url=self._valkey.url)
            gc.collect()
            gc.freeze()  # a worker's first collection would otherwise copy all inherited memory
            with _handled(self._tell):
                try:
                    while not self._is_leaving or self._any_running:
                        for worker in filter(self._is_due, self._workers):
                            self._start(worker)
                        asyncio.run(self._supervise())
                finally:  # whatever failed, workers stop before their store does
                    self._leave()
                    while self._any_running:
                        time.sleep(LOOK_EVERY_S)
                        self._look()
        finally:
            self._leave()
            if self._valkey is not None:
                asyncio.run(self._valkey.stop())
        return self._code

    # --- one worker

    def _is_due(self, worker: _Worker) -> bool:
        # The first starts alone, so that a problem is reported once and not N times.
        may_start = worker.number == 0 or self._all_served or bool(self._serving[0])
        is_gone = worker.process is None and time.monotonic() >= worker.due_s
        return is_gone and may_start and not self._is_leaving

    def _start(self, worker: _Worker) -> None:
        self._serving[worker.number] = 0
        process = get_context("fork").Process(target=self._live, args=(worker,))
        try:
            process.start()
        except OSError as error:  # too many processes, or no memory for one more
            self._died(worker, {"worker": worker.name, "reason": error.strerror}, is_young=True)
            return
        worker.process, worker.started_s = process, time.monotonic()
        log.info("a worker is started", extra={"worker": worker.name, "pid": process.pid})

    def _live(self, worker: _Worker) -> None:
        os.close(self._life_pipe)  # only the parent holds it
        os.setsid()  # Ctrl-C is for the parent, which tells us
        settings = replace(self._settings, node_name=worker.name)
        sys.exit(worker.work(settings, self._life, lambda: self._serves(worker)))

    def _serves(self, worker: _Worker) -> None:
        """Note that the loop of a worker turns; called each second from when it serves."""
        self._serving[worker.number] = self._serving[worker.number] % 255 + 1

    def _reap(self, worker: _Worker, process: ForkProcess) -> None:
        about: dict[str, object] = {
            "worker": worker.name,
            "pid": process.pid,
            "exit_code": process.exitcode,
        }
        worker.process = None
        if self._is_leaving:
            self._code = self._code or int(process.exitcode != 0)
            log.info("a worker has left", extra=about)
            return
        self._died(worker, about, is_young=time.monotonic() - worker.started_s < STEADY_S)

    def _died(self, worker: _Worker, about: dict[str, object], *, is_young: bool) -> None:
        worker.deaths = worker.deaths + 1 if is_young else 1
        if not self._all_served or worker.deaths >= DEATHS_MAX:
            log.critical("a worker does not start: all stop", extra=about)
            self._code = 1
            self._leave()
            return
        wait_s = RETRY_S * 2 ** (worker.deaths - 1)
        worker.due_s = time.monotonic() + wait_s
        log.warning("a worker ended: it is started again", extra={**about, "wait_s": wait_s})

    # --- all of them

    @property
    def _any_running(self) -> bool:
        return any(worker.process is not None for worker in self._workers)

    async def _supervise(self) -> None:
        """Supervise until a worker has to be started, or none is left.

        Each call has an event loop of its own, because a fork must not happen within one.
        """
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._valkey.watch()) if self._valkey else None
            while not any(map(self._is_due, self._workers)):
                if self._is_leaving and not self._any_running:
                    break
                await asyncio.sleep(LOOK_EVERY_S)
                self._look()
            if watch is not None:
                watch.cancel()

    def _look(self) -> None:
        if self._told > self._obeyed:
            self._obeyed += 1
            if self._is_leaving:
                self._stop_at_once()
            else:
                self._leave()
        for worker in self._workers:
            if worker.process is None:
                continue
            if not worker.process.is_alive():
                self._reap(worker, worker.process)
            elif time.monotonic() > self._kill_at_s:
                log.error("a worker hangs: it is killed", extra={"worker": worker.name})
                worker.process.kill()
        if self._watchdog.is_due(time.monotonic()) and self._all_turn():
            self._watchdog.beat(time.monotonic())
            self._seen = self._serving[:]
        if not self._all_served and all(self._serving[:]):
            self._all_served = True
            log.info("all workers are ready", extra={"workers": self._settings.workers})
            self._greet()

    def _all_turn(self) -> bool:
        """Whether the loop of every worker that serves has turned since the last time."""
        return all(
            now == 0 or now != before
            for now, before in zip(self._serving[:], self._seen, strict=True)
        )

    def _tell(self, _signal: int, _frame: FrameType | None) -> None:
        self._told += 1

    def _leave(self) -> None:
        """Stop all workers politely."""
        if not self._is_leaving:
            self._is_leaving = True
            systemd.notify(systemd.STOPPING)
            self._kill_at_s = time.monotonic() + LEAVE_WITHIN_S
            os.close(self._life_pipe)

    def _stop_at_once(self) -> None:
        """Stop the workers that are still stopping at once."""
        self._kill_at_s = time.monotonic() + HURRY_WITHIN_S
        for worker in self._workers:
            if worker.process is not None:
                worker.process.terminate()


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    kept = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, before in kept.items():
            signal.signal(number, before)
