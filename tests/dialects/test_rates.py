"""Rates: logins and handshakes are counted at every door, before anybody takes pains over them."""

import json
import logging
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.logs.formats import Text
from tests.dialects.conftest import Build
from tests.dialects.house import LISTS, PASSWORD, House
from tests.dialects.webida.client import Client
from tests.server.conftest import ADMIN
from tests.support import eventually

Json = Any

SELDOM: Final = 0.01  # requests a second: one, and the next after a hundred seconds
LOGINS: Final = ("neko", "webida", "maxscale", "maxscale auth")
GUESS: Final = "guess"


async def log_in(
    house: House, door: str, name: str, password: str, headers: Mapping[str, str] | None = None
) -> httpx2.Response:
    """Log in as a product's clients do."""
    said = dict(headers or {})
    url = house.gateway.url
    match door:
        case "neko":
            body: Json = {"username": name, "password": password}
            return await house.send("POST", f"{url}/neko/api/login", said, json=body)
        case "webida":
            body = {"loginId": name, "loginPassword": password}
            return await house.send("POST", f"{url}/webida/api/auth/login", said, json=body)
        case _:
            path = "auth" if door.endswith("auth") else "sessions"
            pair = b64encode(f"{name}:{password}".encode()).decode()
            said["Authorization"] = f"Basic {pair}"
            return await house.send("GET", f"{url}/maxscale/v1/{path}", said)


