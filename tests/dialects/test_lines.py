"""What the log tells of requests and connections, at every door."""

import json
import logging
from typing import Any, Final

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.api import socket_handlers
from gateway.auth.principals import Authenticator
from gateway.core.errors import StoreUnavailable
from gateway.logs import throttle
from gateway.logs.formats import Json
from tests.dialects.conftest import Build
from tests.dialects.house import LISTS, PREFIXES, House, shown
from tests.server.conftest import ADMIN
from tests.server.test_api_http import raw
from tests.support import S, eventually

DOORS: Final = tuple(PREFIXES)
READ: Final = {"native": "/v1/sessions", **LISTS}
CLIENT: Final = "203.0.113.9"
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET: Final = "hush-hush-hush"
SOCKETS: Final = {
    "native": "/v1/events?token={token}",
    "plex": "/plex/:/websockets/notifications?X-Plex-Token={token}",
}


class Lines(logging.Handler):
    """The lines as a program reads them, formatted where they are written."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[dict[str, Any]] = []
        self.setFormatter(Json())

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of the gateway."""
        self.found.append(json.loads(self.format(record)))

    def of(self, message: str, **facts: object) -> list[dict[str, Any]]:
        """Return the lines with this message and these facts."""
        wanted = {"message": message, **facts}
        return [line for line in self.found if wanted.items() <= line.items()]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:  # noqa: ANN401 - a generator
    """Every line of the gateway, down to the least important."""
    caplog.set_level(logging.DEBUG, "gateway")
    handler = Lines()
    logging.getLogger("gateway").addHandler(handler)
    yield handler
    logging.getLogger("gateway").removeHandler(handler)


def ask(house: House) -> httpx2.AsyncClient:
    """Return a client that is nobody yet, behind a proxy that names it."""
    return httpx2.AsyncClient(
        base_url=house.gateway.url, timeout=5 * S, headers={"X-Forwarded-For": CLIENT}
    )


@pytest.mark.parametrize("door", DOORS)
async def test_reply_and_lines_name_the_request(build: Build, door: str, lines: Lines) -> None:
    """A proxy's id is in the reply and in the line, with trace, account and the address."""
    own = {
        "X-Request-Id": "r-1",
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        **shown(door, "ann"),
    }
    async with build(trusted_proxies=("127.0.0.1",)) as house, ask(house) as http:
        reply = await http.get(f"{PREFIXES[door]}{READ[door]}?x_{SECRET}=1", headers=own)

    assert reply.headers.get_list("x-request-id") == ["r-1"]
    [line] = lines.of("a request is answered", request_id="r-1")
    assert line["trace_id"] == TRACE
    assert (line["method"], line["status"]) == ("GET", reply.status_code)
    assert line["path"] == PREFIXES[door] + READ[door]
    assert line["address"] == CLIENT
    assert line["ms"] > 0
    assert line.get("account", "ann") == "ann"
    assert SECRET not in json.dumps(lines.found)


@pytest.mark.parametrize("door", DOORS)
async def test_refused_request_has_an_id_of_its_own(house: House, door: str, lines: Lines) -> None:
    """Whatever is refused has an id; a refused credential has a line, and is in none."""
    async with ask(house) as http:
        refused = await http.get(PREFIXES[door] + READ[door], headers=shown(door, SECRET))
        unknown = await http.get(f"{PREFIXES[door]}/no/such/path")

    for reply in (refused, unknown):
        assert reply.status_code in (401, 404)
        assert len(reply.headers["x-request-id"]) == 16
    [line] = lines.of("a credential is refused", request_id=refused.headers["x-request-id"])
    assert line["level"] == "info"
    assert line["address"] == "127.0.0.1"
    assert line["code"]
    assert SECRET not in json.dumps(lines.found)


