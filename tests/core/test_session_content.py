"""Updates, patches, streams and members: what a session holds for others."""

import pytest

from gateway.core.command import (
    AnyCommand,
    EndStream,
    Join,
    Leave,
    Open,
    StartStream,
    StartWatch,
    Update,
    UpdateStream,
)
from gateway.core.errors import (
    Invalid,
    LimitExceeded,
)
from gateway.core.event import (
    StreamStopped,
    StreamUpdated,
    Updated,
)
from gateway.core.model import (
    ATTRIBUTES_MAX_BYTES,
    MEMBERS_MAX,
    STREAMS_MAX,
    Client,
    Deadline,
    Profile,
    Session,
    Stream,
)
from gateway.core.model import Watch as Watched
from gateway.core.session import decide
from tests.core.build import (
    NOW,
    applied,
    at,
    away,
    busy,
    closing,
    connected,
    fresh,
    idle,
)


def test_update_of_the_same_value_is_no_change() -> None:
    """What is already so makes no commit; what only looks alike does."""
    session = idle(name="Ann", labels={"a": "b"}, attributes={"n": 1})

    assert decide(session, Update(name="Ann", labels={"a": "b"}, attributes={"n": 1}), NOW) == []
    assert decide(session, Update(attributes={"n": True}), NOW) == [Updated(attributes={"n": True})]
    assert decide(session, Update(revision=1, name=None), NOW) == [Updated(name=None)]


def test_longest_life_counts_from_the_opening() -> None:
    """A changed ``ttl_ms`` moves the deadline that counts from the opening."""
    session = applied(idle(ttl_ms=1000), Update(ttl_ms=5000), NOW + 900)[1]

    assert at(session, Deadline.TTL) == NOW + 5000
    assert at(applied(session, Update(ttl_ms=None))[1], Deadline.TTL) is None


@pytest.mark.parametrize(
    "session, deadline",
    [(idle(), NOW + 10), (away(), NOW + 10), (connected(), None), (closing(away()), None)],
    ids=["idle", "away", "connected", "closing"],
)
def test_changed_linger_counts_from_the_loss(session: Session, deadline: int | None) -> None:
    """A new linger counts from the loss, or the opening; with a client or a close it waits."""
    after = applied(session, Update(linger_ms=10), NOW + 5)[1]

    assert after.linger_ms == 10
    assert at(after, Deadline.LINGER) == deadline


def test_patches_at_once_both_count() -> None:
    """A patch is merged into the session as it is when it is decided, not when it was sent."""
    session = idle(
        labels={"a": "1"},
        attributes={"x": {"y": 1, "z": 2}},
        client=Client(product="Web", version="1"),
        name="Ann",
    )
    first = Update(patch={"labels": {"b": "2"}, "attributes": {"x": {"y": None}}})
    second = Update(patch={"labels": {"a": None}, "client": {"version": "2"}, "name": None})

    after = applied(applied(session, first)[1], second)[1]

    assert after.labels == {"b": "2"}
    assert after.attributes == {"x": {"z": 2}}
    assert after.client == Client(product="Web", version="2")
    assert after.name is None
    assert decide(after, Update(patch={"name": None, "members": None}), NOW) == []


@pytest.mark.parametrize(
    "patch",
    [
        {"account": "x"},
        {"revision": None},
        {"name": 7},
        {"name": "a\x00"},
        {"labels": {"a b": "c"}},
        {"labels": {"a": 1}},
        {"members": "ann"},
        {"linger_ms": -1},
        {"ttl_ms": True},
        {"profile": {"is_admin": "yes"}},
        {"attributes": {"a": [{"b": None}]}},
        {"attributes": {"a": "x" * ATTRIBUTES_MAX_BYTES}},
    ],
)
def test_patch_that_makes_something_unacceptable_is_refused(patch: dict[str, object]) -> None:
    """A patch may name only what can be changed, and must leave values that are acceptable."""
    with pytest.raises(Invalid):
        decide(idle(), Update(patch=patch), NOW)


NULL = {"a": [{"b": None}]}


@pytest.mark.parametrize(
    "command",
    [
        Open(session=fresh(attributes=NULL)),
        Open(session=fresh(profile=Profile(plugins=NULL))),
        Open(session=fresh(watch=Watched(key="k", item=NULL))),
        Open(session=fresh(streams=(Stream(key="k", kind="k", data=NULL),))),
        Open(session=fresh(attributes={"a": "x" * ATTRIBUTES_MAX_BYTES})),
        Update(attributes=NULL),
        Update(attributes={"a": "x" * ATTRIBUTES_MAX_BYTES}),
        Update(profile=Profile(plugins=NULL)),
        StartWatch(watch=Watched(key="k", item=NULL)),
        StartStream(stream=Stream(key="new", kind="k", data=NULL)),
        StartStream(stream=Stream(key="t1", kind="k", data=NULL)),
        UpdateStream(stream=Stream(key="t1", kind="k", data=NULL)),
    ],
)
def test_object_that_cannot_be_carried_is_refused(command: AnyCommand) -> None:
    """Null inside a map, or too large attributes, are refused through every command."""
    session = None if isinstance(command, Open) else busy()

    with pytest.raises(Invalid):
        decide(session, command, NOW)


def test_streams_keep_their_order() -> None:
    """A stream is added last, changed in place, and removed alone."""
    session = busy()
    for key in ("t2", "t3"):
        session = applied(session, StartStream(stream=Stream(key=key, kind="k")))[1]
    changed = Stream(key="t2", kind="k", state="done")

    assert decide(session, StartStream(stream=changed), NOW) == [StreamUpdated(stream=changed)]
    session = applied(session, UpdateStream(stream=changed))[1]
    assert [stream.key for stream in session.streams] == ["t1", "t2", "t3"]
    assert session.streams[1] == changed
    assert decide(session, UpdateStream(stream=changed), NOW) == []
    assert decide(session, EndStream(key="t1"), NOW) == [StreamStopped(key="t1")]
    session = applied(session, EndStream(key="t1"))[1]
    assert [stream.key for stream in session.streams] == ["t2", "t3"]


def test_one_stream_too_many_is_refused() -> None:
    """A full session takes no new stream, but changes those it has."""
    streams = tuple(Stream(key=f"t{number}", kind="k") for number in range(STREAMS_MAX))
    session = idle(streams=streams)

    with pytest.raises(LimitExceeded, match="32 streams"):
        decide(session, StartStream(stream=Stream(key="more", kind="k")), NOW)
    assert decide(session, StartStream(stream=Stream(key="t0", kind="other")), NOW) != []


def test_members_come_once_and_go() -> None:
    """Joining twice counts once and keeps the order; leaving takes those that are there."""
    session = applied(idle(), Join(members=("ann", "bob", "ann")))[1]

    assert session.members == ("ann", "bob")
    assert decide(session, Join(members=("bob",)), NOW) == []
    assert applied(session, Leave(members=("ann", "nobody")))[1].members == ("bob",)


def test_one_member_too_many_is_refused() -> None:
    """A full session takes no new member."""
    session = idle(members=tuple(f"m{number}" for number in range(MEMBERS_MAX)))

    with pytest.raises(LimitExceeded, match="256 members"):
        decide(session, Join(members=("more",)), NOW)
    assert decide(session, Join(members=("m0",)), NOW) == []
