"""The transport at work: handshakes, messages, prepared frames, and what an application is told."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from gateway.core.frames import TEXT, Writer
from gateway.core.frames import frame as server_frame
from tests.server.echo import Client, Echo, Served, frame, serve, upgrade
from tests.support import S, eventually

Door = Callable[[WebSocket], Awaitable[None]]


class Doors:
    """An application of one WebSocket door; plain requests are answered with 420."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.left: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            await Request(scope, receive).body()
            await Response(status_code=420)(scope, receive, send)
            return
        try:
            await self.door(WebSocket(scope, receive, send))
        except WebSocketDisconnect as error:
            self.left.append(error.code)


@pytest.fixture
async def echo() -> Echo:
    """An application that says back what it hears."""
    return Echo()


@pytest.fixture
async def served(echo: Echo) -> AsyncIterator[Served]:
    """A server of it."""
    async with serve(echo) as found:
        yield found


# --- the handshake


async def test_handshake_is_answered_as_the_rfc_says(served: Served, echo: Echo) -> None:
    """The answer proves that the key was read; the application gets the request as it was."""
    key = base64.b64encode(b"0123456789abcdef").decode()
    asked = upgrade(
        "/a%20b?c=d%20e", sec_websocket_key=key, connection="keep-alive, UPGRADE", x_y="\xe9"
    )
    async with Client.open(served, asked) as client:
        head = (await client.head()).lower()
    proof = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324
    lines = head.splitlines()

    assert lines[0] == "http/1.1 101 switching protocols"
    assert f"sec-websocket-accept: {base64.b64encode(proof).decode().lower()}" in lines
    assert "upgrade: websocket" in lines
    assert "connection: upgrade" in lines
    assert "extensions" not in head
    scope = echo.scopes[0]
    assert (scope["type"], scope["scheme"], scope["http_version"]) == ("websocket", "ws", "1.1")
    assert (scope["path"], scope["raw_path"]) == ("/a b", b"/a%20b")
    assert scope["query_string"] == b"c=d%20e"
    assert (b"x-y", b"\xe9") in scope["headers"]
    assert scope["client"][0] == "127.0.0.1"