@pytest.mark.parametrize("door", DOORS)
async def test_failing_request_is_told_at_info(
    house: House, door: str, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that fails has its line at the default level."""

    def fail(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(Authenticator, "authenticate", fail)
    async with ask(house) as http:
        reply = await http.get(PREFIXES[door] + READ[door], headers=shown(door, "ann"))

    [line] = lines.of("a request is answered", request_id=reply.headers["x-request-id"])
    assert (line["level"], line["status"], line["code"]) == ("info", 503, "store_unavailable")


@pytest.mark.parametrize("door", SOCKETS)
async def test_connection_has_a_line_at_both_ends(build: Build, door: str, lines: Lines) -> None:
    """A socket that watches is told when it opens and ends, by the id of its handshake."""
    async with build(trusted_proxies=("127.0.0.1",)) as house:
        url = house.gateway.url.replace("http", "ws") + SOCKETS[door].format(token="ann")
        own = {"X-Forwarded-For": CLIENT}
        async with connect(url, additional_headers=own) as socket:
            assert socket.response
            request_id = socket.response.headers["x-request-id"]
            await eventually(lambda: lines.of("a connection opened", request_id=request_id))
        await eventually(lambda: lines.of("a connection ended", request_id=request_id))

    [opened] = lines.of("a connection opened", request_id=request_id)
    [ended] = lines.of("a connection ended", request_id=request_id)
    assert opened["level"] == ended["level"] == "info"
    for line in (opened, ended):
        assert (line["address"], line["account"]) == (CLIENT, "ann")
        assert line["path"] == SOCKETS[door].partition("?")[0]
    assert (ended["ended_by"], ended["reason"], ended["code"]) == ("client", "clean", 1000)
    assert ended["lasted_s"] >= 0


async def test_line_of_a_session_names_it_and_why_it_ended(house: House, lines: Lines) -> None:
    """The socket of a session is told with the session, and with the gateway's close code."""
    url = house.gateway.url.replace("http", "ws") + "/v1/connect?session=s1&token=ann"
    async with connect(url) as socket, house.gateway.http() as http:
        await socket.recv()
        await http.delete("/v1/sessions/s1", params={"reason": "over"})
        await socket.wait_closed()
    await eventually(lambda: lines.of("a connection ended"))

    [opened], [ended] = lines.of("a connection opened"), lines.of("a connection ended")
    assert opened["session_id"] == ended["session_id"] == "s1"
    assert (ended["ended_by"], ended["reason"], ended["code"]) == ("gateway", "over", 4500)


async def test_lines_about_messages_name_the_handshake(
    house: House, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a message of a client causes is told under the id of the request that opened it."""

    def fail(*_: object) -> None:
        raise RuntimeError("hush")

    url = house.gateway.url.replace("http", "ws") + "/v1/connect?session=s1&token=ann"
    async with connect(url) as socket:
        assert socket.response
        await socket.recv()
        monkeypatch.setattr(socket_handlers, "parse", fail)
        await socket.send('{"type":"heartbeat"}')
        await socket.wait_closed()

    [line] = lines.of("a socket failed")
    assert line["request_id"] == socket.response.headers["x-request-id"]
    assert line["traceback"].endswith("RuntimeError: hush")


async def test_event_stream_has_a_line_at_both_ends(house: House, lines: Lines) -> None:
    """A stream of events is a connection as well, but has no close code."""
    async with (
        house.gateway.http() as http,
        http.stream("GET", "/v1/events", headers={"Accept": "text/event-stream"}) as reply,
    ):
        request_id = reply.headers["x-request-id"]
        await eventually(lambda: lines.of("a connection opened", request_id=request_id))
    await eventually(lambda: lines.of("a connection ended", request_id=request_id))

    [ended] = lines.of("a connection ended", request_id=request_id)
    assert (ended["ended_by"], ended["reason"], "code" in ended) == ("client", "clean", False)
    assert ended["account"] == "admin"


async def test_refused_socket_has_one_line(house: House, lines: Lines) -> None:
    """A socket that is refused after its handshake is told as refused, with the close code."""
    url = house.gateway.url.replace("http", "ws") + f"/v1/events?token={SECRET}"
    async with connect(url) as socket:
        await socket.wait_closed()
    await eventually(lambda: lines.of("a connection is refused"))

    assert lines.of("a connection is refused")[0]["code"] == 4502
    assert len(lines.of("a credential is refused")) == 1
    assert lines.of("a connection opened") == lines.of("a connection ended") == []
    assert SECRET not in json.dumps(lines.found)


async def test_flood_of_refused_sockets_is_bounded(
    house: House, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that are refused again and again cause no more lines than a disk can bear."""
    monkeypatch.setattr(throttle, "LINES_AT_ONCE", 2)
    monkeypatch.setattr(throttle, "LINES_PER_S", 1e-6)
    url = house.gateway.url.replace("http", "ws") + f"/v1/events?token={SECRET}"
    for _ in range(5):
        async with connect(url) as socket:
            await socket.wait_closed()

    for message in ("a connection is refused", "a credential is refused"):
        assert len(lines.of(message)) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/v1/events",
        "/plex/:/websockets/notifications",
        "/neko/api/ws",
        "/webida/socket.io/?EIO=4&transport=websocket",
    ],
)
async def test_refused_origin_is_told_with_what_would_be_right(
    house: House, path: str, lines: Lines
) -> None:
    """A page of another origin gets 403 without a word; the log says what the gateway expected."""
    page = "https://elsewhere.example"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(house.gateway.url.replace("http", "ws") + path, origin=page):  # type: ignore[arg-type]
            pass

    [line] = lines.of("an origin is refused")
    assert refused.value.response.headers["x-request-id"] == line["request_id"]
    assert (line["origin"], line["own_origin"]) == (page, house.gateway.url)


