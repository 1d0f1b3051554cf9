"""Bad input at the sockets' door: a documented answer, and nothing changed."""

import asyncio
import base64
import dataclasses
import json
import logging
import os
import time
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import OctKey
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.app import create_app
from gateway.auth.tokens import LEEWAY_MS
from gateway.settings import Settings
from tests.server.conftest import ADMIN, ALLOWED_ORIGIN, Gateway
from tests.server.talk import Talk, dial
from tests.support import S, eventually

SECRET = "the secret of these tests, 32 bytes or more"
PATHS = ("/v1/connect", "/v1/events")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A gateway that also believes JWTs."""
    return replace(settings, jwt_key=SECRET)


def token(lives_s: float = 60, **claims: object) -> str:
    """Return a JWT that is refused after *lives_s* seconds."""
    expires_at_s = time.time() + lives_s - LEEWAY_MS / 1000
    told = {"sub": "ann", "scope": "connect read", "exp": expires_at_s, **claims}
    return jwt.encode({"alg": "HS256"}, told, OctKey.import_key(SECRET))


async def raw(gateway: Gateway, request: str) -> str:
    """Return what comes back for a request as it stands, up to the end of its head."""
    place = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(request.replace("\n", "\r\n").encode("latin-1"))
    try:
        async with asyncio.timeout(5 * S):
            return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    finally:
        writer.close()
        await writer.wait_closed()


def upgrade(path: str = "/v1/connect", *, version: str = "13", key: str | None = None) -> str:
    """Return the request of a handshake."""
    key = base64.b64encode(os.urandom(16)).decode() if key is None else key
    return (
        f"GET {path} HTTP/1.1\nHost: localhost\nUpgrade: websocket\nConnection: Upgrade\n"
        f"Sec-WebSocket-Version: {version}\n"
        + (f"Sec-WebSocket-Key: {key}\n" if key else "")
        + f"Authorization: Bearer {ADMIN}\n"
    )


# --- the request


async def test_plain_request_is_told_to_upgrade(gateway: Gateway) -> None:
    """GET without an upgrade is a 426 that says which."""
    async with gateway.http(None) as http:
        reply = await http.get("/v1/connect")

        assert reply.status_code == 426
        assert reply.headers["upgrade"] == "websocket"
        assert reply.json()["code"] == "upgrade_required"


@pytest.mark.parametrize(
    "request_text, status",
    [
        (upgrade(key=""), "400"),
        (upgrade(key="short"), "400"),
        (upgrade(version="7"), "426"),
        (upgrade() + "Sec-WebSocket-Protocol: b\xe9arer\n", "400"),
        (upgrade("/v1/nowhere"), "403"),
    ],
)
async def test_broken_handshake_is_refused(
    gateway: Gateway, request_text: str, status: str
) -> None:
    """A handshake that is none gets an HTTP error."""
    reply = await raw(gateway, request_text + "\n")

    assert reply.split(" ")[1] == status


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        f"{ALLOWED_ORIGIN}.evil.example",
        ALLOWED_ORIGIN.replace("https", "http"),
        f"{ALLOWED_ORIGIN}:444",
    ],
)
async def test_page_of_another_origin_is_refused(gateway: Gateway, path: str, origin: str) -> None:
    """A page that has no business here gets 403 before the handshake; nothing is opened."""
    with pytest.raises(InvalidStatus) as refused:
        await dial(gateway, path, headers={"Origin": origin})

    assert refused.value.response.status_code == 403
    assert not gateway.node.replica.sessions


async def test_cookie_needs_an_origin(gateway: Gateway) -> None:
    """A cookie without an Origin is refused; with our own page's it is a login."""
    cookie = {"Cookie": f"gateway_token={ADMIN}"}
    with pytest.raises(InvalidStatus) as refused:
        await dial(gateway, "/v1/events", token=None, headers=cookie)
    assert refused.value.response.status_code == 403
    async with await dial(
        gateway, "/v1/events", token=None, headers={**cookie, "Origin": gateway.url}
    ) as page:
        await page.hear("hello")


async def test_listed_origin_comes_in(gateway: Gateway) -> None:
    """A page of a listed origin may connect."""
    async with await dial(gateway, headers={"Origin": ALLOWED_ORIGIN}) as page:
        await page.hear("hello")


