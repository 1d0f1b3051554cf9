"""Sessions changed through MaxScale's API: logs, filters, restart, close now and later."""

import asyncio
from collections.abc import AsyncIterator
from json import dumps
from typing import Any

import httpx2
import pytest

from gateway.core.command import Update
from gateway.core.errors import SessionClosed
from gateway.core.model import Session, State
from gateway.core.query import View, Visibility
from gateway.live.channel import Subscription
from tests.dialects.maxscale.conftest import MaxScale, bearer
from tests.support import S, eventually

MANY_FILTERS = dumps({"data": {"relationships": {"filters": {"data": [{"id": "f" * 100}] * 50}}}})


@pytest.fixture
async def session(maxscale: MaxScale) -> Session:
    """A session with a live connection."""
    await maxscale.open("one", account="app_rw", workspace="ws-1")
    return await maxscale.connect("one")


@pytest.fixture
async def watcher(maxscale: MaxScale, session: Session) -> AsyncIterator[Subscription]:
    """Somebody who follows everything through the native feed."""
    assert session.is_connected
    with maxscale.node.subscribe(View(visibility=Visibility("all"))) as subscription:
        await subscription.next()  # the snapshot
        yield subscription


def told(maxscale: MaxScale) -> object:
    """Return what is written down for the producer."""
    return maxscale.node.replica.sessions["one"].attributes.get("maxscale")


async def test_delete_closes_now(
    maxscale: MaxScale, http: httpx2.AsyncClient, watcher: Subscription
) -> None:
    """A DELETE ends the session for everybody at once, and answers 200 without a body."""
    response = await http.delete("/v1/sessions/1")

    assert (response.status_code, response.content) == (200, b"")
    assert "one" not in maxscale.node.replica.sessions
    news = (await asyncio.wait_for(watcher.next(), 2 * S)).frame
    assert b'"session.closed"' in news
    with pytest.raises(SessionClosed) as closed:
        await maxscale.node.find("one")
    assert isinstance(closed.value.record, Session)
    assert closed.value.record.closed is not None
    assert closed.value.record.closed.by == "admin"


async def test_ttl_is_a_delayed_close(
    maxscale: MaxScale, http: httpx2.AsyncClient, watcher: Subscription
) -> None:
    """With a ttl the session is told, shown as stopping, and closed when its time has come."""
    before_ms = maxscale.node.clock.now_ms()
    response = await http.delete("/v1/sessions/1?ttl=1")
    closes_at = maxscale.node.replica.sessions["one"].closes_at

    assert (response.status_code, response.content) == (200, b"")
    assert closes_at is not None
    assert before_ms + 1000 <= closes_at <= maxscale.node.clock.now_ms() + 1000
    assert b'"session.closing"' in (await asyncio.wait_for(watcher.next(), 2 * S)).frame
    shown = (await http.get("/v1/sessions/1")).json()["data"]["attributes"]
    assert shown["state"] == "Stopping session"
    await eventually(lambda: "one" not in maxscale.node.replica.sessions, within=4 * S)
    assert maxscale.node.clock.now_ms() >= closes_at


