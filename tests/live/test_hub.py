"""Hub: each view gets its events once, each session's socket its notices."""

import random
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.json import decode

from gateway.core import command as c
from gateway.core.errors import Overloaded
from gateway.core.model import Connection, State
from gateway.core.position import Position
from gateway.core.query import Filter, View, Visibility
from gateway.live import hub as hub_module
from gateway.live.channel import Subscription
from gateway.live.commit_view import CommitView, EventItem
from gateway.live.hub import Hub, Notice
from gateway.live.outbound import OutboundMessage, Restart, SnapshotPage, Tick
from gateway.live.replica import Replica
from tests.live.logbook import Log

ALL = Visibility(by="all")


class World:
    """A replica and a hub over a log that a test writes."""

    def __init__(self) -> None:
        self.log = Log()
        self.replica = Replica(1)
        self.replica.epochs[0] = "epoch1"
        self.ms = 0.0
        self.hub = Hub(self.replica, lambda: self.ms)

    def tell(self, batch: int = 1_000) -> None:
        """Bring what is new to everybody."""
        self.log.tell(self.replica, self.hub, batch)

    async def missed(self, since: Position, upto: Position) -> AsyncIterator[Tick]:
        """Never needed: these tests resume from the ring."""
        raise AssertionError((since, upto))
        yield


@pytest.fixture
def world() -> World:
    """Return an empty one."""
    return World()


def view(**wanted: object) -> View:
    """Return a view of an administrator."""
    return View(filter=Filter(**wanted), visibility=ALL)  # type: ignore[arg-type]


async def hear(subscription: Subscription) -> list[OutboundMessage]:
    """Return all that is to be read right now."""
    found: list[OutboundMessage] = []
    while subscription.is_behind:
        found.append(await subscription.next())
    return found


def events(found: list[OutboundMessage]) -> list[str]:
    """Return what the ticks among *found* tell: type and session."""
    return [
        f"{event['type']} {event['session_id']}"
        for delivery in found
        if isinstance(delivery, Tick)
        for event in decode(delivery.message)["events"]
    ]


class Fold(dict[str, dict[str, object]]):
    """What a subscriber knows."""

    def take(self, found: list[OutboundMessage]) -> "Fold":
        """Take in deliveries."""
        for delivery in found:
            if isinstance(delivery, Restart):
                self.clear()
            elif isinstance(delivery, SnapshotPage):
                self.update({shown["id"]: shown for shown in map(decode, delivery.sessions)})
            else:
                for event in decode(delivery.message)["events"]:
                    self._event(event)
        return self

    def _event(self, event: dict[str, object]) -> None:
        session_id = str(event["session_id"])
        if event["type"] in ("session.exit", "session.closed"):
            self.pop(session_id, None)
        elif event["type"] in ("session.enter", "session.opened"):
            whole = event["session"] if event["type"] == "session.enter" else event["changes"]
            assert isinstance(whole, dict)
            self[session_id] = {**whole, "revision": event.get("revision", whole["revision"])}
        else:
            self[session_id] = {
                **merged(self[session_id], event["changes"]),
                "revision": event["revision"],
            }


def merged(target: object, patch: object) -> dict[str, object]:
    """Return *target* after a merge patch (RFC 7396)."""
    assert isinstance(patch, dict)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value) if isinstance(value, dict) else value
    return result


def shown(replica: Replica, wanted: View) -> dict[str, dict[str, object]]:
    """Return what REST would show."""
    return {
        session.id: decode(replica.rendered(session, full=wanted.full))
        for session in replica.all_in(wanted)
    }


VIEWS = [
    view(),
    view(workspace="w1"),
    view(labels={"env": "prod"}),
    view(state=State.CLOSING),
    view(connected=True),
    view(member="dan"),
    view(q="5"),
    View(visibility=Visibility(by="account", value="ann")),
    View(visibility=Visibility(by="session", value="s0")),
    View(visibility=ALL, full=True),
    View(),
]


