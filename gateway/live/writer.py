"""Writer: decides a command against the newest record, commits it, and waits until it is applied.

Writes are optimistic: a command is decided on the replica, committed only if the revision is still
the same, and otherwise decided again on the record that the store returns. Every write has an
operation name, so that after a lost answer the record tells whether the write was done.

A write completes when its own log entry has been applied locally (read-your-writes).

Not here: the lock of a session and held-back reports (``node``), what is legal (``core.session``).
"""

import asyncio
import logging
from collections import deque
from typing import Final

from msgspec import Struct
from msgspec.json import encode

from gateway.core.command import AnyCommand, Expire, Open
from gateway.core.document import Message
from gateway.core.errors import (
    Conflict,
    GatewayError,
    Invalid,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    StoreUnavailable,
    Unavailable,
)
from gateway.core.event import (
    AnyEvent,
    HistoryRow,
    MessageEntry,
    RowErasedEntry,
    SessionEntry,
    encode_entry,
    history_rows,
)
from gateway.core.evolve import happens_at
from gateway.core.model import OPS_KEPT, Session, decode_session
from gateway.core.record_codec import changed_fields, encode_checked
from gateway.core.session import advance, decide, evolve
from gateway.live.coalescer import Reported
from gateway.live.replica import Replica
from gateway.metrics import SESSION_ENDS
from gateway.store.clock import RedisClock
from gateway.store.commit import Commit, join_value, split_value
from gateway.store.group_commit import AckCallback
from gateway.store.store import Store

ATTEMPTS: Final = 16  # decisions on a record that others keep changing
OUTCOME_S: Final = 3.0  # to find out the outcome of a write without an answer
RETRY_S: Final = 0.1  # between two attempts of that
NUMBERS: Final = 256  # session numbers reserved at once

log = logging.getLogger(__name__)


class TooEarly(Exception):
    """The store says that the deadline has not passed yet."""

    def __init__(self, due_ms: int) -> None:
        super().__init__(due_ms)
        self.due_ms = due_ms


class _WriteAttempt(Struct, gc=False):
    """A write in progress, and its outcome so far.

    Args:
        session_id: The session.
        partition: The partition of the session.
        held: Held-back commands, to be decided first.
        command: The command, if there is one.
        op: The name of the operation.
        session: The record that it is decided on.
        offset: The offset of its log entry once it is done; ``None`` if nothing was written.
        sent: Whether a commit may have been done without an answer.
        is_unknown: Whether the outcome of the last commit is still unknown.
        revision: The revision that the last attempt would have made.
    """

    session_id: str
    partition: int
    held: list[Reported]
    command: AnyCommand | None
    op: str
    session: Session | None = None
    offset: int | None = None
    sent: bool = False
    is_unknown: bool = False
    revision: int = 0


