"""One long-lived connection to a Redis server.

The clients of redis-py repeat writes without telling the caller, and its pools do not wait; its
bare connection does neither. A :class:`RedisConnection` sends a pipeline and returns its replies
within a deadline, or drops the connection, because a late reply would be taken for that of the next
command.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from hiredis import pack_command
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from gateway.core.errors import GatewayError, OutcomeUnknown, StoreFull, StoreUnavailable
from gateway.metrics import STORE_RECONNECTS
from gateway.store.roles import WriteAccess, reason_of, refusal_of

CONNECT_S: Final = 2.0  # to connect, authenticate and select
ANSWER_S: Final = 2.0  # from the call to the last reply, including waiting and connecting

Command = Sequence[str | bytes | int]
Reply = Any  # whatever RESP2 can hold; errors are ResponseError values


class _RawConnection(Protocol):
    """The part of redis-py's connection that is used here."""

    is_connected: bool

    async def connect(self) -> None: ...
    async def disconnect(self, *, nowait: bool) -> None: ...
    async def send_packed_command(self, command: list[bytes], *, check_health: bool) -> None: ...
    async def read_response(self) -> Reply: ...


class RedisConnection:
    """A connection that is made when needed, and again after it broke.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://`` (redis-py's URL form).
        name: Shown by ``CLIENT LIST``.
        access: What is known of the store together with its other connections.
    """

    def __init__(self, url: str, name: str, access: WriteAccess | None = None) -> None:
        options: dict[str, Any] = dict(parse_url(url))
        kind = options.pop("connection_class", Connection)
        self._raw = cast(
            _RawConnection,
            kind(
                **options,
                client_name=name,
                protocol=2,
                socket_timeout=None,
                socket_connect_timeout=CONNECT_S,
                retry=Retry(NoBackoff(), 0),
                driver_info=None,
            ),
        )
        self._lock = asyncio.Lock()
        self._waiting = 0  # callers that wait for it
        self._access = access
        self._generation = 0  # of the access, when the connection was made
        self._was_connected = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now; the next call makes one if not."""
        return self._raw.is_connected and not self._is_outdated

    @property
    def _is_outdated(self) -> bool:
        """Whether the connection was made before the store changed its mind about writes."""
        return self._access is not None and self._generation != self._access.generation

    async def connect(self) -> None:
        """Make the connection if there is none.

        Raises:
            StoreUnavailable: It could not be made in time.
        """
        await self._begin(asyncio.get_running_loop().time() + CONNECT_S)
        self._lock.release()

    async def call(self, *command: str | bytes | int, answer_s: float = ANSWER_S) -> Reply:
        """Send one command and return its reply.

        Raises:
            StoreFull: The server has no memory for it.
            StoreUnavailable: Nothing was sent, or the server refused it.
            OutcomeUnknown: As :meth:`pipeline`.
        """
        [reply] = await self.pipeline([command], answer_s=answer_s)
        if isinstance(reply, ResponseError):
            raise error_from_reply(reply) from reply
        return reply

    async def pipeline(
        self, commands: Sequence[Command], *, answer_s: float = ANSWER_S
    ) -> list[Reply]:
        """Send *commands* at once and return all replies, errors among them as values.

        Args:
            commands: At most a few hundred; the caller bounds them.
            answer_s: Seconds until the last reply.

        Raises:
            StoreUnavailable: Nothing was sent.
            OutcomeUnknown: Sent, but not all replies came; any of the commands may have run.
        """
        until_s = asyncio.get_running_loop().time() + answer_s
        await self._begin(until_s)
        try:
            try:
                async with asyncio.timeout_at(until_s):
                    packed = [pack_command(tuple(c)) for c in commands]  # type: ignore[arg-type] # stub: 1-tuple
                    await self._raw.send_packed_command(packed, check_health=False)
                    replies = [await self._reply() for _ in commands]
                if any(isinstance(reply, ResponseError) for reply in replies):
                    await self._judge(commands, replies)
                if self._access is not None and self._access.forbidden:
                    for command, reply in zip(commands, replies, strict=True):
                        if not isinstance(reply, ResponseError):
                            self._access.permitted(str(command[0]))
                return replies
            except (RedisError, OSError) as error:
                await self.close()
                if (refusal := refusal_of(error)) is not None:
                    await self._refused(refusal)
                raise OutcomeUnknown from error
            except BaseException:
                await self.close()
                raise
        finally:
            self._lock.release()

    def has_written(self) -> None:
        """Note that what was sent last was written: this connection leads to a primary."""
        if self._access is not None and self._access.refusal is not None:
            self._access.accepted()
            self._generation = self._access.generation

    async def _judge(self, commands: Sequence[Command], replies: list[Reply]) -> None:
        """Note what errors among the replies tell of the server; name what is not permitted."""
        for number, reply in enumerate(replies):
            if not isinstance(reply, ResponseError) or isinstance(reply, NoScriptError):
                continue
            if (refusal := refusal_of(reply)) is not None:
                await self._refused(refusal)
            elif isinstance(reply, OutOfMemoryError) and self._access is not None:
                self._access.rejected(f"OOM {reply}")
            elif isinstance(reply, NoPermissionError):
                name, keys = str(commands[number][0]), _keys_of(commands[number])
                if self._access is not None:
                    self._access.forbade(name, keys, str(reply))
                text = f"NOPERM for {name}{' on ' if keys else ''}{keys} ({reply})"
                replies[number] = NoPermissionError(text)

    async def _refused(self, refusal: str) -> None:
        await self.close()  # a new connection may lead to a server that takes writes
        if self._access is not None:
            self._access.refused(refusal)

    async def _begin(self, until_s: float) -> None:
        """Acquire the connection; behind a dead server all waits end at the same time."""
        if self._lock.locked() or self._waiting:
            self._waiting += 1
            try:
                async with asyncio.timeout_at(until_s):
                    await self._lock.acquire()
            except TimeoutError:
                raise StoreUnavailable from None
            finally:
                self._waiting -= 1
        else:
            await self._lock.acquire()  # at once
        if self.is_connected:
            return
        try:
            async with asyncio.timeout_at(until_s):
                if self._raw.is_connected:
                    await self.close()
                if self._access is not None:
                    self._generation = self._access.generation
                await self._connect()
                if self._was_connected:
                    STORE_RECONNECTS.inc()
                self._was_connected = True
        except BaseException as error:
            await self.close()
            self._lock.release()
            if isinstance(error, TimeoutError):
                raise StoreUnavailable from None
            raise

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._raw.connect()
        except (RedisError, OSError, TimeoutError) as error:
            await self.close()
            # redis-py wraps what the server said.
            said = error.__cause__ if isinstance(error.__cause__, RedisError) else error
            if (refusal := refusal_of(said)) is not None:
                await self._refused(refusal)
            raise StoreUnavailable(f"The store cannot be reached: {reason_of(said)}.") from said

    async def _reply(self) -> Reply:
        # No ``timeout``: given one, redis-py answers None when the kernel gives up (ETIMEDOUT).
        try:
            return await self._raw.read_response()
        except ResponseError as error:
            return error

    async def close(self) -> None:
        """Drop the connection."""
        try:
            await self._raw.disconnect(nowait=True)
        except (RedisError, OSError):  # a broken transport may refuse even that
            return


def _keys_of(command: Command) -> str:
    """Return the keys of a command, for people."""
    match command:
        case "EVALSHA" | "EVAL", _, int(count), *rest:
            return " ".join(map(str, rest[:count]))
        case "XREAD", *_, key, _:
            return str(key)
        case "INFO" | "CLUSTER", *_:
            return ""
    return str(command[1])


def error_from_reply(error: ResponseError) -> GatewayError:
    """Return the gateway's error for a command that the server refused; it changed nothing."""
    if isinstance(error, OutOfMemoryError):
        return StoreFull()
    reason = str(refusal_of(error) or error).removesuffix(".")
    return StoreUnavailable(f"The store refused: {reason}.")
