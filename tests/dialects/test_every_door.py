"""Every door: the same transport questions get the same answers, but for what a product prescribes.

Each difference stands in a table here and is a line of that product's style.
"""

import asyncio
import json
from typing import Final

import pytest

from gateway.http import request
from tests.dialects.conftest import Build
from tests.dialects.house import LISTS, PREFIXES, House, shown
from tests.server.conftest import ADMIN
from tests.server.test_api_http import raw
from tests.support import S

DOORS: Final = tuple(PREFIXES)
READ: Final = {"native": "/v1/sessions", **LISTS}
PAGE: Final = "https://app.example"  # an origin that the operator lists

BODIES: Final = {  # an operation of each door that takes a body, which Plex has none of
    "native": ("POST", "/v1/sessions"),
    "neko": ("POST", "/api/login"),
    "webida": ("POST", "/api/auth/login"),
    "gameye": ("POST", "/session"),
    "maxscale": ("PATCH", "/v1/sessions/1"),
}

LONG_QUERY_IS: Final = {**dict.fromkeys(DOORS, 414), "gameye": 400}  # no 414 in its document
TOO_LONG_IS: Final = {  # neko answers every body that it cannot take alike, Gameye as content
    **dict.fromkeys(BODIES, 413),
    "neko": 400,
    "gameye": 422,
}
WRONG_METHOD_IS: Final = {**dict.fromkeys(DOORS, 405), "maxscale": 404}  # as its own server
OPTIONS_IS: Final = {**dict.fromkeys(DOORS, 204), "maxscale": 200}
BODY_OF_GET_IS: Final = {**dict.fromkeys(DOORS, 200), "native": 400}
CHALLENGE: Final = {
    **dict.fromkeys(DOORS, "Bearer"),
    "maxscale": 'Basic realm="maxscale"',
    "plex": "X-Plex-Token",
}
TOO_MANY_IS: Final = {**dict.fromkeys(DOORS, 429), "gameye": 420}
LATE_IS: Final = {**dict.fromkeys(BODIES, 400)}


def own_error(door: str, content_type: str, body: str) -> bool:
    """Whether an error is told in the words of *door*."""
    if door == "native":
        return content_type == "application/problem+json"
    member = {"neko": "message", "plex": "errors", "webida": "message"}
    member |= {"gameye": "identifier", "maxscale": "errors"}
    if body.startswith("{"):
        return "problem" not in content_type and member[door] in json.loads(body)
    return door in ("neko", "plex") and "problem" not in content_type


@pytest.mark.parametrize("door", DOORS)
async def test_two_hosts_are_refused_with_a_bare_status(house: House, door: str) -> None:
    """A request with two Hosts, or one that cannot be read, never reaches a door."""
    path = f"{PREFIXES[door]}{READ[door]}".encode()
    for hosts in (b"Host: a\r\nHost: b\r\n", b"Host: a b\r\n", b""):
        reply = await raw(house.gateway, b"GET %b HTTP/1.1\r\n%b\r\n" % (path, hosts))
        assert reply.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("door", DOORS)
async def test_long_query_is_refused(house: House, door: str) -> None:
    """Path and query of more than 8 KiB are 414."""
    answer = await house.ask(door, "GET", f"{READ[door]}?zz={'a' * 9_000}")

    assert answer.status_code == LONG_QUERY_IS[door]
    assert own_error(door, answer.headers["content-type"], answer.text)


@pytest.mark.parametrize("end", ["%0A", "%00", "%7F", "%C2%85", "%ff"])
@pytest.mark.parametrize("door", DOORS)
async def test_unreadable_path_is_refused_in_the_doors_words(
    house: House, door: str, end: str
) -> None:
    """A control character in a path, or one that is not UTF-8, is a 400 of the door's own."""
    answer = await house.ask(door, "GET", f"{READ[door]}/a{end}b")

    assert answer.status_code == 400
    assert own_error(door, answer.headers["content-type"], answer.text)


@pytest.mark.parametrize("door", DOORS)
async def test_head_is_get_without_a_body(house: House, door: str) -> None:
    """HEAD has the status and the type of GET, and no body."""
    got = await house.ask(door, "GET", READ[door])
    head = await house.ask(door, "HEAD", READ[door])

    assert head.status_code == got.status_code == 200
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.content == b""


@pytest.mark.parametrize("door", DOORS)
async def test_options_tells_the_methods(house: House, door: str) -> None:
    """OPTIONS needs no credential and says what may be done."""
    answer = await house.send("OPTIONS", house.gateway.url + PREFIXES[door] + READ[door], {})

    assert answer.status_code == OPTIONS_IS[door]
    assert {"GET", "HEAD", "OPTIONS"} <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize("door", DOORS)
