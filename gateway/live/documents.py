"""Documents: small records of dialects, and the handles and numbers that are built on them.

A *handle* is a door's own id for a session. It is claimed before the session is opened, so that one
of two concurrent claims is refused; a handle whose session is closed is free again. A *number* is
given to one key and never reused, for products whose ids are integers.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from msgspec.json import decode, encode
from msgspec.structs import replace

from gateway.core.document import BODY_MAX_BYTES, Document
from gateway.core.errors import Conflict, IdUnavailable, LimitExceeded
from gateway.core.event import DocumentEntry, encode_entry
from gateway.core.model import Session
from gateway.live.keyed_lock import KeyedLock
from gateway.live.replica import Replica
from gateway.live.writer import ATTEMPTS, CommandWriter
from gateway.store.commit import Commit, join_value, split_value

CLAIM_MS: Final = 10_000  # a claim without a session holds for this long

Body = dict[str, Any]


class Documents:
    """The documents of all dialects; a write is visible to reads when it returns."""

    def __init__(self, writer: CommandWriter, replica: Replica) -> None:
        self._writer = writer
        self._replica = replica
        self._locks = KeyedLock()

    def get(self, kind: str, key: str) -> Body | None:
        """Return a document's body; treat it as read-only."""
        document = self._replica.documents.get(Document(kind=kind, key=key).field)
        return document.body if document else None

    def all(self, kind: str) -> Iterator[tuple[str, Body]]:
        """Return every document of *kind*: key and body."""
        for document in list(self._replica.documents.values()):
            if document.kind == kind:
                yield document.key, document.body

    async def write(self, kind: str, key: str, change: Callable[[Body], Body]) -> Body:
        """Replace a document's body by the result of *change*; an empty body deletes it.

        *change* gets the current body (empty if there is none) and returns a new one. It is called
        again if another node was faster, and what it raises is raised here. Writes to one document
        on this node are serialized.

        Raises:
            LimitExceeded: The body would be over 16 KiB.
            Conflict: Other nodes were faster each time.
            StoreUnavailable: The lock was not acquired in time, or the store failed.
            GatewayError: As ``Node.apply``.
        """
        document = Document(kind=kind, key=key)
        if not self._locks.try_acquire(document.field):
            await self._locks.acquire(document.field)
        try:
            return await self._write(document, change)
        finally:
            self._locks.release(document.field)

    async def _write(self, document: Document, change: Callable[[Body], Body]) -> Body:
        writer, replica = self._writer, self._replica
        partition = writer.store.partition(document.field)
        current, op = replica.documents.get(document.field, document), writer.next_op()
        for _ in range(ATTEMPTS):
            now_ms = writer.clock.now_ms()
            # A new document's revision starts at the time, so that it differs from a deleted one's.
            revision = (current.revision or now_ms) + 1
            after = replace(current, revision=revision, body=change(current.body))
            value = encode(after)
            if len(value) > BODY_MAX_BYTES:
                raise LimitExceeded("A document is at most 16 KiB.")
            commit = Commit(
                field=document.field,
                expected=current.revision,
                value=join_value(revision, value) if after.body else b"",
                entry=encode_entry(DocumentEntry(at=now_ms, op=op, document=after)),
            )
            result = await writer.store.commit(partition, commit, replica.barrier.complete_write)
            if result.status == "done":
                return after.body
            found = split_value(result.current)[1] if result.current else b""
            current = decode(found, type=Document) if found else document
        raise Conflict

    # --- handles

    async def claim(self, kind: str, key: str, session_id: str) -> None:
        """Claim the handle *key* for *session_id*.

        Raises:
            IdUnavailable: Another session that is open, or about to be, holds it.
        """
        now_ms = self._writer.clock.now_ms()

        def change(body: Body) -> Body:
            known = body.get("session", session_id)
            if known != session_id and (
                known in self._replica.sessions
                or (known not in self._replica.gone and now_ms - body["at"] < CLAIM_MS)
            ):
                raise IdUnavailable
            return {"session": session_id, "at": now_ms}

        await self.write(kind, key, change)

    def resolve(self, kind: str, key: str) -> Session | None:
        """Return the open session of the handle *key*."""
        body = self.get(kind, key)
        return self._replica.sessions.get(body["session"]) if body else None

    # --- numbers

    async def number(self, kind: str, key: str) -> int:
        """Return the number of *key*, and assign one if it has none; each *kind* starts at 1."""
        if known := self.get(kind, key):
            return int(known["number"])
        counter = await self.write(
            "counter", kind, lambda body: {"last": int(body.get("last", 0)) + 1}
        )
        body = await self.write(kind, key, lambda body: body or {"number": counter["last"]})
        return int(body["number"])