def told(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """Return the lines of the log that hold *text*."""
    found = [record for record in caplog.records if record.name == "gateway.context"]
    return [line for record in found if text in (line := Text().format(record))]


@pytest.mark.parametrize("door", LOGINS)
async def test_wrong_logins_are_counted_before_they_are_checked(
    build: Build, door: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An address that guesses passwords is refused, and no password of it is looked at."""
    caplog.set_level(logging.WARNING)
    async with build(requests_per_s=2) as house:
        answers = [(await log_in(house, door, "ann", f"x{n}")).status_code for n in range(12)]

        assert answers[:4] == [401] * 4
        assert answers.count(429) >= 6
        wrong = told(caplog, "a login is refused: wrong name or password account=ann")
        assert len(wrong) == answers.count(401)
        assert len(told(caplog, "a request is refused: too many")) == answers.count(429)
        assert "x0" not in caplog.text


@pytest.mark.parametrize("door", LOGINS)
async def test_right_logins_do_not_use_up_the_address(build: Build, door: str) -> None:
    """Many people behind one address may log in; after a wrong login nobody there for a while."""
    async with build(requests_per_s=SELDOM) as house:
        for name in ("root", "guest"):
            assert (await log_in(house, door, name, PASSWORD)).is_success
        assert (await log_in(house, door, "root", PASSWORD)).status_code == 429
        assert (await log_in(house, door, "root", "wrong")).status_code == 401
        refused = await log_in(house, door, "ann", PASSWORD)

        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) > 1
        assert "ann" not in {session.name for session in house.node.replica.sessions.values()}


@pytest.mark.parametrize("door", LOGINS)
async def test_forwarded_address_counts_behind_a_trusted_proxy(build: Build, door: str) -> None:
    """Clients of one proxy are told apart; those in one network of IPv6 are one."""
    async with build(requests_per_s=SELDOM, trusted_proxies=("127.0.0.1",)) as house:
        for name, address, status in (
            ("a", "192.0.2.1", 401),
            ("b", "192.0.2.1", 429),
            ("c", "192.0.2.2", 401),
            ("d", "2001:db8::1", 401),
            ("e", "2001:db8::2", 429),
            ("f", "2001:db8:0:1::1", 401),
        ):
            said = {"X-Forwarded-For": address}
            answer = await log_in(house, door, name, "wrong", said)
            assert answer.status_code == status, address


@pytest.mark.parametrize("door", LOGINS)
async def test_guesses_at_one_name_are_counted_from_wherever_they_come(
    build: Build, door: str
) -> None:
    """Many addresses guess no faster than one, and do not keep the owner out of its own place."""
    async with build(requests_per_s=0.5, trusted_proxies=("127.0.0.1",)) as house:
        home = {"X-Forwarded-For": "192.0.2.1"}
        assert (await log_in(house, door, "root", PASSWORD, home)).is_success
        statuses = [
            (
                await log_in(house, door, "root", f"x{n}", {"X-Forwarded-For": f"198.51.100.{n}"})
            ).status_code
            for n in range(6)
        ]
        assert statuses[0] == 401
        assert statuses[-2:] == [429, 429]
        other = {"X-Forwarded-For": "203.0.113.1"}
        assert (await log_in(house, door, "root", PASSWORD, other)).status_code == 429
        assert (await log_in(house, door, "guest", PASSWORD, other)).is_success
        assert (await log_in(house, door, "root", "wrong", home)).status_code == 401


@pytest.mark.parametrize("door", LISTS)
async def test_keys_are_counted_one_by_one(build: Build, door: str) -> None:
    """What one key has used up is not taken from another one."""
    busy = 420 if door == "gameye" else 429
    async with build(requests_per_s=SELDOM) as house:
        for token in ("ann", "stranger"):
            statuses = [
                (await house.ask(door, "GET", LISTS[door], token=token)).status_code
                for _ in range(2)
            ]
            assert statuses == [200, busy]


async def test_master_tokens_of_webida_are_counted(build: Build) -> None:
    """A guessed MASTER token is charged as a guessed password is."""
    async with build(requests_per_s=SELDOM) as house:
        url = f"{house.gateway.url}/webida/api/auth/login"
        body = {"loginId": "x", "loginPassword": "x", "masterToken": "guessed"}
        statuses = [(await house.send("POST", url, {}, json=body)).status_code for _ in range(2)]

    assert statuses == [401, 429]


async def native(house: House, path: str) -> int:
    """Return the close code of a native socket that shows a guess."""
    url = house.gateway.url.replace("http", "ws")
    async with connect(f"{url}{path}", proxy=None) as socket:
        async for _ in _all(socket):
            pass
    return socket.close_code or 0


@pytest.mark.parametrize(
    "path",
    [
        "/v1/events?token=guess",
        "/v1/connect?token=guess",
        f"/v1/connect?session_token=abc.{'x' * 43}",
        f"/v1/events?token=abc.{'x' * 43}",
    ],
)
async def test_guessed_tokens_of_native_sockets_are_counted(
    build: Build, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A second guess is told to come back later; a good token of the same address comes in."""
    caplog.set_level(logging.WARNING)
    async with build(requests_per_s=SELDOM) as house:
        assert await native(house, path) in (4502, 4511)
        assert await native(house, path) == 4006
        assert len(told(caplog, "a request is refused: too many")) == 1
        assert GUESS not in told(caplog, "a request is refused: too many")[0]
        url = house.gateway.url.replace("http", "ws")
        async with connect(f"{url}/v1/events?token={ADMIN}", proxy=None) as socket:
            assert json.loads(await socket.recv())["type"] == "hello"


async def test_sockets_of_one_caller_are_counted(build: Build) -> None:
    """Handshakes use up what a caller may do as requests do."""
    async with build(requests_per_s=SELDOM) as house:
        url = house.gateway.url.replace("http", "ws")
        async with connect(f"{url}/v1/connect?token=ann", proxy=None) as socket:
            hello = json.loads(await socket.recv())
        assert hello["type"] == "hello"
        assert await native(house, "/v1/events?token=ann") == 4006
        token = hello["session_token"]
        async with connect(f"{url}/v1/connect?session_token={token}", proxy=None) as socket:
            assert json.loads(await socket.recv())["type"] == "hello"
        assert await native(house, f"/v1/connect?session_token={token}") == 4006


async def test_guessed_tokens_of_plex_sockets_are_counted(build: Build) -> None:
    """Plex's clients are refused before the upgrade, with a status."""
    async with build(requests_per_s=SELDOM) as house:
        url = house.gateway.url.replace("http", "ws") + "/plex/:/websockets/notifications"
        for status in (401, 429):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(f"{url}?X-Plex-Token=guess", proxy=None):
                    pass
            assert refused.value.response.status_code == status


async def test_guessed_tokens_of_webida_sockets_are_counted(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    """A client whose address guessed too often is not told to stay away: it comes back later."""
    caplog.set_level(logging.WARNING)
    async with build(requests_per_s=SELDOM) as house:
        first = await Client.open(house.gateway.url, "A", "guess")
        assert await first.refused() == "invalid token"
        second = await Client.open(house.gateway.url, "A", "guess")
        await second.ask()
        assert await second.ended() == 4006
        assert not second.is_dismissed
        assert len(told(caplog, "a request is refused: too many")) == 1


async def test_guessed_tokens_of_neko_sockets_are_counted(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    """Neko has no word for it: a client whose address guessed too often is cut, and comes back."""
    caplog.set_level(logging.WARNING)
    async with build(requests_per_s=SELDOM) as house:
        url = house.gateway.url.replace("http", "ws")
        heard: list[list[str]] = []
        for _ in range(2):
            async with connect(f"{url}/neko/api/ws?token=guess", proxy=None) as socket:
                heard.append([str(text) async for text in _all(socket)])
        assert "session not found" in heard[0][0]
        assert heard[1] == []
        await eventually(lambda: told(caplog, "a request is refused: too many") or None)


async def _all(socket: Any) -> Any:  # noqa: ANN401 - of websockets
    try:
        async for text in socket:
            yield text
    except ConnectionClosed:
        return
