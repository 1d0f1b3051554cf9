"""Documents: small records of dialects, and two things that are built on them: handles and numbers.

A *handle* is a door's own id for a session. It is claimed before the session is opened, so that of
two who want the same name one hears no; a handle whose session is closed is free again. A *number*
is given to a key once and never to another, for products whose ids are integers.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from gateway.core.document import Document
from gateway.core.errors import IdUnavailable
from gateway.core.model import Session
from gateway.live.mirror import Mirror
from gateway.live.writer import Writer

CLAIM_MS: Final = 10_000  # a claim without a session holds for this long

Body = dict[str, Any]


class Documents:
    """Reads come from the mirror; writes are visible to them when they return."""

    def __init__(self, writer: Writer, mirror: Mirror) -> None:
        self._writer = writer
        self._mirror = mirror

    def get(self, kind: str, key: str) -> Body | None:
        """Return a document's body; treat it as read-only."""
        document = self._mirror.documents.get(Document(kind=kind, key=key).field)
        return document.body if document else None

    def all(self, kind: str) -> Iterator[tuple[str, Body]]:
        """Return every document of *kind*: key and body."""
        for document in list(self._mirror.documents.values()):
            if document.kind == kind:
                yield document.key, document.body

    async def write(self, kind: str, key: str, change: Callable[[Body], Body]) -> Body:
        """Replace a document's body by what *change* makes of it; empty deletes it.

        *change* gets the body as it is (empty if there is none), returns a new one, and may be
        called again if others were faster; what it raises is raised here.

        Raises:
            LimitExceeded: The body would be over 16 KiB.
            GatewayError: As ``Node.apply``.
        """
        return (await self._writer.write_document(kind, key, change)).body

    # --- handles

    async def claim(self, kind: str, key: str, session_id: str) -> None:
        """Let the handle *key* mean *session_id*.

        Raises:
            IdUnavailable: It means another session that is open, or about to be.
        """
        now_ms = self._writer.clock.now_ms()

        def change(body: Body) -> Body:
            known = body.get("session", session_id)
            if known != session_id and (
                known in self._mirror.sessions
                or (known not in self._mirror.gone and now_ms - body["at"] < CLAIM_MS)
            ):
                raise IdUnavailable
            return {"session": session_id, "at": now_ms}

        await self.write(kind, key, change)

    def resolve(self, kind: str, key: str) -> Session | None:
        """Return the open session that the handle *key* means."""
        body = self.get(kind, key)
        return self._mirror.sessions.get(body["session"]) if body else None

    # --- numbers

    async def number(self, kind: str, key: str) -> int:
        """Return the number of *key*, given now if it has none; they start at 1 in each *kind*."""
        if known := self.get(kind, key):
            return int(known["number"])
        counter = await self.write(
            "counter", kind, lambda body: {"last": int(body.get("last", 0)) + 1}
        )
        body = await self.write(kind, key, lambda body: body or {"number": counter["last"]})
        return int(body["number"])