@pytest.mark.parametrize("seed", range(5))
async def test_snapshot_and_events_are_the_replica(world: World, seed: int) -> None:
    """Whoever joins whenever, in whatever view: snapshot and events fold to what REST shows."""
    luck, log = random.Random(seed), world.log
    joined: list[tuple[View, Subscription, Fold]] = []
    guards = []
    for step in range(120):
        if step % 20 == 0:
            for wanted in VIEWS:
                guards.append(world.hub.subscribe(wanted))
                joined.append((wanted, guards[-1].__enter__(), Fold()))
        for _ in range(luck.randrange(1, 4)):
            random_step(log, luck)
        world.tell(luck.randrange(1, 4))
        world.ms += luck.randrange(200)
        for wanted, subscription, fold in joined:
            if luck.random() < 0.5 or step == 119:
                fold.take(await hear(subscription))

                assert fold == shown(world.replica, wanted), wanted
    for guard in guards:
        guard.__exit__(None, None, None)
    assert not world.hub._channels  # noqa: SLF001
    assert not world.hub._by_index  # noqa: SLF001


def random_step(log: Log, luck: random.Random) -> None:
    """Append one random commit."""
    number = len(log.entries)
    if len(log.sessions) < 5 or (luck.random() < 0.2 and len(log.sessions) < 30):
        log.open(
            f"s{number}",
            workspace=luck.choice(["w1", "w2"]),
            account=luck.choice(["ann", "bob"]),
            labels={"env": luck.choice(["prod", "test"])},
        )
        return
    session = log.sessions[luck.choice(list(log.sessions))]
    commands: list[Callable[[], c.AnyCommand]] = [
        lambda: c.Update(labels={"env": f"{luck.choice(['prod', 'test'])}"}, name=f"n{number}"),
        lambda: c.Update(members=tuple(luck.sample(["dan", "eve", "cy"], 2)), phase=f"p{number}"),
        lambda: c.RequestClose(at=10**9 + number),
        c.Close,
        lambda: c.CancelClose() if session.closing else c.RequestClose(at=10**9 + number),
        lambda: (
            c.Disconnect(connection=session.connection.id, cause="server")
            if session.connection and session.is_connected
            else c.Update(name=f"n{number}")
        ),
        lambda: (
            c.Update(phase=f"p{number}")
            if session.closing
            else c.Connect(
                connection=Connection(id=f"c{number}", node="n:1", connected_at=5, address="::1")
            )
        ),
    ]
    log.do(session.id, luck.choice(commands)())


async def test_session_that_starts_or_stops_matching_enters_or_exits(world: World) -> None:
    """A filter's edge is told: whole on the way in, by name on the way out."""
    log = world.log
    log.open("s", labels={"env": "test"})
    log.open("other", labels={"env": "prod"})
    world.tell()
    with world.hub.subscribe(view(labels={"env": "prod"})) as prod:
        await hear(prod)
        log.do("s", c.Update(labels={"env": "prod"}))
        log.do("s", c.Update(name="Ann"))
        log.do("s", c.Update(labels={"env": "test"}))
        log.do("s", c.Close())
        log.do("other", c.Close())
        world.tell()

        assert events(await hear(prod)) == [
            "session.enter s",
            "session.updated s",
            "session.exit s",
            "session.closed other",
        ]


async def test_same_view_shares_frame_and_snapshot(world: World) -> None:
    """Two subscribers of a view get the same objects: encoded once, however many there are."""
    for number in range(450):
        world.log.open(f"s{number}")
    world.tell()
    with world.hub.subscribe(view()) as one, world.hub.subscribe(view()) as two:
        first, second = await hear(one), await hear(two)

        assert len(first) == 3
        assert [a is b and a.frame is b.frame for a, b in zip(first, second, strict=True)] == [
            True
        ] * 3

        world.log.open("more")
        world.tell()
        tick, same = await one.next(), await two.next()

        assert tick is same
        assert tick.frame is same.frame


