"""Sessions over Gameye's paths: list, describe, start, stop, and whose they are."""

from typing import Final
from uuid import UUID

import httpx2
import pytest
from msgspec.structs import replace

from gateway.core.command import Close, Join, RequestClose, Update
from gateway.dialects.gameye import endpoints_sessions as sessions
from gateway.settings import Settings
from tests.dialects.gameye.conftest import (
    HOST,
    PORT,
    START,
    Served,
    begin,
    listed,
    serving,
    stop_and_wait,
)
from tests.nodes import blank, connection, holding
from tests.support import eventually

ENTRY: Final = {
    *("id", "image", "tag", "location", "host"),
    *("created", "port", "status", "labels", "playerCount"),
}


# --- list


async def test_nothing_runs_lists_nothing(http: httpx2.AsyncClient) -> None:
    """No session is an empty list, not an error."""
    answer = await http.get("/session")

    assert (answer.status_code, answer.json()) == (200, {"sessions": []})
    assert answer.headers["content-type"] == "application/json"


async def test_started_session_is_listed_with_every_field(
    served: Served, http: httpx2.AsyncClient
) -> None:
    """An entry has all of Gameye's fields, ``created`` in milliseconds and ports as an object."""
    session_id = await begin(http, version="1.4.2", labels={"mode": "duel"})

    [entry] = (await http.get("/session")).json()["sessions"]
    assert entry.keys() == ENTRY
    assert entry["id"] == session_id
    assert (entry["image"], entry["tag"], entry["location"]) == ("arena", "1.4.2", "eu-west-1")
    assert (entry["host"], entry["port"]) == (HOST, {f"{PORT}/tcp": PORT})
    assert isinstance(entry["created"], int)
    assert abs(entry["created"] - served.node.clock.now_ms()) < 60_000
    assert (entry["status"], entry["playerCount"]) == ("created", 0)
    assert entry["labels"]["tags"] == '{"mode":"duel"}'


async def test_list_is_ordered_by_creation(served: Served, http: httpx2.AsyncClient) -> None:
    """The oldest session comes first."""
    ids = [await begin(http) for _ in range(5)]

    known = served.node.replica.sessions
    assert await listed(http) == sorted(ids, key=lambda one: (known[one].created_at, one))


async def test_session_of_another_door_is_listed(served: Served, http: httpx2.AsyncClient) -> None:
    """A session that was opened elsewhere is seen here, and runs while its client is connected."""
    link = connection(served.node)
    with holding(served.node, "theirs", link.id):
        await served.node.open(blank("theirs", name="Ann", service="billing", connection=link))
        [entry] = (await http.get("/session")).json()["sessions"]

    assert (entry["id"], entry["image"], entry["status"]) == ("theirs", "billing", "running")


async def test_phase_of_the_producer_is_the_status(
    served: Served, http: httpx2.AsyncClient
) -> None:
    """What a producer reports through another door is Gameye's status."""
    session_id = await begin(http)
    await served.node.apply(session_id, Update(phase="restarting"))

    assert (await http.get(f"/session/{session_id}")).json()["status"] == "restarting"


async def test_session_whose_process_ended_is_listed_only_with_all(
    served: Served, http: httpx2.AsyncClient
) -> None:
    """What does not run any more is left out, even before it is cleared away."""
    session_id = await begin(http)

    for phase in ("exited", "dead"):
        await served.node.apply(session_id, Update(phase=phase))
        assert await listed(http) == []
        assert await listed(http, "?all=true") == [session_id]


async def test_stopped_session_is_listed_only_with_all(
    served: Served, http: httpx2.AsyncClient
) -> None:
    """What ended stays in the list of everything, in its place, until its tombstone expires."""
    first, second, third = [await begin(http) for _ in range(3)]
    order = await listed(http)
    await stop_and_wait(served, second)

    assert await listed(http) == [known for known in order if known != second]
    assert await listed(http, "?all=true") == order
    assert {first, second, third} == set(order)
    entries = (await http.get("/session?all=1")).json()["sessions"]
    assert [entry["status"] for entry in entries if entry["id"] == second] == ["exited"]


async def test_list_of_everything_is_filtered_too(served: Served, http: httpx2.AsyncClient) -> None:
    """Filters hold for what ended as for what runs."""
    ended = await begin(http, labels={"mode": "duel"})
    await begin(http, labels={"mode": "team"})
    await stop_and_wait(served, ended)

    assert await listed(http, "?all=true&filter[mode]=duel") == [ended]
    assert await listed(http, "?all=true&filterNot[status]=exited&filter[mode]=duel") == []


