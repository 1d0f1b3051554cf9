"""Several nodes are one neko: whoever is told something may be on another one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from gateway.core.errors import Unavailable
from gateway.core.model import Connection
from tests.dialects.neko.conftest import Gateway, Start
from tests.support import S, eventually

Two = tuple[Gateway, Gateway]


@pytest_asyncio.fixture(params=[1, 4])
async def two(start: Start, request: pytest.FixtureRequest) -> AsyncIterator[Two]:
    """Two nodes of one gateway, over data in one part and in several."""
    partitions = request.param
    async with start("a", partitions=partitions) as one, start("b", partitions=partitions) as other:
        yield one, other


async def seen(gateway: Gateway, name: str) -> None:
    """Wait until a node knows a session."""
    await eventually(
        lambda: any(known.name == name for known in gateway.node.replica.sessions.values())
    )


async def test_what_one_node_does_is_heard_on_the_other(two: Two) -> None:
    """Control, requests for it, messages and settings reach members on another node."""
    here, there = two
    root, mia, bo = await here.login("root"), await here.login("mia"), await there.login("bo")
    await seen(there, "mia")

    async with bo.connected() as far, mia.connected() as near:
        assert (await far.event("session/state"))["id"] == "mia"
        await far.say("control/request", {})
        for socket in (near, far):
            host = await socket.event("control/host")
            assert host == {"id": "bo", "has_host": True, "host_id": "bo"}
        await near.say("control/request", {})
        assert await far.event("control/request") == {"id": "mia"}
        await near.say("send/unicast", {"receiver": "bo", "subject": "s", "body": [1]})
        said = await far.event("send/unicast")
        assert said == {"sender": "mia", "receiver": "bo", "subject": "s", "body": [1]}
        await far.say("send/broadcast", {"subject": "s", "body": None})
        assert (await near.event("send/broadcast"))["sender"] == "bo"
        assert (await root.post("/api/room/settings", implicit_hosting=True))[0] == 204
        for socket in (near, far):
            settings = await socket.event("system/settings")
            assert (settings["id"], settings["implicit_hosting"]) == ("root", True)
        assert (await root.post("/api/sessions/bo/disconnect"))[0] == 204
        assert (await far.until("system/disconnect"))[-1][1]["message"] == ("session disconnected")
        assert await near.event("control/host") == {"id": "bo", "has_host": False}
        assert not (await near.event("session/state"))["is_connected"]


async def test_token_is_good_on_every_node_at_once(two: Two) -> None:
    """Whoever logged in on one node is known on the other, and takes over its socket there."""
    here, there = two
    mia = await here.login("mia")

    async with mia.connected() as old:
        mia.url = there.url
        assert (await mia.get("/api/whoami"))[1]["state"]["is_connected"]
        async with mia.connected() as new:
            assert await old.ended() == (
                [("system/disconnect", {"message": "connection replaced"})],
                1006,
            )
            assert await new.is_quiet()
            assert (await mia.get("/api/stats"))[1]["total_users"] == 1


async def test_host_that_left_is_forgotten_by_nodes_that_start_later(start: Start) -> None:
    """Control that was lost is lost for good: no node gives it back to a host that returns."""
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(start("a"))
        mia = await here.login("mia")
        async with mia.connected() as socket:
            await socket.say("control/request", {})
            await socket.event("control/host")
            await socket.connection.close(1000)
        await eventually(lambda: "host" not in (here.node.documents.get("neko.room", "") or {}))
        there = await stack.enter_async_context(start("b"))
        mia.url = there.url
        async with mia.socket() as again:
            assert not (await again.event("system/init"))["control_host"]["has_host"]


async def test_control_outlives_a_restart_of_every_node(start: Start) -> None:
    """A host within its grace still has control when the gateway comes back."""
    async with start("a") as here:
        mia = await here.login("mia")
        async with mia.connected() as socket:
            await socket.say("control/request", {})
            await socket.event("control/host")
            session = await here.node.find((mia.token or "").partition(".")[0])
            assert session.connection is not None
            await here.node.disconnect(session.id, session.connection.id, "server")
    async with start("b") as there:
        mia.url = there.url
        async with mia.socket() as again:
            assert (await again.event("system/init"))["control_host"]["host_id"] == "mia"


async def test_node_that_goes_sends_its_clients_to_the_other_without_a_word(two: Two) -> None:
    """While another node stays a draining one cuts its clients; they are back within the grace."""
    here, there = two
    mia, bo = await here.login("mia"), await there.login("bo")
    await seen(there, "mia")
    await eventually(lambda: len(here.node.lease.live) > 1 or here.node.lease.renew())

    async with bo.connected() as watcher:
        async with mia.connected() as socket:
            await watcher.event("session/state")
            await here.context.connections.drain(0.01 * S)
            assert await socket.ended() == ([], 1006)
            refused = await mia.send("GET", "/api/ws")
            assert refused.status_code == 400
        mia.url = there.url
        async with mia.connected():
            assert (await watcher.event("session/state"))["is_connected"]
            assert await watcher.is_quiet()


async def test_last_node_says_farewell(gateway: Gateway) -> None:
    """When the last node goes every client is told so, and its session is kept."""
    mia = await gateway.login("mia")

    async with mia.connected() as socket:
        await gateway.context.connections.drain(0.01 * S)
        assert await socket.ended() == (
            [("system/disconnect", {"message": "connection shutdown"})],
            1006,
        )
    assert (await mia.get("/api/whoami"))[0] == 200


async def test_connection_that_others_ended_is_cut_without_a_word(gateway: Gateway) -> None:
    """A client whose node was thought dead is cut, so that it comes back by itself."""
    mia = await gateway.login("mia")

    async with mia.connected() as socket:
        session = await gateway.node.find((mia.token or "").partition(".")[0])
        assert session.connection is not None
        await gateway.node.disconnect(session.id, session.connection.id, "server")
        assert (await socket.ended())[1] == 1006


async def test_lost_history_cuts_clients_so_that_they_start_over(gateway: Gateway) -> None:
    """When this node's picture is made anew, clients are cut and get a new one."""
    mia = await gateway.login("mia")

    async with mia.connected() as socket:
        gateway.node.hub.restart("history lost")
        assert await socket.ended() == ([], 1006)
    async with mia.connected() as again:
        assert await again.is_quiet()


async def test_store_that_is_away_ends_a_new_socket_without_a_word(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that cannot be attached right now is cut, so that it tries again."""
    mia = await gateway.login("mia")

    async def away(*_: object, **__: object) -> Connection:
        raise Unavailable

    monkeypatch.setattr(gateway.node, "apply", away)
    async with mia.socket() as socket:
        assert await socket.ended() == ([], 1006)
