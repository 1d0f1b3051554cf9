"""Opening: a client of each product that opens a session, and hears of its end in its own words.

Not here: what others see and hear of it (``looking``, ``hearing``).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.dialects.house import ACCOUNT, ITEM, NAME, PASSWORD, PREFIXES, WORKSPACE, House
from tests.dialects.neko.client import Neko
from tests.dialects.webida.client import Client
from tests.server.talk import dial
from tests.support import eventually

Json = Any


@dataclass(frozen=True)
class End:
    """How a session was closed: why, as everybody is told, and whether its client was warned."""

    reason: str | None = None
    warns: bool = False


@dataclass(frozen=True)
class Opened:
    """A session that a client of some product opened.

    Args:
        id: As all but neko and MaxScale call it.
        facts: What must be known of it everywhere, in the words of :data:`LOOKS`.
        ended: Waits until its client has heard of its end, in the product's own words.
        warned: Waits until its client has heard that it will close; ``None``: it has no ears.
        lose: Loses the client's connection; ``None``: it has none.
        neko_id: As neko calls it.
        leave: Lets the client end the session itself; ``None``: it has no way to.
    """

    id: str
    facts: Mapping[str, object]
    ended: Callable[[End], Awaitable[None]]
    warned: Callable[[], Awaitable[None]] | None = None
    lose: Callable[[], object] | None = None
    neko_id: str = ""
    leave: Callable[[], Awaitable[object]] | None = None

    @property
    def number(self) -> object:
        """As MaxScale and Plex call it."""
        return self.facts["number"]


async def _opened(
    house: House,
    session_id: str,
    ended: Callable[[End], Awaitable[None]],
    *,
    warned: Callable[[], Awaitable[None]] | None = None,
    lose: Callable[[], object] | None = None,
    neko_id: str | None = None,
    leave: Callable[[], Awaitable[object]] | None = None,
    facts: Mapping[str, object] | None = None,
) -> Opened:
    has_socket = lose is not None
    session = house.node.replica.sessions[session_id]
    expected = {
        "id": session_id,
        "number": session.number,
        "neko_id": neko_id or session_id,
        "name": NAME,
        "account": ACCOUNT,
        "workspace": WORKSPACE,
        "service": None,
        "image": "session",  # for Gameye everything runs something
        "address": "127.0.0.1" if has_socket else None,
        "created_at": session.created_at,
        "began_at": session.connected_at if has_socket else session.created_at,
        "is_connected": has_socket,
        "is_watching": False,
        **(facts or {}),
    }
    return Opened(session_id, expected, ended, warned, lose, neko_id or session_id, leave)


@asynccontextmanager
async def native_socket(house: House) -> AsyncIterator[Opened]:
    """Our own client: the socket is the session."""
    async with await dial(house.gateway, token="ann", name=NAME) as talk:
        session = (await talk.hear("hello"))["session"]

        async def warned() -> None:
            assert (await talk.hear("closing"))["in_ms"] > 0

        async def ended(end: End) -> None:
            assert (await talk.bye())["code"] == 4500
            assert ("closing" in [message["type"] for message in talk.heard]) == end.warns

        yield await _opened(
            *(house, session["id"], ended),
            warned=warned,
            lose=talk.drop,
            leave=lambda: talk.say("leave"),
        )


@asynccontextmanager
async def native_post(house: House) -> AsyncIterator[Opened]:
    """A program that opens a session for somebody."""
    body = {"name": NAME, "account": ACCOUNT, "workspace": WORKSPACE}
    answer = await house.ask("native", "POST", "/v1/sessions", token="ann", json=body)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    session = found.get("session", found)

    async def ended(end: End) -> None:
        late = await house.ask("native", "GET", f"/v1/sessions/{session['id']}", token="ann")
        assert late.status_code == 410
        assert late.json()["session"]["closed"].get("reason") == end.reason
        token = {"session": session["id"], "session_token": found["session_token"]}
        async with await dial(house.gateway, token=None, params=token) as talk:
            assert (await talk.bye())["code"] == 4511

    yield await _opened(house, session["id"], ended)


@asynccontextmanager
async def neko(house: House) -> AsyncIterator[Opened]:
    """Somebody who logs in and connects."""
    client = Neko(house.gateway.url + PREFIXES["neko"])
    status, found = await client.post("/api/login", username="ann", password=PASSWORD)
    assert status == 200, found
    client.token = found["token"]
    session_id = found["token"].partition(".")[0]
    async with client.connected() as socket:

        async def ended(end: End) -> None:
            del end
            heard, code = await socket.ended()
            assert heard[-1] == ("system/disconnect", {"message": "session deleted"})
            assert code == 1006
            assert (await client.get("/api/whoami"))[0] == 401

        facts = {"service": "neko", "image": "neko"}
        yield await _opened(
            *(house, session_id, ended),
            lose=socket.abort,
            neko_id="ann",
            leave=lambda: client.post("/api/logout"),
            facts=facts,
        )


@asynccontextmanager
async def plex(house: House) -> AsyncIterator[Opened]:
    """A player without a socket that reports what it plays."""
    player = {
        "X-Plex-Client-Identifier": "dev-1",
        "X-Plex-Session-Identifier": "playback-1",
        "X-Plex-Device-Name": NAME,
    }
    what = {"ratingKey": "101", "key": ITEM, "time": 0, "duration": 90_000}

    async def report(state: str = "playing") -> Json:
        answer = await house.ask(
            *("plex", "GET", "/:/timeline"),
            token="ann",
            headers=player,
            params={**what, "state": state},
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["MediaContainer"]

    assert await report() == {"size": 0}
    container = (await house.read("plex", "/status/sessions"))["MediaContainer"]
    [entry] = container["Metadata"]

    async def ended(end: End) -> None:
        told = await report()
        assert told["terminationCode"] == 2006
        assert (end.reason or "Admin terminated playback.") in told["terminationText"]

    facts = {"is_watching": True, "player_address": "127.0.0.1"}
    yield await _opened(
        house, entry["Session"]["id"], ended, leave=lambda: report("stopped"), facts=facts
    )


@asynccontextmanager
async def webida(house: House) -> AsyncIterator[Opened]:
    """An IDE: logs in, and its socket makes the session."""
    given = {"loginId": "ann", "loginPassword": PASSWORD}
    login = await house.ask("webida", "POST", "/api/auth/login", json=given)
    assert login.status_code == 200, login.text
    token = login.json()
    client = await Client.open(house.gateway.url, "A", token["text"])
    await client.join()

    async def warned() -> None:
        [event] = await eventually(lambda: client.events)
        assert event[0] == "closing"
        assert event[2] > 0

    async def ended(end: End) -> None:
        assert await client.ended() == 4500
        assert client.is_dismissed
        assert [event[0] for event in client.events] == ["closing"] * end.warns

    try:
        yield await _opened(
            *(house, token["sessionId"], ended),
            warned=warned,
            lose=client.socket.transport.abort,
            facts={"image": "Webida"},
        )
    finally:
        await client.drop()


@asynccontextmanager
async def gameye(house: House) -> AsyncIterator[Opened]:
    """A match maker that starts a server."""
    body = {"location": "eu-west-1", "image": "arena", "labels": {"mode": "duel"}}
    answer = await house.ask("gameye", "POST", "/session", token="ann", json=body)
    assert answer.status_code == 201, answer.text
    session_id = answer.json()["id"]

    async def ended(end: End) -> None:
        del end
        again = await house.ask("gameye", "DELETE", f"/session/{session_id}", token="ann")
        assert (again.status_code, again.json()["code"]) == (409, "CONFLICT")
        found = await house.read("gameye", f"/session/{session_id}", token="ann")
        assert found["status"] == "exited"

    facts = {"name": "arena", "service": "arena", "image": "arena", "location": "eu-west-1"}
    yield await _opened(house, session_id, ended, facts=facts)


OPENERS: Final[dict[str, Callable[[House], AbstractAsyncContextManager[Opened]]]] = {
    "native-socket": native_socket,
    "native-post": native_post,
    "neko": neko,
    "plex": plex,
    "webida": webida,
    "gameye": gameye,
}
"""Every door that opens sessions; MaxScale's only looks at them."""
