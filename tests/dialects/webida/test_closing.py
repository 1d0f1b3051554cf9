"""The Socket.IO channel of generation A: how a session is closed, and what others do to it."""

from typing import Final

import httpx2
import pytest
from msgspec.structs import replace
from websockets.exceptions import InvalidStatus

from gateway.auth.principals import Scope
from gateway.core.command import CancelClose, Connect, Kick
from gateway.core.document import Message, Recipients
from gateway.core.errors import StoreUnavailable
from gateway.core.model import Closure, State
from gateway.live.replica import Tombstone
from tests.dialects.webida.client import keeping_alive
from tests.dialects.webida.conftest import Webida, add_user, away, close, look, outcome
from tests.nodes import connection, holding
from tests.support import eventually

ALERT: Final = "session will be closed by administrator"


async def test_close_is_announced_and_waits(webida: Webida, http: httpx2.AsyncClient) -> None:
    """The client hears at once, each time the deadline moves; nobody comes in meanwhile."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    await close(http, token["sessionId"], 30)
    await close(http, token["sessionId"], 60)
    await client.hears(client.packet("2", ["closing", ALERT, 60]))

    assert client.events == [["closing", ALERT, 30], ["closing", ALERT, 60]]
    assert (await look(http, token["sessionId"]))["state"] == "CLOSING"
    second = await webida.connect(token["text"])
    assert await second.refused() == "session is closing"


async def test_client_that_leaves_early_ends_the_close(
    webida: Webida, http: httpx2.AsyncClient
) -> None:
    """Who has saved and goes does not keep the session waiting."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    await close(http, token["sessionId"], 60)
    await client.leave()

    await eventually(lambda: token["sessionId"] in webida.node.replica.gone)
    assert await outcome(webida, token["sessionId"]) == "left"


async def test_close_cuts_the_client_at_its_time(webida: Webida, http: httpx2.AsyncClient) -> None:
    """At the deadline the client is told to stay away, and cut."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    async with keeping_alive(client):
        await close(http, token["sessionId"], 1)

        assert await client.ended() == 4500
    assert client.is_dismissed
    assert token["sessionId"] in webida.node.replica.gone


async def test_close_now_is_not_announced(webida: Webida, http: httpx2.AsyncClient) -> None:
    """A close without a wait cuts at once."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    await close(http, token["sessionId"], 0)

    await client.ended()
    assert client.events == []
    assert client.is_dismissed


async def test_client_that_was_away_is_let_in_once(
    webida: Webida, http: httpx2.AsyncClient
) -> None:
    """A close that was asked for while the client was away is told when it comes back."""
    token = await webida.log_in()
    await (await webida.join(token["text"])).drop()
    await away(webida, token["sessionId"])
    await close(http, token["sessionId"], 60)
    until = (await look(http, token["sessionId"]))["willCloseAt"]
    client = await webida.join(token["text"])
    await eventually(lambda: client.events)

    assert client.events == [["closing", ALERT, 60]]
    assert (await look(http, token["sessionId"]))["willCloseAt"] == until
    await client.drop()
    await eventually(lambda: token["sessionId"] in webida.node.replica.gone)
    assert await outcome(webida, token["sessionId"]) == "lost"