async def test_long_list_comes_in_pieces_and_whole(
    served: Served, http: httpx2.AsyncClient
) -> None:
    """A list of more sessions than are written at a time lacks none of them."""
    for number in range(501):
        await served.node.open(blank(f"s{number}"))

    assert len(set(await listed(http))) == 501


async def test_string_encoding_is_that_of_the_sample(http: httpx2.AsyncClient) -> None:
    """With ``encoding=string`` two fields are strings, in the list and alone."""
    session_id = await begin(http, labels={"mode": "duel"})

    [entry] = (await http.get("/session?encoding=string")).json()["sessions"]
    alone = (await http.get(f"/session/{session_id}?encoding=string")).json()
    assert entry["port"] == alone["port"] == f'{{"port":{{"{PORT}/tcp":{PORT}}}}}'
    assert entry["labels"] == alone["labels"]
    assert entry["labels"].startswith('{"labels":{')


async def test_dialect_at_the_root_answers_the_same(served: Served) -> None:
    """Mounted at the root the product's paths are its own."""
    async with served.http(base="") as http:
        session_id = await begin(http)
        answer = await http.post("/session", json={**START, "id": "mine"})
        assert await listed(http) == sorted([session_id, "mine"], key=[session_id, "mine"].index)
    async with served.http() as http:
        assert answer.headers["location"] == "/session/mine"
        prefixed = await http.post("/session", json={**START, "id": "other"})
        assert prefixed.headers["location"] == "/gameye/session/other"


# --- describe


async def test_session_alone_has_its_players(served: Served, http: httpx2.AsyncClient) -> None:
    """A description is not wrapped and holds players instead of their number."""
    session_id = await begin(http)
    await served.node.apply(session_id, Join(members=("ana", "bo")))

    alone = (await http.get(f"/session/{session_id}")).json()
    assert alone.keys() == (ENTRY - {"playerCount"}) | {"players"}
    assert alone["players"] == {"joined": ["ana", "bo"], "joinedCount": 2}
    assert alone["status"] == "running"


async def test_ended_session_can_be_looked_at(served: Served, http: httpx2.AsyncClient) -> None:
    """What ended is described until its tombstone expires."""
    session_id = await begin(http)
    await stop_and_wait(served, session_id)

    answer = await http.get(f"/session/{session_id}")
    assert (answer.status_code, answer.json()["status"]) == (200, "exited")


async def test_unknown_session_is_not_found(http: httpx2.AsyncClient) -> None:
    """An id that is none, or cannot be one, is unknown."""
    for unknown in ("no-such-session", "a%20b", "player", "x" * 200, "a%2Fb"):
        for method in ("GET", "DELETE"):
            answer = await http.request(method, f"/session/{unknown}")
            assert (answer.status_code, answer.json()["code"]) == (404, "RESOURCE_NOT_FOUND")


# --- start


async def test_start_answers_id_host_and_ports(http: httpx2.AsyncClient) -> None:
    """A start without an id is given a UUID of version 4, and tells where to go."""
    answer = await http.post("/session", json=START)

    assert answer.status_code == 201
    started = answer.json()
    assert UUID(started["id"]).version == 4
    assert started["host"] == HOST
    assert started["ports"] == [{"type": "tcp", "container": PORT, "host": PORT}]


async def test_start_keeps_everything_it_was_given(
    served: Served, http: httpx2.AsyncClient
) -> None:
    """All of a start is in the session: facts for all doors, facts for Gameye, secrets apart."""
    await begin(
        http,
        id="match-7",
        version="1.4.2",
        env={"SECRET": "hush"},
        args=["-log"],
        labels={"mode": "duel"},
        restart=True,
        ttl="2h30m",
        external_id="order-9",
    )

    session = served.node.replica.sessions["match-7"]
    assert (session.name, session.service, session.labels) == ("arena", "arena", {"mode": "duel"})
    assert session.ttl_ms == 150 * 60_000
    assert session.private.environment == {"SECRET": "hush"}
    assert session.attributes == {
        "gameye": {
            "image": "arena",
            "tag": "1.4.2",
            "location": "eu-west-1",
            "args": ["-log"],
            "restart": True,
            "external_id": "order-9",
        }
    }
    for path in ("/session", "/session/match-7"):
        assert "hush" not in (await http.get(path)).text


async def test_same_id_twice_is_a_conflict(served: Served, http: httpx2.AsyncClient) -> None:
    """An id is given once, and not again after its session ended."""
    await begin(http, id="match-7")
    again = await http.post("/session", json={**START, "id": "match-7"})
    await stop_and_wait(served, "match-7")
    after = await http.post("/session", json={**START, "id": "match-7"})

    for answer in (again, after):
        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")


