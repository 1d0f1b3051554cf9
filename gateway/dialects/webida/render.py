"""Renders sessions, warnings and announcements in Webida's form. Pure.

Sessions of other doors are rendered too: one without a name gets one from its workspace, one
without a connection counts as connected since it was opened.

Not here: who may see what (``access``, ``endpoints_sessions``), the types (``schema``).
"""

from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType

from gateway.core.document import Message
from gateway.core.model import Session, State
from gateway.core.public import rfc3339
from gateway.dialects.webida.schema import SessionA, SessionC, StateA, StateC

UNKNOWN: Final = "unknown"  # the product's word for an unknown address
ALERT: Final = "session will be closed by administrator"
CALLED_OFF: Final = "session will not be closed"
RESERVED: Final = ":"  # in a message's topic: it means something to one product only
SECOND_MS: Final = 1000

_STATES_A: Final = {State.CLOSING: StateA.CLOSING, State.AWAY: StateA.LOSING}
_STATES_C: Final = {
    State.CLOSING: StateC.CLOSING,
    State.AWAY: StateC.TERMINATED,
    State.CLOSED: StateC.TERMINATED,
}


def session_a(session: Session, *, full: bool) -> SessionA:
    """Return *session* in generation A.

    Args:
        session: An open session.
        full: Whether the reader may see addresses.
    """
    state = _STATES_A.get(session.state, StateA.NORMAL)
    lost_at = session.disconnected_at if not session.is_connected else None
    return SessionA(
        **_common(session, full=full),
        state=state,
        disconnected_at=None if lost_at is None else rfc3339(lost_at),
        will_lose_at=_date(session.linger_at if state is StateA.LOSING else None),
    )


def session_c(session: Session, *, full: bool) -> SessionC:
    """Return *session* in generation C; see :func:`session_a`."""
    state = _STATES_C.get(session.state, StateC.NORMAL)
    return SessionC(**_common(session, full=full), state=state)


def _common(session: Session, *, full: bool) -> dict[str, Any]:
    """Return the fields of both generations."""
    connection = session.connection if full else None
    since = session.created_at if session.connected_at is None else session.connected_at
    return {
        "id": session.id,
        "name": name_of(session),
        "workspace_id": session.workspace or UNSET,
        "client_address": (connection.address if connection else None) or UNKNOWN,
        "connected_at": rfc3339(since),
        "will_close_at": _date(session.closes_at),
    }


def name_of(session: Session) -> str:
    """Return the session's name; without one the workspace and the socket, as the product does."""
    if session.name:
        return session.name
    place = f"workspace-{session.workspace}" if session.workspace else "global"
    return f"{place}/{session.connection.id if session.connection else session.id}"


def _date(at: int | None) -> str | UnsetType:
    return UNSET if at is None else rfc3339(at)


# --- events


class Words(Struct, frozen=True):
    """The names of namespace and events in one generation.

    Args:
        namespace: Where its clients connect.
        closing: The event that warns of a close.
        has_text: Whether that event begins with a text.
        announcement: The event of a message.
        duplicate: Why a second socket of one session is refused.
    """

    namespace: str
    closing: str
    has_text: bool
    announcement: str
    duplicate: str


WORDS: Final[dict[str, Words]] = {
    "A": Words(
        namespace="/session",
        closing="closing",
        has_text=True,
        announcement="announcement",
        duplicate="session should have only 1 connection",
    ),
    "C": Words(
        namespace="/",
        closing="session.closing",
        has_text=False,
        announcement="session.announcement",
        duplicate="duplicated connection on a session",
    ),
}


def warning(words: Words, reason: str | None, left_ms: int) -> tuple[object, ...]:
    """Return the arguments of the event that warns of a close.

    Args:
        words: The generation's.
        reason: The reason of the close, if there is one.
        left_ms: The time until then, in milliseconds; sent in whole seconds.
    """
    left_s = max(0, round(left_ms / SECOND_MS))
    return (reason or ALERT, left_s) if words.has_text else (left_s,)


def announced(message: Message) -> object:
    """Return the content of an announcement; ``None`` if the message is another product's."""
    if RESERVED in message.topic:
        return None
    return message.topic if message.body is None else message.body


def will_close(ids: list[str], close_after_s: int) -> str:
    """Return the confirmation of a close."""
    what = f"session {ids[0]} closes" if len(ids) == 1 else f"{len(ids)} sessions close"
    return f"{what} in {close_after_s} seconds" if close_after_s else f"{what} now"
