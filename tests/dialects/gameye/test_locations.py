"""What stands around Gameye's sessions: logs, artifacts, regions, builds, health."""

import asyncio

import httpx2

from gateway.core.command import Close
from tests.dialects.gameye.conftest import HOST, Served, begin, stop_and_wait
from tests.support import eventually


async def test_log_of_a_session_is_empty(http: httpx2.AsyncClient) -> None:
    """A gateway that runs no container has nothing in the log, which is no error."""
    session_id = await begin(http)

    answer = await http.get("/logs", params={"id": session_id})
    assert (answer.status_code, answer.text) == (200, "")
    assert answer.headers["content-type"].startswith("text/plain")


async def test_followed_log_ends_with_the_session(served: Served, http: httpx2.AsyncClient) -> None:
    """A log that is followed stays open until the session has ended, and not longer."""
    session_id = await begin(http)

    async with http.stream("GET", f"/logs?id={session_id}&follow=true") as answer:
        reading = asyncio.create_task(answer.aread())
        await served.node.apply(session_id, Close())
        assert await reading == b""
    followed = await http.get(f"/logs?id={session_id}&follow=true")
    assert (followed.status_code, followed.text) == (200, "")


async def test_follower_who_goes_leaves_nothing_behind(
    served: Served, http: httpx2.AsyncClient
) -> None:
    """A followed log that nobody reads any more is forgotten."""
    session_id = await begin(http)

    async with http.stream("GET", f"/logs?id={session_id}&follow=true"):
        await eventually(lambda: served.node.hub._mailboxes)  # noqa: SLF001
    await eventually(lambda: not served.node.hub._mailboxes)  # noqa: SLF001


async def test_nothing_is_known_of_an_unknown_session(http: httpx2.AsyncClient) -> None:
    """Logs and artifacts of no session are 404."""
    for path in ("/logs?id=unknown", "/artifacts?session=unknown&path=/tmp/x"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_artifacts_are_never_there(served: Served, http: httpx2.AsyncClient) -> None:
    """A session leaves no files, before its end and after it."""
    session_id = await begin(http)
    path = f"/artifacts?session={session_id}&path=/var/log"
    before = await http.get(path)
    await stop_and_wait(served, session_id)
    after = await http.get(path)

    assert (before.status_code, after.status_code) == (404, 404)
    assert before.json()["details"] != after.json()["details"]


async def test_missing_parameters_are_named(http: httpx2.AsyncClient) -> None:
    """What a request lacks or repeats is a violation each."""
    for path, fields in (
        ("/logs", ["id"]),
        ("/logs?id=s1&follow=perhaps", ["follow"]),
        ("/artifacts", ["session", "path"]),
        ("/artifacts?session=s1&session=s2&path=/x", ["session"]),
    ):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
        assert [violation["field"] for violation in answer.json()["violations"]] == fields


async def test_image_is_available_where_the_gateway_is_and_where_it_runs(
    http: httpx2.AsyncClient,
) -> None:
    """Any image may be started here; where it runs already is named too."""
    local = {"id": "local", "ips": [HOST]}
    unknown = await http.get("/available-location/team/arena")
    await begin(http, image="team/arena", location="eu-west-1")
    known = await http.get("/available-location/team/arena")

    assert (unknown.status_code, unknown.json()) == (200, {"locations": [local]})
    assert known.json() == {"locations": [local, {"id": "eu-west-1", "ips": [HOST]}]}


async def test_any_build_may_be_started(http: httpx2.AsyncClient) -> None:
    """There is no catalogue that would say no."""
    answer = await http.get("/tag/eu-west-1/team/arena/1.4.2")

    assert (answer.status_code, answer.json()) == (200, {"exists": True})


async def test_health_needs_no_token(served: Served) -> None:
    """A probe is answered without a token, and says when this node is going."""
    async with served.http(token=None) as http:
        healthy = await http.get("/health")
        served.node.is_draining = True
        going = await http.get("/health")
        served.node.is_draining = False

    assert (healthy.status_code, healthy.json()) == (200, {"status": "ok"})
    assert (going.status_code, going.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
