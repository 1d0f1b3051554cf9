"""MaxCtrl: its requests as it sends them, and what it reads from the replies.

The program is not on any package registry and its licence forbids to carry it along, so its
requests are here byte for byte as they were seen on the wire: raw brackets and quotes, a form's
content type on empty bodies, the password with every request, headers of its HTTP library.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.json import decode

from gateway.core.model import State
from tests.dialects.maxscale.build import told
from tests.dialects.maxscale.conftest import ADMIN, MaxScale, basic


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    body: Any

    def read(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return what stands at a path of names, as MaxCtrl looks it up; ``None`` if nothing."""
        found = self.body
        for name in path.split("."):
            if isinstance(found, list):
                found = [row.get(name) for row in found]
            else:
                found = (found or {}).get(name)
        return found


class MaxCtrl:
    """Sends requests as MaxCtrl 24.02 does."""

    def __init__(self, url: str, password: str = ADMIN) -> None:
        self._address = url.removeprefix("http://")
        self._login = basic("admin", password)["Authorization"]

    async def send(self, method: str, target: str, body: str | None = None) -> Reply:
        """Send one request over a connection of its own."""
        host, port = self._address.split(":")
        lines = [
            f"{method} {target} HTTP/1.1",
            "Accept: application/json, text/plain, */*",
            f"Authorization: {self._login}",
            "User-Agent: axios/0.28.0",
            f"Host: {self._address}",
            "Connection: close",
        ]
        if method == "POST" and body is None:
            lines += ["Content-Length: 0", "Content-Type: application/x-www-form-urlencoded"]
        if body is not None:
            lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write("\r\n".join([*lines, "", body or ""]).encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, text = answer.partition(b"\r\n\r\n")
        return Reply(int(head.split()[1]), decode(text) if text else None)


@pytest.fixture
async def maxctrl(maxscale: MaxScale) -> MaxCtrl:
    """MaxCtrl beside two sessions, one of which tells everything."""
    full = told()
    await maxscale.open(
        "one",
        account="app_rw",
        service="orders-rw",
        attributes=full.attributes,
        streams=full.streams,
    )
    await maxscale.connect("one")
    await maxscale.open("two", account="app_ro")
    return MaxCtrl(maxscale.url)


async def test_list_sessions(maxctrl: MaxCtrl) -> None:
    """``list sessions`` finds every column."""
    for target in ("/v1/sessions", "/v1/sessions?rdns=true", "/v1/sessions?sync=false"):
        reply = await maxctrl.send("GET", target)

        assert reply.status == 200
        assert reply.read("data.id") == ["1", "2"]
        assert reply.read("data.attributes.user") == ["app_rw", "app_ro"]
        assert reply.read("data.attributes.remote") == ["192.0.2.7", None]
        assert all(text.endswith(" GMT") for text in reply.read("data.attributes.connected"))
        assert reply.read("data.attributes.memory.total") == [4840, 0]
        assert reply.read("data.attributes.io_activity") == [9, 0]
        services = reply.read("data.relationships.services.data")
        assert [service["id"] for row in services for service in row] == ["orders-rw", "default"]


async def test_show_session(maxctrl: MaxCtrl) -> None:
    """``show session`` and ``show sessions`` find every row."""
    one = await maxctrl.send("GET", "/v1/sessions/1?rdns=true")
    every = await maxctrl.send("GET", "/v1/sessions/")

    assert (one.status, every.status) == (200, 200)
    assert one.body["data"].keys() == every.body["data"][0].keys()
    names = "state user remote port connected idle parameters connections queries log memory"
    assert set(names.split()) <= one.read("data.attributes").keys()
    assert one.read("data.attributes.client.cipher") == "TLS_AES_256_GCM_SHA384"
    assert one.read("data.attributes.client.connection_attributes")["_pid"] == "77"
    assert one.read("data.attributes.connections.server") == ["db-a", "db-b"]
    assert one.read("data.attributes.connections.connection_id") == [9001, 0]
    assert one.read("data.attributes.queries.statement") == ["SELECT 2+2"]


async def test_list_queries(maxctrl: MaxCtrl) -> None:
    """``list queries`` hears that queries are kept, and every session has a list of them."""
    server = await maxctrl.send("GET", "/v1/maxscale")
    sessions = await maxctrl.send("GET", "/v1/sessions")

    assert server.read("data.attributes.parameters.retain_last_statements") > 0
    assert [len(queries) for queries in sessions.read("data.attributes.queries")] == [1, 0]


async def test_destroy_session(maxscale: MaxScale, maxctrl: MaxCtrl) -> None:
    """``destroy session`` of two at once ends both; what is not there is an error."""
    replies = await asyncio.gather(
        maxctrl.send("DELETE", "/v1/sessions/1?ttl=0"),
        maxctrl.send("DELETE", "/v1/sessions/2?ttl=0"),
    )

    assert [(reply.status, reply.body) for reply in replies] == [(200, None)] * 2
    assert not maxscale.node.replica.sessions
    assert (await maxctrl.send("DELETE", "/v1/sessions/1?ttl=0")).status == 404


async def test_destroy_session_later(maxscale: MaxScale, maxctrl: MaxCtrl) -> None:
    """``destroy session --ttl`` prints OK and the session is on its way out."""
    reply = await maxctrl.send("DELETE", "/v1/sessions/1?ttl=60")

    assert (reply.status, reply.body) == (200, None)
    assert maxscale.node.replica.sessions["one"].state is State.CLOSING


async def test_reload_sessions(maxctrl: MaxCtrl) -> None:
    """``reload session`` and ``reload sessions`` send a form without content."""
    for target in ("/v1/sessions/1/restart", "/v1/sessions/restart"):
        reply = await maxctrl.send("POST", target)

        assert (reply.status, reply.body) == (200, None)


async def test_alter_session(maxctrl: MaxCtrl) -> None:
    """``alter session`` and ``alter session-filters`` change what the next reply shows."""
    switch = '{"data":{"attributes":{"parameters":{"log_info":false,"log_notice":true}}}}'
    filters = (
        '{"data":{"type":"services","relationships":{"filters":{"data":'
        '[{"id":"F1","type":"filters"},{"id":"F2","type":"filters"}]}}}}'
    )

    assert (await maxctrl.send("PATCH", "/v1/sessions/1", switch)).status == 200
    assert (await maxctrl.send("PATCH", "/v1/sessions/1", filters)).status == 200
    after = await maxctrl.send("GET", "/v1/sessions/1")
    assert after.read("data.attributes.parameters") == {
        "log_info": False, "log_notice": True, "log_warning": False, "log_error": False
    }  # fmt: skip
    assert after.read("data.relationships.filters.data.id") == ["F1", "F2"]


@pytest.mark.parametrize(
    "target, ids",
    [
        ("/v1/sessions?filter=/attributes/user=%22app_rw%22", ["1"]),
        ('/v1/sessions?filter=/attributes/user="app_rw"', ["1"]),
        ("/v1/sessions?filter[attributes.connections[*].server]=eq(%22db-b%22)", ["1"]),
        ("/v1/sessions?filter[id]=or(eq(%221%22),eq(%222%22))", ["1", "2"]),
        ("/v1/sessions?page[size]=1&page[number]=1", ["2"]),
        ("/v1/sessions?fields[sessions]=user", ["1", "2"]),
    ],
)
async def test_api_get_sends_brackets_as_they_are(
    maxctrl: MaxCtrl, target: str, ids: list[str]
) -> None:
    """``api get`` hands the address on verbatim."""
    reply = await maxctrl.send("GET", target)

    assert reply.status == 200
    assert reply.read("data.id") == ids


async def test_api_get_can_be_added_up(maxctrl: MaxCtrl) -> None:
    """``api get --sum`` adds idle times, which are numbers where they are known."""
    idle = (await maxctrl.send("GET", "/v1/sessions")).read("data.attributes.idle")

    assert all(isinstance(value, float) for value in idle if value is not None)


async def test_several_hosts_and_wrong_password(maxscale: MaxScale, maxctrl: MaxCtrl) -> None:
    """With several hosts each is asked for its health first; a wrong password is refused."""
    assert (await maxctrl.send("GET", "/v1/")).status == 200
    assert (await MaxCtrl(maxscale.url, "wrong").send("GET", "/v1/")).status == 401


@pytest.mark.parametrize(
    "query",
    [
        'filter=/relationships/services/data/0/id="orders-rw"',
        'filter=/attributes/connections/0/server="db-a"',
    ],
)
async def test_gui_asks_for_sessions_of_one_service_or_server(maxctrl: MaxCtrl, query: str) -> None:
    """The vendor's GUI reads a page of fifty and the total."""
    reply = await maxctrl.send("GET", f"/v1/sessions?{query}&page[size]=50&page[number]=0")

    assert reply.read("meta.total") == 1
    assert reply.read("data.id") == ["1"]
