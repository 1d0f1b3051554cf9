"""Sockets in trouble: clients that do not read or are dead, a store that does not answer."""

import asyncio
import contextlib
import socket as sockets
from collections.abc import AsyncIterator
from ssl import SSLContext
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace

from gateway.core.command import AnyCommand, Update
from gateway.core.document import Message, Recipients
from gateway.core.model import Session
from gateway.live.hub import MAILBOX_MAX
from gateway.realtime.connection import WebSocketConnection
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from gateway.transport import Limits, http_protocol
from tests.server.conftest import Gateway
from tests.server.echo import frame
from tests.server.talk import dial
from tests.server.test_handshake import upgrade
from tests.support import Proxy, S, eventually


@contextlib.asynccontextmanager
async def stuck(gateway: Gateway, path: str) -> AsyncIterator[sockets.socket]:
    """Be a client that opens a WebSocket and then takes nothing, with a small buffer."""
    place = urlsplit(gateway.url)
    with sockets.socket() as client:
        client.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (place.hostname, place.port))
        request = upgrade(path) + "\n"
        await loop.sock_sendall(client, request.replace("\n", "\r\n").encode())
        yield client


async def fill(gateway: Gateway, session_id: str) -> None:
    """Say so much to a client that takes nothing that there is no room for more."""
    node, known = gateway.node, gateway.context.connections._connections  # noqa: SLF001 - nobody else tells
    await eventually(lambda: session_id in node.replica.sessions)
    [line] = known.values()
    assert isinstance(line, WebSocketConnection)
    while not line.is_full:
        await node.publish(Message(to=Recipients(session=session_id), topic="t", body="x" * 4000))


async def test_client_that_leaves_while_it_has_no_room_has_left(gateway: Gateway) -> None:
    """What was said before a connection ended is done, though no answer to it can be heard."""
    async with stuck(gateway, "/v1/connect?session=one") as client:
        await fill(gateway, "one")
        said = frame(1, b'{"type":"leave"}') + frame(8, b"\x03\xe8")
        await asyncio.get_running_loop().sock_sendall(client, said)
        await eventually(lambda: "one" in gateway.node.replica.gone)
    await eventually(lambda: gateway.context.connections.count == 0)


async def test_what_a_client_may_say_unheard_is_bounded(gateway: Gateway) -> None:
    """A client that takes no answers may say only so much; then it is sent away."""
    async with stuck(gateway, "/v1/connect?session=one") as client:
        await fill(gateway, "one")
        loop = asyncio.get_running_loop()
        for _ in range(5):
            await loop.sock_sendall(client, frame(1, b" " * 64_000))
        await eventually(lambda: gateway.context.connections.count == 0)
    await eventually(lambda: gateway.node.replica.sessions["one"].state == "away")


