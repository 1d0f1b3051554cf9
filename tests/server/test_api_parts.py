"""What belongs to a session, over REST: closing, connection, watch, streams, members; messages."""

import httpx2
import pytest

from gateway.core.command import Connect
from gateway.core.model import Connection
from tests.server.conftest import Gateway
from tests.server.test_api_sessions import opened


async def test_pending_close_is_scheduled_read_moved_and_cancelled(
    http: httpx2.AsyncClient,
) -> None:
    """A close that waits is a thing of its own: it can be looked at, moved and called off."""
    await opened(http, id="s-1")
    address = "/v1/sessions/s-1/closing"
    assert (await http.get(address)).status_code == 404
    assert (await http.delete(address)).json()["code"] == "not_closing"

    body = {"after_s": 600, "reason": "maintenance", "extend_max_s": 60}
    scheduled = await http.put(address, json=body)
    pending = (await http.get(address)).json()
    moved = (await http.put(address, json={"after_s": 60})).json()
    cancelled = (await http.delete(address)).json()

    assert (scheduled.status_code, scheduled.json()["state"]) == (200, "closing")
    assert (pending["reason"], pending["by"]) == ("maintenance", "admin")
    assert pending["extend_max_ms"] == 60_000
    assert moved["closes_at"] < pending["at"]
    assert cancelled["state"] == "idle"
    assert "closing" not in cancelled


async def test_close_after_zero_seconds_is_now(http: httpx2.AsyncClient) -> None:
    """Zero is no delay."""
    await opened(http, id="s-1")

    reply = await http.put("/v1/sessions/s-1/closing", json={"after_s": 0})

    assert reply.json()["state"] == "closed"
    assert (await http.get("/v1/sessions/s-1")).status_code == 410


async def test_kick_ends_the_connection_and_keeps_the_session(gateway: Gateway) -> None:
    """Who is kicked is away; who is not connected cannot be."""
    async with gateway.http() as http:
        await opened(http, id="s-1")
        idle = await http.delete("/v1/sessions/s-1/connection")
        node = gateway.node
        connection = Connection(id="c-1", node=node.id, connected_at=node.clock.now_ms())
        await node.apply("s-1", Connect(connection=connection))

        kicked = await http.delete("/v1/sessions/s-1/connection")

    assert (idle.status_code, idle.json()["code"]) == (409, "not_connected")
    assert (kicked.status_code, kicked.json()["state"]) == (200, "away")


async def test_watch_is_reported_and_ended_from_outside(http: httpx2.AsyncClient) -> None:
    """A producer without a socket says what a session watches, and that it stopped."""
    await opened(http, id="s-1", keepalive_ms=60_000)

    watching = await http.put(
        "/v1/sessions/s-1/watch",
        json={"key": "movie/42", "title": "42", "position_ms": 5, "item": {"a": [1, None]}},
    )
    ended = await http.delete("/v1/sessions/s-1/watch")
    again = await http.delete("/v1/sessions/s-1/watch")

    assert watching.json()["is_watching"]
    assert watching.json()["watch"]["item"] == {"a": [1, None]}
    assert not ended.json()["is_watching"]
    assert again.status_code == 200
    assert again.json()["revision"] > ended.json()["revision"]  # it renewed the keepalive


async def test_streams_are_put_listed_and_deleted(http: httpx2.AsyncClient) -> None:
    """A stream is named by its key, which may hold anything but NUL, slashes too."""
    await opened(http, id="s-1")
    address = "/v1/sessions/s-1/streams"
    await http.put(f"{address}/t1", json={"kind": "transcode", "state": "running"})
    await http.put(f"{address}/a%2Fb%20c", json={"kind": "backend", "data": {"host": "db"}})
    await http.put(f"{address}/t1", json={"kind": "transcode", "state": "done"})

    listed = (await http.get("/v1/streams")).json()["streams"]
    gone = await http.delete(f"{address}/a%2Fb%20c")
    unknown = await http.delete(f"{address}/a%2Fb%20c")

    assert listed == [
        {"session_id": "s-1", "key": "t1", "kind": "transcode", "state": "done", "data": {}},
        {"session_id": "s-1", "key": "a/b c", "kind": "backend", "data": {"host": "db"}},
    ]
    assert [stream["key"] for stream in gone.json()["streams"]] == ["t1"]
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_stream")


async def test_streams_beyond_the_limit_are_refused(http: httpx2.AsyncClient) -> None:
    """A session has at most 32 streams, and whoever brings one more is told."""
    streams = [{"key": f"t{number}", "kind": "k"} for number in range(32)]
    await opened(http, id="s-1", streams=streams)

    one_more = await http.put("/v1/sessions/s-1/streams/t32", json={"kind": "k"})
    too_many = await http.post(
        "/v1/sessions", json={"streams": [*streams, {"key": "t32", "kind": "k"}]}
    )

    assert (one_more.status_code, one_more.json()["code"]) == (409, "limit_exceeded")
    assert too_many.status_code in (409, 422)


async def test_members_come_and_go(http: httpx2.AsyncClient) -> None:
    """Members are a set: who is there stays, who is not cannot leave."""
    await opened(http, id="s-1")
    address = "/v1/sessions/s-1/members"

    await http.put(f"{address}/Ann")
    await http.put(f"{address}/J%C3%BCrgen")
    twice = await http.put(f"{address}/Ann")
    left = await http.delete(f"{address}/Ann")
    unknown = await http.delete(f"{address}/Ann")

    assert twice.json()["members"] == ["Ann", "Jürgen"]
    assert left.json()["members"] == ["Jürgen"]
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_member")


@pytest.mark.parametrize("to", [{}, {"workspace": "ws-1"}, {"session": "s-1"}])
async def test_message_reaches_those_it_is_for(gateway: Gateway, to: dict[str, str]) -> None:
    """A message is heard once by the live connections of its recipients."""
    async with gateway.http() as http:
        await opened(http, id="s-1", workspace="ws-1")
        with gateway.node.hub.mailbox(gateway.node.replica.sessions["s-1"]) as mailbox:
            reply = await http.post(
                "/v1/messages", json={"to": to, "topic": "hello", "body": {"a": None}}
            )
            notice = await mailbox.get()

    assert (reply.status_code, reply.content) == (204, b"")
    assert notice.message is not None
    assert (notice.message.topic, notice.message.body) == ("hello", {"a": None})
    assert notice.message.sender == "admin"


async def test_message_to_nobody_in_particular_is_refused(http: httpx2.AsyncClient) -> None:
    """A message to a session that is not there, to two places, or too large is refused."""
    for body, status in (
        ({"to": {"session": "s-1"}, "topic": "t"}, 404),
        ({"to": {"session": "s-1", "workspace": "w"}, "topic": "t"}, 422),
        ({"topic": "t", "body": "x" * 4096}, 422),
        ({"body": "x"}, 422),
    ):
        assert (await http.post("/v1/messages", json=body)).status_code == status
