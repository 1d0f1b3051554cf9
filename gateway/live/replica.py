"""Replica: a node's in-memory copy of all open sessions, indexed, at a known position.

All reads come from the replica. Only the replicator writes: :meth:`Replica.apply` takes log entries
in order and returns what changed, so that the hub can notify subscribers. An entry that is older
than what a load has put in changes nothing.

Not here: reads of the store (``node``), delivery (``hub``), rendering (``core.public``).
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from operator import itemgetter
from typing import Final, Literal
from zlib import crc32

from msgspec import Struct
from msgspec.json import encode
from msgspec.structs import replace

from gateway.core.document import Document
from gateway.core.event import (
    ActiveEntry,
    AnyEntry,
    DocumentEntry,
    HistoryRow,
    RowErasedEntry,
    SessionEntry,
    history_rows,
)
from gateway.core.model import Session
from gateway.core.position import Position
from gateway.core.public import render_session
from gateway.core.query import Page, SortKey, View
from gateway.live.commit_view import CommitView
from gateway.live.entry_cache import EntryCache
from gateway.live.indexes import Indexes, keys_from
from gateway.live.read_barrier import ReadBarrier
from gateway.store.log import HistoryPlace
from gateway.store.store import GONE_AGE_MS, GONE_MAX

HISTORY_MAX: Final = 20_000  # newest rows kept here; older ones are in Redis
DIGEST_BYTES: Final = 8  # of one rendered session

Place = tuple[int, int]  # of a history row: when Redis took it, in milliseconds, and its number


class Tombstone(Struct, frozen=True, gc=False):
    """What is kept of a closed session: enough to refuse its id and to check visibility."""

    id: str
    number: int
    revision: int
    at: int
    account: str | None = None
    workspace: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, session: Session) -> "Tombstone":
        """Return the tombstone of a closed session."""
        closed = session.closed
        return cls(
            session.id,
            session.number,
            session.revision,
            closed.at if closed else 0,
            session.account,
            session.workspace,
            closed.reason if closed else None,
        )


class Rendering(Struct, frozen=True, gc=False):
    """The JSON of one record, or of parts of it, and a digest of that text."""

    session: Session
    text: bytes
    digest: bytes

    @classmethod
    def of(cls, session: Session, text: bytes) -> "Rendering":
        """Return the rendering *text* of *session* with its digest."""
        return cls(session, text, blake2b(text, digest_size=DIGEST_BYTES).digest())


class Replica:
    """All open sessions and documents, tombstones and recent history, at a position."""

    def __init__(self, partitions: int) -> None:
        self.sessions: dict[str, Session] = {}
        self.documents: dict[str, Document] = {}
        self.gone: dict[str, Tombstone] = {}
        self.active: dict[str, int] = {}
        self.history: deque[HistoryRow] = deque(maxlen=HISTORY_MAX)  # newest last
        self.nodes: Counter[str] = Counter()  # live connections by node id
        self.epochs = [""] * partitions
        self.offsets = [0] * partitions
        self._last_row = [0] * partitions  # history rows up to this number are known
        self.erased_rows = 0  # since the start; the store has older rows in their place
        self._indexes = Indexes()
        self._rendered: tuple[dict[str, Rendering], dict[str, Rendering]] = ({}, {})
        self.barrier = ReadBarrier(partitions)
        self.entry_cache = EntryCache()

    # --- position

    def position(self, view: int = 0) -> Position:
        """Return the position up to which this replica has applied the logs."""
        epoch = self.epochs[0] if len(self.epochs) == 1 else _digest(self.epochs)
        return Position(epoch, tuple(self.offsets), view)

    async def wait_for_position(self, position: Position) -> None:
        """Wait until everything up to *position* is applied; the caller bounds the wait."""
        if not self.position().covers(position):
            await self.barrier.wait_for_position(position)

    def notify(self, partition: int) -> None:
        """Release the readers and writers that waited for this batch of *partition*."""
        self.barrier.advance(partition, self.offsets[partition])
        if self.barrier.has_position_waiters:
            self.barrier.advance_positions(self.position())

    # --- writes: load and feed

    def reload(
        self,
        partition: int,
        sessions: list[Session],
        gone: list[Tombstone],
        documents: list[Document],
        rows: list[HistoryRow],
        *,
        is_here: Callable[[str], bool],
    ) -> None:
        """Replace the content of one partition by what was loaded.

        Args:
            partition: The partition.
            sessions: Open sessions.
            gone: Tombstones, in any order.
            documents: Documents.
            rows: History rows, newest last.
            is_here: Whether a session id or document field belongs to the partition.
        """
        for session in [known for known in self.sessions.values() if is_here(known.id)]:
            self._replace(session, None)
        kept = [tombstone for tombstone in self.gone.values() if not is_here(tombstone.id)]
        self.gone = {
            tombstone.id: tombstone
            for tombstone in sorted([*kept, *gone], key=lambda tombstone: tombstone.at)
        }
        for field in [known for known in self.documents if is_here(known)]:
            del self.documents[field]
        for session in sessions:
            self.put(session)
        for document in documents:
            self.put_document(document)
        others = [row for row in self.history if not is_here(row.session_id)]
        self.history.clear()
        self.history.extend(sorted([*others, *rows], key=place_of))
        self._last_row[partition] = max((row.number for row in rows), default=0)

    def put(self, session: Session) -> bool:
        """Add an open session, unless a newer record of it is here."""
        known = self.sessions.get(session.id)
        if session.id in self.gone or (known and known.revision >= session.revision):
            return False
        self._replace(known, session)
        return True

    def put_gone(self, tombstone: Tombstone) -> None:
        """Add a tombstone; it takes precedence over any record."""
        if known := self.sessions.get(tombstone.id):
            self._replace(known, None)
        self.gone[tombstone.id] = tombstone

    def put_document(self, document: Document) -> bool:
        """Add a document, unless a newer one is here; an empty body removes it."""
        known = self.documents.get(document.field)
        if known and known.revision >= document.revision:
            return False
        if document.body:
            self.documents[document.field] = document
        else:
            self.documents.pop(document.field, None)
        return True

    def apply(
        self, partition: int, offset: int, entry: AnyEntry, rows: tuple[HistoryPlace, ...] = ()
    ) -> CommitView | None:
        """Apply one log entry; return what changed, or ``None`` if it was applied before."""
        self.offsets[partition] = offset
        match entry:
            case SessionEntry():
                return self._apply_session(partition, entry, rows)
            case DocumentEntry():
                return CommitView(entry) if self.put_document(entry.document) else None
            case ActiveEntry():
                self.active.update(
                    (known, at) for known, at in entry.active.items() if known in self.sessions
                )
                return None
            case RowErasedEntry():
                self._erase_row(entry.number)
                return None
            case _:
                return CommitView(entry)

    def _erase_row(self, number: int) -> None:
        for index, row in enumerate(self.history):
            if row.number == number:
                del self.history[index]
                self.erased_rows += 1
                return

    def _apply_session(
        self, partition: int, entry: SessionEntry, rows: tuple[HistoryPlace, ...]
    ) -> CommitView | None:
        record = entry.record
        before = self.sessions.get(record.id)
        known = before.revision if before else 0
        tombstone = self.gone.get(record.id)
        if tombstone and entry.before is None and record.created_at > tombstone.at:
            del self.gone[record.id]  # the store dropped it a little sooner
        elif tombstone or known >= record.revision:
            return None
        if rows:
            written = history_rows(before, entry.events, record, entry.at)
            for row, place in zip(written, rows, strict=False):
                if place.number > self._last_row[partition]:
                    self.history.append(replace(row, number=place.number, key=place.key))
        if record.closed:
            self.put_gone(Tombstone.of(record))
        else:
            self._replace(before, record)
        return CommitView(entry, before)

    def forget_gone(self, now_ms: int) -> list[str]:
        """Drop tombstones that are too old or too many; return their ids."""
        surplus = len(self.gone) - GONE_MAX
        forgotten = []
        for number, tombstone in enumerate(self.gone.values()):
            if number >= surplus and tombstone.at > now_ms - GONE_AGE_MS:
                break
            forgotten.append(tombstone.id)
        for session_id in forgotten:
            del self.gone[session_id]
        return forgotten

    def _replace(self, before: Session | None, after: Session | None) -> None:
        session = after or before
        if session is None:
            return
        for rendered in self._rendered:
            rendered.pop(session.id, None)
        if after is None:
            del self.sessions[session.id]
            self.active.pop(session.id, None)
        else:
            self.sessions[session.id] = after
        if before and after and _is_indexed_alike(before, after):
            return
        self._count_node(before, -1)
        self._count_node(after, 1)
        self._indexes.move(before, after)

    def _count_node(self, session: Session | None, one: int) -> None:
        if session and session.connection and session.is_connected:
            node = session.connection.node
            self.nodes[node] += one
            if not self.nodes[node]:
                del self.nodes[node]

    # --- reads

    def rendered(self, session: Session, *, full: bool) -> bytes:
        """Return the public JSON of *session*; the rendering of the newest record is cached."""
        return self.renderings([session], full=full)[0].text

    def renderings(self, sessions: Iterable[Session], *, full: bool) -> list[Rendering]:
        """Return the renderings of *sessions*; see :meth:`rendered`."""
        kept = self._rendered[full]
        return [
            rendering
            if (rendering := kept.get(session.id)) and rendering.session is session
            else self._render(session, full=full)
            for session in sessions
        ]

    def _render(self, session: Session, *, full: bool) -> Rendering:
        rendering = Rendering.of(session, encode(render_session(session, full=full)))
        if self.sessions.get(session.id) is session:
            self._rendered[full][session.id] = rendering
        return rendering

    def page(self, view: View, page: Page) -> tuple[list[Session], SortKey | None]:
        """Return a page of the sessions in *view*, and the sort key where the next one starts.

        A page that has scanned ``page.scan_limit`` sessions ends early, at the next change of the
        sort field. The next page then starts after a value without an id, because the last
        session that was scanned may be one that is not in view.
        """
        sessions, limit = self.sessions, page.limit
        order, is_exact = self._indexes.order(view, page, self.sessions)
        keys = keys_from(order, page)
        if is_exact:
            part = list(islice(keys, page.offset, page.offset + limit + 1))
            last = part[limit - 1] if len(part) > limit > 0 else None
            return [sessions[session_id] for _, session_id in part[:limit]], last
        found: list[Session] = []
        last, value, skipped, scan_limit = None, None, 0, page.scan_limit or len(order)
        for scanned, key in enumerate(keys):
            if scanned >= scan_limit and key[0] != value:
                return found, (key[0] + page.sort.descending, "")
            value = key[0]
            session = sessions[key[1]]
            if not view.matches(session):
                continue
            if skipped < page.offset:
                skipped += 1
                continue
            if len(found) == limit:
                return found, last
            found.append(session)
            last = key
        return found, None

    def count(self, view: View) -> int:
        """Return how many sessions are in *view*."""
        order, is_exact = self._indexes.order(view, Page(), self.sessions)
        if is_exact:
            return len(order)
        return sum(view.matches(self.sessions[session_id]) for _, session_id in order)

    def all_in(self, view: View) -> list[Session]:
        """Return every session in *view*, oldest first; no later change shows in the list."""
        order, is_exact = self._indexes.order(view, Page(), self.sessions)
        sessions = map(self.sessions.__getitem__, map(itemgetter(1), order))
        return list(sessions if is_exact else filter(view.matches, sessions))

    def numbered(self, number: int) -> Session | None:
        """Return the open session with this number."""
        session_id = self._indexes.numbered(number)
        return None if session_id is None else self.sessions[session_id]

    def rows(self, kind: Literal["session", "watch"]) -> Iterator[HistoryRow]:
        """Return the known history rows of *kind*, newest first."""
        return (row for row in reversed(self.history) if row.kind == kind)


def place_of(row: HistoryRow) -> Place:
    """Return the place of *row* in the history."""
    return int(row.key.partition("-")[0]), row.number


def _is_indexed_alike(before: Session, after: Session) -> bool:
    """Whether two records of a session have the same keys in every order and index."""
    return (
        before.connection == after.connection
        and before.closing == after.closing
        and before.labels == after.labels
        and before.members == after.members
        and before.account == after.account
        and before.workspace == after.workspace
        and before.service == after.service
        and before.number == after.number
        and before.created_at == after.created_at
    )


def _digest(epochs: list[str]) -> str:
    return f"{crc32('.'.join(epochs).encode()):08x}"
