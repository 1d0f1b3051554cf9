"""Clients that do not read, do not answer, or do so slowly: who is given up, and who is not."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from gateway.core.frames import TEXT, Writer
from gateway.core.frames import frame as server_frame
from gateway.settings import Settings
from gateway.transport import Limits
from gateway.transport.uvicorn_internals import ServerState
from tests.server.conftest import ADMIN, serving
from tests.server.echo import Client, Echo, Served, frame, serve, upgrade
from tests.support import S, eventually

GET = b"GET / HTTP/1.1\r\nhost: a\r\n"


async def stuck(served: Served, request: bytes) -> socket.socket:
    """Return a socket that has asked and reads nothing, with a small buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", served.port))
    await loop.sock_sendall(sock, request)
    return sock


@pytest.mark.parametrize("how", ["messages", "prepared frames"])
async def test_reader_that_stops_is_given_up(how: str) -> None:
    """A client that takes nothing is aborted, though much is unsent; the cause is known."""
    told: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        writer: Writer = scope["extensions"]["gateway.frames"]["writer"]
        if how == "messages":
            try:
                while True:
                    await send({"type": "websocket.send", "bytes": bytes(10_000)})
            except OSError:
                pass
        else:
            while not writer.is_full:
                writer.write(server_frame(TEXT, b"x" * 10_000))
                await asyncio.sleep(0)
        told.append((await receive())["code"])

    async with serve(app, Limits(stalled_s=0.2)) as served:
        with await stuck(served, upgrade()):
            await eventually(lambda: told)
            await eventually(lambda: not served.state.connections)
    assert told == [4002]


