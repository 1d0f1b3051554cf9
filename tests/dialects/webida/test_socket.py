"""The Socket.IO channel of generation A: how a client comes in, and what it may say."""

import asyncio
import logging
from typing import Any, Final

import httpx2
import pytest
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.auth.principals import Scope
from gateway.connections.lifecycle import ServerClose
from gateway.logs.formats import Json
from gateway.settings import Settings
from tests.dialects.webida.client import Client, keeping_alive
from tests.dialects.webida.conftest import (
    ADMIN,
    PAGE,
    Webida,
    add_user,
    away,
    look,
    serving,
)
from tests.nodes import blank
from tests.support import eventually

DUPLICATE: Final = "session should have only 1 connection"


async def test_socket_makes_the_session_of_its_token(
    webida: Webida, http: httpx2.AsyncClient
) -> None:
    """The session has the id of the token, and what is known of its client."""
    add_user(webida, "ann", Scope.CONNECT, workspace="ws-1")
    token = await webida.log_in("ann", "ann")
    client = await webida.join(token["text"])
    session = webida.session(token["sessionId"])

    assert client.opening == {
        "sid": session.connection.id if session.connection else None,
        "upgrades": [],
        "pingInterval": 15_000,
        "pingTimeout": 5_000,
    }
    assert (session.name, session.account, session.workspace) == ("ann", "ann", "ws-1")
    assert session.linger_ms == 150_000
    shown = await look(http, session.id)
    assert (shown["state"], shown["name"], shown["clientAddress"]) == ("NORMAL", "ann", "127.0.0.1")
    assert (shown["workspaceId"], shown["disconnectedAt"]) == ("ws-1", None)
    async with webida.http(token["text"]) as own:
        assert await look(own, session.id) == shown


async def test_workspace_is_chosen_at_the_socket(webida: Webida) -> None:
    """Who may see a workspace may come into it; a restricted token into its own only."""
    add_user(webida, "ann", Scope.CONNECT)
    token = await webida.log_in()
    await webida.join(token["text"], workspaceId="ws-7")
    assert webida.session(token["sessionId"]).workspace == "ws-7"

    other = await webida.log_in("ann", "ann")
    client = await webida.connect(other["text"], workspaceId="ws-7")
    assert await client.refused() == "insufficient access rights"
    assert await (await webida.connect("ws-2", workspaceId="ws-7")).refused() == (
        "insufficient access rights"
    )


async def test_client_without_a_right_is_refused(webida: Webida) -> None:
    """Who may not come in hears why, and is told to stay away."""
    for token, why in (
        (None, "need token"),
        ("", "need token"),
        ("wrong", "invalid token"),
        ("nothing", "insufficient access rights"),
        ("reader", "insufficient access rights"),
    ):
        assert await (await webida.connect(token)).refused() == why

    assert webida.node.replica.sessions == {}


async def test_master_and_expired_tokens_open_nothing(webida: Webida) -> None:
    """Only an ACCESS token that is still good makes a session."""
    token = await webida.log_in()
    async with webida.http(token["text"]) as http:
        master = (await http.post("/auth/token", params={"type": "MASTER"})).json()["text"]

    assert await (await webida.connect(master)).refused() == "invalid token type"
    webida.wall.pass_s(606)
    assert await (await webida.connect(token["text"])).refused() == "invalid token"


async def test_other_tokens_of_the_gateway_are_good_too(webida: Webida) -> None:
    """A key makes a session with an id of its own, or with one that its bearer may choose."""
    await webida.join("ann")
    await webida.join("ide", sessionId="mine", workspaceId="ws-7")
    names = {session.name: session for session in webida.node.replica.sessions.values()}

    assert (names["ann"].account, names["ann"].workspace) == ("ann", "ws-1")
    assert (names["ide"].id, names["ide"].workspace) == ("mine", "ws-7")
    for query in ({"sessionId": "mine"}, {"sessionId": "other"}):
        client = await webida.connect("ann", **query)
        assert await client.refused() == "insufficient access rights"
    for query in ({"sessionId": "a b"}, {"workspaceId": "\x00"}):
        client = await webida.connect("ide", **query)
        assert await client.refused() == f'"{next(iter(query))}" is not acceptable'


async def test_session_of_another_door_is_come_into(webida: Webida) -> None:
    """Who may write takes a session that was opened elsewhere, in its own workspace only."""
    await webida.node.open(blank("posted", workspace="ws-1"))
    wrong = await webida.connect("ide", sessionId="posted", workspaceId="ws-2")
    assert await wrong.refused() == "insufficient access rights"
    await webida.join("ide", sessionId="posted")

    assert webida.session("posted").is_connected