async def test_close_that_is_called_off_is_told(webida: Webida, http: httpx2.AsyncClient) -> None:
    """Webida has no word for it, so the client hears an announcement."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    await close(http, token["sessionId"], 60)
    await webida.node.apply(token["sessionId"], CancelClose())

    said = ["announcement", "session will not be closed"]
    await client.hears(client.packet("2", said))
    assert (await look(http, token["sessionId"]))["state"] == "NORMAL"


async def test_own_session_is_closed_without_more_rights(webida: Webida) -> None:
    """A client that may only connect closes its own session."""
    add_user(webida, "ann", Scope.CONNECT)
    token = await webida.log_in("ann", "ann")
    client = await webida.join(token["text"])
    async with webida.http(token["text"]) as http:
        await close(http, token["sessionId"], 0)

    await client.ended()


# --- what others do


async def test_messages_are_announcements(webida: Webida) -> None:
    """What is said to a session, its workspace or all is announced; what is for others is not."""
    token = await webida.log_in()
    client = await webida.join(token["text"], workspaceId="ws-7")
    for to, topic, body in (
        (Recipients(session=token["sessionId"]), "news", "one"),
        (Recipients(workspace="ws-8"), "news", "not here"),
        (Recipients(), "neko:control/request", "not this"),
        (Recipients(workspace="ws-7"), "news", {"two": 2}),
        (Recipients(), "three", None),
    ):
        await webida.node.publish(Message(to=to, topic=topic, body=body))
    await client.hears(client.packet("2", ["announcement", "three"]))

    assert client.events == [
        ["announcement", "one"],
        ["announcement", {"two": 2}],
        ["announcement", "three"],
    ]


async def test_kicked_client_stays_away(webida: Webida) -> None:
    """A client that is kicked from elsewhere does not come back by itself; its session waits."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    await webida.node.apply(token["sessionId"], Kick())

    assert await client.ended() == 4501
    assert client.is_dismissed
    assert webida.session(token["sessionId"]).state is State.AWAY


async def test_displaced_client_stays_away(webida: Webida) -> None:
    """A client whose place is taken through another door is told to stay away."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    node = webida.node
    with holding(node, token["sessionId"], "c2"):
        await node.apply(token["sessionId"], Connect(connection=connection(node, "c2")))
        assert await client.ended() == 4505

    assert client.is_dismissed
    assert webida.session(token["sessionId"]).state is State.CONNECTED


async def test_client_of_a_node_that_goes_comes_back(webida: Webida) -> None:
    """A drained client is not told to stay away, so it comes back by itself, elsewhere."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    await webida.context.connections.drain(0)

    assert await client.ended() == 4001
    assert not client.is_dismissed
    with pytest.raises(InvalidStatus) as refused:
        await webida.connect(token["text"])
    assert refused.value.response.status_code == 503


async def test_client_that_others_ended_comes_back(webida: Webida) -> None:
    """A connection that another node gave up is ended here, and the client comes back."""
    token = await webida.log_in()
    client = await webida.join(token["text"])
    await webida.node.disconnect(token["sessionId"], client.opening["sid"], "server")

    assert await client.ended() == 4009
    assert not client.is_dismissed


async def test_news_that_was_missed_is_looked_up(webida: Webida) -> None:
    """When the node had to load again, each client makes sure that its session is still its own."""
    tokens = [await webida.log_in() for _ in range(3)]
    kept, closed, lost = [await webida.join(token["text"]) for token in tokens]
    replica = webida.node.replica
    for token in tokens[1:]:
        ended = replace(webida.session(token["sessionId"]), closed=Closure(at=1, outcome="closed"))
        replica.put_gone(Tombstone.of(ended))
    del replica.gone[tokens[2]["sessionId"]]
    webida.node.hub.restart("tested")

    assert (await closed.ended(), closed.is_dismissed) == (4500, True)
    assert (await lost.ended(), lost.is_dismissed) == (4009, False)
    await kept.say("2")
    await kept.hears("3")


async def test_store_that_is_away_makes_clients_come_back(
    webida: Webida, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that cannot be let in right now is not told to stay away."""

    async def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(webida.node, "open", fail)
    client = await webida.connect("ide")
    await client.ask()

    assert await client.ended() == 4008
    assert not client.is_dismissed
    assert [text[:2] for text in client.heard] == ["0{", "40"]


async def test_token_of_somebody_else_ends_its_socket_when_it_expires(webida: Webida) -> None:
    """A session's token that has an end is good on the socket until then, too."""
    client = await webida.join("ide")
    [line] = webida.context.connections._connections.values()  # noqa: SLF001
    line.expire_at(webida.wall() - 1, webida.wall)

    assert await client.ended() == 4005