@pytest.mark.parametrize(
    "asked, status",
    [
        (upgrade(sec_websocket_key=""), 400),
        (upgrade(sec_websocket_key="short"), 400),
        (upgrade(sec_websocket_key="\xe9" * 24), 400),
        (upgrade(sec_websocket_key=base64.b64encode(bytes(17)).decode()), 400),
        (upgrade(host=""), 400),
        (upgrade().replace(b"GET", b"POST"), 400),
        (upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (upgrade().replace(b"\r\n\r\n", b"\r\nhost: other\r\n\r\n"), 400),
        (upgrade("http://["), 400),
        (upgrade(content_length="3") + b"abc", 400),
        (upgrade(content_length="0003") + b"abc", 400),
        (upgrade(transfer_encoding="chunked") + b"0\r\n\r\n", 400),
        (upgrade(sec_websocket_protocol="b\xe9arer"), 400),
        (upgrade(sec_websocket_protocol="a,,b"), 400),
        (upgrade(sec_websocket_version="7"), 426),
        (upgrade(sec_websocket_version=""), 426),
        (upgrade("/" + "a" * 16384), 414),
        (upgrade(cookie="a" * 8192), 431),
    ],
)
async def test_broken_handshake_is_refused(
    served: Served, echo: Echo, asked: bytes, status: int
) -> None:
    """A request that cannot open a WebSocket gets a bare status; the application is not asked."""
    async with Client.open(served, asked) as client:
        head = await client.head()
        assert await client.reader.read() == b""

    assert head.startswith(f"HTTP/1.1 {status} ")
    assert ("sec-websocket-version: 13" in head) == (status == 426)
    assert "content-length: 0\r\n" in head
    assert "content-type" not in head
    assert echo.scopes == []


async def test_subprotocol_is_the_one_that_was_accepted() -> None:
    """The application sees all that are offered and chooses one of them."""
    seen: list[str] = []

    async def door(websocket: WebSocket) -> None:
        seen.extend(websocket.scope["subprotocols"])
        await websocket.accept("two", headers=[(b"x-more", b"1")])
        await websocket.receive()

    async with serve(Doors(door)) as served:
        offered = [Subprotocol("one"), Subprotocol("two")]
        async with connect(f"ws://127.0.0.1:{served.port}", subprotocols=offered) as client:
            assert client.subprotocol == "two"
            assert client.response is not None
            assert client.response.headers["x-more"] == "1"
    assert seen == ["one", "two"]


@pytest.mark.parametrize("how", ["close", "denial"])
async def test_application_may_refuse(how: str) -> None:
    """A close before accept is 403; a denial response arrives as it is."""

    async def door(websocket: WebSocket) -> None:
        if how == "close":
            await websocket.close()
        else:
            response = JSONResponse({"a": 1}, 420, {"Retry-After": "3"})
            await websocket.send_denial_response(response)

    async with serve(Doors(door)) as served:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{served.port}")
        response = refused.value.response
        await eventually(lambda: not served.state.connections)

    assert response.status_code == (403 if how == "close" else 420)
    if how == "denial":
        assert response.reason_phrase == "Enhance Your Calm"
        assert response.headers["retry-after"] == "3"
        assert response.body == b'{"a":1}'


async def test_application_that_fails_is_an_internal_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before the handshake it is a 500, afterwards 1011; both are logged, the query is not."""

    async def door(websocket: WebSocket) -> None:
        if websocket.url.path == "/late":
            await websocket.accept()
        raise KeyError("bug")

    async with serve(Doors(door)) as served:
        async with Client.open(served, upgrade("/?token=canary")) as client:
            assert (await client.head()).startswith("HTTP/1.1 500 ")
        async with Client.open(served, upgrade("/late?token=canary")) as client:
            await client.head()
            assert await client.close_code() == 1011
    assert [record.name for record in caplog.records if record.exc_info] == [
        "gateway.transport.websocket"
    ] * 2
    assert "canary" not in caplog.text


async def test_frames_that_come_with_the_request_are_heard() -> None:
    """A client that speaks before the answer loses nothing."""

    async def door(websocket: WebSocket) -> None:
        await asyncio.sleep(0.01)  # an application that has to ask somebody first
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    async with (
        serve(Doors(door)) as served,
        Client.open(served, upgrade(), frame(1, b"a"), frame(1, b"b")) as client,
    ):
        await client.head()
        assert [await client.frame(), await client.frame()] == [(1, b"a"), (1, b"b")]


# --- messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
async def test_messages_come_back_as_they_were(served: Served, size: int) -> None:
    """Text and bytes of every length arrive whole, both ways."""
    async with connect(f"ws://127.0.0.1:{served.port}", max_size=None) as client:
        for message in ("x" * size, b"\xff" * size):
            await client.send(message)
            assert await client.recv() == message


async def test_fragments_are_joined_between_pings(served: Served) -> None:
    """A message in pieces is one message; pings between its pieces are answered at once."""
    async with Client.websocket(
        served, frame(1, b"a\xc3", first=0), frame(9, b"p"), frame(0, b"\xa4"), frame(1, b"n")
    ) as client:
        assert await client.frame() == (0xA, b"p")
        assert await client.frame() == (1, "a\u00e4".encode())
        assert await client.frame() == (1, b"n")


async def test_prepared_frames_go_out_between_messages() -> None:
    """A frame made once is written to many connections, in order with their own messages."""
    writers: list[Writer] = []
    prepared = server_frame(TEXT, b"to all")

    async def door(websocket: WebSocket) -> None:
        await websocket.accept()
        writers.append(websocket.scope["extensions"]["gateway.frames"]["writer"])
        await websocket.send_text("first")
        while True:
            await websocket.send_text(await websocket.receive_text())

    async with (
        serve(Doors(door)) as served,
        connect(f"ws://127.0.0.1:{served.port}") as one,
        connect(f"ws://127.0.0.1:{served.port}") as two,
    ):
        await eventually(lambda: len(writers) == 2)
        for writer in writers:
            writer.write(prepared)
        for client in (one, two):
            await client.send("last")
            assert [await client.recv() for _ in range(3)] == ["first", "to all", "last"]
        await eventually(lambda: not any(writer.unsent for writer in writers))
        writers[0].abort()
        await one.wait_closed()
        assert one.close_code == 1006
        await eventually(lambda: len(served.state.connections) == 1)
        writers[0].write(prepared)
        writers[0].abort()


async def test_sender_waits_for_a_slow_reader() -> None:
    """Who sends more than the client takes waits, and goes on when it reads; nothing is lost."""
    sent = 0

    async def door(websocket: WebSocket) -> None:
        nonlocal sent
        await websocket.accept()
        for number in range(400):
            await websocket.send_text(f"{number:05}" + "x" * 64_000)
            sent = number + 1
        await websocket.receive()

    async with serve(Doors(door)) as served, Client.websocket(served) as client:
        before = -1
        while before != sent:  # until it stands still
            before = sent
            await asyncio.sleep(0.05 * S)
        assert 0 < sent < 400
        for number in range(400):
            opcode, payload = await client.frame()
            assert (opcode, int(payload[:5])) == (1, number)


async def test_reader_is_not_read_while_the_application_is_busy() -> None:
    """What the application does not fetch stays with the client; nothing is lost."""
    go_on = asyncio.Event()
    heard = 0

    async def door(websocket: WebSocket) -> None:
        nonlocal heard
        await websocket.accept()
        await go_on.wait()
        while True:
            heard += len(await websocket.receive_text())

    async with serve(Doors(door)) as served:
        buffers = 0
        async with Client.websocket(served) as client:
            for _ in range(150):
                client.writer.write(frame(1, b"x" * 65536))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1 * S):
                    await client.writer.drain()
            buffers = client.writer.transport.get_write_buffer_size()
            assert buffers > 65536
            go_on.set()
            await eventually(lambda: heard == 150 * 65536)
