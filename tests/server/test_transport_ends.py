"""How WebSockets end, what an application is told of it, and plain requests beside them."""

import asyncio
import inspect
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.transport import Http, Limits, uvicorn_internals
from gateway.transport.uvicorn_internals import (
    OVERRIDDEN,
    USED,
    FlowControl,
    HttpToolsProtocol,
    RequestResponseCycle,
    ServerState,
)
from tests.server.echo import Client, Echo, Served, frame, serve, upgrade
from tests.server.test_transport import Doors
from tests.support import eventually


@pytest.fixture
async def echo() -> Echo:
    """An application that says back what it hears."""
    return Echo()


@pytest.fixture
async def served(echo: Echo) -> AsyncIterator[Served]:
    """A server of it."""
    async with serve(echo) as found:
        yield found


@pytest.mark.parametrize(
    "said, told",
    [
        (frame(8, b"\x03\xe8"), {"code": 1000, "reason": ""}),
        (frame(8, b"\x03\xe9away"), {"code": 1001, "reason": "away"}),
        (frame(8, b"\x0b\xb8"), {"code": 3000, "reason": ""}),
        (frame(8), {"code": 1005, "reason": ""}),
        (frame(8, b"\x03\xf4"), {"code": 1012, "reason": ""}),
        (frame(1, b"\xff"), {"code": 1007}),
        (frame(3), {"code": 1002}),
        (b"", {"code": 1006}),
        (frame(1, b"abc")[:-1], {"code": 1006}),
    ],
)
async def test_application_is_told_how_it_ended(
    served: Served, echo: Echo, said: bytes, told: dict[str, object]
) -> None:
    """A reason is there exactly if the client said goodbye; without a word the code is 1006."""
    async with Client.websocket(served, said) as client:
        if told["code"] == 1006:
            client.writer.write_eof()
        else:
            assert await client.close_code() == told["code"]
        await client.ends()
        await eventually(lambda: echo.ends)

    assert echo.ends == [{"type": "websocket.disconnect", **told}]
    await eventually(lambda: not served.state.connections)


async def test_reset_is_told(served: Served, echo: Echo) -> None:
    """A connection that is reset is 1006."""
    async with Client.websocket(served) as client:
        client.writer.transport.abort()
        await eventually(lambda: echo.ends)

    assert echo.ends[0]["code"] == 1006