class CommandWriter:
    """Writes the sessions of one node.

    Args:
        store: Takes the commits.
        replica: Holds the records and applies the log.
        clock: Redis time.
        boot: Prefix of this node's operation names.
    """

    def __init__(self, store: Store, replica: Replica, clock: RedisClock, boot: str) -> None:
        self.store = store
        self.replica = replica
        self.clock = clock
        self._boot = boot
        self._serial = 0
        self._numbers: dict[int, tuple[str, deque[int]]] = {}  # with the epoch of each block
        self._reserving: dict[int, asyncio.Event] = {}

    async def write(
        self, session_id: str, held: list[Reported], command: AnyCommand | None, op: str
    ) -> Session:
        """Commit the *held* commands and then *command* at once; see ``Node.apply``.

        If this fails, the commands in *held* that may have been done are marked.
        """
        until_ms = self.clock.monotonic_ms() + OUTCOME_S * 1000
        partition = self.store.partition(session_id)
        work = _WriteAttempt(session_id, partition, held, command, op)
        work.session = self.replica.sessions.get(session_id)
        tries = ATTEMPTS
        if work.session is not None or isinstance(command, Open):
            tries -= 1
            after = await self._attempt(
                work, self.replica.barrier.complete_write
            )  # the store bounds it
            if after is not None:
                if work.offset is None:
                    await self._catch_up(work, after)
                return after
        try:
            async with asyncio.timeout((until_ms - self.clock.monotonic_ms()) / 1000):
                after = await self._retry_until_settled(work, tries)
        except TimeoutError:
            raise (OutcomeUnknown if work.sent else StoreUnavailable) from None
        if work.offset is None:
            await self._catch_up(work, after)
        else:
            await self.replica.barrier.wait_for_offset(partition, work.offset)
        return after

    async def _retry_until_settled(self, work: _WriteAttempt, tries: int) -> Session:
        """Attempt the write on the record in the store until its outcome is known."""
        if tries == ATTEMPTS:
            work.session = await self.fetch(work.session_id)
        for _ in range(tries):
            if work.is_unknown:
                work.session = await self._read_back(work.session_id)
                if _is_forgotten(work):
                    break
                work.is_unknown = False
            after = await self._attempt(work, None)
            if after is not None:
                return after
        raise OutcomeUnknown if work.is_unknown else Conflict

    async def _attempt(self, work: _WriteAttempt, on_ack: AckCallback | None) -> Session | None:
        """Decide and commit once; return the session after it, or ``None`` if it was not done."""
        after, commit = self._decided(work)
        if commit is None:
            return after
        try:
            result = await self.store.commit(work.partition, commit, on_ack)
        except (OutcomeUnknown, asyncio.CancelledError) as error:
            work.sent = work.is_unknown = True
            work.revision = after.revision
            work.held[:] = [earlier.tried_as(work.op) for earlier in work.held]
            if isinstance(error, OutcomeUnknown):
                return None
            raise
        match result.status:
            case "done":
                work.offset = result.offset
                if after.closed is not None:
                    SESSION_ENDS.labels(after.closed.outcome).inc()
                return after
            case "early":
                raise TooEarly(result.due_ms)
            case _:
                work.session = _record(result.current)
                return None

    def _decided(self, work: _WriteAttempt) -> tuple[Session, Commit | None]:
        """Return the session after *work*, and the commit for that if there is one."""
        session = work.session
        if session and work.op in session.ops:
            if work.sent or not work.held:
                return session, None
            work.command, work.op = None, self.next_op()  # a repeat; the held-back commands are not
        now_ms = happens_at(session, self.clock.now_ms())
        while True:
            events = _decide_all(session, work.held, work.command, now_ms)
            if not events:
                if session is None:
                    raise NotFound
                return session, None
            after = advance(session, events, work.op, now_ms)
            try:
                entry, commit = _commit(session, events, after, work.command, now_ms)
            except (Invalid, LimitExceeded) as error:
                if not work.held:
                    raise
                # The held-back commands do not fit the record; the command itself must not suffer.
                about = {"session_id": work.session_id, "reason": error.code}
                log.warning("held-back updates are left out", extra=about)
                work.held = []
                continue
            self.replica.entry_cache.put(commit.entry, entry)
            return after, commit

    async def _catch_up(self, work: _WriteAttempt, after: Session) -> None:
        """Wait until the replica has the record, if it was decided on one from the store."""
        if after is self.replica.sessions.get(work.session_id):
            return
        try:
            tail = (await self.store.meta(work.partition)).offset
        except Unavailable:  # the command is done all the same
            return
        await self.replica.barrier.wait_for_offset(work.partition, tail)

    async def publish(self, message: Message) -> None:
        """Deliver *message* once to the live connections of its recipients, on every node."""
        partition = self.store.partition(message.to.session or "")
        entry = encode_entry(MessageEntry(at=self.clock.now_ms(), message=message))
        await self.store.commit(partition, Commit(entry=entry), self.replica.barrier.complete_write)

    async def erase_row(self, row: HistoryRow) -> None:
        """Delete a history row; see ``Node.erase_row``."""
        entry = encode_entry(RowErasedEntry(at=self.clock.now_ms(), number=row.number))
        commit = Commit(value=row.key.encode(), entry=entry)
        partition = self.store.partition(row.session_id)
        await self.store.commit(partition, commit, self.replica.barrier.complete_write)

    async def _read_back(self, session_id: str) -> Session | None:
        while True:  # the caller bounds it
            try:
                return await self.fetch(session_id)
            except Unavailable:
                await asyncio.sleep(RETRY_S)

    async def fetch(self, session_id: str) -> Session | None:
        """Return the record of a session, open or closed, from the store."""
        live, gone = await self.store.read(self.store.partition(session_id), session_id)
        return _record(live or gone or b"")

    async def number(self, partition: int) -> int:
        """Return a session number that was never used.

        Raises:
            StoreUnavailable: The store did not answer in time.
        """
        if numbers := self._reserved(partition):
            return numbers.popleft()
        try:
            async with asyncio.timeout(OUTCOME_S):
                while not (numbers := self._reserved(partition)):
                    await self._reserve(partition)
        except (TimeoutError, OutcomeUnknown):  # unused numbers are no loss
            raise StoreUnavailable from None
        return numbers.popleft()

    def _reserved(self, partition: int) -> deque[int]:
        """Return the reserved numbers that are left; a new epoch discards them."""
        epoch = self.replica.epochs[partition]
        known, numbers = self._numbers.get(partition, ("", deque()))
        if known != epoch:
            numbers = deque()
            self._numbers[partition] = epoch, numbers
        return numbers

    async def _reserve(self, partition: int) -> None:
        """Reserve more numbers; concurrent callers share one request."""
        if reserving := self._reserving.get(partition):
            await reserving.wait()
            return
        reserving = self._reserving[partition] = asyncio.Event()
        try:
            numbers = self._reserved(partition)
            numbers.extend(await self.store.reserve_numbers(partition, NUMBERS))
        finally:
            del self._reserving[partition]
            reserving.set()

    def next_op(self) -> str:
        """Return a unique operation name."""
        self._serial += 1
        return f"{self._boot}.{self._serial}"