async def test_later_delete_moves_the_deadline_or_ends_it(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """A second DELETE sets a new deadline; one without a ttl does not wait."""
    await http.delete("/v1/sessions/1?ttl=100")
    first = maxscale.node.replica.sessions[session.id].closes_at
    await http.delete("/v1/sessions/1?ttl=5000")
    second = maxscale.node.replica.sessions[session.id].closes_at

    assert first is not None
    assert second is not None
    assert second > first + 4_000_000
    assert (await http.delete("/v1/sessions/1?ttl=0")).status_code == 200
    assert (await http.delete("/v1/sessions/1?ttl=0")).status_code == 404


@pytest.mark.parametrize("ttl", ["abc", "-5", "", "0", "5s"])
async def test_ttl_that_is_no_number_is_now(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session, ttl: str
) -> None:
    """MaxScale takes what is no positive number for at once."""
    assert (await http.delete(f"/v1/sessions/1?ttl={ttl}")).status_code == 200
    assert session.id not in maxscale.node.replica.sessions


@pytest.mark.parametrize("ttl", ["86401", "9" * 40])
async def test_ttl_of_more_than_a_day_is_refused(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session, ttl: str
) -> None:
    """A deadline that the gateway cannot keep is refused, not taken for now."""
    assert (await http.delete(f"/v1/sessions/1?ttl={ttl}")).status_code == 400
    assert maxscale.node.replica.sessions[session.id].state is State.CONNECTED


async def test_log_switches_are_changed(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """Switches are written down and shown; what is no switch or not on or off is ignored."""
    assert session.attributes == {}
    body = {"log_info": True, "log_debug": True, "log_error": "yes", "nonsense": False}
    response = await http.patch(
        "/v1/sessions/1", json={"data": {"attributes": {"parameters": body}}}
    )

    assert (response.status_code, response.content) == (200, b"")
    assert told(maxscale) == {"parameters": {"log_info": True}}
    shown = (await http.get("/v1/sessions/1")).json()["data"]["attributes"]["parameters"]
    assert shown == {
        "log_info": True, "log_notice": False, "log_warning": False, "log_error": False
    }  # fmt: skip


async def test_filters_are_replaced_in_order_and_cleared(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """The list of filters is replaced as a whole, through the session or the relationship."""
    assert session.revision
    filters = [{"id": "F2", "type": "filters"}, {"id": "F1"}]
    body = {"data": {"type": "services", "relationships": {"filters": {"data": filters}}}}
    assert (await http.patch("/v1/sessions/1", json=body)).status_code == 200
    shown = (await http.get("/v1/sessions/1")).json()["data"]["relationships"]["filters"]["data"]

    assert shown == [{"id": "F2", "type": "filters"}, {"id": "F1", "type": "filters"}]
    own = "/v1/sessions/1/relationships/filters"
    assert (await http.patch(own, json={"data": [{"id": "F3"}]})).status_code == 200
    assert (await http.get(own)).json()["data"] == [{"id": "F3", "type": "filters"}]
    assert (await http.patch(own, json={"data": []})).status_code == 200
    assert told(maxscale) == {}
    assert "filters" not in (await http.get("/v1/sessions/1")).json()["data"]["relationships"]


async def test_change_leaves_the_rest_alone(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """What a producer told stays when somebody changes a switch."""
    attributes = {"mine": 1, "maxscale": {"thread": 2, "parameters": {"log_error": True}}}
    await maxscale.node.apply(session.id, Update(attributes=attributes))
    await http.patch(
        "/v1/sessions/1", json={"data": {"attributes": {"parameters": {"log_info": True}}}}
    )

    assert maxscale.node.replica.sessions[session.id].attributes == {
        "mine": 1,
        "maxscale": {"thread": 2, "parameters": {"log_error": True, "log_info": True}},
    }


async def test_change_of_nothing_is_done(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """A PATCH without anything that can be changed succeeds and changes nothing."""
    bodies: list[Any] = [{"data": {}}, {"data": {"attributes": {"user": "x"}}, "other": 1}]
    for body in bodies:
        assert (await http.patch("/v1/sessions/1", json=body)).status_code == 200
    assert maxscale.node.replica.sessions[session.id].revision == session.revision


BAD = [
    ("", "Missing request body"),
    ("{", "Invalid JSON in request: "),
    ("[]", "Invalid JSON in request: "),
    ("{}", "Invalid JSON in request: "),
    ('{"data":7}', "Invalid JSON in request: "),
    ('{"data":{"attributes":{"parameters":[]}}}', "Invalid JSON in request: "),
    ("[" * 60_000, "Invalid JSON in request: "),
    ('{"data":' * 7000, "Invalid JSON in request: "),
    ('"\udcff"', "Invalid JSON in request: "),
    ('{"data":{"relationships":{"filters":{"data":[{"id":7}]}}}}', "Not a valid filter: 7"),
    ('{"data":{"relationships":{"filters":{"data":[{}]}}}}', "Not a valid filter: None"),
    (
        '{"data":{"relationships":{"filters":{"data":[{"id":"a\\n"}]}}}}',
        "Not a valid filter: a",
    ),
    (MANY_FILTERS, "`attributes` hold at most "),
]


async def test_bad_change_is_400_and_changes_nothing(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """A body that cannot be read, or asks for what cannot be kept, is refused with a detail."""
    for body, detail in BAD:
        content = body.encode(errors="surrogateescape")
        response = await http.patch("/v1/sessions/1", content=content)

        assert response.status_code == 400, body
        assert response.json()["errors"][0]["detail"].startswith(detail), body
    assert maxscale.node.replica.sessions[session.id].revision == session.revision


async def test_large_body_is_refused(http: httpx2.AsyncClient, session: Session) -> None:
    """A body has a bound, announced or not."""
    assert session.number == 1

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b" " * 1024

    for content in (b" " * 70_000, endless()):
        response = await http.patch("/v1/sessions/1", content=content)

        assert response.status_code == 413
        assert response.json()["errors"][0]["detail"]


async def test_restart_is_written_down(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session, watcher: Subscription
) -> None:
    """A restart asks the producer, keeps the connection, and everybody can see it."""
    response = await http.post("/v1/sessions/1/restart", content=b"")

    assert (response.status_code, response.content) == (200, b"")
    after = maxscale.node.replica.sessions[session.id]
    assert after.is_connected
    assert after.attributes["maxscale"]["restart_requested_at"]
    assert b"restart_requested_at" in (await asyncio.wait_for(watcher.next(), 2 * S)).frame


async def test_restart_of_all_reaches_all_that_may_be_changed(
    maxscale: MaxScale, session: Session
) -> None:
    """All sessions in the caller's workspace are restarted, no others."""
    await asyncio.gather(*(maxscale.open(f"w{n}", workspace="ws-1") for n in range(70)))
    await maxscale.open("other", workspace="ws-2")
    async with maxscale.http(bearer("ws-1")) as http:
        response = await http.post("/v1/sessions/restart")
    asked = {
        known.id
        for known in maxscale.node.replica.sessions.values()
        if "maxscale" in known.attributes
    }

    assert response.status_code == 200
    assert asked == {session.id, *(f"w{n}" for n in range(70))}


async def test_restart_of_all_tells_which_failed(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """Sessions that cannot be restarted are told, and the others are restarted."""
    await maxscale.open("full", attributes={"x": "y" * 4080})
    response = await http.post("/v1/sessions/restart")

    assert response.status_code == 400
    assert [error["detail"] for error in response.json()["errors"]] == [
        "`attributes` hold at most 4096 bytes.",
        "Could not restart all sessions",
    ]
    assert "maxscale" in maxscale.node.replica.sessions[session.id].attributes


UNKNOWN = [
    ("DELETE", "/v1/sessions/9"),
    ("DELETE", "/v1/sessions/x?ttl=5"),
    ("PATCH", "/v1/sessions/9"),
    ("PATCH", "/v1/sessions/9/relationships/filters"),
    ("POST", "/v1/sessions/9/restart"),
    ("GET", "/v1/sessions/9/relationships/services"),
    ("GET", "/v1/sessions/9/relationships/filters"),
]


async def test_restart_of_all_goes_on_while_sessions_end(
    maxscale: MaxScale, http: httpx2.AsyncClient, session: Session
) -> None:
    """A session that ends meanwhile is no failure: nothing of it is left to restart."""
    assert session.number == 1
    opened = [await maxscale.open(f"s{number}") for number in range(40)]
    restarted, *ended = await asyncio.gather(
        http.post("/v1/sessions/restart"),
        *(http.delete(f"/v1/sessions/{known.number}") for known in opened),
    )

    assert restarted.status_code == 200
    assert {reply.status_code for reply in ended} == {200}


async def test_unknown_session_is_404_for_every_verb(http: httpx2.AsyncClient) -> None:
    """What is not there cannot be changed or looked at."""
    for method, path in UNKNOWN:
        response = await http.request(method, path, content=b'{"data":{}}')

        assert response.status_code == 404, path
        assert response.json()["errors"][0]["detail"].endswith("is not a session"), path


UNSERVED = [
    ("POST", "/v1/sessions", 404),
    ("PUT", "/v1/sessions/1", 404),
    ("DELETE", "/v1/sessions", 404),
    ("PATCH", "/v1/sessions/1/relationships/services", 404),
    ("GET", "/v1/sessions/1/connections", 404),
    ("GET", "/v1/servers", 404),
    ("GET", "/v2/sessions", 404),
    ("GET", "/v1//sessions", 404),
    ("GET", "/v1/v1/sessions", 404),
    ("TRACE", "/v1/sessions", 405),
    ("PURGE", "/nowhere", 405),
    ("OPTIONS", "/nowhere", 404),
]


async def test_unknown_route_is_404_and_unknown_verb_405(
    http: httpx2.AsyncClient, session: Session
) -> None:
    """Known verbs on what nobody serves are 404, others 405, both with a detail."""
    assert session.number == 1
    for method, path, status in UNSERVED:
        response = await http.request(method, path)

        assert response.status_code == status, path
        assert response.json()["errors"][0]["detail"], path
