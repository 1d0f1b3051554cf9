"""Contestant: one server under test, and the bytes its clients speak.

A contestant starts fresh for every measurement, in a folder of its own, on a free port of the
loopback, with a Redis of its own if it uses one. What it cannot do it answers by ``None``.
"""

import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from machine import Process, Redis, free_port, listens
from swarm import MARK, TIME, Steps

EVENT = (
    b'{"type":"events","position":"5f1c8e0b2a7d4963-000000000001-a1b2c3d4","events":[{"type":'
    b'"session.updated","session_id":"0199d0c4-5b7e-7a31-8f00-2c4d6e8f0a1b","revision":17,"at":'
    b'"2026-01-02T03:04:05.678Z","changes":{"attributes":{"at":"' + MARK + TIME + b'"}}}]}'
)
"""What peers are given to publish: what the gateway makes of one change."""


class Contestant(ABC):
    """One server under test.

    ``with`` starts it and ends it.

    Raises:
        Broken: It does not start.
    """

    name: ClassVar[str]
    uses_redis: ClassVar[bool] = False
    watches_by: ClassVar[str] = "ws"  # or raw
    publishes_by: ClassVar[str] = "ws"
    publishers: ClassVar[int] = 1  # connections that publish; the gateway's are sessions

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.port = free_port()
        self.redis: Redis | None = None
        self.server: Process

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return why it cannot take part, or ``None``."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Return what exactly takes part."""

    @abstractmethod
    def start(self, folder: Path) -> Process:
        """Start the server."""

    @abstractmethod
    def watch(self, channels: int) -> Steps:
        """Return how a watcher of its channel (of *channels*) comes in."""

    @abstractmethod
    def publisher(self, channels: int) -> Steps:
        """Return how a publisher comes in."""

    @abstractmethod
    def event(self) -> bytes:
        """Return the bytes by which a publisher makes one event happen in its channel."""

    def session(self) -> Steps | None:
        """Return how a client comes, is a tracked session, leaves, and is let go."""
        return None

    def is_ready(self) -> bool:
        """Return whether it serves."""
        return listens(self.port)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
            folder = Path(made)
            folder.chmod(0o755)  # a server may change its user
            if self.uses_redis:
                self.redis = Redis(folder)
                stack.callback(self.redis.stop)
            self.server = self.start(folder)
            stack.callback(self.server.stop)
            self.server.until(self.is_ready)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
