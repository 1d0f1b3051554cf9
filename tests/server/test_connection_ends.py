"""How the connection of a session ends, and what the record says of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace

from gateway.core.command import Connect, Disconnect
from gateway.core.model import Connection, Session
from gateway.node import Node
from gateway.settings import Settings
from tests.server.conftest import Gateway, serving
from tests.server.echo import frame, upgrade
from tests.server.talk import Talk, dial
from tests.support import eventually


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Gateway]:
    """A second node on the same data."""
    async with serving(replace(settings, node_name="node-b")) as found:
        yield found


def record(gateway: Gateway, session_id: str) -> Session:
    """Return what a node knows of a session."""
    return gateway.node.replica.sessions[session_id]


def new_connection(node: Node) -> Connection:
    """Return a connection that displaces another."""
    return Connection(id="newer", node=node.id, connected_at=0)


async def ended(gateway: Gateway, session_id: str, cause: str) -> Session:
    """Return the session once it is away, for this *cause*."""
    await eventually(lambda: record(gateway, session_id).state == "away")
    entries = await gateway.node.store.entries(0, 0, 1000)
    assert f'"cause":"{cause}"'.encode() in entries[-1][1]
    return record(gateway, session_id)


@pytest.mark.parametrize("code", [1000, 1001, 1005])
async def test_clean_close_leaves_the_session_away(gateway: Gateway, code: int) -> None:
    """A page that goes away, a close and a close without a code are clean: linger runs."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        if code == 1005:
            ann.socket.transport.write(b"\x88\x80\x00\x00\x00\x00")
            await ann.socket.wait_closed()
        else:
            await ann.socket.close(code)
        session = await ended(gateway, "one", "clean")
        assert session.linger_at is not None


@pytest.mark.parametrize("how", ["reset", "eof", "protocol error", "other code"])
async def test_any_other_end_is_lost(gateway: Gateway, how: str) -> None:
    """A connection that breaks, or is broken off, is lost: away, and linger runs."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        match how:
            case "reset":
                ann.drop()
            case "eof":
                ann.socket.transport.write_eof()
            case "protocol error":
                ann.socket.transport.write(b"\xf1\x80\x00\x00\x00\x00")
            case _:
                await ann.socket.close(3000)
        session = await ended(gateway, "one", "lost")
        assert session.linger_at is not None


async def test_leave_closes_at_once(gateway: Gateway) -> None:
    """A client that leaves is answered, closed 4500, and gone for good."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        assert (await ann.ask("leave"))["type"] == "ack"
        bye = await ann.bye()

        assert (bye["code"], bye["reason"]) == (4500, "left")
        reply = await http.get("/v1/sessions/one")
        assert reply.status_code == 410
        assert reply.json()["session"]["closed"]["outcome"] == "left"


async def test_kick_ends_the_socket_and_keeps_the_session(gateway: Gateway) -> None:
    """A kicked client gets 4501; its session is away."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        assert (await http.delete("/v1/sessions/one/connection")).status_code == 200

        assert (await ann.bye())["code"] == 4501
        assert record(gateway, "one").state == "away"


async def test_drain_sends_clients_elsewhere(gateway: Gateway, other: Gateway) -> None:
    """A draining node says when to come back, records ``server``, and takes nobody new in."""
    async with await dial(gateway, session="one") as ann:
        hello = await ann.hear("hello")
        gateway.node.is_draining = True
        await gateway.context.connections.drain(0.05)
        bye = await ann.bye()

        assert bye["code"] == 4001
        assert bye["retry_after_ms"] >= 250
        session = await ended(other, "one", "server")
        assert session.linger_at is not None
        assert session.disconnected_at is not None
        assert session.linger_at - session.disconnected_at >= 60_000
        async with await dial(other, token=None, session_token=hello["session_token"]) as back:
            assert (await back.hear("hello"))["session"]["id"] == "one"


async def test_shed_sends_clients_elsewhere(gateway: Gateway) -> None:
    """A node that lost its store for good says 4008."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        await gateway.context.connections.shed()

        assert (await ann.bye())["code"] == 4008