async def test_request_whose_answer_nobody_takes_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A reply that is not read breaks off; the application hears that the client is gone."""
    told: list[str] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            body = {"type": "http.response.body", "body": bytes(100_000), "more_body": True}
            await send(body)
        told.append(gone.result()["type"])

    async with serve(app, Limits(stalled_s=0.2)) as served:
        with await stuck(served, GET + b"\r\n"):
            await eventually(lambda: told)
    assert told == ["http.disconnect"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_answer_that_is_left_half_done_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    """A stream whose application gives up ends without its end, so that the client knows."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async with serve(app) as served, Client.open(served, GET + b"\r\n") as client:
        with suppress(ConnectionError):
            assert not (await client.reader.read()).endswith(b"0\r\n\r\n")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_websocket_is_not_judged_by_the_answer_before_it() -> None:
    """Who takes a long answer after asking for a WebSocket keeps it; what is said there waits."""
    length = 16 << 20
    full: list[bool] = []
    body = {"type": "http.response.body", "body": bytes(length)}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["type"] == "http":
            headers = [(b"content-length", b"%d" % length)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send(body)
            return
        writer: Writer = scope["extensions"]["gateway.frames"]["writer"]
        full.append(writer.is_full)
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "a"})
        full.append(writer.is_full)
        while (await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": "b"})

    async with (
        serve(app, Limits(stalled_s=0.2 * S)) as served,
        Client.open(served, GET + b"\r\n") as client,
    ):
        assert "200 OK" in await client.head()
        client.writer.write(upgrade())
        await eventually(lambda: full)
        await client.reader.readexactly(length)
        assert (await client.head()).startswith("HTTP/1.1 101 ")
        assert await client.frame() == (1, b"a")
        await asyncio.sleep(0.6 * S)  # three times as long as a stalled reader is given
        client.writer.write(frame(1, b"?"))
        assert await client.frame() == (1, b"b")
    assert full == [True, False]


class TestPulse:
    """A server that pings often."""

    @pytest.fixture
    def echo(self) -> Echo:
        """An application that says back what it hears."""
        return Echo()

    @pytest.fixture
    async def served(self, echo: Echo) -> AsyncIterator[Served]:
        """A server of it."""
        async with serve(echo, Limits(heartbeat_s=0.05, pong_s=0.1)) as found:
            yield found

    @pytest.mark.parametrize(
        "answer",
        [
            *(frame(10), frame(10, b"Hi!"), frame(9), frame(9, b"are you there?")),
            *(frame(1, b"a message"), frame(2, b"bytes"), frame(1, b"a fragm", first=0)),
        ],
    )
    async def test_client_that_answers_by_any_frame_stays(self, answer: bytes) -> None:
        """Any frame proves life, not only a pong that echoes the ping (RFC 6455 section 5.5.3)."""
        pings = 0
        limits = Limits(heartbeat_s=0.05, pong_s=0.2 * S)
        async with serve(Echo(), limits) as served, Client.websocket(served) as client:
            while pings < 6:
                opcode, _ = await client.frame()
                if opcode == 9:
                    pings += 1
                    client.writer.write(answer)
                    if answer[0] == 1:  # fragments go on, and end before they are too many
                        client.writer.write(frame(0, b"ent"))
            assert served.state.connections

    async def test_pings_have_new_payloads(self, served: Served) -> None:
        """Each ping can be told from the others by who looks at the wire."""
        payloads = set()
        async with Client.websocket(served) as client:
            for _ in range(4):
                opcode, payload = await client.frame()
                assert opcode == 9
                payloads.add(payload)
                client.writer.write(frame(10, payload))
        assert len(payloads) == 4

    @pytest.mark.parametrize("said", [b"", frame(10, b"early"), frame(1, b"alive")])
    async def test_client_that_says_nothing_after_a_ping_is_cut(
        self, served: Served, echo: Echo, said: bytes
    ) -> None:
        """Silence from a ping to its deadline is 4003, whatever the client said before."""
        async with Client.websocket(served, said) as client:
            assert await client.close_code() == 4003
            await client.ends()

        assert echo.ends == [{"type": "websocket.disconnect", "code": 4003}]

    async def test_half_a_frame_is_no_frame(self, served: Served, echo: Echo) -> None:
        """Bytes that never become a frame prove nothing."""
        async with Client.websocket(served, frame(1, b"x" * 60_000)[:8]) as client:
            await client.flood(b"x", every_s=0.01)
            await eventually(lambda: echo.ends)

        assert echo.ends[0]["code"] == 4003

    @pytest.mark.parametrize("unsent", [50_000, 1_000_000])
    @pytest.mark.parametrize("said", [frame(10, b"Hi!"), frame(1, b"a")])
    async def test_client_that_talks_and_takes_nothing_is_cut(
        self, said: bytes, unsent: int
    ) -> None:
        """Life is not enough: who never reads is too slow, full buffer or not (4002)."""
        told: list[int] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            writer: Writer = scope["extensions"]["gateway.frames"]["writer"]
            while writer.unsent < unsent:
                writer.write(server_frame(TEXT, b"x" * 10_000))
                await asyncio.sleep(0)
            while (message := await receive())["type"] != "websocket.disconnect":
                pass
            told.append(message["code"])

        loop = asyncio.get_running_loop()
        async with serve(app, Limits(heartbeat_s=0.1, pong_s=0.1 * S, stalled_s=0.3)) as served:
            with await stuck(served, upgrade()) as sock:

                async def talks() -> bool:
                    with suppress(OSError):
                        await loop.sock_sendall(sock, said)
                    await asyncio.sleep(0.01)
                    return bool(told)

                await eventually(talks)
                await eventually(lambda: not served.state.connections)
        assert told == [4002]

    async def test_full_buffer_does_not_delay_the_deadline(self) -> None:
        """A client that takes nothing more is cut at the pong's deadline, though much is unsent."""
        told: list[int] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            writer: Writer = scope["extensions"]["gateway.frames"]["writer"]
            while writer.unsent < 50_000:
                writer.write(server_frame(TEXT, b"x" * 10_000))
                await asyncio.sleep(0)
            told.append((await receive())["code"])

        async with serve(app, Limits(heartbeat_s=0.05, pong_s=0.1)) as served:
            with await stuck(served, upgrade()):
                await eventually(lambda: told)
                await eventually(lambda: not served.state.connections)
        assert told == [4003]

    @pytest.mark.alone  # a reader that gets no turn acknowledges nothing
    async def test_slow_reader_that_has_not_come_to_the_ping_stays(self) -> None:
        """Who still takes what was sent before the ping is alive, however long that takes."""
        sent = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal sent
            await receive()
            await send({"type": "websocket.accept"})
            writer: Writer = scope["extensions"]["gateway.frames"]["writer"]
            while writer.unsent < 50_000:
                writer.write(server_frame(TEXT, b"x" * 10_000))
                sent += 1
                await asyncio.sleep(0)
            while (await receive())["type"] != "websocket.disconnect":
                pass

        loop = asyncio.get_running_loop()
        async with serve(app, Limits(heartbeat_s=0.01, pong_s=0.4 * S)) as served:
            with await stuck(served, upgrade()) as sock:
                await eventually(lambda: sent)
                began_s, taken = loop.time(), 0
                while (passed_s := loop.time() - began_s) < 1.6 * S:  # four times the deadline
                    due = int(100_000 * passed_s) - taken  # slow, but no slower on a busy machine
                    taken += len(await loop.sock_recv(sock, max(due, 2048)))
                    await asyncio.sleep(0.02)
                assert taken < sent * 10_000
                assert served.state.connections

    async def test_pong_that_we_do_not_read_is_not_missing(self) -> None:
        """While an application is busy and we read nothing, nobody is cut for that."""
        go_on = asyncio.Event()
        heard = 0

        async def app(_scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal heard
            await receive()
            await send({"type": "websocket.accept"})
            await go_on.wait()
            while "text" in (message := await receive()):
                heard += len(message["text"])

        async with (
            serve(app, Limits(heartbeat_s=0.05, pong_s=0.1)) as served,
            Client.websocket(served, frame(1, b"x" * 65536) * 4) as client,
        ):
            opcode, payload = await client.frame()
            assert opcode == 9
            client.writer.write(frame(10, payload))
            await asyncio.sleep(0.3 * S)  # three times the deadline
            go_on.set()
            assert (await client.frame())[0] == 9
            assert heard == 4 * 65536


@pytest.mark.parametrize(
    "path, header",
    [
        ("/v1/events", {"authorization": f"Bearer {ADMIN}"}),
        ("/v1/connect", {"authorization": f"Bearer {ADMIN}"}),
        ("/plex/:/websockets/notifications", {"x_plex_token": ADMIN}),
    ],
)
@pytest.mark.parametrize("said", [frame(10, b"Hi!"), frame(9, b"Hi?")])
async def test_door_keeps_a_client_with_pongs_of_its_own(
    settings: Settings, path: str, header: dict[str, str], said: bytes
) -> None:
    """A client that answers pings by a fixed text, or pings by itself, keeps its socket."""
    async with serving(replace(settings, heartbeat_s=0.1 * S, pong_s=0.09 * S)) as gateway:
        served = Served(int(gateway.url.rpartition(":")[2]), ServerState())
        async with Client.open(served, upgrade(path, **header)) as client:
            assert (await client.head()).startswith("HTTP/1.1 101 ")
            pings = 0
            while pings < 5:
                opcode, _ = await client.frame()
                assert opcode != 8
                if opcode == 9:
                    pings += 1
                    client.writer.write(said)