def _is_forgotten(work: _WriteAttempt) -> bool:
    """Whether the record has forgotten the operation, because too many came after it."""
    session = work.session
    return (
        session is not None
        and work.op not in session.ops
        and session.revision >= work.revision + OPS_KEPT
    )


def _decide_all(
    session: Session | None, held: list[Reported], command: AnyCommand | None, now_ms: int
) -> list[AnyEvent]:
    """Decide the held-back commands and then *command*; held-back ones may be obsolete by now."""
    events: list[AnyEvent] = []
    for earlier in held:
        if session and earlier.is_over(session):
            continue
        try:
            new = decide(session, earlier.command, earlier.asked_at)
        except GatewayError:
            continue
        for event in new:
            session = evolve(session, event, now_ms)
        events.extend(new)
    if command is not None:
        events.extend(decide(session, command, now_ms))
    return events


def _commit(
    session: Session | None,
    events: list[AnyEvent],
    after: Session,
    command: AnyCommand | None,
    now_ms: int,
) -> tuple[SessionEntry, Commit]:
    entry = SessionEntry(
        at=now_ms,
        op=after.ops[-1],
        events=events,
        record=after,
        before=changed_fields(session, after),
    )
    record = encode_checked(session, entry)
    due_ms, amnesty_ms = 0, 0
    if isinstance(command, Expire):
        due_ms, amnesty_ms = command.at, command.amnesty_ms
    value = join_value(after.revision, record)
    return entry, Commit(
        field=after.id,
        expected=session.revision if session else 0,
        value=b"" if after.closed else value,
        entry=encode_entry(entry, record),
        not_before_ms=due_ms,
        amnesty_ms=amnesty_ms,
        tombstone=value if after.closed else b"",
        rows=tuple(encode(row) for row in history_rows(session, events, after, now_ms)),
    )


def _record(value: bytes) -> Session | None:
    return decode_session(split_value(value)[1]) if value else None
