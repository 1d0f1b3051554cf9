"""What must hold when whole processes go away: gateways as users run them, killed and stopped."""

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.store.embedded import EmbeddedValkey
from tests.processes import AUTH, Process, gateways, heard
from tests.support import S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


def moment(text: str) -> float:
    """Return an RFC 3339 time in seconds."""
    return datetime.fromisoformat(text).timestamp()


STALLED = (
    f"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: {AUTH['Authorization']}\r\n"
    "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
).encode()
"""A request whose body never ends."""


async def closed_events(watcher: Any, session_id: str, until: str) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return every ``session.closed`` of a session that is heard before *until* is opened."""
    found = []
    while True:
        message = json.loads(await watcher.recv())
        for event in message.get("events", ()):
            if event["type"] == "session.closed" and event["session_id"] == session_id:
                found.append(event)
            if event["session_id"] == until:
                return found


async def test_owner_killed_before_the_deadline_close_happens_once(tmp_path: Path) -> None:
    """A close that was scheduled is done once and not early, though its node was killed."""
    async with (
        EmbeddedValkey(tmp_path) as valkey,
        gateways("a", "b", data_dir=tmp_path, options=("--redis-url", valkey.url)) as (a, b),
        b.socket("/v1/events") as watcher,
        a.socket("/v1/connect?session=s1") as client,
    ):
        await heard(client, "hello")
        answer = await b.request("DELETE", "/v1/sessions/s1", params={"close_after": 1.5})
        assert answer.status_code == 202
        await heard(client, "closing")
        closes_at = answer.json()["closes_at"]
        a.kill()

        closed = await heard(watcher, "session.closed")
        assert closed["session_id"] == "s1"
        assert moment(closed["at"]) >= moment(closes_at)

        await b.request("POST", "/v1/sessions", json={"id": "s2"})
        assert await closed_events(watcher, "s1", until="s2") == []
        assert (await b.get("/v1/sessions/s1")).status_code == 410


async def test_killed_node_sessions_are_away_on_the_other(tmp_path: Path) -> None:
    """The sessions of a node that died are away within 12 s, and their clients may come back."""
    async with (
        EmbeddedValkey(tmp_path) as valkey,
        gateways("a", "b", data_dir=tmp_path, options=("--redis-url", valkey.url)) as (a, b),
        b.socket("/v1/events") as watcher,
        a.socket("/v1/connect?session=s1&name=Ann") as client,
    ):
        token = (await heard(client, "hello"))["session_token"]
        a.kill()

        async with asyncio.timeout(22):  # 12 s, or 10 s more on a node that has just started
            gone = await heard(watcher, "session.disconnected")
        assert gone["changes"]["state"] == "away"

        async with b.socket(f"/v1/connect?session=s1&session_token={token}") as again:
            assert (await heard(again, "hello"))["session"]["name"] == "Ann"


async def test_stopped_gateway_keeps_sessions_and_pending_closes(tmp_path: Path) -> None:
    """SIGTERM: all are told so, the client is to come back; afterwards overdue closes fire."""
    first = Process("--data-dir", str(tmp_path))
    try:
        await first.ready()
        async with first.socket("/v1/connect?session=s1") as client:
            await heard(client, "hello")
            await first.request("POST", "/v1/sessions", json={"id": "s2"})
            await first.request("DELETE", "/v1/sessions/s2", params={"close_after": 1})
            await first.request("POST", "/v1/sessions", json={"id": "s3"})
            await first.request("DELETE", "/v1/sessions/s3", params={"close_after": 600})

            reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
            writer.write(STALLED)
            stopping = asyncio.create_task(asyncio.to_thread(first.stop))
            bye = await heard(client, "bye")
            assert (bye["code"], bye["reconnect"]) == (4001, True)
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert await stopping == 0
            assert b"HTTP/1.1 503" in await reader.read()
            writer.close()
    finally:
        first.end()

    async with gateways("a", data_dir=tmp_path) as (second,):
        assert (await second.get("/v1/sessions/s1")).json()["state"] == "away"
        assert (await second.get("/v1/sessions/s3")).json()["state"] == "closing"

        async def overdue_is_closed() -> bool:
            return (await second.get("/v1/sessions/s2")).status_code == 410

        await eventually(overdue_is_closed, within=5 * S)


async def test_killed_gateway_and_valkey_lose_nothing_acknowledged(tmp_path: Path) -> None:
    """After kill -9 of everything the sessions of two seconds ago are there again."""
    async with gateways("a", data_dir=tmp_path) as (first,):
        await first.request("POST", "/v1/sessions", json={"id": "s1", "name": "Ann"})
        opened = asyncio.get_running_loop().time()

        async def two_seconds_later() -> bool:  # as the promise says: what was acknowledged then
            await first.get("/v1/sessions/s1")
            return asyncio.get_running_loop().time() - opened > 2

        await eventually(two_seconds_later, within=5 * S)
        first.kill()

    async with gateways("a", data_dir=tmp_path) as (second,):
        assert (await second.get("/v1/sessions/s1")).json()["name"] == "Ann"
