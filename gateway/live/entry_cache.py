"""Entry cache: the log entries that this node wrote, so that it need not decode them again.

A log entry that this node wrote comes back as the same bytes. The writer puts the entry here, and
the replicator looks here before it decodes. The log still decides what happened and in which order,
and an entry that is not here is decoded like any other. As a side effect, the parts of a record
that a commit did not change stay the same objects.
"""

from typing import Final

from gateway.core.event import SessionEntry

BYTES_MAX: Final = 16 << 20  # of entries, about a full queue of commits; above, all are dropped


class EntryCache:
    """Log entries in flight, by their bytes."""

    def __init__(self) -> None:
        self._known: dict[bytes, SessionEntry] = {}
        self._size = 0

    def put(self, data: bytes, entry: SessionEntry) -> None:
        """Add *entry*, whose encoded form is *data*."""
        if self._size > BYTES_MAX:
            self.clear()
        self._known[data] = entry
        self._size += len(data)

    def pop(self, data: bytes) -> SessionEntry | None:
        """Remove and return the entry whose encoded form is *data*, if it is here."""
        entry = self._known.pop(data, None)
        if entry is not None:
            self._size -= len(data)
        return entry

    def clear(self) -> None:
        """Remove all entries."""
        self._known.clear()
        self._size = 0
