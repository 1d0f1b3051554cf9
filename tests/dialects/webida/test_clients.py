"""Clients of other people, unmodified: the published REST client and two ages of Socket.IO's."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from msgspec.structs import replace

from gateway.core.model import State
from gateway.settings import Settings
from tests.dialects.webida.conftest import ADMIN, Webida, contested, serving
from tests.nodes import blank
from tests.support import S, eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(150),  # the first one installs the clients
]

Json = Any

SCRIPTS: Final = Path(__file__).parent / "clients"
ALERT: Final = "session will be closed by administrator"


class Program:
    """A script of Node that reads and writes lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.heard: list[Json] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.heard.append(json.loads(line))

    async def say(self, line: str) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def hears(self, *wanted: object) -> None:
        """Wait until it has heard this."""
        await eventually(lambda: list(wanted) in self.heard or None, within=5 * S)

    def names(self) -> list[str]:
        """Return what it has heard, by name."""
        return [heard[0] for heard in self.heard]

    async def stop(self) -> None:
        """End it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reader


@asynccontextmanager
async def node_script(name: str, *args: str) -> AsyncIterator[Program]:
    """Run a script of Node."""
    process = await asyncio.create_subprocess_exec(
        *("node", str(SCRIPTS / name), *args),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    program = Program(process)
    try:
        yield program
    finally:
        await program.stop()


@pytest.fixture(params=["A", "C"])
async def webida(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Webida]:
    """The dialect in both generations; clients are missed soon."""
    spoken = replace(settings, webida_generation=request.param, heartbeat_s=0.4 * S, pong_s=S)
    async with serving(spoken) as served:
        yield served


Connect = Callable[[str, str], Any]


@pytest.fixture(params=["socket.io-client-1", "socket.io-client-2"])
def connecting(request: pytest.FixtureRequest, webida: Webida, modules: Path) -> Connect:
    """Return what runs a client of Socket.IO with a token, at the prefix or the root."""
    namespace = "/session" if webida.context.settings.webida_generation == "A" else ""

    def connect(token: str, base: str) -> Any:  # noqa: ANN401 - an async context manager
        query = urlencode({"token": token, "workspaceId": "ws-7"})
        where = (f"{webida.url}{namespace}", f"{base}/socket.io", query)
        return node_script("socket.js", str(modules), request.param, *where)

    return connect


def words(webida: Webida, after_s: int) -> tuple[str, list[object], str]:
    """Return the warning of a close and the name of an announcement in the generation spoken."""
    if webida.context.settings.webida_generation == "A":
        return "closing", [ALERT, after_s], "announcement"
    return "session.closing", [after_s], "session.announcement"


async def test_socket_client_lives_and_is_closed(webida: Webida, connecting: Connect) -> None:
    """A real client comes in, pings, is warned of its close, is cut, and stays away."""
    token = await webida.log_in()
    closing, args, announcement = words(webida, 1)
    async with connecting(token["text"], "/webida") as client:
        await eventually(lambda: client.heard, within=5 * S)
        session = webida.session(token["sessionId"])
        held = session.connection
        assert held is not None
        assert client.heard == [["connect", client.heard[0][1]]]
        assert client.heard[0][1].endswith(held.id)
        assert session.workspace == "ws-7"
        async with webida.http() as http:
            query = {"closeAfter": "1", "workspaceId": "x"}
            await http.delete(f"/sessions/{session.id}", params=query)
        await client.hears(closing, *args)
        await client.hears("disconnect", "io server disconnect")  # it pinged until then
        assert session.id in webida.node.replica.gone
        assert client.names() == ["connect", closing, "disconnect"]
        assert announcement not in client.names()


async def test_socket_client_comes_back(webida: Webida, connecting: Connect) -> None:
    """A real client that loses its network is in the same session a moment later."""
    token = await webida.log_in()
    async with connecting(token["text"], "") as client:
        await eventually(lambda: client.heard, within=5 * S)
        first = webida.session(token["sessionId"])
        webida.wall.pass_s(86_400)  # its token has expired, and it has no other
        await client.say("drop")
        await client.hears("reconnect", 1)
        await eventually(lambda: client.names().count("connect") == 2 or None)
        second = webida.session(token["sessionId"])
        await client.say("leave")
        await client.hears("disconnect", "io client disconnect")
        await eventually(lambda: webida.session(token["sessionId"]).state is State.AWAY)

    assert second.connected_at == first.connected_at
    assert second.connection != first.connection


async def test_socket_client_is_refused_once(webida: Webida, connecting: Connect) -> None:
    """A real client that may not come in hears why, and does not try again."""
    async with connecting("wrong", "/webida") as client:
        await client.hears("error", "invalid token")
        await client.hears("disconnect", "io server disconnect")
        assert client.names() == ["error", "disconnect"]
        assert webida.context.connections.count == 0


async def _leave(client: Program) -> None:
    await client.say("leave")


async def _kill(client: Program) -> None:
    await client.stop()


@pytest.mark.parametrize("end", [_leave, _kill])
async def test_second_socket_client_comes_in_when_the_first_goes(
    webida: Webida, connecting: Connect, end: Callable[[Program], Awaitable[None]]
) -> None:
    """Of two real clients of one session the second one is let in when the first has gone."""
    token = await webida.log_in()
    async with connecting(token["text"], "/webida") as first:
        await eventually(lambda: first.heard, within=5 * S)
        async with connecting(token["text"], "/webida") as second:
            await contested(webida, token["sessionId"])
            await end(first)
            await eventually(lambda: second.heard, within=5 * S)

            assert second.names() == ["connect"]


async def test_second_socket_client_is_refused_while_the_first_stays(
    webida: Webida, connecting: Connect
) -> None:
    """Of two real clients of one session the first one stays; the second stays away."""
    token = await webida.log_in()
    async with (
        connecting(token["text"], "/webida") as first,
        connecting(token["text"], "/webida") as second,
    ):
        await eventually(lambda: len(first.heard + second.heard) > 2 or None, within=5 * S)
        refused, stayed = sorted((first, second), key=lambda client: len(client.heard))[::-1]

        assert refused.names() == ["error", "disconnect"]
        assert stayed.names() == ["connect"]


async def test_socket_client_of_a_node_that_goes_tries_again(
    webida: Webida, connecting: Connect
) -> None:
    """A real client that is drained tries again by itself."""
    token = await webida.log_in()
    async with connecting(token["text"], "/webida") as client:
        await eventually(lambda: client.heard, within=5 * S)
        await webida.context.connections.drain(0)
        await client.hears("disconnect", "transport close")
        webida.context.connections.is_draining = False
        await eventually(lambda: client.names().count("connect") == 2 or None, within=5 * S)


class Steps:
    """The published client, one step after the other."""

    def __init__(self, program: Program) -> None:
        self._program = program

    async def __call__(self, name: str, *args: object) -> Json:
        """Do a step; return its data, or its error."""
        before = len(self._program.heard)
        await self._program.say(json.dumps({"do": name, "args": args}))
        await eventually(lambda: len(self._program.heard) > before or None, within=5 * S)
        result = self._program.heard[-1]
        return result.get("data") if "data" in result else result


@pytest.fixture
async def steps(webida: Webida, modules: Path) -> AsyncIterator[Steps]:
    """The published client, pointed at the dialect."""
    async with node_script("rest.js", str(modules), f"{webida.url}/webida/api") as program:
        yield Steps(program)


async def test_rest_client_logs_in_and_renews(steps: Steps) -> None:
    """The published client logs in, says who it is, and gets other tokens."""
    wrong = await steps("login", "admin", "wrong")
    assert wrong["status"] == 401
    assert wrong["error"] == {"code": "UnauthorizedError", "message": "authentication failed"}
    token = await steps("login", "admin", ADMIN)
    assert token["tokenType"] == "ACCESS"
    assert token["expiresAt"].endswith("Z")  # it has read it as a date
    await steps("token", token["text"])
    assert await steps("info") == {"id": "admin", "name": "admin"}
    newer = await steps("issue", "ACCESS", {"workspaceId": "ws-7"})
    assert (newer["sessionId"], newer["workspaceId"]) == (token["sessionId"], "ws-7")
    master = await steps("issue", "MASTER", {})
    again = await steps("loginByMaster", master["text"])
    assert again["sessionId"] != token["sessionId"]


async def test_rest_client_finds_and_closes(webida: Webida, steps: Steps) -> None:
    """The published client works in generation C, the calls of the older documents in A."""
    for session_id, workspace in (("a", "ws-1"), ("b", "ws-1"), ("c", None)):
        await webida.node.open(blank(session_id, workspace=workspace, name=session_id))
    await steps("token", ADMIN)
    if webida.context.settings.webida_generation == "A":
        await _generation_a(webida, steps)
    else:
        await _generation_c(webida, steps)


async def _generation_c(webida: Webida, steps: Steps) -> None:
    found = await steps("find", "*", "ws-1")
    assert [(session["id"], session["state"]) for session in found] == [
        ("a", "NORMAL"),
        ("b", "NORMAL"),
    ]
    assert found[0]["connectedAt"].endswith("Z")
    [alone] = await steps("find", "c", "*")
    assert "workspaceId" not in alone
    assert await steps("find", "x", "*") == []
    assert await steps("close", "a", "*", 30) == {"message": "session a closes in 30 seconds"}
    [closing] = await steps("find", "a", "*")
    until = webida.session("a").closes_at
    assert closing["state"] == "CLOSING"
    assert until is not None
    assert closing["willCloseAt"].endswith(f"{until % 1000:03}Z")
    assert await steps("close", "*", "*", 0) == {"message": "3 sessions close now"}
    assert (await steps("close", "x", "*", 0))["status"] == 404
    refused = await steps("close", "a", "*", 1.5)
    assert refused["error"]["message"] == '"closeAfter" must be an integer'


async def _generation_a(webida: Webida, steps: Steps) -> None:
    assert [session["id"] for session in await steps("findA", {})] == ["a", "b", "c"]
    found = await steps("findA", {"workspaceId": "ws-1"})
    assert [session["id"] for session in found] == ["a", "b"]
    assert await steps("closeA", "a", 56) == {"message": "session a closes in 56 seconds"}
    one = await steps("getA", "a")
    assert (one["state"], one["disconnectedAt"]) == ("CLOSING", None)
    assert one["willCloseAt"].endswith("Z")
    missing = await steps("getA", "x")
    assert (missing["status"], missing["error"]["code"]) == (404, "NotFoundError")
    assert await steps("closeA", "a", 0) == {"message": "session a closes now"}
    assert sorted(webida.node.replica.sessions) == ["b", "c"]
