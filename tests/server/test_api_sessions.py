"""Sessions over REST: open, look at, change, close."""

import asyncio
import re
from typing import Any

import httpx2
import pytest

from tests.server.conftest import Gateway

Json = dict[str, Any]


async def opened(http: httpx2.AsyncClient, **body: object) -> Json:
    """Open a session and return it."""
    reply = await http.post("/v1/sessions", json=body)
    assert reply.status_code == 201, reply.text
    session: Json = reply.json()
    return session


async def test_open_returns_the_session_its_address_and_its_token_once(
    http: httpx2.AsyncClient,
) -> None:
    """A POST opens a session, says where it is, and tells its token this once."""
    reply = await http.post("/v1/sessions", json={"name": "Ann", "labels": {"env": "prod"}})

    assert reply.status_code == 201
    session = reply.json()
    token = session.pop("session_token")
    assert re.fullmatch(re.escape(session["id"]) + r"\.[\w-]{43}", token)
    assert reply.headers["Location"] == f"/v1/sessions/{session['id']}"
    assert (session["state"], session["name"], session["revision"]) == ("idle", "Ann", 1)
    assert (await http.get(reply.headers["Location"])).json() == session


async def test_generated_ids_are_uuids_of_version_7(http: httpx2.AsyncClient) -> None:
    """An id that nobody chose is a UUIDv7: in the order of opening."""
    ids = [(await opened(http))["id"] for _ in range(3)]

    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab].*", one) for one in ids)
    assert sorted(one[:13] for one in ids) == [one[:13] for one in ids]


async def test_everything_that_is_given_at_opening_is_kept(http: httpx2.AsyncClient) -> None:
    """What a caller with all rights sets stands in the session, and nothing that it did not."""
    given: Json = {
        "id": "s-1",
        "name": "Ann",
        "account": "ann",
        "workspace": "ws-1",
        "service": "movies",
        "labels": {"env": "prod"},
        "attributes": {"image": {"tag": "7"}},
        "client": {"product": "Player", "version": "2"},
        "members": ["Ann", "Bob"],
        "phase": "running",
        "linger_ms": 1000,
        "grace_ms": 0,
        "keepalive_ms": 180_000,
        "ttl_ms": 86_400_000,
        "streams": [{"key": "t1", "kind": "transcode", "state": "running", "data": {"p": 1}}],
    }
    watch = {"key": "movie/42", "title": "42", "state": "playing", "position_ms": 5}
    profile = {"name": "A", "can_watch": True, "plugins": {"x": 1}}

    session = await opened(http, **given, watch=watch, profile=profile)

    assert {name: session[name] for name in given} == given
    assert {**session["watch"], **watch} == session["watch"]
    assert session["watch"]["position_at"] == session["created_at"]
    assert session["profile"]["can_watch"]
    assert not session["profile"]["can_host"]
    assert None not in session.values()


@pytest.mark.parametrize("close_first", [False, True])
async def test_open_of_an_id_that_was_ever_used_is_refused(
    http: httpx2.AsyncClient, close_first: bool
) -> None:
    """An id is never used again, not even after its session has closed."""
    await opened(http, id="s-1")
    if close_first:
        await http.delete("/v1/sessions/s-1")

    reply = await http.post("/v1/sessions", json={"id": "s-1"})

    assert (reply.status_code, reply.json()["code"]) == (409, "id_unavailable")


# --- once only


async def test_repeated_open_with_a_key_gives_the_same_session_and_token(
    http: httpx2.AsyncClient, gateway: Gateway
) -> None:
    """A client that got no answer repeats its POST and has what it would have had."""
    first, second = await asyncio.gather(
        *(
            http.post("/v1/sessions", json={"name": "Ann"}, headers={"Idempotency-Key": "key-1"})
            for _ in range(2)
        )
    )

    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert len(gateway.node.replica.sessions) == 1


