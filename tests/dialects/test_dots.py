"""Dots: the two ids that clients resolve in a path are no ids, wherever one is chosen or taken."""

import asyncio
import json
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from msgspec import ValidationError, convert
from websockets.asyncio.client import connect

from gateway.core.model import SessionId
from tests.dialects.house import House, shown
from tests.dialects.webida.client import Client
from tests.server.conftest import ADMIN


@pytest.mark.parametrize("text", [".", "..", "", "a" * 129, "a/b", "..\n", "\0"])
def test_text_that_is_no_id(text: str) -> None:
    """Neither of the two, nothing too long, and nothing with other characters."""
    with pytest.raises(ValidationError):
        convert(text, SessionId)


@pytest.mark.parametrize("text", ["...", ".a", "..a", "a.", "a..b", "-", "a" * 128, "...."])
def test_text_that_is_an_id(text: str) -> None:
    """Dots among others are as good as other characters."""
    assert convert(text, SessionId) == text


def exact(house: House, door: str, method: str, path: str, body: str | None = None) -> int:
    """Return the status of a request whose path nobody resolves on the way."""
    place = urlsplit(house.gateway.url)
    http = HTTPConnection(place.hostname or "", place.port, timeout=20)
    headers = {**shown(door, ADMIN), "Content-Type": "application/json"}
    try:
        http.request(method, house.prefixes[door] + path, body, headers)
        return http.getresponse().status
    finally:
        http.close()


@pytest.mark.parametrize("dots", [".", ".."])
async def test_dots_open_nothing(house: House, dots: str) -> None:
    """No door opens a session of this id."""
    answer = await house.ask("native", "POST", "/v1/sessions", json={"id": dots})
    assert answer.status_code == 422
    start = {"id": dots, "location": "here", "image": "arena"}
    answer = await house.ask("gameye", "POST", "/session", json=start)
    assert answer.status_code in (400, 422)
    url = house.gateway.url.replace("http", "ws")
    async with connect(f"{url}/v1/connect?token={ADMIN}&session={dots}", proxy=None) as socket:
        assert json.loads(await socket.recv())["code"] == 4503
    client = await Client.open(house.gateway.url, "A", ADMIN, sessionId=dots)
    assert "not acceptable" in await client.refused()
    assert not house.node.replica.sessions


@pytest.mark.parametrize("dots", ["%2E", "%2E%2E", ".", ".."])
async def test_dots_name_nothing(house: House, dots: str) -> None:
    """A path with one of them is refused, and is not taken for another path."""
    for door, method, path in (
        ("native", "GET", f"/v1/sessions/{dots}"),
        ("native", "DELETE", f"/v1/sessions/{dots}"),
        ("native", "PUT", f"/v1/sessions/{dots}/closing"),
        ("webida", "GET", f"/api/sessions/{dots}"),
        ("webida", "DELETE", f"/api/sessions/{dots}?closeAfter=1"),
        ("gameye", "GET", f"/session/{dots}"),
        ("gameye", "DELETE", f"/session/{dots}"),
        ("maxscale", "GET", f"/v1/sessions/{dots}"),
        ("neko", "GET", f"/api/sessions/{dots}"),
        ("neko", "GET", f"/api/members/{dots}"),
    ):
        body = "{}" if method == "PUT" else None
        status = await asyncio.to_thread(exact, house, door, method, path, body)
        assert status in (400, 404), (door, method, path)