async def test_pages_of_listed_origins_may_ask(build: Build, door: str) -> None:
    """Pages of a listed origin are allowed to ask, and to read refusals; others are not."""
    async with build(allowed_origins=(PAGE,)) as house:
        url = house.gateway.url + PREFIXES[door] + READ[door]
        asks = {
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        preflight = await house.send("OPTIONS", url, {"Origin": PAGE, **asks})
        answer = await house.ask(door, "GET", READ[door], headers={"Origin": PAGE})
        refused = await house.send("GET", url, {"Origin": PAGE})
        stranger = await house.ask(door, "GET", READ[door], headers={"Origin": "https://x.example"})

    assert preflight.status_code == OPTIONS_IS[door]
    assert "GET" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert refused.status_code == 401
    for reply in (preflight, answer, refused):
        assert reply.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize("door", DOORS)
async def test_every_reply_has_the_headers_of_all(house: House, door: str) -> None:
    """Success and refusal say nosniff, Vary and Cache-Control; a 401 names its challenge."""
    answer = await house.ask(door, "GET", READ[door])
    refused = await house.send("GET", house.gateway.url + PREFIXES[door] + READ[door], {})

    for reply in (answer, refused):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "vary" in reply.headers
        assert "cache-control" in reply.headers
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == CHALLENGE[door]


@pytest.mark.parametrize("door", DOORS)
async def test_wrong_method_is_told_with_the_right_ones(house: House, door: str) -> None:
    """A method that a path does not take is 405 with Allow."""
    answer = await house.ask(door, "PUT", READ[door])

    assert answer.status_code == WRONG_METHOD_IS[door]
    assert ("allow" in answer.headers) == (answer.status_code == 405)


@pytest.mark.parametrize("door", DOORS)
async def test_body_of_a_get_is_never_the_next_request(house: House, door: str) -> None:
    """A body that no operation wants is refused, or left unread and the connection closed."""
    answer = await house.ask(door, "GET", READ[door], content=b"{}")

    assert answer.status_code == BODY_OF_GET_IS[door]
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("door", BODIES)
async def test_long_body_is_refused(house: House, door: str) -> None:
    """A body of more than the door takes is refused in its words."""
    method, path = BODIES[door]
    body = json.dumps({"x": "a" * 400_000}).encode()
    kind = {"Content-Type": "application/json"}
    answer = await house.ask(door, method, path, content=body, headers=kind)

    assert answer.status_code == TOO_LONG_IS[door]
    assert own_error(door, answer.headers["content-type"], answer.text)


@pytest.mark.parametrize("door", BODIES)
async def test_slow_body_is_refused_in_time(
    house: House, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that does not come is refused within its deadline, with or without a credential."""
    monkeypatch.setattr(request, "BODY_WITHIN_S", 0.05 * S)
    method, path = BODIES[door]
    heads = "".join(f"{name}: {value}\r\n" for name, value in shown(door, ADMIN).items())
    if "Content-Type" not in heads:
        heads += "Content-Type: application/json\r\n"
    text = (
        f"{method} {PREFIXES[door]}{path} HTTP/1.1\r\nHost: x\r\n{heads}Content-Length: 9\r\n\r\n{{"
    )
    async with asyncio.timeout(2 * S):
        reply = await raw(house.gateway, text.encode())

    assert int(reply.split(b" ")[1]) == LATE_IS[door]


@pytest.mark.parametrize("door", DOORS)
async def test_wrong_credentials_are_counted(build: Build, door: str) -> None:
    """Whoever shows wrong credentials over and over is told to wait, in the product's word."""
    async with build(requests_per_s=3) as house:
        statuses = [
            (await house.ask(door, "GET", READ[door], token="nobody-s")).status_code
            for _ in range(20)
        ]

    assert set(statuses) == {401, TOO_MANY_IS[door]}


@pytest.mark.parametrize("door", [door for door in DOORS if door != "plex"])
async def test_two_credentials_are_none(house: House, door: str) -> None:
    """A request with two Authorization headers is refused; Plex has its token elsewhere."""
    shows = shown(door, ADMIN)["Authorization"]
    head = f"GET {PREFIXES[door]}{READ[door]} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    twice = f"Authorization: {shows}\r\n" * 2
    reply = await raw(house.gateway, f"{head}{twice}\r\n".encode())

    assert reply.startswith(b"HTTP/1.1 400 ")


LOGINS: Final = {
    "neko": ("POST", "/api/login", {"username": "ann", "password": "x"}),
    "webida": ("POST", "/api/auth/login", {"loginId": "ann", "loginPassword": "x"}),
}


@pytest.mark.parametrize("door", LOGINS)
async def test_wrong_logins_are_counted(build: Build, door: str) -> None:
    """A public login is counted like any other wrong credential."""
    method, path, body = LOGINS[door]
    async with build(requests_per_s=3) as house:
        url = house.gateway.url + PREFIXES[door] + path
        statuses = {(await house.send(method, url, {}, json=body)).status_code for _ in range(20)}

    assert statuses == {401, 429}


@pytest.mark.parametrize("door", ["native"])
async def test_wrong_media_type_is_refused(house: House, door: str) -> None:
    """Where a door insists on JSON another media type is 415; the products take any."""
    method, path = BODIES[door]
    kind = {"Content-Type": "text/plain"}
    answer = await house.ask(door, method, path, content=b"{}", headers=kind)

    assert answer.status_code == 415