async def test_what_is_heard_before_the_hello_is_bounded(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is told too much while it is being attached is too slow; nothing is left."""
    node = gateway.node
    await node.open(Session(id="one", number=0, revision=0, created_at=0))
    attach = node.apply

    async def late(session_id: str, wanted: AnyCommand) -> Session:
        message = Message(to=Recipients(session="one"), topic="t")
        for _ in range(0, MAILBOX_MAX + 1, 32):  # as many at a time as a busy machine sends in time
            await asyncio.gather(*(node.publish(message) for _ in range(32)))
        return await attach(session_id, wanted)

    with monkeypatch.context() as patch:
        patch.setattr(node, "apply", late)
        async with await dial(gateway, session="one") as ann:
            code, heard = await ann.ends()
    assert (code, heard[-1]["reason"]) == (4002, "too_slow")
    await eventually(lambda: gateway.context.connections.count == 0)
    assert node.replica.sessions["one"].state == "away"
    assert not node.hub._mailboxes  # noqa: SLF001 - there is no other way to see a leak


@pytest.mark.parametrize("last", [b"\x03\xe8", b"\x00", b""])
async def test_client_that_errs_and_closes_in_one_breath_leaves_nothing(
    gateway: Gateway, last: bytes
) -> None:
    """A message that ends the socket, and a close behind it, good or bad, end it for good."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        ann.socket.transport.write(frame(2, b"\xff") + frame(8, last))
        await eventually(lambda: gateway.node.replica.sessions["one"].state == "away")
    await eventually(lambda: gateway.context.connections.count == 0)
    assert not gateway.node._local_connections._held  # noqa: SLF001 - there is no other way to see a leak
    assert not gateway.node.hub._mailboxes  # noqa: SLF001


async def test_client_that_is_told_more_than_it_takes_is_given_up(gateway: Gateway) -> None:
    """What is said to a session waits for it within bounds; then it is sent away as too slow."""
    node = gateway.node
    async with stuck(gateway, "/v1/connect?session=one"):
        await eventually(lambda: "one" in node.replica.sessions)
        await eventually(lambda: gateway.context.connections.count == 1)
        said = 0
        while gateway.context.connections.count == 1:
            said += 1
            await node.publish(Message(to=Recipients(session="one"), topic="t", body="x" * 4000))
        assert said > 250  # 1 MiB of ours, and the kernel's buffers
        await eventually(lambda: node.replica.sessions["one"].state == "away")
        session = node.replica.sessions["one"]
        assert session.linger_at is not None
        assert session.disconnected_at is not None
        assert session.linger_at - session.disconnected_at == 60_000  # it was our doing


class TestStalled:
    """A gateway that gives up soon who takes nothing."""

    @pytest.fixture
    def settings(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
        """A short patience."""

        def impatient(limits: Limits, tls: SSLContext | None = None) -> type[asyncio.Protocol]:
            return http_protocol(replace(limits, stalled_s=0.2), tls)

        monkeypatch.setattr("gateway.app.http_protocol", impatient)
        return settings

    async def test_reader_that_stopped_is_given_up(self, gateway: Gateway) -> None:
        """A watcher that takes nothing is given up; those beside it miss nothing."""
        await gateway.node.open(Session(id="a", number=0, revision=0, created_at=0))
        async with (
            stuck(gateway, "/v1/events"),
            await dial(gateway, "/v1/events") as watcher,
        ):
            await watcher.find("snapshot")
            await eventually(lambda: gateway.context.connections.count == 2)
            revision = 1
            while gateway.context.connections.count == 2:
                revision += 1
                text = {"text": f"{revision} {'x' * 4000}"}
                await gateway.node.apply("a", Update(attributes=text))
                assert [event["revision"] for event in await watcher.events()] == [revision]
            assert revision > 100  # it took the kernel's buffers and ours to fill


class TestDeadClient:
    """A gateway that pings often."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """Quick pings."""
        return replace(settings, heartbeat_s=0.2, pong_s=0.2)

    async def test_client_without_pong_is_lost(self, gateway: Gateway) -> None:
        """A client that answers no ping is taken for lost; the session is away."""
        async with await dial(gateway, session="one") as ann:
            await ann.hear("hello")
            ann.socket.transport.pause_reading()
            await eventually(lambda: gateway.node.replica.sessions["one"].state == "away")
            ann.drop()


class TestStore:
    """A gateway whose store can be made to stall."""

    @pytest.fixture
    async def proxy(self, valkey: EmbeddedValkey) -> AsyncIterator[Proxy]:
        """The way to the store."""
        async with Proxy(valkey.url) as proxy:
            yield proxy

    @pytest.fixture
    def settings(self, settings: Settings, proxy: Proxy) -> Settings:
        """The store behind it."""
        return replace(settings, redis_url=proxy.url)

    @pytest.mark.timeout(30)
    async def test_stalled_store_is_told_and_ends_nothing(
        self, gateway: Gateway, proxy: Proxy
    ) -> None:
        """Sockets stay; what they ask is an error, a new one gets 4008; then all goes on."""
        async with await dial(gateway, session="one") as ann:
            await ann.hear("hello")
            async with proxy.stalled():
                late = asyncio.create_task(dial(gateway, session="two"))
                answer = asyncio.create_task(ann.ask("watch", key="m"))
                async with asyncio.timeout(8 * S):
                    code = (await answer)["code"]
                    assert code in {"store_unavailable", "outcome_unknown"}
                    async with await late as two:
                        assert (await two.bye())["code"] == 4008

            async def is_back() -> bool:
                return bool((await ann.ask("watch", key="n"))["type"] == "ack")

            await eventually(is_back, within=5 * S)
            watch = gateway.node.replica.sessions["one"].watch
            assert watch is not None
            assert watch.key == "n"

    @pytest.mark.timeout(30)
    async def test_client_that_left_meanwhile_is_away_afterwards(
        self, gateway: Gateway, proxy: Proxy
    ) -> None:
        """A goodbye that could not be written is written when the store is back."""
        async with await dial(gateway, session="one") as ann:
            await ann.hear("hello")
            async with proxy.stalled():
                await ann.socket.close()
                await asyncio.sleep(0)
            await eventually(
                lambda: gateway.node.replica.sessions["one"].state == "away", within=8 * S
            )


async def test_clients_that_come_and_go_leave_nothing(gateway: Gateway) -> None:
    """However handshakes end, no socket, mailbox or held connection is left behind."""
    place = urlsplit(gateway.url)

    async def vanish(after: int) -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write((upgrade() + "\n").replace("\n", "\r\n").encode())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(after)
        writer.transport.abort()

    await asyncio.gather(*(vanish(after) for after in (0, 1, 20, 129, 200, 300) for _ in range(5)))
    node = gateway.node
    await eventually(lambda: gateway.context.connections.count == 0)
    await eventually(
        lambda: not any(one.is_connected for one in node.replica.sessions.values()), within=5 * S
    )
    assert not node._local_connections._held  # noqa: SLF001 - there is no other way to see a leak
    assert not node.hub._mailboxes  # noqa: SLF001