async def test_refused_page_that_writes_is_told(house: House, lines: Lines) -> None:
    """A page of another origin that uses the cookie of a login is told as a refused origin."""
    page = {"Origin": "https://elsewhere.example", "Cookie": f"gateway_token={ADMIN}"}
    async with ask(house) as http:
        reply = await http.post("/v1/sessions", json={}, headers=page)

    assert reply.status_code == 403
    [line] = lines.of("an origin is refused", request_id=reply.headers["x-request-id"])
    assert (line["method"], line["origin"]) == ("POST", "https://elsewhere.example")
    assert lines.of("a credential is refused") == []


async def test_what_the_transport_refuses_has_an_id(house: House, lines: Lines) -> None:
    """A request that breaks HTTP is answered with an id, too, and its line has the same."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: r-2\r\nHost: y\r\n\r\n"
    reply = await raw(house.gateway, head)

    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: r-2\r\n" in reply
    [line] = lines.of("a request is refused by the transport", request_id="r-2")
    assert (line["address"], line["status"]) == ("127.0.0.1", 400)


@pytest.mark.parametrize("door", DOORS)
async def test_page_of_another_origin_may_read_the_id(build: Build, door: str) -> None:
    """CORS exposes the header, so that a page can name the request to its operator."""
    page = "https://app.example"
    async with build(allowed_origins=(page,)) as house, ask(house) as http:
        reply = await http.get(
            PREFIXES[door] + READ[door], headers={"Origin": page, **shown(door, "ann")}
        )

    assert "X-Request-Id" in reply.headers["access-control-expose-headers"]


async def test_probe_that_is_told_not_ready_is_no_failure(house: House, lines: Lines) -> None:
    """A load balancer asks each second, and would fill the log while a node drains."""
    house.node.is_draining = True
    async with ask(house) as http:
        assert (await http.get("/readyz")).status_code == 503

    assert lines.of("a request is answered", path="/readyz")[0]["level"] == "debug"


async def test_admin_is_named(house: House, lines: Lines) -> None:
    """The admin key has a name in the log as well."""
    async with house.gateway.http(ADMIN) as http:
        await http.get("/v1/sessions")

    assert lines.of("a request is answered", account="admin")
