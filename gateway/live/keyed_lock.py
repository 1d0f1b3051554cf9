"""Keyed lock: serializes the commands of one session, in the order in which they came.

The writes of one document are serialized in the same way, by a lock of their own.
"""

import asyncio
from collections import deque
from typing import Final

from gateway.core.errors import StoreUnavailable

ACQUIRE_S: Final = 5.0  # a command waits at most this long for earlier ones of its session


class KeyedLock:
    """A lock for each key, granted in the order of arrival."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[asyncio.Future[None]] | None] = {}

    def __len__(self) -> int:
        """Return how many keys are locked."""
        return len(self._queues)

    def try_acquire(self, session_id: str) -> bool:
        """Acquire the lock if it is free; return whether it was."""
        if session_id in self._queues:
            return False
        self._queues[session_id] = None
        return True

    async def acquire(self, session_id: str) -> None:
        """Wait for the lock.

        Raises:
            StoreUnavailable: It was not free within ``ACQUIRE_S``.
        """
        try:
            await self.acquire_within(session_id, ACQUIRE_S)
        except TimeoutError:
            raise StoreUnavailable from None

    async def acquire_within(self, session_id: str, within_s: float) -> None:
        """Wait for the lock, behind all who asked for it before.

        Raises:
            TimeoutError: It was not free in time.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._queues.get(session_id)
        if queue is None:
            queue = self._queues[session_id] = deque()
        queue.append(waiter)
        try:
            async with asyncio.timeout(within_s):
                await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():  # it was granted just now
                self.release(session_id)
            raise

    def release(self, session_id: str) -> None:
        """Release the lock, and grant it to the next waiter."""
        queue = self._queues[session_id]
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        del self._queues[session_id]