async def test_repeated_key_with_another_body_is_refused(http: httpx2.AsyncClient) -> None:
    """A key names one request: with another body it is an error, not a second session."""
    headers = {"Idempotency-Key": "key-1"}
    await http.post("/v1/sessions", json={"name": "Ann"}, headers=headers)

    reply = await http.post("/v1/sessions", json={"name": "Bob"}, headers=headers)

    assert (reply.status_code, reply.json()["code"]) == (422, "idempotency_mismatch")


async def test_same_key_of_another_caller_is_another_request(gateway: Gateway) -> None:
    """Keys are the caller's own: nobody gets a session, or its token, by guessing one."""
    headers = {"Idempotency-Key": "key-1"}
    async with gateway.http("ann") as ann, gateway.http("bob") as bob:
        first = await ann.post("/v1/sessions", json={}, headers=headers)
        second = await bob.post("/v1/sessions", json={}, headers=headers)

    assert second.status_code == 201
    assert first.json()["id"] != second.json()["id"]
    assert first.json()["session_token"][-43:] != second.json()["session_token"][-43:]


async def test_repeated_patch_with_a_key_changes_nothing_more(http: httpx2.AsyncClient) -> None:
    """A PATCH that is repeated with its key is answered with the session, not done again."""
    await opened(http, id="s-1")
    headers = {"Idempotency-Key": "key-1"}
    await http.patch("/v1/sessions/s-1", json={"name": "A"}, headers=headers)
    await http.patch("/v1/sessions/s-1", json={"name": "B"})

    again = await http.patch("/v1/sessions/s-1", json={"name": "A"}, headers=headers)
    other = await http.patch("/v1/sessions/s-1", json={"name": "C"}, headers=headers)

    assert (again.status_code, again.json()["name"]) == (200, "B")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_repeated_close_with_a_key_is_answered_alike(http: httpx2.AsyncClient) -> None:
    """A DELETE that is repeated with its key is a success again; without it the session is gone."""
    await opened(http, id="s-1")
    headers = {"Idempotency-Key": "key-1"}

    first = await http.delete("/v1/sessions/s-1", headers=headers)
    second = await http.delete("/v1/sessions/s-1", headers=headers)

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert (await http.delete("/v1/sessions/s-1")).status_code == 410


# --- one session


