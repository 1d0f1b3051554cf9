"""Mailbox: the notices of a session's own socket."""

import pytest

from gateway.core import command as c
from gateway.core.document import Message, Recipients
from gateway.core.event import MessageEntry
from gateway.live import hub as hub_module
from gateway.live.commit_view import CommitView
from gateway.live.hub import Hub
from gateway.live.replica import Replica
from tests.live.logbook import Log


class World:
    """A replica and a hub over a log that a test writes."""

    def __init__(self) -> None:
        self.log = Log()
        self.replica = Replica(1)
        self.hub = Hub(self.replica, lambda: 0.0)

    def tell(self) -> None:
        """Bring what is new to everybody."""
        self.log.tell(self.replica, self.hub)


@pytest.fixture
async def world() -> World:
    """Return an empty one, within a loop."""
    return World()


def message(world: World, **to: str) -> None:
    """Say something."""
    entry = MessageEntry(at=1, message=Message(to=Recipients(**to), topic="t"))
    world.hub.publish([CommitView(entry)], world.replica.position())


async def test_socket_hears_its_session_and_its_messages(world: World) -> None:
    """A mailbox gets the changes of its session and what is said to it, its workspace or all."""
    one = world.log.open("s1", workspace="w1").record
    two = world.log.open("s2", workspace="w2").record
    world.tell()
    with world.hub.mailbox(one) as first, world.hub.mailbox(two) as second:
        world.log.do("s1", c.Update(name="Ann"))
        world.tell()
        message(world, session="s1")
        message(world, workspace="w2")
        message(world)
        heard = [await box.get() for box in (first, first, first, second, second)]

        assert heard[0].change is not None
        assert heard[0].change.after == world.replica.sessions["s1"]
        assert [notice.message and notice.message.to for notice in heard] == [
            None,
            Recipients(session="s1"),
            Recipients(),
            Recipients(workspace="w2"),
            Recipients(),
        ]
    message(world)
    assert not world.hub._mailboxes  # noqa: SLF001


async def test_both_sockets_of_a_session_hear(world: World) -> None:
    """While a socket takes the place of another both know what happens."""
    session = world.log.open("s").record
    world.tell()
    with world.hub.mailbox(session) as new:
        with world.hub.mailbox(session) as old:
            message(world)
            assert await old.get() == await new.get()
        message(world)
        assert (await new.get()).message


async def test_full_mailbox_is_marked(world: World) -> None:
    """A socket that is too far behind is marked to be cut; what it has stays bounded."""
    session = world.log.open("s").record
    world.tell()
    with world.hub.mailbox(session) as box:
        for _ in range(hub_module.MAILBOX_MAX):
            message(world)
        assert not box.overflowed
        message(world)
        assert box.overflowed
