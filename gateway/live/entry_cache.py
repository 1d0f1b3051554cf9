"""Entry cache: what log entries of this node mean, so that they need not be read again.

A log entry that this node wrote comes back as the same bytes. Whoever wrote it knows what they say;
they say it here, and the feed asks before it decodes. The log still decides what happened and in
which order, and what is not known here is decoded like any other entry. As a gift, the parts of a
record that a commit did not change are the same objects before and after it.
"""

from typing import Final

from gateway.core.event import SessionEntry

BYTES_MAX: Final = 16 << 20  # of entries; then all are forgotten: a full queue of usual commits


class EntryCache:
    """Log entries on their way, by their bytes."""

    def __init__(self) -> None:
        self._known: dict[bytes, SessionEntry] = {}
        self._size = 0

    def put(self, data: bytes, entry: SessionEntry) -> None:
        """Note that *data* is the text of *entry*."""
        if self._size > BYTES_MAX:
            self.clear()
        self._known[data] = entry
        self._size += len(data)

    def pop(self, data: bytes) -> SessionEntry | None:
        """Return the entry of which *data* is the text, if it is known, and forget it."""
        entry = self._known.pop(data, None)
        if entry is not None:
            self._size -= len(data)
        return entry

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._size = 0
