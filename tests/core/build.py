"""Sessions in each state, made the way they come to be: by commands."""

from typing import Final

from hypothesis import settings

from gateway.core.command import (
    AnyCommand,
    Close,
    Connect,
    Disconnect,
    Open,
    RequestClose,
    StartStream,
    StartWatch,
)
from gateway.core.event import AnyEvent, SessionEnded
from gateway.core.model import Closure, Connection, Deadline, Session, Stream
from gateway.core.model import Watch as Watched
from gateway.core.session import advance, deadlines, decide

NOW: Final = 1_767_323_045_678
SECOND: Final = 1000
BOUNDED: Final = settings(derandomize=True, max_examples=60, deadline=None, database=None)


def connection(number: int = 1, at: int = NOW) -> Connection:
    """Return a live connection; equal numbers are the same one."""
    return Connection(id=f"c{number}", node="n1:boot", connected_at=at, address="203.0.113.7")


def fresh(**fields: object) -> Session:
    """Return what a door gives to ``Open``."""
    known: dict[str, object] = {"id": "s1", "number": 17, "revision": 0, "created_at": 0, **fields}
    return Session(**known)  # type: ignore[arg-type]


def applied(
    session: Session | None, command: AnyCommand, now_ms: int = NOW
) -> tuple[list[AnyEvent], Session]:
    """Return the events that follow from *command*, and the session after them."""
    events = decide(session, command, now_ms)
    return events, advance(session, events, f"op-{now_ms}", now_ms)


def idle(**fields: object) -> Session:
    """Return a session that was never connected."""
    return applied(None, Open(session=fresh(**fields)))[1]


def connected(**fields: object) -> Session:
    """Return a session with the live connection ``c1``."""
    return applied(idle(**fields), Connect(connection=connection()))[1]


def away(**fields: object) -> Session:
    """Return a session whose connection ``c1`` was lost."""
    return applied(connected(**fields), Disconnect(connection="c1", cause="lost"))[1]


def closing(
    base: Session | None = None, after_ms: int = 30 * SECOND, budget_ms: int = 0
) -> Session:
    """Return *base*, else a connected session, with a pending close."""
    command = RequestClose(
        at=NOW + after_ms, reason="maintenance", by="admin", extend_max_ms=budget_ms
    )
    return applied(base or connected(), command)[1]


def closed(base: Session | None = None) -> Session:
    """Return *base*, else a connected session, closed."""
    return applied(base or connected(), Close())[1]


def busy() -> Session:
    """Return a connected session that watches and has a stream and a member."""
    session = connected(members=("ann",))
    session = applied(session, StartWatch(watch=Watched(key="movie/1", state="playing")))[1]
    return applied(session, StartStream(stream=Stream(key="t1", kind="transcode")))[1]


def ended(events: list[AnyEvent]) -> Closure:
    """Return how the last of *events* ended the session."""
    last = events[-1]
    assert isinstance(last, SessionEnded)
    return last.closed


def at(session: Session, kind: Deadline) -> int | None:
    """Return when the session's deadline of this kind is."""
    return next((when for found, when, _ in deadlines(session) if found is kind), None)
