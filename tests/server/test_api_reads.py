"""Streams, history, counts, nodes and health over REST."""

import asyncio

import httpx2
import pytest

from gateway import __version__
from gateway.live import history, rates, reads, replica
from tests.server.conftest import Gateway
from tests.server.test_api_sessions import opened


async def all_pages(http: httpx2.AsyncClient, path: str, name: str, limit: int) -> list[object]:
    """Return every row of a list, a page at a time."""
    rows: list[object] = []
    query: dict[str, str | int] = {"limit": limit}
    while True:
        reply = await http.get(path, params=query)
        assert reply.status_code == 200, reply.text
        page = reply.json()
        assert len(page[name]) <= limit
        rows.extend(page[name])
        if "next" not in page:
            return rows
        query["cursor"] = page["next"]


async def test_pages_of_streams_hold_every_stream_once(http: httpx2.AsyncClient) -> None:
    """Streams are paged one by one, also within a session."""
    for number, count in enumerate((3, 0, 1, 4)):
        streams = [{"key": f"t{stream}", "kind": "k"} for stream in range(count)]
        await opened(http, id=f"s-{number}", streams=streams)

    for limit in (1, 2, 3, 100):
        rows = await all_pages(http, "/v1/streams", "streams", limit)
        assert [(row["session_id"], row["key"]) for row in rows] == [  # type: ignore[index]
            (f"s-{number}", f"t{stream}")
            for number, count in ((0, 3), (2, 1), (3, 4))
            for stream in range(count)
        ]


