"""Lists of sessions: filters, orders, pages, positions."""

from base64 import urlsafe_b64decode

import httpx2
import pytest

from gateway.live import reads
from tests.server.conftest import Gateway
from tests.server.test_api_sessions import opened


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


async def test_tag_names_what_is_shown(gateway: Gateway) -> None:
    """What is not the same to the last byte has another tag: other members, another page."""
    async with gateway.http() as http, gateway.http("ws-1") as other:
        for number in range(3):
            await opened(http, id=f"s-{number}", workspace="ws-1")
        tags = [
            (await http.get(f"/v1/sessions?{query}")).headers["ETag"]
            for query in ("", "fields=id", "fields=id,state", "limit=2", "limit=1", "sort=-number")
        ]
        again = (await http.get("/v1/sessions?workspace=ws-1&limit=5")).headers["ETag"]
        read = await other.get("/v1/sessions", headers={"If-None-Match": ", ".join(tags)})

    assert len(set(tags)) == len(tags)
    assert again == tags[0]
    assert read.status_code == 304


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "number", "-number"])
@pytest.mark.parametrize("turns", [1, 2])
async def test_page_that_looked_at_enough_is_short_and_goes_on(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, sort: str, turns: int
) -> None:
    """A filter that matches few of many gives short pages, which together hold all that match."""
    monkeypatch.setattr(reads, "SCANNED_AT_ONCE", 2)
    monkeypatch.setattr(reads, "SCANNED_TURNS", turns)
    for number in range(12):
        await opened(http, id=f"s-{number}", name="Ann" if number in (1, 8) else "Bob")
    pages: list[list[str]] = []
    query: dict[str, str | int] = {"q": "ann", "sort": sort, "limit": 5}
    while True:
        page = (await http.get("/v1/sessions", params=query)).json()
        pages.append([session["id"] for session in page["sessions"]])
        if "next" not in page:
            break
        query["cursor"] = page["next"]

    assert [found for page in pages for found in page] == (
        ["s-8", "s-1"] if sort.startswith("-") else ["s-1", "s-8"]
    )
    assert len(pages) > 1
    assert [] in pages


async def test_short_page_names_nobody_who_is_not_in_view(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a page goes on that looked at others' sessions does not say which ones there are."""
    monkeypatch.setattr(reads, "SCANNED_AT_ONCE", 2)
    monkeypatch.setattr(reads, "SCANNED_TURNS", 1)
    async with gateway.http() as http, gateway.http("ws-1") as other:
        for number in range(20):
            workspace = "ws-1" if number % 2 else "ws-2"
            await opened(http, id=f"s-{number}", workspace=workspace, name="Ann")
        query: dict[str, str | int] = {"sort": "number", "limit": 1, "q": "nobody"}
        cursors: list[str] = []
        while "next" in (page := (await other.get("/v1/sessions", params=query)).json()):
            assert page["sessions"] == []
            query["cursor"] = page["next"]
            cursors.append(page["next"])

    assert cursors
    assert all(b"s-" not in urlsafe_b64decode(cursor + "==") for cursor in cursors)


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


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "number", "-number"])
async def test_walk_misses_and_doubles_nobody_while_others_come_and_go(
    http: httpx2.AsyncClient, sort: str
) -> None:
    """Who is there all the time is on exactly one page, whatever opens and closes between pages."""
    for number in range(20):
        await opened(http, id=f"stays-{number}")
        await opened(http, id=f"goes-{number}")
    going = [number for pair in zip(range(10), range(19, 9, -1), strict=True) for number in pair]
    seen: list[str] = []
    query: dict[str, str | int] = {"sort": sort, "limit": 3, "fields": "id"}
    while True:
        page = (await http.get("/v1/sessions", params=query)).json()
        seen += [session["id"] for session in page["sessions"]]
        if "next" not in page:
            break
        query["cursor"] = page["next"]
        if going:
            await http.delete(f"/v1/sessions/goes-{going[-1]}")
            await opened(http, id=f"comes-{going.pop()}")

    assert len(seen) == len(set(seen))
    assert {f"stays-{number}" for number in range(20)} <= set(seen)
