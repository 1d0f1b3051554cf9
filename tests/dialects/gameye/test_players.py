"""Players over Gameye's paths: who joins, who leaves, and who counts them."""

from typing import Any

import httpx2
import pytest

from gateway.core.command import Close
from gateway.core.model import Session
from gateway.dialects.gameye import endpoints_players as players
from tests.dialects.gameye.conftest import Served, begin, listed, stop_and_wait


async def join(http: httpx2.AsyncClient, session_id: str, *names: str) -> dict[str, Any]:
    """Let players in and return the answer."""
    body = {"session": session_id, "players": names}
    answer = await http.put("/session/player/join", json=body)
    assert answer.status_code == 200, answer.text
    roster: dict[str, Any] = answer.json()
    return roster


async def leave(http: httpx2.AsyncClient, **body: object) -> httpx2.Response:
    """Let players go: a DELETE with a body."""
    return await http.request("DELETE", "/session/player/leave", json=body)


async def test_join_answers_the_full_roster(http: httpx2.AsyncClient) -> None:
    """After a join ``count`` and ``players`` are all who are in, however often one joins."""
    session_id = await begin(http)

    assert await join(http, session_id, "ana", "bo") == {"count": 2, "players": ["ana", "bo"]}
    assert await join(http, session_id, "cy", "ana") == {"count": 3, "players": ["ana", "bo", "cy"]}
    assert (await http.get("/session")).json()["sessions"][0]["playerCount"] == 3


async def test_leave_needs_no_session(http: httpx2.AsyncClient) -> None:
    """Players leave every session they are in; the answer has who left and how many remain."""
    first, second, third = [await begin(http) for _ in range(3)]
    await join(http, first, "ana", "bo")
    await join(http, second, "bo", "cy", "di")
    await join(http, third, "eve")

    answer = await leave(http, players=["bo", "bo", "nobody"])
    assert (answer.status_code, answer.json()) == (200, {"count": 3, "players": ["bo"]})
    assert await listed(http, "?playerCount[gt]=1") == [second]


async def test_leave_of_one_session_keeps_the_others(
    served: Served, http: httpx2.AsyncClient
) -> None:
    """A session in the body of a leave is honoured."""
    first, second = [await begin(http) for _ in range(2)]
    for session_id in (first, second):
        await join(http, session_id, "ana")

    answer = await leave(http, session=first, players=["ana"])
    assert (answer.status_code, answer.json()) == (200, {"count": 0, "players": ["ana"]})
    assert served.node.replica.sessions[second].members == ("ana",)


async def test_players_who_are_nowhere_are_not_found(http: httpx2.AsyncClient) -> None:
    """A leave of nobody who is in is 404."""
    session_id = await begin(http)

    for body in ({"session": session_id}, {}):
        answer = await leave(http, **body, players=["ana"])
        assert (answer.status_code, answer.json()["code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_nobody_joins_what_is_not_there(served: Served, http: httpx2.AsyncClient) -> None:
    """An unknown, ended or hidden session is 404 for players."""
    ended = await begin(http)
    await stop_and_wait(served, ended)
    hidden = await begin(http)

    for session_id in ("no-such-session", "a/b", ended):
        body = {"session": session_id, "players": ["ana"]}
        assert (await http.put("/session/player/join", json=body)).status_code == 404
        assert (await leave(http, **body)).status_code == 404
    async with served.http("red") as red:
        body = {"session": hidden, "players": ["ana"]}
        assert (await red.put("/session/player/join", json=body)).status_code == 404


async def test_leave_touches_only_sessions_of_the_token(
    served: Served, http: httpx2.AsyncClient
) -> None:
    """A player of the same name in another workspace stays."""
    async with served.http("red") as red, served.http("blue") as blue:
        theirs, ours = await begin(red), await begin(blue)
        await join(red, theirs, "ana")
        await join(blue, ours, "ana")
        assert (await leave(blue, players=["ana"])).json() == {"count": 0, "players": ["ana"]}

    assert await listed(http, "?playerCount[gt]=0") == [theirs]


async def test_more_players_than_a_session_holds_are_refused(http: httpx2.AsyncClient) -> None:
    """A session has at most 256 players; one more is 422 and changes nothing."""
    session_id = await begin(http)
    await join(http, session_id, *(f"p{number}" for number in range(256)))

    body = {"session": session_id, "players": ["one-more"]}
    answer = await http.put("/session/player/join", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert (await http.get(f"/session/{session_id}")).json()["players"]["joinedCount"] == 256


async def test_player_of_too_many_sessions_leaves_one_by_one(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leave that would be too many writes asks for the session, and changes nothing."""
    monkeypatch.setattr(players, "LEAVE_MAX", 1)
    first, second = [await begin(http) for _ in range(2)]
    for session_id in (first, second):
        await join(http, session_id, "ana")

    answer = await leave(http, players=["ana"])
    assert answer.status_code == 422
    assert [violation["field"] for violation in answer.json()["violations"]] == ["session"]
    assert await listed(http, "?playerCount[gt]=0") == [first, second]


async def test_join_of_what_closes_meanwhile_is_not_found(
    served: Served, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that ends between the look and the write is one that is not there."""
    session_id = await begin(http)
    session = served.node.replica.sessions[session_id]
    await served.node.apply(session_id, Close())

    async def find(_: str) -> Session:
        return session

    monkeypatch.setattr(served.node, "find", find)
    body = {"session": session_id, "players": ["ana"]}
    answer = await http.put("/session/player/join", json=body)
    assert answer.status_code == 404
