"""The events of one session over REST: newest first, as far as the log reaches."""

from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from gateway.live import replicator
from gateway.store.embedded import EmbeddedValkey
from tests.server.conftest import Gateway
from tests.server.test_api_sessions import opened

Json = dict[str, Any]


async def events(http: httpx2.AsyncClient, session_id: str, **query: Any) -> Json:  # noqa: ANN401 - of httpx
    """Return a page."""
    reply = await http.get(f"/v1/sessions/{session_id}/events", params=query)
    assert reply.status_code == 200, reply.text
    page: Json = reply.json()
    return page


async def lived(http: httpx2.AsyncClient, session_id: str = "s-1", **more: Any) -> None:  # noqa: ANN401 - JSON
    """Let a session live: opened, changed twice, closed, while another one changes."""
    await opened(http, id=session_id, **more)
    await opened(http, id=f"{session_id}-of-another")
    for name in ("Ann", "Ben"):
        await http.patch(f"/v1/sessions/{session_id}", json={"name": name})
        await http.patch(f"/v1/sessions/{session_id}-of-another", json={"name": name})
    await http.delete(f"/v1/sessions/{session_id}")


async def test_events_of_a_session_are_told_newest_first(http: httpx2.AsyncClient) -> None:
    """All that happened to it, and to no other, is there, also after its end."""
    await lived(http)

    page = await events(http, "s-1")

    assert [event["type"] for event in page["events"]] == [
        *("session.closed", "session.updated", "session.updated", "session.opened"),
    ]
    assert [event["revision"] for event in page["events"]] == [4, 3, 2, 1]
    assert {event["session_id"] for event in page["events"]} == {"s-1"}
    assert page["events"][1]["changes"]["name"] == "Ben"
    assert page["is_whole"] is True
    assert page["since"] == page["events"][-1]["at"]
    assert "next" not in page


async def test_pages_continue_where_the_one_before_ended(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event is on one page, whatever is read of the log at once."""
    monkeypatch.setattr(replicator, "REPLAY_COUNT", 2)
    monkeypatch.setattr(replicator, "PAST_READS", 2)
    await lived(http)
    seen: list[int] = []
    query: Json = {"limit": 1}
    while True:
        page = await events(http, "s-1", **query)
        seen += [event["revision"] for event in page["events"]]
        assert page["is_whole"] == ("next" not in page)
        if "next" not in page:
            break
        query["cursor"] = page["next"]

    assert seen == [4, 3, 2, 1]
    reply = await http.get("/v1/sessions/s-1-of-another/events", params={"cursor": query["cursor"]})
    assert (reply.status_code, reply.json()["code"]) == (400, "bad_position")


async def test_log_that_was_trimmed_says_from_when_on_it_is_whole(
    gateway: Gateway, http: httpx2.AsyncClient, valkey: EmbeddedValkey
) -> None:
    """What is no longer in the log is told to be missing."""
    await lived(http)
    store = gateway.node.store
    keys = store.keys[store.partition("s-1")]
    whole = await events(http, "s-1")
    async with Redis.from_url(valkey.url) as redis:
        await redis.xtrim(keys.log, maxlen=3, approximate=False)

    page = await events(http, "s-1")

    assert page["is_whole"] is False
    assert len(page["events"]) < len(whole["events"])
    assert page["events"] == whole["events"][: len(page["events"])]
    assert page["since"] <= page["events"][-1]["at"]


async def test_events_of_a_hidden_session_are_not_there(
    gateway: Gateway, http: httpx2.AsyncClient
) -> None:
    """A caller that does not see a session gets what an unknown one gets, open or closed."""
    await lived(http, workspace="ws-1")
    await opened(http, id="s-2", workspace="ws-1")
    async with gateway.http("ws-2") as stranger, gateway.http("ws-1") as tenant:
        for session_id in ("s-1", "s-2", "s-3"):
            reply = await stranger.get(f"/v1/sessions/{session_id}/events")
            assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
        assert len((await events(tenant, "s-1"))["events"]) == 4


async def test_counts_by_a_field_are_the_largest_first(
    gateway: Gateway, http: httpx2.AsyncClient
) -> None:
    """Each value has its counts, and the ones beyond the limit are told together."""
    for number, workspace in enumerate(["ws-1", "ws-2", "ws-2", None, "ws-3"]):
        more = {"workspace": workspace} if workspace else {}
        await opened(http, id=f"s-{number}", watch={"key": "film"}, **more)

    stats = (await http.get("/v1/stats", params={"by": "workspace", "limit": 2})).json()

    row = {"connected": 0}
    assert stats["groups"] == [
        {"value": "ws-2", "sessions": 2, "watching": 2, **row},
        {"sessions": 1, "watching": 1, **row},
    ]
    assert stats["others"] == {"sessions": 2, "watching": 2, **row}
    assert "groups" not in (await http.get("/v1/stats")).json()
    async with gateway.http("ws-1") as tenant, gateway.http("reader") as reader:
        own = (await tenant.get("/v1/stats", params={"by": "workspace"})).json()
        assert [group["value"] for group in own["groups"]] == ["ws-1"]
        assert (await reader.get("/v1/stats", params={"by": "node"})).status_code == 403
    assert (await http.get("/v1/stats", params={"by": "name"})).status_code == 400
