"""State: what the parts of this dialect share on one node."""

import re
from hashlib import sha1
from typing import Final

from gateway.context import Context
from gateway.core.model import Session, Stream
from gateway.core.query import Visibility
from gateway.dialects.plex.numbers import Numbers
from gateway.dialects.plex.shapes import is_transcode, transcode_session
from gateway.dialects.plex.words import TranscodeSession
from gateway.live.replica import Replica

_LATER: Final = re.compile(r"([0-9]{1,18})-(.+)", re.ASCII | re.DOTALL)


class Transcodes:
    """The transcodes of all sessions by name.

    A stream's key is unique in its session; Plex wants one that is unique altogether. Of the
    sessions that a caller sees the oldest with a key has it for itself, in the others the session's
    number stands before it; sessions out of sight do not count.
    """

    def __init__(self, mirror: Replica) -> None:
        self._mirror = mirror
        self._seen: tuple[list[str], list[int]] | None = None
        self._holders: dict[str, list[Session]] = {}

    def name(self, session: Session, stream: Stream, visibility: Visibility) -> str:
        """Return the name of a transcode, also of one that has just ended."""
        for other in self._table().get(stream.key, ()):
            if other.id != session.id and _age(other) < _age(session) and visibility.allows(other):
                return f"{session.number}-{stream.key}"
        return stream.key

    def find(self, name: str, visibility: Visibility) -> tuple[Session, Stream] | None:
        """Return the transcode of this name; one with a number before it is always found."""
        holders = list(filter(visibility.allows, self._table().get(name, ())))
        if holders:
            oldest = min(holders, key=_age)
            return oldest, next(known for known in _transcodes(oldest) if known.key == name)
        later = _LATER.fullmatch(name)
        session = self._mirror.numbered(int(later[1])) if later else None
        if later and session and visibility.allows(session):
            for stream in _transcodes(session):
                if stream.key == later[2]:
                    return session, stream
        return None

    def first(
        self, session: Session, visibility: Visibility, now_ms: int
    ) -> tuple[str, TranscodeSession] | None:
        """Return name and shape of the transcode that belongs to what a session watches."""
        for stream in _transcodes(session):
            name = self.name(session, stream, visibility)
            return name, transcode_session(session, stream, name, now_ms)
        return None

    def _table(self) -> dict[str, list[Session]]:
        """Return who has which key; looked up once for all questions between two changes."""
        seen = (list(self._mirror.epochs), list(self._mirror.offsets))
        if self._seen != seen:
            self._holders = {}
            for session in self._mirror.sessions.values():
                for stream in _transcodes(session):
                    self._holders.setdefault(stream.key, []).append(session)
            self._seen = seen
        return self._holders


def _transcodes(session: Session) -> list[Stream]:
    return [stream for stream in session.streams if is_transcode(stream)]


def _age(session: Session) -> tuple[int, int]:
    return session.created_at, session.number


class Plex:
    """What the parts of this dialect share.

    Args:
        context: The node and its surroundings.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.node = context.node
        self.numbers = Numbers(context.node.documents)
        self.transcodes = Transcodes(context.node.replica)

    @property
    def machine(self) -> str:
        """The server's identifier: the same on all nodes and for as long as the data lives."""
        return sha1(b"plex machine " + self.node.store.secret, usedforsecurity=False).hexdigest()
