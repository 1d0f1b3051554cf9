"""Random lives of sessions, for hypothesis: what may be asked of one, in any order."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from gateway.core.command import (
    AnyCommand,
    CancelClose,
    Connect,
    Disconnect,
    EndStream,
    Expire,
    ExtendClose,
    Join,
    Kick,
    Leave,
    Open,
    Progress,
    Report,
    RequestClose,
    Saving,
    StartStream,
    StartWatch,
    Unwatch,
    Update,
    UpdateStream,
)
from gateway.core.errors import GatewayError
from gateway.core.event import SessionEntry
from gateway.core.model import Profile, Session, Stream
from gateway.core.model import Watch as Watched
from gateway.core.record_codec import changed_fields
from gateway.core.session import advance, deadlines, decide
from tests.core.build import NOW, connection, fresh

scalars = st.booleans() | st.integers(-3, 3) | st.floats(-1, 1) | st.text("ab", max_size=2)
without_null = st.recursive(
    scalars,
    lambda inner: (
        st.lists(st.none() | inner, max_size=2)
        | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text("ab", max_size=1), without_null, max_size=3)

keys = st.sampled_from(["k1", "k2"])
small = st.none() | st.sampled_from([0, 1, 20_000])
commands: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        Connect,
        connection=st.integers(1, 3).map(connection),
        displace=st.booleans(),
        readmit=st.booleans(),
    ),
    st.builds(
        Disconnect,
        connection=st.sampled_from(["c1", "c2", "c3"]),
        cause=st.sampled_from(["clean", "lost", "server", "kicked"]),
    ),
    st.builds(Kick),
    st.builds(StartWatch, watch=st.builds(Watched, key=keys, item=st.none() | objects)),
    st.builds(Progress, position_ms=small, state=st.none() | keys, bandwidth=small),
    st.builds(Unwatch),
    st.builds(Report),
    st.builds(Update, attributes=objects, labels=st.dictionaries(keys, keys)),
    st.builds(
        Update, name=st.none() | keys, profile=st.none() | st.builds(Profile, plugins=objects)
    ),
    st.builds(Update, linger_ms=small, keepalive_ms=small, ttl_ms=small, grace_ms=small),
    st.builds(Update, patch=st.fixed_dictionaries({"attributes": st.none() | objects})),
    st.builds(StartStream, stream=st.builds(Stream, key=keys, kind=keys, data=objects)),
    st.builds(UpdateStream, stream=st.builds(Stream, key=keys, kind=keys, data=objects)),
    st.builds(EndStream, key=keys),
    st.builds(Join, members=st.lists(keys, min_size=1).map(tuple)),
    st.builds(Leave, members=st.lists(keys, min_size=1).map(tuple)),
    st.builds(
        RequestClose,
        at=st.sampled_from([NOW + 10, NOW + 30_000]),
        extend_max_ms=st.sampled_from([0, 9000]),
    ),
    st.builds(ExtendClose, at=st.just(NOW + 35_000)),
    st.builds(CancelClose),
    st.builds(Saving),
    st.just("expire"),
)
openings = st.builds(
    Open,
    session=st.builds(
        fresh,
        connection=st.none() | st.just(connection()),
        watch=st.none() | st.just(Watched(key="k1", position_ms=5)),
        linger_ms=small,
        grace_ms=small,
        keepalive_ms=small,
        ttl_ms=st.none() | st.just(10**6),
        start_within_ms=small,
        attributes=objects,
    ),
)


def due(session: Session) -> AnyCommand:
    """Return the Expire of the first deadline; a Report if there is none."""
    live = sorted(deadlines(session), key=lambda found: found[1])
    return Expire(kind=live[0][0], at=live[0][1]) if live else Report()


Life = tuple[Open, list[tuple[AnyCommand | str, int]]]
lives = st.tuples(
    openings, st.lists(st.tuples(commands, st.sampled_from([0, 1, 20_000])), max_size=12)
)


def lived(life: Life) -> Iterator[tuple[Session | None, SessionEntry]]:
    """Yield each commit of a life: the session before it, and its entry."""
    opening, sequence = life
    now = NOW
    session: Session | None = None
    for asked, wait_ms in [(opening, 0), *sequence]:
        now += wait_ms
        command = due(session) if isinstance(asked, str) and session else asked
        try:
            events = decide(session, command, now)  # type: ignore[arg-type]
        except GatewayError:
            continue
        if not events:
            continue
        after = advance(session, events, f"op-{now}", now)
        before = changed_fields(session, after)
        yield session, SessionEntry(at=now, op="op", events=events, record=after, before=before)
        session = after
