"""Whatever goes wrong is told in Plex's words: HTML, or JSON for those who accept it."""

import asyncio
import json
from typing import Final

import pytest

from gateway.core.errors import ERRORS, GatewayError
from gateway.dialects.plex.style import error_item
from tests.dialects.plex.conftest import Plex


@pytest.mark.parametrize("error", [known for known in ERRORS.values() if known is not GatewayError])
def test_every_error_has_a_status_of_plex(error: type[GatewayError]) -> None:
    """No error of ours is told as a failure of the server, unless it is one."""
    item = error_item(error())

    assert item.status in (400, 401, 403, 404, 405, 414, 429, 503)
    assert item.message
    assert error_item(GatewayError()).status == 500


@pytest.mark.parametrize("token", [None, "wrong", "é"])
async def test_who_is_unknown_is_told_so_in_json(plex: Plex, token: str | None) -> None:
    """Without a good token there is the typed 401 that the generated clients raise."""
    async with plex.http(None) as http:
        params = {"X-Plex-Token": token} if token else {}
        reply = await http.get("/status/sessions", params=params)

    assert reply.status_code == 401
    assert reply.json() == {
        "errors": [{"code": 1001, "message": "User could not be authenticated", "status": 401}]
    }


@pytest.mark.parametrize("accept", ["*/*", "application/xml", ""])
async def test_who_does_not_accept_json_gets_a_page(plex: Plex, accept: str) -> None:
    """As a real server: a small page with the status."""
    async with plex.http(None, accept=accept) as http:
        reply = await http.get("/status/sessions")

    assert reply.status_code == 401
    assert reply.headers["content-type"].startswith("text/html")
    assert "<h1>401 Unauthorized</h1>" in reply.text


BAD: Final = [
    ("GET", "/nowhere", 404, 1004),
    ("PUT", "/nowhere", 404, 1004),
    ("PUT", "/status/sessions", 405, 1005),
    ("POST", "/accounts", 405, 1005),
    ("GET", "/accounts/99", 404, 1004),
    ("GET", "/accounts/ann", 404, 1004),
    ("GET", "/devices/99", 404, 1004),
    ("DELETE", "/activities/no", 404, 1004),
    ("DELETE", "/transcode/sessions/no", 404, 1004),
    ("DELETE", "/transcode/sessions/1-no", 404, 1004),
    ("GET", "/status/sessions/history/99", 404, 1004),
    ("GET", "/status/sessions/history/first", 400, 1000),
    ("GET", "/status/sessions/history/all?sort=bad", 400, 1000),
    ("GET", "/status/sessions/history/all?accountID=ann", 400, 1000),
    ("GET", "/status/sessions?X-Plex-Container-Size=-1", 400, 1000),
    ("GET", "/status/sessions?X-Plex-Container-Start=x", 400, 1000),
    ("GET", "/status/sessions?%FF=1", 400, 1000),
    ("GET", "/status/sessions?" + "a&" * 300, 400, 1000),
    ("GET", "/status/sessions?a=" + "b" * 9000, 414, 1014),
    ("GET", "/%FF", 400, 1000),
    ("GET", "/status/sessions/terminate", 400, 1000),
    ("GET", "/status/sessions/terminate?sessionId=", 403, 1003),
    ("GET", "/status/sessions/terminate?sessionId=none", 404, 1004),
    ("GET", "/status/sessions/terminate?sessionId=%00", 404, 1004),
    ("POST", "/status/sessions/terminate?sessionId=none&reason=%00", 400, 1000),
    ("GET", "/:/timeline?ratingKey=1&state=playing", 400, 1000),
    ("GET", "/:/timeline?ratingKey=1&state=dancing&X-Plex-Client-Identifier=c", 400, 1000),
    ("GET", "/:/timeline?ratingKey=1&X-Plex-Client-Identifier=c", 400, 1000),
    ("GET", "/:/timeline?ratingKey=x&state=playing&X-Plex-Client-Identifier=c", 400, 1000),
    ("GET", "/:/timeline?state=playing&X-Plex-Client-Identifier=c", 400, 1000),
    (
        "POST",
        "/:/timeline?ratingKey=1&state=playing&time=1.5&X-Plex-Client-Identifier=c",
        400,
        1000,
    ),
    (
        "POST",
        "/:/timeline?ratingKey=1&state=playing&title=%00&X-Plex-Client-Identifier=c",
        400,
        1000,
    ),
    ("GET", "/:/websockets/notifications", 400, 1000),
]
"""Requests, and the status and code of their answers."""


async def test_bad_request_gets_the_error_of_plex(plex: Plex) -> None:
    """Bad input of any kind gets a documented error, below the prefix as well as at the root."""
    for base in ("", "/plex"):
        async with plex.http(base=base) as http:
            for method, path, status, code in BAD:
                reply = await http.request(method, path)

                item = reply.json()["errors"][0]
                told = (reply.status_code, item["status"], item["code"])
                assert told == (status, status, code), f"{method} {path}"


@pytest.mark.parametrize(
    "head", [b"X-Plex-Client-Identifier: \xff\xfe", b"Authorization: Basic Og=="]
)
async def test_strange_headers_are_no_trouble(plex: Plex, head: bytes) -> None:
    """Headers in any encoding, and credentials that are none of ours, are passed over."""
    host, port = plex.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET /status/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Accept: application/json\r\naccepts: application/xml\r\n"
        b"X-Plex-Token: admin-key-of-the-tests\r\n%b\r\n\r\n" % head
    )
    head_, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()

    assert head_.startswith(b"HTTP/1.1 200")
    assert json.loads(body) == {"MediaContainer": {"size": 0}}


async def test_what_nobody_foresaw_is_told_without_details(
    plex: Plex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours is a 500 in Plex's words; what it was stands in the log alone."""

    def broken(*_: object) -> list[object]:
        raise RuntimeError("a secret")

    monkeypatch.setattr(plex.node.replica, "all_in", broken)
    async with plex.http() as http:
        reply = await http.get("/status/sessions")

    assert reply.status_code == 500
    assert reply.json()["errors"][0]["code"] == 1050
    assert "secret" not in reply.text
