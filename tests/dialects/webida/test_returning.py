"""The Socket.IO channel of generation A: how a client is lost and comes back."""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Final

import httpx2
import pytest
from msgspec.structs import replace
from websockets.asyncio.client import connect

from gateway.core.command import CancelClose, Close
from gateway.core.errors import AlreadyConnected
from gateway.core.model import Session, State
from gateway.realtime.contest import RACE_S, attach_when_free
from gateway.settings import Settings
from tests.dialects.webida.client import Client, keeping_alive
from tests.dialects.webida.conftest import ADMIN, Webida, away, close, contested, look, serving
from tests.nodes import blank, connection, holding
from tests.support import MS, S, eventually

ALERT: Final = "session will be closed by administrator"
DUPLICATE: Final = "session should have only 1 connection"


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    """Find out soon who is dead."""
    return replace(settings, heartbeat_s=200 * MS, pong_s=200 * MS)


async def test_lost_client_comes_back_to_its_session(
    webida: Webida, http: httpx2.AsyncClient
) -> None:
    """A session waits for its client: the same id, the same beginning, no trace of the loss."""
    token = await webida.log_in()
    first = await webida.join(token["text"])
    before = await look(http, token["sessionId"])
    await first.drop()
    await away(webida, token["sessionId"])
    lost = await look(http, token["sessionId"])
    session = webida.session(token["sessionId"])
    await webida.join(token["text"])

    assert lost["state"] == "LOSING"
    assert (session.linger_at or 0) - (session.disconnected_at or 0) == 150_000
    assert lost["willLoseAt"] > lost["disconnectedAt"] >= lost["connectedAt"]
    assert lost["clientAddress"] == before["clientAddress"]
    assert await look(http, token["sessionId"]) == before


async def test_client_that_leaves_may_come_back_too(webida: Webida) -> None:
    """Leaving is a loss like any other: a page that is reloaded says the same."""
    token = await webida.log_in()
    await (await webida.join(token["text"])).leave()
    await away(webida, token["sessionId"])
    await webida.join(token["text"])

    assert webida.session(token["sessionId"]).state is State.CONNECTED


async def test_expired_token_still_comes_back(webida: Webida) -> None:
    """A client presents the token it began with, however long that was ago."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    webida.wall.pass_s(86_400)
    await client.drop()
    await away(webida, token["sessionId"])
    await webida.join(token["text"])

    async with webida.http(token["text"]) as http:
        assert (await http.get("/sessions")).status_code == 401


async def test_silent_client_is_lost(impatient: Settings) -> None:
    """Who says nothing for the time of a ping and its answer is gone."""
    async with serving(impatient) as webida:
        token = await webida.log_in()
        client = await webida.join(token["text"])

        assert await client.ended() == 4003
        assert not client.is_dismissed
        await away(webida, token["sessionId"])


async def disconnect_and_close(client: Client) -> None:
    """End as Socket.IO's ``close()`` does."""
    await client.leave()


async def disconnect(client: Client) -> None:
    """Leave the namespace; the connection stays."""
    await client.say("41/session")


async def close_engine(client: Client) -> None:
    """Close by a packet of Engine.IO."""
    await client.say("1")


async def close_without_a_code(client: Client) -> None:
    """Close by a frame that holds nothing, as a browser does."""
    client.socket.protocol.send_close()
    client.socket.transport.write(b"".join(client.socket.protocol.data_to_send()))


async def close_with_a_code(client: Client) -> None:
    """Close by a frame of the WebSocket."""
    await client.socket.close(1001)


async def end_the_stream(client: Client) -> None:
    """Close one's side of the connection without any frame."""
    client.socket.transport.write_eof()


async def break_off(client: Client) -> None:
    """Reset the connection."""
    client.socket.transport.abort()


ENDS: Final = (
    *(disconnect_and_close, disconnect, close_engine, close_without_a_code),
    *(close_with_a_code, end_the_stream, break_off),
)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("order", ["newcomer asks first", "old one ends first", "while it waits"])
async def test_second_client_comes_in_when_the_first_one_goes(
    webida: Webida, end: Callable[[Client], Awaitable[None]], order: str
) -> None:
    """Of two clients that race the second is let in once the first has gone, however it went."""
    token = await webida.log_in()
    first = await webida.join(token["text"])
    second = await webida.connect(token["text"])
    match order:
        case "newcomer asks first":
            await second.ask()
            await end(first)
        case "old one ends first":
            await end(first)
            await second.ask()
        case _:
            await second.ask()
            await contested(webida, token["sessionId"])
            await end(first)
    await second.hears(second.packet("0"))

    held = webida.session(token["sessionId"]).connection
    assert held is not None
    assert held.id == second.opening["sid"]


async def test_refusal_comes_soon(webida: Webida) -> None:
    """A second client need not wait for the first one's next ping to hear that it lives."""
    token = await webida.log_in()
    await webida.join(token["text"])
    second = await webida.connect(token["text"])
    before_s = time.monotonic()

    assert await second.refused() == DUPLICATE
    assert RACE_S <= time.monotonic() - before_s < RACE_S + S