async def test_snapshot_is_frozen_while_it_is_read(world: World) -> None:
    """Pages read late show the moment of the first; what came since follows as events."""
    for number in range(450):
        world.log.open(f"s{number}", name="old")
    world.tell()
    with world.hub.subscribe(view()) as subscription:
        found: list[OutboundMessage] = [await subscription.next()]
        world.log.do("s449", c.Update(name="new"))
        world.log.do("s448", c.Close())
        world.tell()
        found += await hear(subscription)

        pages = [page for page in found if isinstance(page, SnapshotPage)]
        sessions = [decode(session) for page in pages for session in page.sessions]
        assert [page.more for page in pages] == [True, True, False]
        assert {session["name"] for session in sessions} == {"old"}
        assert len(sessions) == 450
        assert events(found) == ["session.updated s449", "session.closed s448"]
        assert Fold().take(found) == shown(world.replica, view())


async def test_old_snapshot_is_not_shared(world: World) -> None:
    """Who joins within a quarter of a second shares a snapshot; later ones get a new one."""
    world.log.open("s1")
    world.tell()
    with world.hub.subscribe(view()) as one:
        await hear(one)
        world.log.open("s2")
        world.tell()
        world.ms = 250
        with world.hub.subscribe(view()) as two:
            assert events(await hear(two)) == ["session.opened s2"]
        world.ms = 251
        with world.hub.subscribe(view()) as three:
            assert events(await hear(three)) == []


async def test_only_interested_channels_are_touched(world: World) -> None:
    """Of a thousand channels a change renders for those whose equality it meets, and no other."""
    asked: list[View] = []

    def render(wanted: View, change: CommitView) -> list[EventItem]:
        asked.append(wanted)
        return change.native(wanted)

    world.hub.register("", render)
    guards = [world.hub.subscribe(view(workspace=f"w{number}")) for number in range(1_000)]
    subscriptions = [guard.__enter__() for guard in guards]
    for subscription in subscriptions:
        await hear(subscription)
    world.log.open("s", workspace="w7", account="ann")
    world.tell()

    assert asked == [view(workspace="w7")]
    assert [number for number, known in enumerate(subscriptions) if known.is_behind] == [7]
    for guard in guards:
        guard.__exit__(None, None, None)


async def test_view_leaves_nothing_of_others(world: World) -> None:
    """Nobody hears of a session outside their visibility, whatever they filter by."""
    hidden = View(filter=Filter(workspace="w1"), visibility=Visibility(by="workspace", value="w2"))
    with world.hub.subscribe(hidden) as subscription, world.hub.subscribe(View()) as nobody:
        await hear(subscription)
        await hear(nobody)
        world.log.open("s", workspace="w1")
        world.log.do("s", c.Close())
        world.tell()

        assert not subscription.is_behind
        assert not nobody.is_behind


async def test_too_many_views_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view more than the bound is refused; a known one is not."""
    monkeypatch.setattr(hub_module, "CHANNELS_MAX", 2)
    with world.hub.subscribe(view()), world.hub.subscribe(view(q="a")):
        with pytest.raises(Overloaded), world.hub.subscribe(view(q="b")):
            pass
        with world.hub.subscribe(view(q="a")):
            pass
    with world.hub.subscribe(view(q="b")):
        pass


async def test_restart_reaches_everybody(world: World) -> None:
    """When the picture was made anew, watchers start over and sockets look again."""
    session = world.log.open("s").record
    world.tell()
    with world.hub.subscribe(view()) as subscription, world.hub.mailbox(session) as box:
        await hear(subscription)
        world.replica.epochs[0] = "epoch2"
        world.hub.restart("history lost")
        found = [await subscription.next(), await subscription.next()]

        assert found[0] == Restart("history lost")
        assert decode(found[0].message) == {"type": "resync", "reason": "history lost"}
        assert isinstance(found[1], SnapshotPage)
        assert found[1].position.startswith("epoch2-")
        assert await box.get() == Notice()