async def test_browser_shows_its_token_as_subprotocol(gateway: Gateway) -> None:
    """The token's subprotocol lets in and is never echoed."""
    async with await dial(
        gateway, token=None, subprotocols=("gateway.v1", f"bearer.{ADMIN}")
    ) as page:
        await page.hear("hello")
        assert page.socket.subprotocol == "gateway.v1"
    async with await dial(gateway, token=None, subprotocols=(f"bearer.{ADMIN}",)) as page:
        await page.hear("hello")
        assert page.socket.subprotocol is None


async def test_unknown_subprotocols_are_not_chosen(gateway: Gateway) -> None:
    """An offer that we do not know is no reason to refuse, and is not echoed."""
    async with await dial(gateway, subprotocols=("chat", "soap")) as page:
        await page.hear("hello")
        assert page.socket.subprotocol is None


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "shown, query, code",
    [
        (None, {}, 4502),
        ("wrong", {}, 4502),
        (None, {"token": ""}, 4502),
        (None, {"token": "wrong"}, 4502),
        (ADMIN, {"token": ADMIN}, 4503),
        (ADMIN, {"colour": "red"}, 4503),
        (ADMIN, {"label.": "x"}, 4503),
        ("nothing", {}, 4507),
    ],
)
async def test_refusal_is_told_after_the_handshake(
    gateway: Gateway, path: str, shown: str | None, query: dict[str, object], code: int
) -> None:
    """Whoever may not come in is told bye with a code that a browser can read."""
    async with await dial(gateway, path, token=shown, params=query) as guest:
        bye = await guest.bye()

        assert bye["code"] == code
        assert not gateway.node.replica.sessions


@pytest.mark.parametrize(
    "query",
    [
        "session=a&session=b",
        "session=",
        "session=../x",
        "session=" + "x" * 129,
        "session=a%00",
        "session=a%0d%0ab",
        "session=%ff",
        "session_token=nonsense",
        f"session=a&session_token=b.{'A' * 43}",
        "linger_ms=-1",
        "linger_ms=soon",
        "label.a=1&label.a=2",
        "label.%00=1",
        "name=" + "x" * 257,
        "name=%00",
        "name=" + "x" * 4000,
    ],
)
async def test_unreadable_query_is_refused(gateway: Gateway, query: str) -> None:
    """An address that cannot be read is 4503 and opens nothing."""
    host = urlsplit(gateway.url).netloc
    async with connect(f"ws://{host}/v1/connect?token={ADMIN}&{query}", proxy=None) as socket:
        assert (await Talk(socket, "session").bye())["code"] == 4503
        assert not gateway.node.replica.sessions


async def test_too_many_offers_are_refused(gateway: Gateway) -> None:
    """A hundred subprotocols are 4503."""
    offers = ("gateway.v1", *(f"p{n}" for n in range(100)))
    async with await dial(gateway, subprotocols=offers) as page:
        assert (await page.bye())["code"] == 4503


@pytest.mark.parametrize(
    "offer", ["permessage-deflate", "permessage-deflate; server_max_window_bits=abc", "x, x"]
)
async def test_extensions_are_declined(gateway: Gateway, offer: str) -> None:
    """No extension is agreed to; the connection works."""
    reply = await raw(gateway, upgrade() + f"Sec-WebSocket-Extensions: {offer}\n\n")

    assert reply.startswith("HTTP/1.1 101")
    assert "extensions" not in reply.lower()


