"""Writer: decides a command against the newest record, commits it, and waits for its own news.

Optimistic: decided on the mirror, committed only if the revision still stands, decided again on
what stands there if not. Every write carries an operation, so that one without an answer can be
looked up in the record instead of being done twice.

Not here: whose turn it is and what is held back (``node``), what is legal (``core.session``).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from msgspec.json import decode, encode
from msgspec.structs import replace

from gateway.core.command import AnyCommand, Expire, Open
from gateway.core.document import BODY_MAX_BYTES, Document, Message
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
    DocumentEntry,
    MessageEntry,
    SessionEntry,
    encode_entry,
    history_rows,
)
from gateway.core.model import Session, decode_session
from gateway.core.seal import changed_fields, sealed
from gateway.core.session import advance, decide, evolve
from gateway.live.coalescer import Reported
from gateway.live.mirror import Mirror
from gateway.store.clock import RedisClock
from gateway.store.commit import Commit, split_value
from gateway.store.store import Store

ATTEMPTS: Final = 5  # decisions on a record that others keep changing
OUTCOME_S: Final = 3.0  # to find out what became of a write without an answer
RETRY_S: Final = 0.1  # between two tries of that
SEEN_S: Final = 2.0  # a done write waits this long for its own news
NUMBERS: Final = 256  # session numbers reserved at once

log = logging.getLogger(__name__)


class TooEarly(Exception):
    """Redis says that the deadline has not passed yet."""

    def __init__(self, due_ms: int) -> None:
        super().__init__(due_ms)
        self.due_ms = due_ms


class Writer:
    """Writes for one node.

    Args:
        store: Where to.
        mirror: What is known, and where own news arrives.
        clock: Redis time.
        boot: Start of this node's operation names.
    """

    def __init__(self, store: Store, mirror: Mirror, clock: RedisClock, boot: str) -> None:
        self.store = store
        self.mirror = mirror
        self.clock = clock
        self._boot = boot
        self._serial = 0
        self._numbers: dict[int, deque[int]] = {}
        self._numbering = asyncio.Lock()

    async def write(
        self, session_id: str, held: list[Reported], command: AnyCommand | None, op: str
    ) -> Session:
        """Do what was held back, then *command*, in one commit; see ``Node.apply``."""
        partition = self.store.partition(session_id)
        try:
            async with asyncio.timeout(OUTCOME_S):
                after, offset = await self._write(session_id, held, command, op)
        except TimeoutError:
            raise OutcomeUnknown from None
        if offset is None and after is not self.mirror.sessions.get(session_id):
            offset = await self._tail(partition)
        if offset is not None:
            await self._seen(partition, offset)
        return after

    async def _write(
        self, session_id: str, held: list[Reported], command: AnyCommand | None, op: str
    ) -> tuple[Session, int | None]:
        """Return the session and the offset of the commit; ``None`` if there was none now."""
        partition = self.store.partition(session_id)
        session = self.mirror.sessions.get(session_id)
        if session is None and not isinstance(command, Open):
            session = await self.fetch(session_id)
        sent = False
        for _ in range(ATTEMPTS):
            if session and op in session.ops:
                if sent or not held:
                    return session, None
                command, op = None, self.next_op()  # a repeat; what was held back is not
            now_ms = self.clock.now_ms()
            events = _decide_all(session, held, command, now_ms)
            if not events:
                if session is None:
                    raise NotFound
                return session, None
            after = advance(session, events, op, now_ms)
            try:
                commit = _commit(session, events, after, command, now_ms)
            except (Invalid, LimitExceeded) as error:
                if not held:
                    raise
                # What was accepted fits no record: it must not keep anybody from the rest.
                log.warning("held-back updates of a session are left out: %s", error.code)
                held = []
                continue
            try:
                result = await self.store.commit(partition, commit)
            except OutcomeUnknown:
                sent = True
                session = await self._found_out(session_id)
                continue
            match result.status:
                case "done":
                    return after, result.offset
                case "early":
                    raise TooEarly(result.due_ms)
                case _:
                    session = _record(result.current)
        raise Conflict

    async def write_document(
        self, kind: str, key: str, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Document:
        """Replace a document's body by what *change* makes of it; empty deletes it.

        Raises:
            LimitExceeded: The body would be over 16 KiB.
            Conflict: Others were faster five times.
            GatewayError: As :meth:`apply`.
        """
        document = Document(kind=kind, key=key)
        partition = self.store.partition(document.field)
        current = self.mirror.documents.get(document.field, document)
        op = self.next_op()
        for _ in range(ATTEMPTS):
            after = replace(current, revision=current.revision + 1, body=change(current.body))
            value = encode(after)
            if len(value) > BODY_MAX_BYTES:
                raise LimitExceeded("A document is at most 16 KiB.")
            entry = DocumentEntry(at=self.clock.now_ms(), op=op, document=after)
            commit = Commit(
                field=document.field,
                expected=current.revision,
                value=_stored(after.revision, value) if after.body else b"",
                entry=encode_entry(entry),
            )
            result = await self.store.commit(partition, commit)
            if result.status == "done":
                await self._seen(partition, result.offset)
                return after
            current = _document(result.current) if result.current else document
        raise Conflict

    async def say(self, message: Message) -> None:
        """Deliver *message* once to the live connections of its recipients, on every node."""
        partition = self.store.partition(message.to.session or "")
        entry = encode_entry(MessageEntry(at=self.clock.now_ms(), message=message))
        result = await self.store.commit(partition, Commit(entry=entry))
        await self._seen(partition, result.offset)

    async def _found_out(self, session_id: str) -> Session | None:
        while True:  # the caller bounds it
            try:
                return await self.fetch(session_id)
            except Unavailable:
                await asyncio.sleep(RETRY_S)

    async def _tail(self, partition: int) -> int | None:
        try:
            return (await self.store.meta(partition)).offset
        except Unavailable:  # what was asked for is done all the same
            return None

    async def fetch(self, session_id: str) -> Session | None:
        """Return what the store has of a session, open or closed."""
        live, gone = await self.store.read(self.store.partition(session_id), session_id)
        return _record(live or gone or b"")

    async def _seen(self, partition: int, offset: int) -> None:
        position = self.mirror.after_offset(partition, offset)
        try:
            async with asyncio.timeout(SEEN_S):
                await self.mirror.reached(position)
        except TimeoutError:
            log.warning("own write not seen within %g s", SEEN_S)

    async def number(self, partition: int) -> int:
        """Return a session number that was never given before.

        Raises:
            StoreUnavailable: The store did not answer in time.
        """
        numbers = self._numbers.setdefault(partition, deque())
        if numbers:
            return numbers.popleft()
        try:
            async with asyncio.timeout(OUTCOME_S):
                while not numbers:
                    async with self._numbering:
                        if not numbers:
                            numbers.extend(await self.store.reserve_numbers(partition, NUMBERS))
        except TimeoutError:
            raise StoreUnavailable from None
        return numbers.popleft()

    def next_op(self) -> str:
        """Return the name of an operation that nobody else has."""
        self._serial += 1
        return f"{self._boot}.{self._serial}"


def _decide_all(
    session: Session | None, held: list[Reported], command: AnyCommand | None, now_ms: int
) -> list[AnyEvent]:
    """Decide held-back commands and then the one that is asked; the former may have become moot."""
    events: list[AnyEvent] = []
    for earlier, asked_at in held:
        try:
            new = decide(session, earlier, asked_at)
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
) -> Commit:
    entry = SessionEntry(
        at=now_ms,
        op=after.ops[-1],
        events=events,
        record=after,
        before=changed_fields(session, after),
    )
    record = sealed(session, entry)
    due_ms, amnesty_ms = 0, 0
    if isinstance(command, Expire):
        due_ms, amnesty_ms = command.at, command.amnesty_ms
    value = _stored(after.revision, record)
    return Commit(
        field=after.id,
        expected=session.revision if session else 0,
        value=b"" if after.closed else value,
        entry=encode_entry(entry, record),
        not_before_ms=due_ms,
        amnesty_ms=amnesty_ms,
        tombstone=value if after.closed else b"",
        rows=tuple(encode(row) for row in history_rows(session, events, after, now_ms)),
    )


def _stored(revision: int, record: bytes) -> bytes:
    return b"%d %b" % (revision, record)


def _record(value: bytes) -> Session | None:
    return decode_session(split_value(value)[1]) if value else None


def _document(value: bytes) -> Document:
    return decode(split_value(value)[1], type=Document)
