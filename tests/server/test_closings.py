"""Bulk closing: a filter, a rate, and a stream of lines that tells how far it came."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from gateway.api import endpoints_closings
from gateway.api.operator_schema import BulkFilter
from gateway.core.errors import StoreUnavailable
from gateway.core.query import Filter
from gateway.node import Node
from tests.server.conftest import Gateway
from tests.server.test_api_sessions import opened
from tests.support import MS, eventually

Line = dict[str, Any]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell of the progress often, so that a test need not last a second."""
    monkeypatch.setattr(endpoints_closings, "PROGRESS_S", 20 * MS)


async def closings(http: httpx2.AsyncClient, key: str | None = None, **body: Any) -> list[Line]:  # noqa: ANN401 - JSON
    """Close in bulk; return all lines."""
    headers = {"Idempotency-Key": key} if key else {}
    reply = await http.post("/v1/closings", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.headers["x-accel-buffering"] == "no"
    return [json.loads(line) for line in reply.text.splitlines()]


@asynccontextmanager
async def slow_closing(http: httpx2.AsyncClient) -> AsyncIterator[AsyncIterator[Line]]:
    """Begin to close two sessions a second, and yield the lines as they come."""
    body = {"filter": {}, "rate_per_s": 2}
    async with http.stream("POST", "/v1/closings", json=body) as reply:
        yield (json.loads(line) async for line in reply.aiter_lines())


async def still_open(http: httpx2.AsyncClient) -> int:
    """Return how many sessions are open."""
    return int((await http.get("/v1/stats")).json()["sessions"])


async def test_filter_chooses_what_is_closed(http: httpx2.AsyncClient) -> None:
    """All that match are closed for the reason given, and no other session."""
    for number in range(5):
        await opened(http, id=f"s-{number}", workspace="ws-1" if number else "ws-2")

    lines = await closings(http, filter={"workspace": "ws-1"}, reason="moving", rate_per_s=1000)

    assert lines[-1] == {
        "type": "done",
        "selected": 4,
        "closed": 4,
        "elapsed_s": lines[-1]["elapsed_s"],
    }
    assert [line["type"] for line in lines[:-1]] == ["progress"] * (len(lines) - 1)
    gone = (await http.get("/v1/sessions/s-1")).json()["session"]["closed"]
    assert (gone["reason"], gone["by"], gone["outcome"]) == ("moving", "admin", "closed")
    assert (await http.get("/v1/sessions/s-0")).status_code == 200


async def test_close_after_a_time_warns_all(http: httpx2.AsyncClient) -> None:
    """With ``after_s`` each session is told to close, as by a delayed close of its own."""
    await opened(http, id="s-1")

    [*_, last] = await closings(http, filter={}, after_s=60, reason="moving")

    assert (last["type"], last["closed"]) == ("done", 1)
    session = (await http.get("/v1/sessions/s-1")).json()
    assert session["state"] == "closing"
    assert session["closing"]["reason"] == "moving"


async def test_dry_run_counts_and_changes_nothing(http: httpx2.AsyncClient) -> None:
    """A dry run tells how many would be closed, and some of their ids."""
    for number in range(25):
        await opened(http, id=f"s-{number:02}")

    [only] = await closings(http, filter={}, dry_run=True)

    assert only == {
        "type": "done",
        "dry_run": True,
        "selected": 25,
        "sample": [f"s-{number:02}" for number in range(endpoints_closings.SAMPLE)],
    }
    assert await still_open(http) == 25


async def test_rate_is_kept_and_progress_is_told(http: httpx2.AsyncClient) -> None:
    """Lines come while sessions are closed, no faster than was asked for."""
    for number in range(6):
        await opened(http, id=f"s-{number}")

    lines = await closings(http, filter={}, rate_per_s=20)

    told = [line.get("closed", 0) for line in lines]
    assert told == sorted(told)
    assert len(set(told)) > 2
    assert all(line.get("closed", 0) <= 1 + 20 * line["elapsed_s"] for line in lines)


async def test_session_that_matches_no_more_stays_open(http: httpx2.AsyncClient) -> None:
    """A session that changed after it was selected, and is not of the filter now, is skipped."""
    for number in range(2):
        await opened(http, id=f"s-{number}", labels={"old": "yes"})
    body = {"filter": {"labels": {"old": "yes"}}, "rate_per_s": 2}
    async with http.stream("POST", "/v1/closings", json=body) as reply:
        lines = reply.aiter_lines()
        await anext(lines)
        await http.patch("/v1/sessions/s-1", json={"labels": {"old": "no"}})
        said = [json.loads(line) async for line in lines]

    assert (said[-1]["closed"], said[-1]["skipped"]) == (1, 1)
    assert (await http.get("/v1/sessions/s-1")).status_code == 200


async def test_json_is_the_last_line_alone(http: httpx2.AsyncClient) -> None:
    """A program that cannot read lines asks for JSON and waits."""
    for number in range(6):
        await opened(http, id=f"s-{number}")
    body = {"filter": {}, "rate_per_s": 20}

    reply = await http.post("/v1/closings", json=body, headers={"Accept": "application/json"})

    assert reply.headers["content-type"] == "application/json"
    assert (reply.json()["type"], reply.json()["closed"]) == ("done", 6)


async def test_hanging_up_stops_it(http: httpx2.AsyncClient) -> None:
    """A caller that goes stops the closing; the rest stays open."""
    for number in range(20):
        await opened(http, id=f"s-{number}")
    async with slow_closing(http) as lines:
        await anext(lines)

    await eventually(lambda: endpoints_closings._ClosingReply.running == 0)  # noqa: SLF001 - its end
    assert 10 < await still_open(http) < 20


async def test_drain_stops_it_and_says_how_far_it_came(
    gateway: Gateway, http: httpx2.AsyncClient
) -> None:
    """The last line of a node that stops has what was done until then."""
    for number in range(20):
        await opened(http, id=f"s-{number}")
    async with slow_closing(http) as lines:
        await anext(lines)
        draining = asyncio.create_task(gateway.context.connections.drain(0.05))
        said = [line async for line in lines]
        await draining

    assert (said[-1]["type"], said[-1]["reason"]) == ("aborted", "draining")
    assert said[-1]["closed"] == 20 - len(gateway.node.sessions)


async def test_store_that_is_lost_stops_it(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store fails midway the stream tells why and how far it came."""
    for number in range(3):
        await opened(http, id=f"s-{number}")
    apply = Node.apply

    async def failing(node: Node, session_id: str, *rest: Any, **more: Any) -> Any:  # noqa: ANN401
        if session_id != "s-0":
            raise StoreUnavailable
        return await apply(node, session_id, *rest, **more)

    monkeypatch.setattr(Node, "apply", failing)

    [*_, last] = await closings(http, filter={}, rate_per_s=1000)

    assert (last["type"], last["reason"]) == ("aborted", "store_unavailable")
    assert last["failed"]["store_unavailable"] >= 1
    assert last["selected"] == 3


async def test_repeat_with_its_key_touches_no_newer_session(http: httpx2.AsyncClient) -> None:
    """The same request again closes nothing twice, nor what came since; another one is refused."""
    await opened(http, id="s-1")
    body: Line = {"filter": {}, "reason": "moving"}
    [*_, first] = await closings(http, "k-1", **body)
    await opened(http, id="s-2")

    [*_, again] = await closings(http, "k-1", **body)

    assert (first["closed"], again["selected"]) == (1, 0)
    assert await still_open(http) == 1
    other = {"Idempotency-Key": "k-1"}
    reply = await http.post("/v1/closings", json={**body, "reason": "x"}, headers=other)
    assert (reply.status_code, reply.json()["code"]) == (422, "idempotency_mismatch")
    [*_, new] = await closings(http, "k-2", **body)
    assert new["closed"] == 1


async def test_key_is_remembered_however_many_come_after_it(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeat finds its key before older keys are forgotten."""
    monkeypatch.setattr(endpoints_closings, "KEPT_MAX", 1)
    await closings(http, "k-1", filter={})
    await opened(http, id="s-1")

    [*_, again] = await closings(http, "k-1", filter={})

    assert again["selected"] == 0
    await closings(http, "k-2", filter={"workspace": "ws-1"})
    [*_, forgotten] = await closings(http, "k-1", filter={})
    assert forgotten["selected"] == 1


async def test_tenant_closes_its_own_sessions_alone(
    gateway: Gateway, http: httpx2.AsyncClient
) -> None:
    """A filter reaches as far as the caller does; without ``close`` it reaches nothing."""
    await opened(http, id="s-1", workspace="ws-1")
    await opened(http, id="s-2", workspace="ws-2")
    async with gateway.http("ws-1") as tenant, gateway.http("reader") as reader:
        [*_, last] = await closings(tenant, filter={})
        assert (last["selected"], last["closed"]) == (1, 1)
        assert (await http.get("/v1/sessions/s-2")).status_code == 200
        for filter_ in ({"workspace": "ws-2"}, {"account": "ann"}):
            [*_, last] = await closings(tenant, filter=filter_)
            assert last["selected"] == 0
        assert (await reader.post("/v1/closings", json={"filter": {}})).status_code == 403


async def test_another_closing_than_may_run_is_refused(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node runs few at a time; one more is told to come back."""
    monkeypatch.setattr(endpoints_closings, "RUNNING_MAX", 1)
    for number in range(3):
        await opened(http, id=f"s-{number}")
    async with slow_closing(http) as lines:
        await anext(lines)
        reply = await http.post("/v1/closings", json={"filter": {}})

    assert (reply.status_code, reply.json()["code"]) == (503, "overloaded")
    assert reply.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filter": None},
        {"filter": {"workspac": "ws-1"}},
        {"filter": {"workspace": ""}},
        {"filter": {"workspace": None}},
        {"filter": {"labels": {}}},
        {"filter": {}, "after_s": -1},
        {"filter": {}, "after_s": 86_401},
        {"filter": {}, "rate_per_s": 0},
        {"filter": {}, "rate_per_s": 10_001},
        {"filter": {}, "dry_run": "yes"},
        {"filter": {}, "reason": "a" * 5000},
        {"filter": {}, "extra": 1},
    ],
)
async def test_bad_request_closes_nothing(http: httpx2.AsyncClient, body: Line) -> None:
    """A wrong or misspelt member is refused, so that a typo does not close everything."""
    await opened(http, id="s-1")

    reply = await http.post("/v1/closings", json=body)

    assert reply.status_code == 422, reply.text
    assert await still_open(http) == 1


def test_filter_is_that_of_lists() -> None:
    """Whatever a list is filtered by, a closing is."""
    assert BulkFilter.__struct_fields__ == Filter.__struct_fields__