async def test_client_that_asks_for_nothing_is_sent_away(
    webida: Webida, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that never asks for its namespace is not kept."""
    monkeypatch.setattr("gateway.dialects.webida.session_socket.JOIN_WITHIN_S", 0.05)
    client = await webida.connect(ADMIN)

    await client.ended()
    assert client.heard[1:] == ["40", "41/session,"]


async def test_room_for_sessions_is_bounded(settings: Settings) -> None:
    """When there are as many sessions as may be, no client makes another."""
    async with serving(replace(settings, max_sessions=1)) as webida:
        await webida.node.open(blank("a"))

        assert await (await webida.connect("ide")).refused() == "too many sessions"


async def test_of_two_that_come_at_once_one_is_let_in(webida: Webida) -> None:
    """Two clients of one session that open it at the same time are one and one too many."""
    token = await webida.log_in()
    both = [await webida.connect(token["text"]) for _ in range(2)]
    async with keeping_alive(*both):
        await asyncio.gather(*(client.ask() for client in both))
        await eventually(lambda: sorted(map(state_of, both)) == ["in", "refused"] or None)


def state_of(client: Client) -> str:
    """Return what a client has heard of its coming in."""
    if client.packet("4", DUPLICATE) in client.heard:
        return "refused"
    return "in" if client.packet("0") in client.heard else "waiting"


# --- bad input


async def test_nonsense_ends_the_connection(webida: Webida) -> None:
    """What is no packet ends the connection; nothing else changes."""
    for text in ("x", "42{", "", "4"):
        client = await webida.join("ide")
        await client.say(text)
        assert await client.ended() == 4503


async def test_events_and_binary_data_mean_nothing(webida: Webida) -> None:
    """Whatever a client emits is taken in and changes nothing."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    before = webida.session(token["sessionId"])
    await client.say('42/session,["save",{"a":1}]')
    await client.say('451-/session,["blob",{"_placeholder":true,"num":0}]')
    await client.socket.send(b"\x04abc")
    await client.say("2x")
    await client.hears("3x")

    assert webida.session(token["sessionId"]) is before
    assert token["sessionId"] in webida.node.replica.active


async def test_flood_is_cut(webida: Webida) -> None:
    """A client that talks too much is cut, and may come back."""
    client = await webida.join("ide")
    for _ in range(100):
        await client.say("2")

    assert await client.ended() == 4006


async def test_handshake_of_another_kind_is_refused(webida: Webida) -> None:
    """Who speaks another protocol is told so in the words of Engine.IO."""
    url = webida.url.replace("http", "ws", 1)
    for query, said in (
        ("EIO=3&transport=polling", b'{"code":0,"message":"Transport unknown"}'),
        ("EIO=3&transport=websocket&sid=x", b'{"code":1,"message":"Session ID unknown"}'),
        ("EIO=4&transport=websocket", b'{"code":5,"message":"Unsupported protocol version"}'),
        ("", b'{"code":5,"message":"Unsupported protocol version"}'),
        ("a=%FF", b'{"code":"BadRequestError","message":"the query cannot be read"}'),
    ):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{url}/socket.io/?{query}")
        assert (refused.value.response.status_code, refused.value.response.body) == (400, said)


async def test_polling_is_refused(webida: Webida) -> None:
    """A client that begins with long polling is told that there is none."""
    async with httpx2.AsyncClient(base_url=f"{webida.url}/webida") as http:
        for method, query, code in (
            ("GET", "EIO=3&transport=polling", 0),
            ("GET", "EIO=3&transport=websocket", 3),
            ("GET", "a=%FF", 3),
            ("POST", "EIO=3&transport=polling&sid=x", 2),
        ):
            answer = await http.request(method, f"/socket.io/?{query}")
            assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_page_of_another_origin_is_refused(webida: Webida) -> None:
    """A browser's page opens a socket only if its origin is listed."""
    url = webida.url.replace("http", "ws", 1) + "/socket.io/?EIO=3&transport=websocket"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, origin="https://example.net")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403

    async with connect(url, origin=PAGE) as socket:  # type: ignore[arg-type]
        assert str(await socket.recv()).startswith("0{")


async def test_tokens_are_not_logged(webida: Webida, caplog: pytest.LogCaptureFixture) -> None:
    """The address of a socket holds its token, so it is written nowhere."""
    caplog.set_level(logging.INFO)
    token = (await webida.log_in())["text"]
    client = await webida.join(token)
    await client.leave()
    await client.ended()
    await eventually(lambda: "a connection ended" in caplog.messages)

    assert [line for record in caplog.records if token in (line := Json().format(record))] == []


async def test_client_that_leaves_while_it_comes_in_leaves_no_session_behind(
    webida: Webida, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that goes while its session is written is away in it, not there."""
    token = await webida.log_in()
    opening, may_open = asyncio.Event(), asyncio.Event()
    really = webida.node.open

    async def slowly(session: Any) -> Any:  # noqa: ANN401
        opening.set()
        await may_open.wait()
        return await really(session)

    monkeypatch.setattr(webida.node, "open", slowly)
    client = await webida.connect(token["text"])
    await client.ask()
    await opening.wait()
    await client.drop()
    may_open.set()

    await eventually(lambda: token["sessionId"] in webida.node.replica.sessions)
    await away(webida, token["sessionId"])


async def test_goodbye_of_any_code_ends_the_connection(webida: Webida) -> None:
    """A close with a code that we do not know is final."""
    client = await webida.join("ide")
    [line] = webida.context.connections._connections.values()  # noqa: SLF001
    line.end(ServerClose(4999, "other"))

    assert await client.ended() == 4999
    assert client.is_dismissed
