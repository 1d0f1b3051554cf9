"""Sessions over REST, in both generations: list, look, close after a while."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from gateway.core.command import Close
from gateway.core.errors import SessionClosed, StoreUnavailable
from gateway.core.model import Session
from gateway.settings import Settings
from tests.dialects.webida.conftest import Webida
from tests.nodes import blank, connection, holding
from tests.support import eventually

Json = Any


async def opened(webida: Webida, session_id: str, **facts: object) -> Session:
    """Open a session as any door could."""
    return await webida.node.open(blank(session_id, **facts))


@pytest.fixture
async def three(webida: Webida) -> AsyncIterator[None]:
    """Three sessions: two of ws-1, one of nowhere; the last one is connected."""
    node = webida.node
    with holding(node, "c", "c1"):
        await opened(webida, "a", workspace="ws-1", account="ann", name="Ann")
        await opened(webida, "b", workspace="ws-1")
        await opened(webida, "c", connection=connection(node), linger_ms=150_000)
        yield


async def ids(http: httpx2.AsyncClient, **query: str) -> list[str]:
    """Return the ids in a list."""
    answer = await http.get("/sessions", params=query)
    assert answer.status_code == 200, answer.text
    return [session["id"] for session in answer.json()]


async def close(http: httpx2.AsyncClient, session_id: str, **query: object) -> httpx2.Response:
    """Ask for a close."""
    return await http.delete(
        f"/sessions/{session_id}", params={k: str(v) for k, v in query.items()}
    )


@pytest.mark.usefixtures("three")
async def test_list_holds_what_is_open(webida: Webida, http: httpx2.AsyncClient) -> None:
    """Everything that is open is listed, oldest first, or that of one workspace."""
    assert await ids(http) == ["a", "b", "c"]
    assert await ids(http, workspaceId="") == ["a", "b", "c"]
    assert await ids(http, workspaceId="ws-1") == ["a", "b"]
    assert await ids(http, workspaceId="ws-9") == []
    async with webida.http(base="") as at_root:
        assert await ids(at_root, workspaceId="ws-1", _="1467950706789") == ["a", "b"]


async def test_empty_list_is_a_list(http: httpx2.AsyncClient) -> None:
    """Nothing is an empty list."""
    answer = await http.get("/sessions")

    assert (answer.status_code, answer.content) == (200, b"[]")
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.usefixtures("three")
async def test_list_holds_what_the_caller_may_see(webida: Webida) -> None:
    """A restricted token lists its workspace, a person their own, who has no rights nothing."""
    async with webida.http("ws-1") as http:
        assert await ids(http) == ["a", "b"]
        refused = await http.get("/sessions", params={"workspaceId": "ws-2"})
    async with webida.http("ann") as http:
        assert await ids(http) == ["a"]
    async with webida.http("nothing") as http:
        blind = await http.get("/sessions")

    assert (refused.status_code, refused.json()["code"]) == (403, "ForbiddenError")
    assert blind.status_code == 403


async def test_long_list_is_whole(webida: Webida, http: httpx2.AsyncClient) -> None:
    """A list that is written in pieces is one list."""
    wanted = [f"s{number:04}" for number in range(501)]
    for session_id in wanted:
        await opened(webida, session_id)

    assert sorted(await ids(http)) == wanted


@pytest.mark.usefixtures("three")
async def test_session_is_looked_at(http: httpx2.AsyncClient) -> None:
    """One session is an object; a session of another door is shown too."""
    answer = (await http.get("/sessions/a")).json()

    assert answer.pop("connectedAt").endswith("Z")
    assert answer == {
        "id": "a",
        "name": "Ann",
        "state": "NORMAL",
        "workspaceId": "ws-1",
        "clientAddress": "unknown",
        "disconnectedAt": None,
    }


@pytest.mark.usefixtures("three")
async def test_unknown_and_hidden_sessions_look_the_same(webida: Webida) -> None:
    """What is not there and what may not be seen are both 404."""
    for token, session_id in (("ide", "x"), ("ws-2", "a"), ("ide", "*"), ("ide", "é")):
        async with webida.http(token) as http:
            looked = await http.get(f"/sessions/{session_id}")
            closed = await close(http, session_id, closeAfter=1)

        expected = {"code": "NotFoundError", "message": f"no session {session_id}"}
        assert (looked.status_code, looked.json()) == (404, expected)
        assert (closed.status_code, closed.json()) == (404, expected)


@pytest.mark.usefixtures("three")
async def test_closed_session_is_gone(webida: Webida, http: httpx2.AsyncClient) -> None:
    """A session that ended is not there any more, and cannot be closed again."""
    await webida.node.apply("a", Close())

    assert (await http.get("/sessions/a")).status_code == 404
    assert (await close(http, "a", closeAfter=0)).status_code == 404
    assert await ids(http) == ["b", "c"]


@pytest.mark.usefixtures("three")
async def test_close_after_a_while_is_pending(webida: Webida, http: httpx2.AsyncClient) -> None:
    """A close is answered at once; until its time the session is CLOSING and says when."""
    answer = await close(http, "a", closeAfter=30)
    shown = (await http.get("/sessions/a")).json()

    assert (answer.status_code, answer.json()) == (
        200,
        {"message": "session a closes in 30 seconds"},
    )
    closing = webida.session("a").closing
    assert closing is not None
    assert (round((closing.at - closing.requested_at) / 1000), closing.by) == (30, "admin")
    assert shown["state"] == "CLOSING"
    assert shown["willCloseAt"].endswith("Z")


@pytest.mark.usefixtures("three")
async def test_second_close_moves_the_deadline_both_ways(
    webida: Webida, http: httpx2.AsyncClient
) -> None:
    """Who asks again decides, for sooner or for later."""
    times = []
    for after_s in (60, 30, 90):
        assert (await close(http, "a", closeAfter=after_s)).status_code == 200
        times.append(webida.session("a").closes_at or 0)

    assert times[1] < times[0] < times[2]


@pytest.mark.usefixtures("three")
async def test_close_after_nothing_is_now(http: httpx2.AsyncClient) -> None:
    """With 0 the session is gone when the answer comes."""
    answer = await close(http, "a", closeAfter=0)

    assert answer.json() == {"message": "session a closes now"}
    assert await ids(http) == ["b", "c"]


@pytest.mark.usefixtures("three")
async def test_close_is_done_at_its_time(webida: Webida, http: httpx2.AsyncClient) -> None:
    """A pending close happens by itself."""
    assert (await close(http, "a", closeAfter=1)).status_code == 200

    await eventually(lambda: "a" in webida.node.replica.gone)
    assert await ids(http) == ["b", "c"]


@pytest.mark.usefixtures("three")
async def test_close_takes_the_right_to(webida: Webida) -> None:
    """Who may only look, or only connect, closes nothing but the session that is their own."""
    for token in ("reader", "ann"):
        async with webida.http(token) as http:
            answer = await close(http, "a", closeAfter=0)
        assert (answer.status_code, answer.json()["code"]) == (403, "ForbiddenError")

    assert "a" in webida.node.replica.sessions


# --- generation C


class TestGenerationC:
    """What the published client speaks."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """Speak generation C."""
        return replace(settings, webida_generation="C")

    @pytest.mark.usefixtures("three")
    async def test_one_is_a_list(self, http: httpx2.AsyncClient) -> None:
        """A path of one session answers with a list of it, of none if there is none."""
        found = await http.get("/sessions/c", params={"workspaceId": "ws-1"})
        missing = await http.get("/sessions/x", params={"workspaceId": "*"})

        assert [session["id"] for session in found.json()] == ["c"]
        assert "disconnectedAt" not in found.json()[0]
        assert (missing.status_code, missing.json()) == (200, [])

    @pytest.mark.usefixtures("three")
    async def test_star_is_all(self, webida: Webida, http: httpx2.AsyncClient) -> None:
        """``*`` lists a workspace, twice everything; the list of generation A is there too."""

        async def found(http: httpx2.AsyncClient, workspace: str) -> tuple[int, list[str]]:
            answer = await http.get("/sessions/*", params={"workspaceId": workspace})
            return answer.status_code, [
                session["id"] for session in answer.json() if answer.status_code == 200
            ]

        assert await found(http, "ws-1") == (200, ["a", "b"])
        assert await found(http, "*") == (200, ["a", "b", "c"])
        assert await ids(http) == ["a", "b", "c"]
        async with webida.http("ws-1") as restricted:
            assert await found(restricted, "*") == (403, [])
            assert await found(restricted, "ws-2") == (403, [])
            assert await found(restricted, "ws-1") == (200, ["a", "b"])

    async def test_star_needs_a_workspace(self, http: httpx2.AsyncClient) -> None:
        """``*`` alone does not mean all: that would be too easy to say by accident."""
        listed = await http.get("/sessions/*")
        closed = await close(http, "*", closeAfter=0)

        for answer in (listed, closed):
            assert answer.status_code == 400
            assert answer.json()["message"] == '"workspaceId" is required'

    @pytest.mark.usefixtures("three")
    async def test_star_closes_many(self, webida: Webida, http: httpx2.AsyncClient) -> None:
        """A workspace is closed with one request, everything with another."""
        one = await close(http, "*", workspaceId="ws-1", closeAfter=30)
        states = {known: webida.session(known).state for known in "abc"}
        rest = await close(http, "*", workspaceId="*", closeAfter=0)

        assert one.json() == {"message": "2 sessions close in 30 seconds"}
        assert states == {"a": "closing", "b": "closing", "c": "connected"}
        assert rest.json() == {"message": "3 sessions close now"}
        assert webida.node.replica.sessions == {}

    @pytest.mark.usefixtures("three")
    async def test_star_closes_only_with_the_right_to(self, webida: Webida) -> None:
        """Many are closed by the same rights as one."""
        async with webida.http("reader") as http:
            blind = await close(http, "*", workspaceId="*", closeAfter=0)
        async with webida.http("ws-1") as http:
            everything = await close(http, "*", workspaceId="*", closeAfter=0)
            unknown = await close(http, "x", workspaceId="ws-1", closeAfter=0)
            own = await close(http, "*", workspaceId="ws-1", closeAfter=0)

        assert (blind.status_code, everything.status_code) == (403, 403)
        assert unknown.status_code == 404
        assert own.json() == {"message": "2 sessions close now"}
        assert list(webida.node.replica.sessions) == ["c"]

    @pytest.mark.usefixtures("three")
    async def test_star_that_cannot_be_done_is_told(
        self, webida: Webida, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that is closed meanwhile does not matter; a store that is away does."""
        really = webida.node.apply

        async def racing(session_id: str, command: Any) -> Session:  # noqa: ANN401
            if session_id == "a":
                raise SessionClosed
            return await really(session_id, command)

        monkeypatch.setattr(webida.node, "apply", racing)
        answer = await close(http, "*", workspaceId="*", closeAfter=30)
        assert answer.json() == {"message": "2 sessions close in 30 seconds"}

        async def failing(*_: object) -> Session:
            raise StoreUnavailable

        monkeypatch.setattr(webida.node, "apply", failing)
        answer = await close(http, "*", workspaceId="*", closeAfter=30)
        assert (answer.status_code, answer.json()["code"]) == (503, "ServiceUnavailableError")
        assert answer.headers["Retry-After"] == "1"
