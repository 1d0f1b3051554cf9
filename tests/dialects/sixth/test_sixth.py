"""A sixth product costs little, and has what holds at every door without naming it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway import app
from gateway.http import request
from tests.dialects.conftest import Build
from tests.dialects.house import House
from tests.dialects.sixth import product
from tests.server.conftest import ADMIN
from tests.server.test_api_http import raw
from tests.support import S

PAGE = "https://app.example"
SHOWN = {"Authorization": f"Bearer {ADMIN}"}


@pytest.fixture
async def acme(build: Build, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A gateway that has the sixth product as well."""
    monkeypatch.setattr(app, "DIALECTS", {**app.DIALECTS, "acme": product})
    async with build(allowed_origins=(PAGE,)) as house:
        yield house


def test_it_takes_two_hundred_lines() -> None:
    """A product of this size fits two hundred lines."""
    lines = Path(product.__file__).read_text().splitlines()

    assert len(lines) <= 200


async def test_room_is_listed_shown_and_closed_later(acme: House) -> None:
    """A session of another door is a room; its delayed close shows at both."""
    url = f"{acme.gateway.url}/acme/rooms"
    await acme.ask("native", "POST", "/v1/sessions", json={"id": "r1"})
    listed = await acme.send("GET", url, SHOWN)
    closing = await acme.send("DELETE", f"{url}/r1?seconds=60", SHOWN)
    seen = await acme.read("native", "/v1/sessions/r1")
    closed = await acme.send("DELETE", f"{url}/r1", SHOWN)
    gone = await acme.send("GET", f"{url}/r1", SHOWN)

    assert listed.json() == [{"room": "r1", "state": "open"}]
    assert closing.json()["state"] == "closing"
    assert seen["state"] == "closing"
    assert (closed.status_code, gone.status_code) == (200, 410)


async def test_socket_is_a_session_of_all_doors(acme: House) -> None:
    """Who connects is welcomed and listed, is told of a close, and may leave."""
    url = acme.gateway.url.replace("http", "ws") + "/acme/socket"
    async with asyncio.timeout(10 * S), connect(url, additional_headers=SHOWN) as client:
        room = json.loads(await client.recv())["room"]
        await client.send(json.dumps({"say": "look", "at": "door"}))
        await acme.ask("native", "DELETE", f"/v1/sessions/{room}?close_after=60")
        told = json.loads(await client.recv())
        seen = await acme.read("native", f"/v1/sessions/{room}")
        await client.send(json.dumps({"say": "leave"}))
        with pytest.raises(ConnectionClosed) as ended:
            await client.recv()

    assert told["hear"] == "closing"
    assert seen["watch"]["key"] == "door"
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 4500


async def test_it_has_the_answers_of_every_door(
    acme: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CORS, HEAD, OPTIONS, bounds, deadlines and wrong credentials need no line of the product."""
    monkeypatch.setattr(request, "BODY_WITHIN_S", 0.05 * S)
    url = f"{acme.gateway.url}/acme/rooms"
    page = await acme.send("GET", url, {**SHOWN, "Origin": PAGE})
    statuses = {
        "head": (await acme.send("HEAD", url, SHOWN)).status_code,
        "options": (await acme.send("OPTIONS", url, {})).status_code,
        "no token": (await acme.send("GET", url, {})).status_code,
        "no path": (await acme.send("GET", f"{url}/a/b", SHOWN)).status_code,
        "no method": (await acme.send("PUT", url, SHOWN)).status_code,
        "line break": (await acme.send("GET", f"{url}/a%0Ab", SHOWN)).status_code,
        "long": (await acme.send("GET", f"{url}?a={'a' * 9_000}", SHOWN)).status_code,
        "query": (await acme.send("DELETE", f"{url}/r1?seconds=x", SHOWN)).status_code,
    }
    hosts = await raw(acme.gateway, b"GET /acme/rooms HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")

    assert page.headers["access-control-allow-origin"] == PAGE
    assert page.headers["x-content-type-options"] == "nosniff"
    assert statuses == {
        "head": 200,
        "options": 204,
        "no token": 401,
        "no path": 404,
        "no method": 405,
        "line break": 400,
        "long": 414,
        "query": 400,
    }
    assert hosts.startswith(b"HTTP/1.1 400 ")


async def test_wrong_credentials_are_counted_there_too(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shows wrong credentials over and over is told to wait, in the product's words."""
    monkeypatch.setattr(app, "DIALECTS", {**app.DIALECTS, "acme": product})
    async with build(requests_per_s=3) as house:
        url = f"{house.gateway.url}/acme/rooms"
        wrong = [await house.send("GET", url, {"Authorization": "Bearer x"}) for _ in range(20)]

    assert {reply.status_code for reply in wrong} == {401, 429}
    assert all("oops" in reply.json() for reply in wrong)


async def test_it_describes_itself(acme: House) -> None:
    """Its operations are in a document of its own, with its errors and its credential."""
    document = (await acme.send("GET", f"{acme.gateway.url}/acme/openapi.json", {})).json()

    assert sorted(document["paths"]) == ["/openapi.json", "/rooms", "/rooms/{room}"]
    replies = document["paths"]["/rooms/{room}"]["delete"]["responses"]
    assert {"200", "401", "403", "429"} <= replies.keys()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
