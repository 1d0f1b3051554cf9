"""Coalescer: holds back what is reported often, so that a session costs at most one commit in 5 s.

Only the newest of a kind is kept. Whatever else is asked of the session takes the held-back along
in the same commit, so nothing is reported late or out of order.

Not here: deciding and writing (``node``).
"""

from typing import Final, NamedTuple

from gateway.core.command import AnyCommand, Progress, UpdateStream
from gateway.core.model import OPS_KEPT, Session

EVERY_MS: Final = 5_000  # at most one commit of held-back commands a session in this time


class Reported(NamedTuple):
    """A held-back command.

    Args:
        command: What was accepted.
        asked_at: When it was asked, in milliseconds of Redis time.
        tried: The operations of which it was a part when nobody heard what became of them.
    """

    command: AnyCommand
    asked_at: int
    tried: tuple[str, ...] = ()

    def is_over(self, session: Session) -> bool:
        """Whether it was done after all, or something newer is known of what it reports."""
        if any(op in session.ops for op in self.tried):
            return True
        return isinstance(self.command, Progress) and self.asked_at < watched_ms(session)

    def tried_as(self, op: str) -> "Reported":
        """Return it as a part of *op* too; a record remembers no more of them than are kept."""
        return self._replace(tried=(*self.tried, op)[-OPS_KEPT:])

    def followed_by(self, later: "Reported") -> "Reported":
        """Return *later* with what only this one tells, unless that may have been done."""
        if self.tried or not isinstance(later.command, Progress):
            return later
        return later._replace(command=_merged(self.command, later.command))


def watched_ms(session: Session) -> int:
    """Return when *session* began its watch, or was last told where that is."""
    position_at = session.watch.position_at if session.watch else None
    return max(session.watching_since or 0, position_at or 0)


class Coalescer:
    """Held-back commands by session: at most one progress and one update a stream each."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, Reported]] = {}
        self._written_ms: dict[str, int] = {}

    def hold(
        self,
        session_id: str,
        command: Progress | UpdateStream,
        now_ms: int,
        since_ms: int = 0,
    ) -> bool:
        """Hold *command* back; return ``False`` if it should be written now instead.

        Args:
            session_id: Whose.
            command: What was accepted.
            now_ms: When it was asked.
            since_ms: The :func:`watched_ms` that it was accepted on: it is newer than that,
                whichever node's clock that came from, and takes along nothing that is older.
        """
        if now_ms - self._written_ms.get(session_id, 0) >= EVERY_MS:
            self._written_ms[session_id] = now_ms
            return False
        held = self._held.setdefault(session_id, {})
        key = _key(command)
        reported, earlier = Reported(command, max(now_ms, since_ms)), held.get(key)
        if earlier and earlier.asked_at >= since_ms:
            reported = earlier.followed_by(reported)
        held[key] = reported
        return True

    def take(self, session_id: str) -> list[Reported]:
        """Return and forget what is held back of a session, oldest first."""
        held = self._held.pop(session_id, None)
        return list(held.values()) if held else []

    def give_back(self, session_id: str, held: list[Reported]) -> None:
        """Hold back again what was taken and could not be written; what came meanwhile is newer."""
        older = {_key(reported.command): reported for reported in held}
        for key, reported in self._held.get(session_id, {}).items():
            before = older.pop(key, None)
            older[key] = before.followed_by(reported) if before else reported
        if older:
            self._held[session_id] = older

    def sessions(self) -> list[str]:
        """Return the sessions of which something is held back."""
        return list(self._held)

    def due(self, now_ms: int) -> list[str]:
        """Return the sessions whose held-back commands should be written now."""
        self._written_ms = {
            known: at for known, at in self._written_ms.items() if now_ms - at < EVERY_MS
        }
        return [known for known in self._held if known not in self._written_ms]

    def written(self, session_id: str, now_ms: int) -> None:
        """Note that held-back commands of a session are being written."""
        self._written_ms[session_id] = now_ms


def _key(command: AnyCommand) -> str:
    return command.stream.key if isinstance(command, UpdateStream) else ""


def _merged(earlier: AnyCommand, later: Progress) -> Progress:
    if not isinstance(earlier, Progress):
        return later
    return Progress(
        via=later.via,
        position_ms=earlier.position_ms if later.position_ms is None else later.position_ms,
        state=earlier.state if later.state is None else later.state,
        bandwidth=earlier.bandwidth if later.bandwidth is None else later.bandwidth,
    )