@pytest.mark.parametrize("turns", [1, 2])
async def test_page_of_streams_that_looked_at_enough_doubles_nothing(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """A page that ends because it looked at enough sessions goes on after the last of them."""
    monkeypatch.setattr(reads, "SCANNED_AT_ONCE", 1)
    monkeypatch.setattr(reads, "SCANNED_TURNS", turns)
    for number in range(3):
        await opened(http, id=f"s-{number}", streams=[{"key": "t", "kind": "k"}])

    rows = await all_pages(http, "/v1/streams", "streams", 100)

    assert [row["session_id"] for row in rows] == ["s-0", "s-1", "s-2"]  # type: ignore[index]


async def test_streams_are_filtered_by_their_session(http: httpx2.AsyncClient) -> None:
    """The list of streams takes the filters of the list of sessions."""
    for number in (1, 2):
        await opened(
            http, id=f"s-{number}", workspace=f"ws-{number}", streams=[{"key": "t", "kind": "k"}]
        )

    streams = (await http.get("/v1/streams?workspace=ws-2")).json()["streams"]

    assert [stream["session_id"] for stream in streams] == ["s-2"]


async def test_history_has_what_ended_newest_first(http: httpx2.AsyncClient) -> None:
    """A closed session and each watch that ended leave a row that says how and when."""
    await opened(http, id="s-1", name="Ann", account="ann", labels={"a": "b"})
    await http.put("/v1/sessions/s-1/watch", json={"key": "movie/1", "title": "One"})
    await http.put("/v1/sessions/s-1/watch", json={"key": "movie/2"})
    await http.delete("/v1/sessions/s-1?reason=night")
    await opened(http, id="s-2")
    await http.delete("/v1/sessions/s-2")

    sessions = (await http.get("/v1/history")).json()["history"]
    watches = (await http.get("/v1/history?kind=watch")).json()["history"]

    assert [row["session_id"] for row in sessions] == ["s-2", "s-1"]
    assert (sessions[1]["outcome"], sessions[1]["reason"]) == ("closed", "night")
    assert sessions[1]["labels"] == {"a": "b"}
    assert [row["watch"]["key"] for row in watches] == ["movie/2", "movie/1"]
    assert len({row["number"] for row in [*sessions, *watches]}) == 4


async def test_history_is_filtered(http: httpx2.AsyncClient) -> None:
    """The history takes the filters that make sense for what has ended, and times."""
    for number in (1, 2):
        await opened(
            http, id=f"s-{number}", account=f"a-{number}", workspace="w", labels={"n": f"{number}"}
        )
        await http.delete(f"/v1/sessions/s-{number}")
        await asyncio.sleep(0.002)  # two rows at different milliseconds, of which one is asked for
    rows = (await http.get("/v1/history")).json()["history"]
    times = {row["session_id"]: row["at"] for row in rows}

    async def ids(**query: str) -> list[str]:
        reply = await http.get("/v1/history", params=query)
        assert reply.status_code == 200, reply.text
        return [row["session_id"] for row in reply.json()["history"]]

    for query in (
        {"account": "a-1"},
        {"label.n": "1"},
        {"q": "S-1"},
        {"until": times["s-2"]},
    ):
        assert await ids(**query) == ["s-1"], query
    assert await ids(since=times["s-2"]) == ["s-2"]
    assert await ids(since=times["s-1"], workspace="w") == ["s-2", "s-1"]
    assert await ids(since="2999-01-01T00:00:00Z") == []
    bad = await http.get("/v1/history", params={"since": "2999-01-01T00:00:00"})
    assert (bad.status_code, bad.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("remembered", [1, 5, 20_000])
async def test_pages_of_the_history_hold_every_row_once(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    """Rows that the replica no longer has come from Redis; no page shows one twice or skips one."""
    ids = [f"s-{number}" for number in range(12)]
    async with gateway.http() as http:
        for session_id in ids:
            await opened(http, id=session_id, watch={"key": "m"})
            await http.delete(f"/v1/sessions/{session_id}")
        if remembered < replica.HISTORY_MAX:
            monkeypatch.setattr(history, "HISTORY_MAX", remembered)
            rows = gateway.node.replica.history
            for _ in range(len(rows) - remembered):
                rows.popleft()
        monkeypatch.setattr(history, "ROWS_AT_ONCE", 2)
        monkeypatch.setattr(history, "OLD_ROWS_STEP", 3)
        monkeypatch.setattr(history, "OLD_ROWS_MAX", 6)

        for limit in (1, 5, 100):
            found = await all_pages(http, "/v1/history", "history", limit)
            seen = [row["session_id"] for row in found]  # type: ignore[index]
            assert seen == ids[::-1]


async def test_stats_count_what_the_caller_sees(gateway: Gateway) -> None:
    """Counts are cut to the caller's view like lists."""
    async with gateway.http() as http, gateway.http("ws-1") as other:
        for number, workspace in enumerate(("ws-1", "ws-1", "ws-2")):
            await opened(
                http,
                id=f"s-{number}",
                workspace=workspace,
                watch={"key": "m"},
                streams=[{"key": "t", "kind": "k"}],
            )
        await http.put("/v1/sessions/s-0/closing", json={"after_s": 60})

        everything = (await http.get("/v1/stats")).json()
        part = (await other.get("/v1/stats")).json()

    assert everything == {
        "sessions": 3,
        "connected": 0,
        "watching": 3,
        "streams": 3,
        "states": {"idle": 2, "connected": 0, "away": 0, "closing": 1},
    }
    assert (part["sessions"], part["states"]["closing"]) == (2, 1)


async def test_rates_count_what_happens_on_the_whole_gateway(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator sees by second what happened, and others do not."""
    monkeypatch.setattr(rates, "LATE_S", -1)  # the second that runs counts, too
    async with gateway.http() as http, gateway.http("ws-1") as other:
        before = (await http.get("/v1/stats", params={"window": 600})).json()["rates"]
        for number in range(3):
            await opened(http, id=f"s-{number}", workspace="ws-1")
        await http.delete("/v1/sessions/s-0")
        found = (await http.get("/v1/stats", params={"window": 600})).json()
        refused = await other.get("/v1/stats", params={"window": 600})
        wrong = [await http.get("/v1/stats", params={"window": text}) for text in ("0", "601")]

    after = found["rates"]
    assert [node["name"] for node in after["nodes"]] == ["node-a"]
    assert sum(after["events_per_s"]) - sum(before["events_per_s"]) == 4
    assert sum(after["ends_per_s"]) - sum(before["ends_per_s"]) == 1
    assert len(after["nodes"][0]["sockets"]) == len(after["connects_per_s"]) > 0
    assert (found["sessions"], refused.status_code) == (2, 403)
    assert [reply.status_code for reply in wrong] == [400, 400]


async def test_nodes_are_listed_for_admins(http: httpx2.AsyncClient, gateway: Gateway) -> None:
    """An operator sees which processes there are, and whether they live."""
    nodes = (await http.get("/v1/nodes")).json()["nodes"]

    assert len(nodes) == 1
    node = nodes[0]
    assert (node["id"], node["name"]) == (gateway.node.id, "node-a")
    assert (node["is_alive"], node["is_this"], node["connections"]) == (True, True, 0)
    assert (node["version"], node["is_draining"], node["feed_lag_s"]) == (__version__, False, 0)
    assert (node["sockets"], node["slow_readers"] >= 0, node["uptime_s"] < 600) == (0, True, True)
    assert node["memory_bytes"] > 10_000_000


async def test_health_needs_no_token_and_says_why_not(gateway: Gateway) -> None:
    """A node that is going is alive and not ready, and says so."""
    async with gateway.http(None) as http:
        before = [(await http.get(path)).status_code for path in ("/livez", "/readyz")]
        gateway.node.is_draining = True
        alive, ready = await http.get("/livez"), await http.get("/readyz")
        gateway.node.is_draining = False

    assert before == [200, 200]
    assert alive.json() == {"status": "ok"}
    assert (ready.status_code, ready.json()["code"]) == (503, "draining")
    assert "Retry-After" in ready.headers
