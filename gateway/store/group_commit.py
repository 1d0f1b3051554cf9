"""Group commit: sends concurrent commits together, in one script call per partition.

While one group is in flight the next one fills; under load it fills a moment longer, because each
group costs a call to Redis, a read on every node and a write to every subscriber. A commit that
comes alone is not delayed. Each commit of a group is done or refused by itself.

Promises: a commit is answered within ``QUEUE_S`` plus ``ANSWER_S``, whatever the server does; it is
sent again only if the server said that it did not run it; a commit whose caller has gone before it
was sent is left out.

Not here: what to write (``core.session``), what to do about an answer (``live.writer``).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from redis.exceptions import NoScriptError, ResponseError

from gateway.core.errors import GatewayError, OutcomeUnknown, Overloaded, StoreUnavailable
from gateway.metrics import COMMIT, COMMIT_BATCH, OVERFLOWS
from gateway.store.clock import RedisClock
from gateway.store.commit import Commit, Result, Script, result_of
from gateway.store.connection import ANSWER_S, Command, RedisConnection, Reply, error_from_reply
from gateway.store.keys import Keys

LOG_BYTES_MAX: Final = 256 << 20  # a partition's log is trimmed to about this much
LOG_ENTRIES_MIN: Final = 10_000  # but never below this many entries
OUTAGE_MS: Final = 4_000  # if no node renewed its lease for this long (RENEW_S), all were down
QUEUE_MAX: Final = 10_000  # commits in the queue; one more is refused with Overloaded
QUEUE_S: Final = 1.0  # a commit that waited longer in the queue is refused
BATCH_MAX: Final = 256  # commits sent at once: about 3 ms of the server's time
GATHER_S: Final = 0.004  # between two groups under load; a round trip takes about 0.3 ms
GATHER_MIN: Final = 4  # commits expected in that time from which on there is load
RATE_OVER_S: Final = 0.05  # the rate of commits is averaged over this time
BATCH_BYTES_MAX: Final = 1 << 20  # of records and entries sent at once, and one commit more

log = logging.getLogger(__name__)

Answer = asyncio.Future[Result]
AckCallback = Callable[[int, Result, Answer], None]
"""Completes the answer of a done commit of a partition, now or later."""

PendingCommit = tuple[int, Commit, Answer, float, AckCallback | None]
"""A queued commit: partition, commit, answer, time of arrival (loop time), callback."""


class GroupPacer:
    """Decides how long a group waits for more commits, because each group has a fixed cost.

    A commit that comes alone is never delayed. Under load, groups are ``GATHER_S`` apart.
    """

    def __init__(self) -> None:
        self._per_s = 0.0  # recent rate of commits
        self._sent_s = 0.0  # when the last group was sent

    def wait_s(self, now_s: float, waiting: int) -> float:
        """Return how long the *waiting* commits should wait."""
        if waiting >= BATCH_MAX or self._per_s * GATHER_S < GATHER_MIN:
            return 0
        return self._sent_s + GATHER_S - now_s

    def sent(self, now_s: float, count: int) -> None:
        """Note that a group of *count* commits is sent."""
        passed_s = max(now_s - self._sent_s, 1e-6)
        weight = min(1.0, passed_s / RATE_OVER_S)
        self._per_s += (min(count, BATCH_MAX) / passed_s - self._per_s) * weight
        self._sent_s = now_s


class GroupCommit:
    """Queues and sends the commits of one node.

    Args:
        connection: A connection for commits only.
        clock: Gets Redis time from every answer.
    """

    def __init__(self, connection: RedisConnection, clock: RedisClock) -> None:
        self.keys: Sequence[Keys] = ()  # by partition
        self._connection = connection
        self._clock = clock
        self._script = Script("commit.lua")
        self._queue: deque[PendingCommit] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._pacer = GroupPacer()
        self._loop: asyncio.AbstractEventLoop | None = None

    def commit(self, partition: int, commit: Commit, on_ack: AckCallback | None = None) -> Answer:
        """Write *commit*, together with concurrent ones; see ``Store.commit``.

        Raises:
            Overloaded: ``QUEUE_MAX`` commits wait already; nothing was done.
            StoreUnavailable: The server cannot be reached or refused it; nothing was done.
            Repairing: The server has lost its data; nothing was done.
            OutcomeUnknown: It was sent and no answer came.
        """
        if self._ended:
            raise StoreUnavailable
        if len(self._queue) >= QUEUE_MAX:
            OVERFLOWS.labels("commits").inc()
            raise Overloaded
        if self._loop is None:  # looked up once, because it costs a system call
            self._loop = asyncio.get_running_loop()
        answer: Answer = self._loop.create_future()
        self._queue.append((partition, commit, answer, self._loop.time(), on_ack))
        self._wake.set()
        return answer

    async def run(self) -> None:
        """Send queued commits, one group after the other, until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    wait_s = self._pacer.wait_s(loop.time(), len(self._queue))
                    if wait_s > 0:
                        await asyncio.sleep(wait_s)
                    self._pacer.sent(loop.time(), len(self._queue))
                    await self._send(self._take())
        finally:
            self._ended = True
            self._refuse_waiting()

    def _take(self) -> dict[int, list[PendingCommit]]:
        """Take the next group off the queue, by partition; it may be empty."""
        group: dict[int, list[PendingCommit]] = {}
        too_old_s = asyncio.get_running_loop().time() - QUEUE_S
        count, size = 0, 0
        while self._queue and count < BATCH_MAX and size < BATCH_BYTES_MAX:
            waiting = self._queue.popleft()
            partition, commit, answer, since_s, _ = waiting
            if answer.done():  # its caller has gone
                continue
            if since_s < too_old_s:
                answer.set_exception(StoreUnavailable())
                continue
            count += 1
            size += len(commit.entry) + len(commit.value) + len(commit.tombstone)
            group.setdefault(partition, []).append(waiting)
        return group

    def _refuse_waiting(self) -> None:
        while self._queue:
            answer = self._queue.popleft()[2]
            if not answer.done():
                answer.set_exception(StoreUnavailable())

    async def _send(self, group: dict[int, list[PendingCommit]]) -> None:
        if not group:
            return
        sent_ms = self._clock.monotonic_ms()
        failure: Callable[[], GatewayError] = OutcomeUnknown
        replies: list[Reply] = []
        try:
            replies = await run_scripts(
                self._connection,
                self._script,
                [self._command(partition, batch) for partition, batch in group.items()],
            )
        except GatewayError as error:
            failure = type(error)
        finally:  # also when cancelled: no caller may wait for ever
            if not replies:
                for batch in group.values():
                    _fail(batch, failure)
        received_ms = self._clock.monotonic_ms()
        if not replies:
            if received_ms - sent_ms >= ANSWER_S * 1000:  # the server hangs: fail what waits behind
                self._refuse_waiting()
            return
        COMMIT.observe((received_ms - sent_ms) / 1000)
        COMMIT_BATCH.observe(sum(map(len, group.values())))
        for batch, reply in zip(group.values(), replies, strict=True):
            if isinstance(reply, ResponseError):  # the script did not run: nothing was done
                _fail(batch, partial(error_from_reply, reply))
                continue
            if isinstance(reply, GatewayError):
                _fail(batch, type(reply))
                continue
            self._clock.sample(sent_ms, received_ms, reply[0])
            if reply[1]:
                log.warning("the log cannot be trimmed", extra={"reason": reply[1].decode()})
            _acknowledge(batch, reply)

    def _command(self, partition: int, batch: list[PendingCommit]) -> Command:
        keys = self.keys[partition]
        command: list[str | bytes | int] = [
            *("EVALSHA", self._script.sha, 5),
            *(keys.live, keys.log, keys.gone, keys.history, keys.meta),
            *(LOG_BYTES_MAX, LOG_ENTRIES_MIN, OUTAGE_MS),
        ]
        for _, commit, *_ in batch:
            command += (
                commit.field,
                commit.expected,
                commit.value,
                commit.entry,
                commit.not_before_ms,
                commit.amnesty_ms,
                commit.tombstone,
                len(commit.rows),
                *commit.rows,
            )
        return command