async def test_start_without_room_is_420(served: Served) -> None:
    """No capacity is Gameye's 420 with its error object, not 429, and says when to come again."""
    served.node.max_sessions = 1
    async with served.http() as http:
        await begin(http)
        answer = await http.post("/session", json=START)

    assert answer.status_code == 420
    assert (answer.json()["statusCode"], answer.json()["code"]) == (420, "CAPACITY_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) > 0


# --- stop


async def test_stop_is_answered_at_once_and_done_later(settings: Settings, served: Served) -> None:
    """A stop is 204 without a body; the session drains, and then it has ended."""
    patient = replace(served.context, settings=replace(settings, gameye_stop_after_s=10.0))
    async with serving(patient) as url, Served(url, patient).http() as http:
        session_id = await begin(http)
        stop = await http.delete(f"/session/{session_id}")
        draining = (await http.get(f"/session/{session_id}")).json()
        again = await http.delete(f"/session/{session_id}")
        assert await listed(http) == [session_id]

    assert (stop.status_code, stop.content) == (204, b"")
    assert draining["status"] == "draining"
    assert (again.status_code, again.json()["code"]) == (409, "CONFLICT")
    closing = served.node.replica.sessions[session_id].closing
    assert closing is not None
    assert closing.at - closing.requested_at == pytest.approx(10_000, abs=100)
    assert closing.by == "admin"


async def test_stop_of_what_ended_is_a_conflict(served: Served, http: httpx2.AsyncClient) -> None:
    """A stop after the end is 409, not 404, and says when the end was."""
    session_id = await begin(http)
    await stop_and_wait(served, session_id)

    answer = await http.delete(f"/session/{session_id}")
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    assert "It ended at 20" in answer.json()["details"]


async def test_stop_brings_a_later_close_forward(served: Served, http: httpx2.AsyncClient) -> None:
    """A close that is due in an hour does not keep a session from being stopped now."""
    session_id = await begin(http)
    at = served.node.clock.now_ms() + 3_600_000
    await served.node.apply(session_id, RequestClose(at=at))

    await stop_and_wait(served, session_id)


async def test_ttl_ends_a_session(served: Served, http: httpx2.AsyncClient) -> None:
    """A session whose longest life is over has exited."""
    session_id = await begin(http, ttl="1m")
    await served.node.apply(session_id, Update(ttl_ms=1))

    await eventually(lambda: session_id in served.node.replica.gone)
    assert (await http.get(f"/session/{session_id}")).json()["status"] == "exited"


# --- whose


async def test_session_belongs_to_the_workspace_of_its_token(served: Served) -> None:
    """A list is that of the token's workspace; another's session is unknown, running or ended."""
    async with served.http("red") as red, served.http("blue") as blue:
        theirs = await begin(red)
        assert await listed(red) == [theirs]
        for query in ("", "?all=true"):
            assert await listed(blue, query) == []
        for method in ("GET", "DELETE"):
            assert (await blue.request(method, f"/session/{theirs}")).status_code == 404
        await stop_and_wait(served, theirs)
        assert await listed(red, "?all=true") == [theirs]
        assert await listed(blue, "?all=true") == []
        assert (await blue.get(f"/session/{theirs}")).status_code == 404
        assert (await blue.delete(f"/session/{theirs}")).status_code == 404


async def test_token_of_one_workspace_ends_nothing_in_another(served: Served) -> None:
    """The same account in another workspace is somebody else: its session is not there."""
    await served.node.open(blank("elsewhere", account="ann", workspace="blue", members=("bo",)))

    async with served.http("ann") as http:
        seen = await http.get("/session/elsewhere")
        stop = await http.delete("/session/elsewhere")
        body = {"session": "elsewhere", "players": ["bo"]}
        join = await http.put("/session/player/join", json=body)
        leave = await http.request("DELETE", "/session/player/leave", json={"players": ["bo"]})
    assert seen.status_code == 404
    assert (stop.status_code, join.status_code, leave.status_code) == (404, 404, 404)


async def test_list_of_everything_has_the_newest_of_what_ended(
    served: Served, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much ended, a list asks the store for a bounded number of final records."""
    monkeypatch.setattr(sessions, "ENDED_MAX", 2)
    for number in range(4):
        await served.node.open(blank(f"s{number}"))
        await served.node.apply(f"s{number}", Close())

    assert await listed(http, "?all=true") == ["s2", "s3"]
