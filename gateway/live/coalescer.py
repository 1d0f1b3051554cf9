"""Coalescer: holds back frequent reports, so that they cost a session at most one commit in 5 s.

Only the newest report of a kind is kept. Any other command on the session writes the held-back ones
in the same commit, so no report is late or out of order.

Not here: deciding and writing (``node``).
"""

from typing import Final, NamedTuple

from gateway.core.command import AnyCommand, Progress, UpdateStream
from gateway.core.model import OPS_KEPT, Session

EVERY_MS: Final = 5_000  # at most one commit of held-back commands a session in this time


class Reported(NamedTuple):
    """A held-back command.

    Args:
        command: The command that was accepted.
        asked_at: When it was accepted, in milliseconds of Redis time.
        tried: The operations that may have written it, whose outcome is unknown.
    """

    command: AnyCommand
    asked_at: int
    tried: tuple[str, ...] = ()

    def is_over(self, session: Session) -> bool:
        """Whether it was written after all, or the session has a newer report."""
        if any(op in session.ops for op in self.tried):
            return True
        return isinstance(self.command, Progress) and self.asked_at < watched_ms(session)

    def tried_as(self, op: str) -> "Reported":
        """Return this command with *op* added to the operations that may have written it."""
        return self._replace(tried=(*self.tried, op)[-OPS_KEPT:])

    def followed_by(self, later: "Reported") -> "Reported":
        """Return *later* with the fields that only this one sets, unless this may be written."""
        if self.tried or not isinstance(later.command, Progress):
            return later
        return later._replace(command=_merged(self.command, later.command))


def watched_ms(session: Session) -> int:
    """Return when *session* began its watch, or last reported its position."""
    position_at = session.watch.position_at if session.watch else None
    return max(session.watching_since or 0, position_at or 0)


class Coalescer:
    """Held-back commands by session: at most one progress, and one update for each stream."""

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
            session_id: The session.
            command: The command that was accepted.
            now_ms: When it was accepted.
            since_ms: The :func:`watched_ms` of the session at that time. The command counts as
                newer, even if another node's clock is ahead, and nothing older is merged into it.
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
        """Remove and return the held-back commands of a session, oldest first."""
        held = self._held.pop(session_id, None)
        return list(held.values()) if held else []

    def give_back(self, session_id: str, held: list[Reported]) -> None:
        """Hold back again what could not be written; commands that came meanwhile are newer."""
        older = {_key(reported.command): reported for reported in held}
        for key, reported in self._held.get(session_id, {}).items():
            before = older.pop(key, None)
            older[key] = before.followed_by(reported) if before else reported
        if older:
            self._held[session_id] = older

    def sessions(self) -> list[str]:
        """Return the sessions with held-back commands."""
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