async def test_unchanged_session_is_not_sent_again(http: httpx2.AsyncClient) -> None:
    """The ETag of a session is its revision."""
    await opened(http, id="s-1")
    first = await http.get("/v1/sessions/s-1")

    again = await http.get("/v1/sessions/s-1", headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["ETag"] == '"1"'
    assert again.status_code == 304


async def test_closed_session_is_gone_with_its_final_record(http: httpx2.AsyncClient) -> None:
    """What is closed answers 410 and says how it ended, whatever is asked of it."""
    await opened(http, id="s-1", name="Ann")
    closed = (await http.delete("/v1/sessions/s-1?reason=maintenance")).json()

    for method, path in (("GET", ""), ("DELETE", ""), ("PUT", "/members/Ann"), ("GET", "/closing")):
        reply = await http.request(method, f"/v1/sessions/s-1{path}")
        problem = reply.json()
        assert (reply.status_code, problem["code"]) == (410, "session_closed")
        assert problem["session"] == closed
    assert closed["closed"]["reason"] == "maintenance"
    assert closed["closed"]["by"] == "admin"


async def test_patch_merges(http: httpx2.AsyncClient) -> None:
    """A PATCH is a merge patch: maps are merged, null removes, what is not named stays."""
    await opened(
        http,
        id="s-1",
        name="Ann",
        labels={"a": "1", "b": "2"},
        attributes={"x": {"y": 1, "z": 2}},
        client={"product": "P", "version": "1"},
        profile={"can_host": True, "plugins": {"p": {"on": True}, "q": 1}},
        linger_ms=60_000,
    )

    reply = await http.patch(
        "/v1/sessions/s-1",
        json={
            "name": None,
            "labels": {"a": None, "c": "3"},
            "attributes": {"x": {"y": None}},
            "client": {"version": "2"},
            "profile": {"can_watch": True, "plugins": {"p": {"on": False}, "q": None}},
        },
    )

    session = reply.json()
    assert reply.status_code == 200
    assert reply.headers["ETag"] == '"2"'
    assert "name" not in session
    assert session["labels"] == {"b": "2", "c": "3"}
    assert session["attributes"] == {"x": {"z": 2}}
    assert session["client"] == {"product": "P", "version": "2"}
    assert session["profile"]["can_host"]
    assert session["profile"]["can_watch"]
    assert session["profile"]["plugins"] == {"p": {"on": False}}
    assert session["linger_ms"] == 60_000


async def test_patch_takes_its_own_media_type(http: httpx2.AsyncClient) -> None:
    """A merge patch may be called by its name (RFC 7396 section 4)."""
    await opened(http, id="s-1")

    reply = await http.patch(
        "/v1/sessions/s-1",
        content=b'{"name":"Ann"}',
        headers={"Content-Type": "application/merge-patch+json"},
    )

    assert reply.json()["name"] == "Ann"


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_write_with_a_stale_revision_changes_nothing(
    http: httpx2.AsyncClient, method: str
) -> None:
    """``If-Match`` makes a write fail if somebody else was first."""
    await opened(http, id="s-1")
    body = {"name": "Bob"} if method == "PATCH" else None
    await http.patch("/v1/sessions/s-1", json={"name": "Ann"})

    for stale in ('"1"', 'W/"2"', '"x"'):
        reply = await http.request(
            method, "/v1/sessions/s-1", headers={"If-Match": stale}, json=body
        )
        assert (reply.status_code, reply.json()["code"]) == (412, "revision_mismatch"), stale
    assert (await http.get("/v1/sessions/s-1")).json()["name"] == "Ann"

    nonsense = await http.request(method, "/v1/sessions/s-1", headers={"If-Match": "2"}, json=body)
    assert (nonsense.status_code, nonsense.json()["code"]) == (400, "bad_request")
    current = await http.request(method, "/v1/sessions/s-1", headers={"If-Match": '"2"'}, json=body)
    assert current.status_code == 200


@pytest.mark.parametrize("query", ["", "?close_after=60"])
async def test_repeated_close_with_a_key_and_a_revision_is_answered_alike(
    http: httpx2.AsyncClient, query: str
) -> None:
    """What was done under a key stays done, although the revision is another one now."""
    await opened(http, id="s-1")
    headers = {"Idempotency-Key": "once", "If-Match": '"1"'}

    first, again = [
        await http.delete(f"/v1/sessions/s-1{query}", headers=headers) for _ in range(2)
    ]

    assert first.is_success
    assert (again.status_code, again.json()) == (first.status_code, first.json())


async def test_concurrent_patches_all_count(http: httpx2.AsyncClient) -> None:
    """Patches at the same time are merged one after the other; none is lost."""
    await opened(http, id="s-1")

    replies = await asyncio.gather(
        *(
            http.patch("/v1/sessions/s-1", json={"labels": {f"l{number}": "x"}})
            for number in range(20)
        )
    )

    assert {reply.status_code for reply in replies} == {200}
    session = (await http.get("/v1/sessions/s-1")).json()
    assert session["labels"] == {f"l{number}": "x" for number in range(20)}
    assert session["revision"] == 21


async def test_delete_with_a_delay_schedules_the_close(http: httpx2.AsyncClient) -> None:
    """``close_after`` seconds make it a warning: 202 and a session that is closing."""
    await opened(http, id="s-1")

    reply = await http.delete("/v1/sessions/s-1?close_after=2.5&reason=night")

    session = reply.json()
    assert (reply.status_code, session["state"]) == (202, "closing")
    assert session["closing"]["reason"] == "night"
    assert session["closes_at"] == session["closing"]["at"]