async def test_what_was_said_before_the_end_is_heard_first() -> None:
    """Messages and the goodbye in one segment arrive in their order."""
    heard: list[str] = []

    async def door(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            heard.append(await websocket.receive_text())

    doors = Doors(door)
    async with (
        serve(doors) as served,
        Client.websocket(served, frame(1, b"a"), frame(1, b"b"), frame(8, b"\x03\xe8")) as client,
    ):
        assert await client.close_code() == 1000
        await eventually(lambda: doors.left)
    assert (heard, doors.left) == (["a", "b"], [1000])


async def test_application_says_close() -> None:
    """Its close frame arrives; what the client says after it is not heard; nobody waits long."""

    async def door(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4500, "left")

    async with (
        serve(Doors(door)) as served,
        Client.websocket(served, frame(1, b"unheard")) as client,
    ):
        assert await client.frame() == (8, b"\x11\x94left")
        client.writer.write(frame(1, b"unheard") + frame(8, b"\x11\x94"))
        await client.ends()
        await eventually(lambda: not served.state.connections)


async def test_sending_too_late_is_a_disconnect() -> None:
    """Who writes to a client that is gone is told so, and may stop."""

    async def door(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text("x" * 1000)
            await asyncio.sleep(0)

    doors = Doors(door)
    async with serve(doors) as served, Client.websocket(served) as client:
        await client.frame()
        client.writer.transport.abort()
        await eventually(lambda: doors.left)
    assert doors.left == [1006]


async def test_server_that_stops_says_so(echo: Echo) -> None:
    """At the end every WebSocket gets 1012, and its application knows that it was the server."""
    async with AsyncExitStack() as clients:
        async with serve(echo) as served:
            client = await clients.enter_async_context(Client.websocket(served))
        assert await client.close_code() == 1012
    assert echo.ends == [{"type": "websocket.disconnect", "code": 1012}]


# --- HTTP beside it


async def test_requests_are_answered_as_ever(served: Served) -> None:
    """Plain requests, one after the other and pipelined, are uvicorn's."""
    asked = b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % number for number in range(100))
    async with Client.open(served, asked) as client:
        for number in range(100):
            assert "200 OK" in await client.head()
            body = await client.reader.readuntil(b"\r\n0\r\n\r\n")
            assert b"/%d" % number in body


async def test_status_420_has_its_phrase() -> None:
    """A status that no registry knows is told with the words its products use."""

    async def door(websocket: WebSocket) -> None:
        await websocket.close()

    async with serve(Doors(door)) as served:
        request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
        async with Client.open(served, request) as client:
            assert (await client.head()).startswith("HTTP/1.1 420 Enhance Your Calm\r\n")


async def test_other_upgrades_are_ignored(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A request that asks for HTTP/2 is served as it is, and so are those after it."""
    request = upgrade("/plain", upgrade="h2c")
    async with Client.open(served, request, request) as client:
        for _ in range(2):
            assert "200 OK" in await client.head()
            assert b"/plain" in await client.reader.readuntil(b"\r\n0\r\n\r\n")
        client.writer.write(upgrade("/plain"))
        assert (await client.head()).startswith("HTTP/1.1 101 ")

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_dead_peers_are_found_by_tcp(served: Served) -> None:
    """A connection is sent without delay, and given up when nothing is acknowledged for 15 s."""
    async with Client.websocket(served):
        (connection,) = served.state.connections
        sock = connection._transport.get_extra_info("socket")  # type: ignore[union-attr]  # noqa: SLF001

        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000


def test_limits_have_the_documented_numbers() -> None:
    """What is not set is what the documents and tables say."""
    limits = Limits()

    assert (limits.heartbeat_s, limits.pong_s, limits.head_s) == (15, 5, 5)
    assert (limits.caps.message_bytes, limits.caps.fragments) == (65536, 64)
    assert limits.caps.frames_per_s == 200


# --- applications that make mistakes


async def test_mistakes_of_an_application_are_its_own() -> None:
    """What cannot be said is told to the application, and nothing of it reaches the client."""
    told: list[str] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in (
            {"type": "websocket.send", "text": "too early"},
            {"type": "websocket.accept", "subprotocol": "not offered"},
            {"type": "websocket.accept", "headers": [(b"a", b"b\r\nc: d")]},
            {"type": "websocket.accept"},
            {"type": "websocket.accept"},
            {"type": "websocket.close", "code": 1006},
            {"type": "websocket.close", "code": 1000},
            {"type": "websocket.send", "text": "too late"},
        ):
            try:
                await send(message)
            except (RuntimeError, ValueError) as error:
                told.append(f"{error}")
            else:
                told.append("")

    async with serve(app) as served, Client.websocket(served) as client:
        assert await client.frame() == (8, b"\x03\xe8")
    assert [bool(text) for text in told] == [True, True, True, False, True, True, False, True]


async def test_application_that_answers_nothing_is_an_internal_error() -> None:
    """A handshake that nobody answered is a 500, also when only half an answer was given."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/half":
            await send({"type": "websocket.http.response.start", "status": 403})

    async with serve(app) as served:
        for path in ("/", "/half"):
            async with Client.open(served, upgrade(path)) as client:
                assert (await client.head()).startswith("HTTP/1.1 500 ")


async def test_handshake_at_the_end_is_refused() -> None:
    """A server that stops says 503 to who is not in yet; the application hears that it is over."""
    told: list[int] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        told.append((await receive())["code"])

    async with AsyncExitStack() as clients:
        async with serve(app) as served:
            client = await clients.enter_async_context(Client.open(served, upgrade()))
            await eventually(lambda: served.state.tasks)
        assert (await client.head()).startswith("HTTP/1.1 503 ")
    assert told == [1006]


# --- what we override


def test_overridden_parts_of_uvicorn_are_named() -> None:
    """What replaces private parts of uvicorn is listed, and uvicorn still has all of them."""
    server = HttpToolsProtocol(
        uvicorn.Config(Echo(), ws="none", log_config=None),
        ServerState(),
        {},
        asyncio.new_event_loop(),
    )
    own = {name for name in vars(HttpToolsProtocol) if not name.startswith("__")}
    cycle = dict.fromkeys(inspect.signature(RequestResponseCycle).parameters, None)
    parts: dict[type, object] = {
        HttpToolsProtocol: server,
        RequestResponseCycle: RequestResponseCycle(**cycle),  # type: ignore[arg-type]
        FlowControl: FlowControl(asyncio.Transport()),
        ServerState: server.server_state,
    }

    assert own & set(vars(Http)) == OVERRIDDEN
    for kind, names in USED.items():
        assert [name for name in names if not hasattr(parts[kind], name)] == []
    server.loop.close()


def test_parts_of_uvicorn_are_imported_in_one_place() -> None:
    """No other file of the transport reaches into uvicorn."""
    folder = Path(uvicorn_internals.__file__).parent
    reaching = [path.name for path in folder.glob("*.py") if "from uvicorn" in path.read_text()]

    assert reaching == ["uvicorn_internals.py"]
