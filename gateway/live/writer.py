"""Writer: decides a command against the newest record, commits it, and waits for its own news.

Optimistic: decided on the replica, committed only if the revision still stands, decided again on
what stands there if not. Every write carries an operation, so that one without an answer can be
looked up in the record instead of being done twice.

Not here: whose turn it is and what is held back (``node``), what is legal (``core.session``).
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
from gateway.store.clock import RedisClock
from gateway.store.commit import Commit, join_value, split_value
from gateway.store.group_commit import AckCallback
from gateway.store.store import Store

ATTEMPTS: Final = 16  # decisions on a record that others keep changing; of two, each wins half
OUTCOME_S: Final = 3.0  # to find out what became of a write without an answer
RETRY_S: Final = 0.1  # between two tries of that
NUMBERS: Final = 256  # session numbers reserved at once

log = logging.getLogger(__name__)


class TooEarly(Exception):
    """Redis says that the deadline has not passed yet."""

    def __init__(self, due_ms: int) -> None:
        super().__init__(due_ms)
        self.due_ms = due_ms


class _WriteAttempt(Struct, gc=False):
    """A command on its way, and what has come of it.

    Args:
        session_id: Whose.
        partition: Where that is kept.
        held: What was held back, to be done before.
        command: What is asked for, if anything.
        op: Names it.
        session: What it is decided on.
        offset: Its log entry, once done; ``None`` if there was nothing to write.
        sent: Whether a commit of it may have been done without an answer.
        is_unknown: Whether that has still to be found out.
        revision: Which one the last try would have made.
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
    """Writes for one node.

    Args:
        store: Where to.
        replica: What is known, and where own news arrives.
        clock: Redis time.
        boot: Start of this node's operation names.
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
        """Do what was held back, then *command*, in one commit; see ``Node.apply``.

        What in *held* may have been done when this fails is marked there.
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
        """Do what is not done yet: on what stands in the store, whatever the link to it does."""
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
        """Decide and commit once; return the session after it, ``None`` if there is more to do."""
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
                return after
            case "early":
                raise TooEarly(result.due_ms)
            case _:
                work.session = _record(result.current)
                return None

    def _decided(self, work: _WriteAttempt) -> tuple[Session, Commit | None]:
        """Return the session after *work*, and what has to be written for that, if anything."""
        session = work.session
        if session and work.op in session.ops:
            if work.sent or not work.held:
                return session, None
            work.command, work.op = None, self.next_op()  # a repeat; what was held back is not
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
                # What was accepted fits no record: it must not keep anybody from the rest.
                log.warning("held-back updates of a session are left out: %s", error.code)
                work.held = []
                continue
            self.replica.entry_cache.put(commit.entry, entry)
            return after, commit

    async def _catch_up(self, work: _WriteAttempt, after: Session) -> None:
        """Let this node see what was decided on, if it came from the store; it is not new."""
        if after is self.replica.sessions.get(work.session_id):
            return
        try:
            tail = (await self.store.meta(work.partition)).offset
        except Unavailable:  # what was asked for is done all the same
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
        """Return what the store has of a session, open or closed."""
        live, gone = await self.store.read(self.store.partition(session_id), session_id)
        return _record(live or gone or b"")

    async def number(self, partition: int) -> int:
        """Return a session number that was never given before.

        Raises:
            StoreUnavailable: The store did not answer in time.
        """
        if numbers := self._reserved(partition):
            return numbers.popleft()
        try:
            async with asyncio.timeout(OUTCOME_S):
                while not (numbers := self._reserved(partition)):
                    await self._reserve(partition)
        except (TimeoutError, OutcomeUnknown):  # numbers that nobody gets are no loss
            raise StoreUnavailable from None
        return numbers.popleft()

    def _reserved(self, partition: int) -> deque[int]:
        """Return the numbers that are left; those of an epoch that was lost are given again."""
        epoch = self.replica.epochs[partition]
        known, numbers = self._numbers.get(partition, ("", deque()))
        if known != epoch:
            numbers = deque()
            self._numbers[partition] = epoch, numbers
        return numbers

    async def _reserve(self, partition: int) -> None:
        """Get more numbers, once for all who want one: they go on together, in one group."""
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
        """Return the name of an operation that nobody else has."""
        self._serial += 1
        return f"{self._boot}.{self._serial}"


def _is_forgotten(work: _WriteAttempt) -> bool:
    """Whether so much has been done since that the record cannot tell any more."""
    session = work.session
    return (
        session is not None
        and work.op not in session.ops
        and session.revision >= work.revision + OPS_KEPT
    )


def _decide_all(
    session: Session | None, held: list[Reported], command: AnyCommand | None, now_ms: int
) -> list[AnyEvent]:
    """Decide held-back commands and then the one that is asked; the former may have become moot."""
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