async def run_scripts(
    connection: RedisConnection, script: Script, commands: list[Command]
) -> list[Reply]:
    """Send calls of *script*, and its text to a server that does not have it.

    Returns:
        A reply for each; errors are values: a ``ResponseError`` of the server, or ours when the
        second try of that call failed.

    Raises:
        StoreUnavailable: Nothing was sent.
        OutcomeUnknown: Not all replies came; any of the calls may have run.
    """
    until_s = asyncio.get_running_loop().time() + ANSWER_S
    replies = await connection.pipeline(commands, answer_s=ANSWER_S)
    unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:  # a restarted or flushed server: these were not run, so they may be sent again
        again: list[Command] = [("EVAL", script.text, *commands[number][2:]) for number in unknown]
        left_s = until_s - asyncio.get_running_loop().time()
        try:
            answers = await connection.pipeline(again, answer_s=left_s)
        except GatewayError as error:
            answers = [error] * len(again)
        for number, answer in zip(unknown, answers, strict=True):
            replies[number] = answer
    if not any(isinstance(reply, Exception) for reply in replies):
        connection.has_written()
    return replies


def _fail(batch: list[PendingCommit], failure: Callable[[], GatewayError]) -> None:
    for _, _, answer, *_ in batch:
        if not answer.done():
            answer.set_exception(failure())


def _acknowledge(batch: list[PendingCommit], reply: Reply) -> None:
    time_ms = reply[0]
    for number, (partition, _, answer, _, on_ack) in enumerate(batch, 2):
        if answer.done():
            continue
        result = result_of(reply[number], time_ms)
        if isinstance(result, GatewayError):
            answer.set_exception(result)
        elif on_ack and result.status == "done":
            on_ack(partition, result, answer)
        else:
            answer.set_result(result)
