"""Passwords: argon2 hashes, made and checked in threads, a bounded number at a time.

Checking a password for a name that nobody has costs as much as checking a wrong one. A right
password is remembered for a minute under a keyed hash, because some clients send theirs with every
request.
Not here: whose a password is (``users``), how often it may be tried (``rate_limit``).
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from gateway.core.errors import Overloaded
from gateway.metrics import OVERFLOWS

THREADS: Final = 2  # argon2 takes 64 MiB and a core each time
WAITING_MAX: Final = 64  # at a time; at 30 to 130 ms each the last one waits for 1 to 4 s
REMEMBERED_MS: Final = 60_000  # a password that was changed stays valid for this long
REMEMBERED_MAX: Final = 1024  # passwords in the cache; the oldest is dropped first
PASSWORD_MAX: Final = 1024  # characters; longer ones would only cost time


class PasswordHashing:
    """Hashes and checks passwords in two threads.

    Args:
        hasher: The parameters of argon2.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._seed = secrets.token_bytes(32)
        self._remembered_until_ms: dict[bytes, int] = {}
        self._waiting = 0
        self._slots = asyncio.Semaphore(THREADS)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._decoy: str | None = None

    def close(self) -> None:
        """Stop the threads once they have finished their work."""
        self._threads.shutdown()

    def hash_now(self, password: str) -> str:
        """Return the hash of *password*; this blocks for a tenth of a second.

        Raises:
            UnicodeEncodeError: It is no text.
        """
        return self._hasher.hash(password)

    async def hash(self, password: str) -> str:
        """Return the hash of *password*.

        Raises:
            Overloaded: Too many passwords wait.
        """
        given = password.encode(errors="surrogatepass")
        async with self._slot():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._hasher.hash, given)

    async def matches(self, kept: str, password: str, now_ms: int) -> bool:
        """Whether *kept* is the hash of *password*.

        Args:
            kept: The hash; empty if there is none, which takes as long as a wrong password.
            password: The text that was given, of at most ``PASSWORD_MAX`` characters.
            now_ms: Milliseconds since the Unix epoch.

        Raises:
            Overloaded: Too many passwords wait.
        """
        given = password.encode(errors="surrogatepass")
        memory = hashlib.blake2b(f"{kept}\0".encode(), key=self._seed)  # no hash holds NUL
        memory.update(given)
        digest = memory.digest()
        if self._remembers(digest, now_ms):
            return True
        async with self._slot():
            if self._remembers(digest, now_ms):  # the same client has just sent it
                return True
            loop = asyncio.get_running_loop()
            is_right = await loop.run_in_executor(self._threads, self._verify, kept, given)
        if is_right:
            self._remembered_until_ms[digest] = now_ms + REMEMBERED_MS
            while len(self._remembered_until_ms) > REMEMBERED_MAX:
                del self._remembered_until_ms[next(iter(self._remembered_until_ms))]
        return is_right

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Wait for one of the threads."""
        if self._waiting >= WAITING_MAX:
            OVERFLOWS.labels("logins").inc()
            raise Overloaded
        self._waiting += 1
        try:
            async with self._slots:
                yield
        finally:
            self._waiting -= 1

    def _remembers(self, digest: bytes, now_ms: int) -> bool:
        until_ms = self._remembered_until_ms.get(digest)
        if until_ms is not None and now_ms >= until_ms:
            del self._remembered_until_ms[digest]
        return until_ms is not None and now_ms < until_ms

    def _verify(self, kept: str, given: bytes) -> bool:
        """Run argon2 (in a thread)."""
        if not kept:
            if self._decoy is None:
                self._decoy = self._hasher.hash(secrets.token_bytes(16))
            kept = self._decoy
        try:
            return self._hasher.verify(kept, given)
        except (Argon2Error, InvalidHashError):
            return False