async def test_wrongly_ended_connection_attaches_again(gateway: Gateway, other: Gateway) -> None:
    """A client that another node took for dead stays connected, and does not notice."""
    async with await dial(gateway, session="one") as ann:
        connection = (await ann.hear("hello"))["session"]["connection"]["id"]
        await other.node.apply("one", Disconnect(connection=connection, cause="server"))
        await eventually(lambda: record(gateway, "one").is_connected)

        assert (await ann.ask("watch", key="m"))["type"] == "ack"


async def test_client_that_another_node_displaced_is_told_so(
    gateway: Gateway, other: Gateway
) -> None:
    """A socket whose session went to another node is displaced, though that client left again."""
    async with await dial(gateway, session="one") as ann:
        connection = (await ann.hear("hello"))["session"]["connection"]["id"]
        node = other.node
        await node.apply("one", Disconnect(connection=connection, cause="server"))
        await node.apply("one", Connect(connection=new_connection(node)))
        await node.apply("one", Disconnect(connection="newer", cause="lost"))

        assert (await ann.bye())["code"] == 4505
        assert record(gateway, "one").state == "away"


async def test_displacement_that_was_missed_is_found_out(
    settings: Settings, other: Gateway
) -> None:
    """A socket that missed the news finds out from the record, and is told 4505 as well."""
    async with (
        serving(replace(settings, heartbeat_s=0.1)) as gateway,
        await dial(gateway, session="one") as ann,
    ):
        await ann.hear("hello")
        await eventually(lambda: other.node.replica.sessions.get("one"))
        gateway.node.hub._mailboxes.clear()  # noqa: SLF001 - as if the news had been lost
        await other.node.apply("one", Connect(connection=new_connection(other.node)))

        assert (await ann.bye())["code"] == 4505


async def test_goodbye_waits_for_the_store(gateway: Gateway) -> None:
    """An end while nothing holds it any more leaves no ghost on this node."""
    talks: list[Talk] = [await dial(gateway) for _ in range(5)]
    for talk in talks:
        await talk.hear("hello")
        talk.drop()
    await eventually(lambda: gateway.context.connections.count == 0)
    await eventually(
        lambda: all(not one.is_connected for one in gateway.node.replica.sessions.values())
    )
    for talk in talks:
        await talk.socket.close()


@pytest.mark.parametrize(
    "said, outcome", [(["leave"], "left"), (["watch", "saving", "saved"], "saved")]
)
async def test_what_was_said_before_the_close_is_done(
    gateway: Gateway, said: list[str], outcome: str
) -> None:
    """A page that says goodbye and closes at once is heard, even if both come in one segment."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        if "saved" in said:
            await http.put("/v1/sessions/one/closing", json={"after_s": 60})
            await ann.hear("closing")
        protocol = ann.socket.protocol
        for what in said:
            protocol.send_text(json.dumps({"type": what, "key": "m"}).encode())
        protocol.send_close(1000)
        ann.socket.transport.write(b"".join(protocol.data_to_send()))
        await ann.socket.wait_closed()

        await eventually(lambda: "one" not in gateway.node.replica.sessions)
        closed = (await http.get("/v1/sessions/one")).json()["session"]["closed"]
        assert closed["outcome"] == outcome


async def test_what_was_said_before_the_hello_is_done(gateway: Gateway) -> None:
    """The same holds for who says it with the handshake, and has left before it is greeted."""
    said = frame(1, b'{"type":"leave"}') + frame(8, b"\x03\xe8")
    port = urlsplit(gateway.url).port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        path = "/v1/connect?session=one"
        writer.write(upgrade(path, authorization=f"Bearer {gateway.token}") + said)
        await eventually(lambda: "one" in gateway.node.replica.gone)

    async with gateway.http() as http:
        closed = (await http.get("/v1/sessions/one")).json()["session"]["closed"]
    assert closed["outcome"] == "left"
    await eventually(lambda: gateway.context.connections.count == 0)