async def test_refusal_comes_soon_from_another_node(webida: Webida, settings: Settings) -> None:
    """A first client on another node is asked just the same; when it goes, the second comes in."""
    token = await webida.log_in()
    first = await webida.join(token["text"])
    async with serving(replace(settings, node_name="node-b")) as other:
        second = await other.connect(token["text"])
        before_s = time.monotonic()
        assert await second.refused() == DUPLICATE
        assert time.monotonic() - before_s < RACE_S + S
        third = await other.connect(token["text"])
        await third.ask()
        await contested(webida, token["sessionId"])
        await first.leave()
        await third.hears(third.packet("0"))


async def test_client_of_the_native_api_is_asked_too(webida: Webida) -> None:
    """A first client at another door answers like any other, and hears nothing of the question."""
    url = f"{webida.url.replace('http', 'ws', 1)}/gateway/v1/connect?token={ADMIN}&session=shared"
    async with connect(url) as native:
        assert json.loads(await native.recv())["type"] == "hello"
        second = await webida.connect("ide", sessionId="shared")
        assert await second.refused() == DUPLICATE
        await native.send('{"type":"update","ref":"1","changes":{"name":"x"}}')
        assert json.loads(await native.recv())["type"] == "ack"


async def test_refusal_that_no_node_can_explain_ends(webida: Webida) -> None:
    """Who is refused because of a connection that this node never hears of is not kept for ever."""
    session = await webida.node.open(blank("odd"))
    asked: list[float] = []

    async def attach() -> Session:
        asked.append(time.monotonic())
        raise AlreadyConnected

    with pytest.raises(AlreadyConnected):
        await attach_when_free(webida.node, session, attach, 50 * MS)
    assert 1 < len(asked) < 25


async def test_client_that_answers_no_ping_gives_way(settings: Settings) -> None:
    """A first client whose network has gone is asked at once, not when its next ping is due."""
    async with serving(replace(settings, pong_s=300 * MS)) as webida:
        token = await webida.log_in()
        first = await webida.join(token["text"])
        first.socket.transport.pause_reading()
        second = await webida.connect(token["text"])
        await second.join()

        held = webida.session(token["sessionId"]).connection
        assert held is not None
        assert held.id == second.opening["sid"]


async def test_second_client_is_refused_when_the_first_one_speaks(webida: Webida) -> None:
    """Of two clients of one session the first one stays."""
    token = await webida.log_in()
    first = await webida.join(token["text"])
    second = await webida.connect(token["text"])
    async with keeping_alive(first, second):
        assert await second.refused() == DUPLICATE

    held = webida.session(token["sessionId"]).connection
    assert held is not None
    assert held.id == first.opening["sid"]


async def test_second_client_waits_for_the_first_to_be_found_dead(impatient: Settings) -> None:
    """A client whose network changed is let in as soon as its old connection is known dead."""
    async with serving(impatient) as webida:
        token = await webida.log_in()
        first = await webida.join(token["text"])
        first.socket.transport.pause_reading()  # it neither answers nor speaks again
        second = await webida.connect(token["text"])
        async with keeping_alive(second):
            await second.join()

        held = webida.session(token["sessionId"]).connection
        assert held is not None
        assert held.id == second.opening["sid"]


async def test_second_client_is_refused_when_the_first_one_is_elsewhere(
    impatient: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first client on another node has as much time to be found dead, and no more."""
    monkeypatch.setattr("gateway.dialects.webida.session_socket.SLACK_S", 0.1)
    async with serving(impatient) as webida:
        token = await webida.log_in()
        node, session_id = webida.node, token["sessionId"]
        with holding(node, session_id, "elsewhere"):
            await node.open(
                blank(session_id, account="admin", connection=connection(node, "elsewhere"))
            )
            second = await webida.connect(token["text"])
            async with keeping_alive(second):
                assert await second.refused() == DUPLICATE


async def test_closed_session_is_not_come_back_to(webida: Webida) -> None:
    """A session that is closed is closed for good; a renewed token has another one."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    await webida.node.apply(token["sessionId"], Close())
    assert await client.ended() == 4500
    assert client.is_dismissed

    again = await webida.connect(token["text"])
    assert await again.refused() == "session is closed"
    stranger = await webida.connect("ide", sessionId=token["sessionId"])
    assert await stranger.refused() == "insufficient access rights"
    async with webida.http(token["text"]) as http:
        newer = (await http.post("/auth/token", params={"type": "ACCESS"})).json()
    assert newer["sessionId"] != token["sessionId"]
    await webida.join(newer["text"])


async def test_session_is_the_same_on_every_node(
    webida: Webida, settings: Settings, http: httpx2.AsyncClient
) -> None:
    """A login on one node is good on another; so is a close, and a client that comes back."""
    token = await webida.log_in()
    async with serving(replace(settings, node_name="node-b")) as other:
        client = await other.join(token["text"])
        async with keeping_alive(client):
            await close(http, token["sessionId"], 60)
            await client.hears(client.packet("2", ["closing", ALERT, 60]))
        await webida.node.apply(token["sessionId"], CancelClose())
        await client.drop()
        await away(webida, token["sessionId"])
        await webida.join(token["text"])
        await eventually(lambda: other.session(token["sessionId"]).is_connected)
