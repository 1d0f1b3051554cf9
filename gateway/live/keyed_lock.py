"""Keyed lock: commands of one session are done one after the other, in the order they came.

So are the writes of one document; each kind has turns of its own.
"""

import asyncio
from collections import deque
from typing import Final

from gateway.core.errors import StoreUnavailable

ACQUIRE_S: Final = 5.0  # a command waits this long for those of its session before it


class KeyedLock:
    """Who is at work on which session, and who comes next."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[asyncio.Future[None]] | None] = {}

    def __len__(self) -> int:
        """Return at how many sessions somebody is at work."""
        return len(self._queues)

    def try_acquire(self, session_id: str) -> bool:
        """Take the turn if nobody has it; return whether it was taken."""
        if session_id in self._queues:
            return False
        self._queues[session_id] = None
        return True

    async def acquire(self, session_id: str) -> None:
        """Wait for the turn as long as anybody does.

        Raises:
            StoreUnavailable: It did not come within ``ACQUIRE_S``.
        """
        try:
            await self.acquire_within(session_id, ACQUIRE_S)
        except TimeoutError:
            raise StoreUnavailable from None

    async def acquire_within(self, session_id: str, within_s: float) -> None:
        """Wait for the turn behind all who came before.

        Raises:
            TimeoutError: It did not come.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._queues.get(session_id)
        if queue is None:
            queue = self._queues[session_id] = deque()
        queue.append(turn)
        try:
            async with asyncio.timeout(within_s):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # it came in this very moment
                self.release(session_id)
            raise

    def release(self, session_id: str) -> None:
        """Give the turn to the next one."""
        queue = self._queues[session_id]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._queues[session_id]
