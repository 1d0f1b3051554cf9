"""Sessions over REST: open, list, look at, change, close."""

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
    assert len(gateway.node.mirror.sessions) == 1


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


# --- lists


async def test_list_filters_by_every_field(http: httpx2.AsyncClient) -> None:
    """Each filter cuts the list to the sessions that match, and together they all count."""
    await opened(
        http,
        id="s-1",
        name="Ann's player",
        account="ann",
        workspace="ws-1",
        service="movies",
        labels={"env": "prod", "zone": "a"},
        members=["Ann"],
        watch={"key": "movie/42"},
    )
    await opened(http, id="s-2", account="bob", workspace="ws-1", labels={"env": "prod"})

    async def ids(query: str) -> list[str]:
        reply = await http.get(f"/v1/sessions?{query}")
        assert reply.status_code == 200, reply.text
        return [session["id"] for session in reply.json()["sessions"]]

    for query in (
        *("account=ann", "service=movies", "member=Ann", "watching=true", "q=PLAYER", "q=S-1"),
        *("label.env=prod&label.zone=a", "workspace=ws-1&account=ann"),
    ):
        assert await ids(query) == ["s-1"], query
    for query in ("", "workspace=ws-1", "state=idle", "connected=false", "label.env=prod"):
        assert await ids(query) == ["s-1", "s-2"], query
    for query in ("state=connected", "connected=true", "node=node-a", "workspace=null"):
        assert await ids(query) == [], query


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "number", "-number"])
async def test_pages_hold_every_session_once_in_order(http: httpx2.AsyncClient, sort: str) -> None:
    """Following ``next`` shows every session exactly once, in the order that was asked for."""
    ids = [(await opened(http, id=f"s-{number}"))["id"] for number in range(7)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (
            await http.get(
                "/v1/sessions",
                params={"sort": sort, "limit": 3, **({"cursor": cursor} if cursor else {})},
            )
        ).json()
        seen.extend(session["id"] for session in page["sessions"])
        cursor = page.get("next")

    assert seen == (ids[::-1] if sort.startswith("-") else ids)


async def test_sort_by_deadline_lists_only_what_is_closing(http: httpx2.AsyncClient) -> None:
    """Sorted by ``closes_at`` the list is the plan of what closes next."""
    for number, after_s in ((1, 500), (2, 100)):
        await opened(http, id=f"s-{number}")
        await http.put(f"/v1/sessions/s-{number}/closing", json={"after_s": after_s})
    await opened(http, id="s-3")

    page = (await http.get("/v1/sessions?sort=closes_at")).json()

    assert [session["id"] for session in page["sessions"]] == ["s-2", "s-1"]


async def test_fields_select_members(http: httpx2.AsyncClient) -> None:
    """With ``fields`` a session shows only those of its members that are set."""
    await opened(http, id="s-1")

    page = (await http.get("/v1/sessions?fields=id,state,name")).json()

    assert page["sessions"] == [{"id": "s-1", "state": "idle"}]


async def test_unchanged_list_is_not_sent_again(http: httpx2.AsyncClient) -> None:
    """A poller that shows the ETag gets 304 until *its* list changes, whatever else happens."""
    await opened(http, id="s-1", workspace="ws-1")
    first = await http.get("/v1/sessions?workspace=ws-1")
    tag = {"If-None-Match": first.headers["ETag"]}
    await opened(http, id="s-2", workspace="ws-2")

    unchanged = await http.get("/v1/sessions?workspace=ws-1", headers=tag)
    await http.patch("/v1/sessions/s-1", json={"name": "Ann"})
    changed = await http.get("/v1/sessions?workspace=ws-1", headers=tag)

    assert first.headers["ETag"].startswith('W/"')
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert changed.status_code == 200


async def test_position_of_a_list_is_where_its_events_go_on(
    http: httpx2.AsyncClient,
) -> None:
    """A list's ``position`` continues as ``since`` of the events with the same filter: no gap."""
    await opened(http, id="s-1", workspace="ws-1")
    page = (await http.get("/v1/sessions?workspace=ws-1")).json()
    await http.patch("/v1/sessions/s-1", json={"name": "Ann"})

    events = (
        await http.get("/v1/events", params={"workspace": "ws-1", "since": page["position"]})
    ).json()

    assert events["mode"] == "resume"
    assert [event["changes"] for event in events["events"]] == [{"name": "Ann"}]


async def test_read_at_a_position_sees_what_was_written(http: httpx2.AsyncClient) -> None:
    """``at`` takes what ``Gateway-Position`` of a write said; one from the future is a 503."""
    reply = await http.post("/v1/sessions", json={"id": "s-1"})
    position = reply.headers["Gateway-Position"]

    assert (await http.get("/v1/sessions/s-1", params={"at": position})).status_code == 200

    head, _, offset = position.rpartition("-")
    ahead = await http.get("/v1/sessions", params={"at": f"{head}-{int(offset) + 5}"})
    assert (ahead.status_code, ahead.json()["code"]) == (503, "position_ahead")
    assert int(ahead.headers["Retry-After"]) >= 1


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
        linger_ms=5,
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
    assert session["linger_ms"] == 5


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