class TestFull:
    """A gateway that takes one connection."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """Room for one."""
        return replace(settings, max_connections=1)

    async def test_no_room_is_told_before_the_handshake(self, gateway: Gateway) -> None:
        """A full node says 503 and when to try again; a place that is freed is free."""
        async with await dial(gateway) as ann:
            await ann.hear("hello")
            with pytest.raises(InvalidStatus) as refused:
                await dial(gateway, "/v1/events")
            assert refused.value.response.status_code == 503
            assert int(refused.value.response.headers["retry-after"]) >= 1
            async with gateway.http() as http:
                reply = await http.get("/v1/events", headers={"Accept": "text/event-stream"})
                assert reply.status_code == 503
        await eventually(lambda: gateway.context.connections.count == 0)
        async with await dial(gateway) as ann:
            await ann.hear("hello")


async def test_draining_node_takes_nobody_in(gateway: Gateway) -> None:
    """A node that is going says 503 before the handshake."""
    gateway.node.is_draining = True
    with pytest.raises(InvalidStatus) as refused:
        await dial(gateway)

    assert refused.value.response.status_code == 503
    assert json.loads(refused.value.response.body or b"")["code"] == "draining"


# --- tokens that expire


@pytest.mark.parametrize("path", PATHS)
async def test_expired_token_is_refused_at_the_door(gateway: Gateway, path: str) -> None:
    """A token that was good once is 4005: refresh and come back."""
    async with await dial(gateway, path, token=token(-1)) as ann:
        assert (await ann.bye())["code"] == 4005


@pytest.mark.parametrize("path", PATHS)
async def test_token_that_expires_ends_the_socket(gateway: Gateway, path: str) -> None:
    """A socket does not outlive its token: 4005."""
    expires_at_s = time.time() + 0.5
    async with await dial(gateway, path, token=token(0.5)) as ann:
        assert (await ann.bye())["code"] == 4005
        assert time.time() >= expires_at_s - 0.01  # it is kept in whole milliseconds


@pytest.mark.parametrize("path", PATHS)
async def test_refreshed_socket_lives_on(gateway: Gateway, path: str) -> None:
    """A fresh token of the same caller keeps the socket; it is never written anywhere."""
    async with await dial(gateway, path, token=token(2)) as ann:
        await ann.hear("hello")
        expires_at_s = time.time() + 2.2
        assert (await ann.ask("token", token=token(2.2)))["type"] == "ack"
        assert (await ann.bye())["code"] == 4005
        assert time.time() >= expires_at_s - 0.01  # it is kept in whole milliseconds


@pytest.mark.parametrize(
    "claims, code",
    [
        (None, 4502),
        ({"sub": "bob"}, 4507),
        ({"scope": "connect"}, 4507),
        ({"workspace": "ws-1"}, 4507),
    ],
)
async def test_foreign_refresh_ends_the_socket(
    gateway: Gateway, claims: dict[str, Any] | None, code: int
) -> None:
    """A refresh that is no token, or somebody else's, ends the socket."""
    async with await dial(gateway, token=token()) as ann:
        await ann.hear("hello")
        await ann.say("token", token="nonsense" if claims is None else token(**claims))
        assert (await ann.bye())["code"] == code


async def test_no_token_is_ever_logged(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a client shows, and wherever, no log line has it."""
    canary = f"canary{os.urandom(8).hex()}"
    with caplog.at_level(logging.INFO):
        for path in PATHS:
            for query in ({"token": canary}, {"token": canary, "colour": "red"}):
                async with await dial(gateway, path, token=None, params=query) as guest:
                    await guest.bye()
            offers = ("gateway.v1", f"bearer.{canary}", f"session.{canary}")
            async with await dial(gateway, path, token=None, subprotocols=offers) as guest:
                await guest.bye()
            with pytest.raises(InvalidStatus):
                await dial(gateway, f"{path}", token=None, headers={"Origin": "null"}, x=canary)
        async with await dial(gateway, token=None, params={"token": ADMIN}) as ann:
            hello = await ann.hear("hello")
    assert caplog.records, "nothing was logged at all"
    for secret in (canary, ADMIN, hello["session_token"], quote(hello["session_token"])):
        assert secret not in caplog.text


async def test_refused_socket_is_forgotten(gateway: Gateway) -> None:
    """A socket that was refused leaves no timer behind that waits for its token to expire."""
    before = pending_timers()
    for _ in range(5):
        async with await dial(gateway, token=token(lives_s=3600), session="bobs") as ann:
            assert (await ann.bye())["code"] == 4507
    await eventually(lambda: gateway.context.connections.count == 0)

    assert pending_timers() <= before


@pytest.mark.parametrize("path", PATHS)
async def test_another_server_is_told_what_is_missing(gateway: Gateway, path: str) -> None:
    """Below a server without our transport sockets are refused in clear words; HTTP works."""
    config = uvicorn.Config(
        create_app(gateway.context), port=0, lifespan="off", log_config=None, ws="websockets-sansio"
    )
    config.load()
    web = uvicorn.Server(config)
    web.lifespan = config.lifespan_class(config)
    await web.startup()
    try:
        port = web.servers[0].sockets[0].getsockname()[1]
        other = dataclasses.replace(gateway, url=f"http://127.0.0.1:{port}")
        with pytest.raises(InvalidStatus) as refused:
            await dial(other, path)
        async with other.http() as http:
            assert (await http.get("/v1/sessions")).status_code == 200
    finally:
        await web.shutdown()

    assert refused.value.response.status_code == 503
    assert "gateway serve" in json.loads(refused.value.response.body)["detail"]


def pending_timers() -> int:
    """Return how many timers of lines' token expiry are set."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # noqa: SLF001
    return sum("expire_at" in repr(timer) and not timer.cancelled() for timer in scheduled)
