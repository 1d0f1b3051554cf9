"""Readers that fall behind, drop and come back, by chance: nothing is lost and nothing doubled.

The seed decides what is done, not how the log's entries fall into batches. What must hold holds
for all of it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from random import Random

import pytest
from msgspec.json import decode

from gateway.api.codec import NativeCodec
from gateway.client.protocol import EventsFrame, HelloFrame, SnapshotFrame, parse
from gateway.client.state import Changes, Fold, Resync, Snapshot
from gateway.connections.journal import ConnectionJournal
from gateway.connections.registry import ConnectionRegistry
from gateway.core import protocol
from gateway.core.command import Close, Update
from gateway.core.errors import SessionClosed
from gateway.core.query import Filter, View, Visibility
from gateway.live import channel
from gateway.logs.request import RequestMark
from gateway.logs.throttle import Throttle
from gateway.node import Node
from gateway.realtime.codec import HeartbeatRule
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.subscriber import ObserverSocket
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, running_node
from tests.support import eventually

VIEW = View(filter=Filter(), visibility=Visibility("all"), full=True)
READERS = 8
ROUNDS = 250  # each of some changes, after which each reader may do something


class Reader:
    """A client that keeps what it is told, and comes back with the last position it saw."""

    def __init__(self, chance: Random) -> None:
        self.fold = Fold()
        self.position: str | None = None
        self.wrong: list[str] = []
        self._chance = chance
        self._is_first = True  # of a snapshot's pages

    async def come(self, node: Node) -> None:
        """Connect to *node*."""
        self.connection = Connection(self, node, self._chance)
        await self.connection.observer.subscriber.start(VIEW, self.position)
        self.connection.socket.bind(self.connection.observer)
        self.connection.socket.start()

    def leave(self) -> None:
        """Say goodbye; what is still sent is lost."""
        self.connection.is_over = True
        self.connection.socket.on_close(1000, "")

    def hear(self, text: bytes) -> None:
        """Take one message."""
        match parse(text):
            case HelloFrame() as hello:
                self._is_first, self.position = True, hello.position
            case SnapshotFrame() as page:
                sessions, first, more = page.sessions, self._is_first, page.more
                self.wrong += self.fold.apply(Snapshot(sessions=sessions, first=first, more=more))
                self._is_first, self.position = not more, page.position
            case EventsFrame() as told:
                changes = Changes(events=told.events, position=told.position)
                self.wrong += self.fold.apply(changes)
                self.position = told.position
            case protocol.ResyncMessage() as resync:
                self.wrong += self.fold.apply(Resync(reason=resync.reason))
                self._is_first = True
            case protocol.ServerHeartbeat() as beat:
                self.position = beat.position
            case other:
                self.wrong.append(f"heard {other}")


class Connection:
    """One connection of a reader, full by chance."""

    def __init__(self, reader: Reader, node: Node, chance: Random) -> None:
        self.is_full = self.is_over = False
        self.sockets = ConnectionRegistry(1, chance.random)
        self.socket: WebSocketConnection[str] = WebSocketConnection(
            self,
            self.sockets,
            lambda connection: NativeCodec(node, connection.heartbeat_ms),
            journal=ConnectionJournal("/v1/events", None, RequestMark("r1"), Throttle()),
            heartbeat=HeartbeatRule(interval_s=3600),
            messages_per_s=1,
        )
        self.sockets.add(self.socket)
        self.observer: ObserverSocket[str] = ObserverSocket(node, self.socket)
        self._reader = reader
        self._chance = chance

    @property
    def unsent(self) -> int:
        """Nothing: it is heard at once."""
        return 0

    def write(self, data: bytes) -> bool:
        """Have it heard; now and then that is too much."""
        for text in texts(data) if not self.is_over else ():
            self._reader.hear(text)
        self.is_full = self.is_full or self._chance.random() < 0.15
        return not self.is_full

    def read_on(self) -> None:
        """Have room again."""
        if self.is_full:
            self.is_full = False
            self.socket.on_writable()

    def beat(self) -> None:
        """Hear a heartbeat."""
        self.socket.write(self.observer.heartbeat())

    def close(self, code: int | None, reason: str, _last: bytes = b"") -> None:
        """Take a goodbye that nobody asked for."""
        self._reader.wrong.append(f"closed with {code} {reason}")

    def abort(self) -> None:
        """End; nothing does that."""

    def probe(self, _answered: object) -> None:
        """Never answer."""

    def adopt(self, _listener: object) -> None:
        """Belong to somebody; it does."""


def texts(data: bytes) -> Iterator[bytes]:
    """Return the messages in whole frames of a server."""
    while data:
        length, start = data[1], 2
        if length >= 126:
            start += 2 if length == 126 else 8
            length = int.from_bytes(data[2:start])
        yield data[start : start + length]
        data = data[start + length :]


async def change(node: Node, session_id: str, chance: Random) -> None:
    """Change a session, or close it."""
    is_last = chance.random() < 0.06
    with suppress(SessionClosed):  # by the other node, of which this one has not heard
        await node.apply(session_id, Close() if is_last else Update(name=str(chance.random())))


@pytest.mark.parametrize("seed", range(3))
async def test_readers_miss_nothing_and_hear_nothing_twice(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whoever is slow, drops at any moment or has to start over ends with what the nodes show."""
    monkeypatch.setattr(channel, "RING_TICKS", 12)
    monkeypatch.setattr(channel, "SNAPSHOT_PAGE", 3)
    chance = Random(seed)
    async with (
        running_node(valkey.url, prefix, "a", partitions=2) as a,
        running_node(valkey.url, prefix, "b") as b,
    ):
        readers = [Reader(chance) for _ in range(READERS)]
        for reader in readers:
            await reader.come(chance.choice((a, b)))
        for number in range(ROUNDS):
            known = list(a.replica.sessions)
            if len(known) < 8 or chance.random() < 0.1:
                await chance.choice((a, b)).open(blank(f"s{number}", linger_ms=3_600_000))
            picked = chance.sample(known, min(len(known), chance.randint(1, 4)))
            await asyncio.gather(*(change(chance.choice((a, b)), one, chance) for one in picked))
            for reader in readers:
                match chance.random():
                    case roll if roll < 0.3:
                        reader.connection.read_on()
                    case roll if roll < 0.4:
                        reader.connection.beat()
                    case roll if roll < 0.45:
                        reader.leave()
                        await reader.come(chance.choice((a, b)))
            if chance.random() < 0.02:
                chance.choice((a, b)).hub.restart("test")

        def all_know() -> bool:
            for reader in readers:
                reader.connection.read_on()
            shown = {
                session.id: decode(a.replica.rendered(session, full=True))
                for session in a.replica.sessions.values()
            }
            return all(reader.fold.sessions == shown or reader.wrong for reader in readers)

        await eventually(all_know)
        assert [reader.wrong for reader in readers] == [[]] * READERS
        for reader in readers:
            reader.leave()
        assert not a.hub._channels and not b.hub._channels  # noqa: SLF001, PT018 - all let go
