"""The REST client and the pure parts of the client: requests as documented, refusals understood."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest

from gateway.client import Closed, Filter, Gateway, GatewayError, Sort, errors
from gateway.client import rest as client_rest
from gateway.client.connection import expires_at_s, refresh_in_s
from gateway.client.disconnect import BACKOFF_CAP_S, RETRY_AFTER_MAX_S, delay_s
from gateway.client.protocol import address, parse, refusal
from tests.server.scripted import jwt

Reply = tuple[int, dict[str, str], bytes] | None


class Served:
    """A scripted HTTP server: where it is, and the requests it got."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []


@asynccontextmanager
async def serving(*replies: Reply | dict[str, Any]) -> AsyncIterator[Served]:
    """Answer request n with reply n: a status, headers and body, just an object, or no word."""
    served, waiting = Served(), iter(replies)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        served.requests.append(
            (start.removesuffix(" HTTP/1.1"), json.loads(body) if body else None)
        )
        served.headers.append(headers)
        reply = next(waiting)
        if isinstance(reply, dict):
            reply = (200, {"Gateway-Position": "p7"}, json.dumps(reply).encode())
        if reply:
            status, fields, content = reply
            fields = {"Connection": "close", "Content-Length": str(len(content)), **fields}
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            phrase = HTTPStatus(status).phrase
            writer.write(f"HTTP/1.1 {status} {phrase}\r\n{head}\r\n".encode() + content)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/prefix"
        yield served


async def test_list_walks_every_page() -> None:
    """Listing asks with filter, order and limit, and follows the cursor to the end."""
    async with (
        serving({"sessions": [{"id": "a"}], "next": "c&1"}, {"sessions": [{"id": "b"}]}) as served,
        Gateway(served.url, token="T") as gateway,
    ):
        wanted = Filter(workspace="ws-7", watching=True, labels={"env": "prod"})
        listed = gateway.list_sessions(wanted, sort=Sort.CLOSES_AT_DESC, limit=1, at="p6")

        assert [session["id"] async for session in listed] == ["a", "b"]
        assert gateway.position == "p7"
        first = (
            "GET /prefix/v1/sessions?workspace=ws-7&watching=true&label.env=prod"
            "&sort=-closes_at&limit=1&at=p6"
        )
        assert served.requests == [(first, None), (f"{first}&cursor=c%261", None)]
        assert served.headers[0]["authorization"] == "Bearer T"


@pytest.mark.parametrize(
    "ask,request_line,body",
    [
        (lambda it: it.get("a:b", at="p1"), "GET /v1/sessions/a%3Ab?at=p1", None),
        (lambda it: it.open({"name": "A"}), "POST /v1/sessions", {"name": "A"}),
        (lambda it: it.patch("a", {"name": None}), "PATCH /v1/sessions/a", {"name": None}),
        (lambda it: it.close("a"), "DELETE /v1/sessions/a", None),
        (
            lambda it: it.close("a", after_s=1.5, reason="old & slow"),
            "DELETE /v1/sessions/a?close_after=1.5&reason=old%20%26%20slow",
            None,
        ),
        (
            lambda it: it.close("a", after_s=30, reason="x", extend_max_s=60),
            "PUT /v1/sessions/a/closing",
            {"after_s": 30, "reason": "x", "extend_max_s": 60},
        ),
        (lambda it: it.closing("a"), "GET /v1/sessions/a/closing", None),
        (lambda it: it.cancel("a"), "DELETE /v1/sessions/a/closing", None),
        (lambda it: it.kick("a"), "DELETE /v1/sessions/a/connection", None),
        (
            lambda it: it.send_message("t", {"n": 1}, workspace="w"),
            "POST /v1/messages",
            {"to": {"workspace": "w"}, "topic": "t", "body": {"n": 1}},
        ),
        (lambda it: it.send_message("t"), "POST /v1/messages", {"to": {}, "topic": "t"}),
        (lambda it: it.stats(), "GET /v1/stats", None),
        (lambda it: it.nodes(), "GET /v1/nodes", None),
    ],
)
async def test_method_sends_its_request(
    ask: Callable[[Gateway], Awaitable[dict[str, Any]]], request_line: str, body: object
) -> None:
    """Each method is one request of the documented shape and returns the reply's object."""
    async with serving({"ok": True}) as served, Gateway(served.url) as gateway:
        assert await ask(gateway) == {"ok": True}

    method, path = request_line.split(" ")
    assert served.requests == [(f"{method} /prefix{path}", body)]
    assert "authorization" not in served.headers[0]


async def test_conditions_travel_as_headers() -> None:
    """A revision becomes If-Match, a key Idempotency-Key; an empty reply is an empty object."""
    async with serving((204, {}, b""), {"id": "a"}) as served, Gateway(served.url) as gateway:
        assert await gateway.patch("a", {}, revision=5) == {}
        await gateway.open({}, idempotency_key="k")

    assert served.headers[0]["if-match"] == '"5"'
    assert served.headers[1]["idempotency-key"] == "k"


async def test_problem_is_raised_as_its_error() -> None:
    """A problem document becomes the error of its code, with detail, wait and extra members."""
    gone = {
        "type": "about:blank",
        "status": 410,
        "code": "session_closed",
        "detail": "This session is closed.",
        "session": {"id": "a", "state": "closed"},
    }
    problem = {"Content-Type": "application/problem+json"}
    async with (
        serving(
            (410, problem, json.dumps(gone).encode()),
            (503, {**problem, "Retry-After": "7"}, b'{"code":"repairing"}'),
        ) as served,
        Gateway(served.url) as gateway,
    ):
        with pytest.raises(errors.SessionClosed) as closed:
            await gateway.get("a")
        assert closed.value.extra == {"session": {"id": "a", "state": "closed"}}
        with pytest.raises(errors.Repairing) as repairing:
            await gateway.get("a")
        assert repairing.value.retry_after_s == 7


async def test_missing_reply_is_unknown_for_a_write() -> None:
    """Without a reply a read is Unavailable, a write OutcomeUnknown; never sent is Unavailable."""
    async with serving(None, None) as served, Gateway(served.url) as gateway:
        with pytest.raises(errors.Unavailable) as read:
            await gateway.stats()
        assert type(read.value) is errors.Unavailable
        with pytest.raises(errors.OutcomeUnknown):
            await gateway.kick("a")
    async with Gateway(served.url) as gateway:
        with pytest.raises(errors.Unavailable) as unreached:
            await gateway.kick("a")
        assert type(unreached.value) is errors.Unavailable


async def test_reply_beyond_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that is too long or no JSON object is Unavailable, not memory or a TypeError."""
    monkeypatch.setattr(client_rest, "REPLY_MAX_BYTES", 8)
    async with (
        serving({"much": "too much"}, (200, {}, b"[1]")) as served,
        Gateway(served.url) as it,
    ):
        with pytest.raises(errors.Unavailable, match="bytes"):
            await it.stats()
        with pytest.raises(errors.Unavailable, match="JSON"):
            await it.stats()


@pytest.mark.parametrize(
    "status,body,kind",
    [
        (502, b"<html>", errors.Unavailable),
        (500, b"{", errors.Unavailable),
        (401, b"{}", errors.Unauthorized),
        (404, b'{"code":"from_the_future"}', errors.NotFound),
        (418, b'{"code":7}', GatewayError),
        (409, b'{"code":"id_unavailable"}', errors.IdUnavailable),
    ],
)
def test_refusal_without_a_known_code_goes_by_status(
    status: int, body: bytes, kind: type[GatewayError]
) -> None:
    """A proxy's page or an unknown code is understood by the status alone."""
    assert type(refusal(status, {"Content-Type": "application/json"}, body)) is kind


def test_waits_grow_to_a_cap() -> None:
    """Waits double from half a second to 20 s, and chance decides how much of that."""
    ceilings = [delay_s(Closed(1006), failures, chance=1.0) for failures in range(1, 9)]

    assert ceilings == [0.5, 1, 2, 4, 8, 16, BACKOFF_CAP_S, BACKOFF_CAP_S]
    assert delay_s(Closed(1006), 10_000, chance=0.25) == BACKOFF_CAP_S / 4
    assert delay_s(Closed(1006), 3, chance=0.0) == 0


def test_told_wait_is_obeyed_and_bounded() -> None:
    """A gateway's retry_after_ms is the first wait, later ones are no shorter, none is absurd."""
    assert delay_s(Closed(4001, "", 1500), 1, chance=1.0) == 1.5
    assert delay_s(Closed(4001, "", 1500), 2, chance=0.0) == 1.5
    assert delay_s(Closed(4001, "", 0), 5, chance=1.0) == 8
    assert delay_s(Closed(4001, "", -5), 1, chance=1.0) == 0
    assert delay_s(Closed(4001, "", 10**12), 1, chance=1.0) == RETRY_AFTER_MAX_S


@pytest.mark.parametrize(
    "token,expected_s",
    [
        (jwt(exp=1000), 70.0),
        (jwt(exp=920.5), 10.25),
        (jwt(exp="1000"), 70.0),
        (jwt(exp=899), None),
        (jwt(sub="a"), None),
        (jwt(exp=[]), None),
        ("a.%%.b", None),
        ("a.é.b", None),
        ("key", None),
    ],
)
def test_fresh_token_is_fetched_ahead_of_the_expiry(token: str, expected_s: float | None) -> None:
    """A JWT is replaced 30 s before it expires, a short one halfway; other tokens never."""
    assert refresh_in_s(token, 900.0) == expected_s
    assert (expires_at_s(token) is None) == (expected_s is None and token != jwt(exp=899))


@pytest.mark.parametrize(
    "url,socket,expected",
    [
        ("http://h:1", True, "ws://h:1/v1/events"),
        ("https://h/", True, "wss://h/v1/events"),
        ("wss://h/a/b/", False, "https://h/a/b/v1/events"),
        ("ws://[::1]:80", False, "http://[::1]:80/v1/events"),
    ],
)
def test_base_address_takes_either_spelling(url: str, socket: bool, expected: str) -> None:
    """A gateway is found by its http or ws address, with or without a prefix and a last slash."""
    assert address(url, "/v1/events", socket=socket) == expected


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"{}", b'{"type":"ack","ref":7}', b'{"type":"\xff"}']
)
def test_broken_message_is_no_message(text: bytes) -> None:
    """What is no JSON object, or a known type with a wrong field, is refused."""
    with pytest.raises(errors.BadRequest):
        parse(text)
