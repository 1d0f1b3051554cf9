"""Hostile connections: cut as documented, at little cost, without a 500 or a line in the log."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest
from starlette.types import Receive, Scope, Send

from gateway.transport import Limits
from tests.server.echo import Client, Echo, Served, frame, serve, upgrade
from tests.support import S, eventually

GET = b"GET / HTTP/1.1\r\nhost: a\r\n"


@pytest.fixture
def limits() -> Limits:
    """Deadlines that a test can wait for."""
    return Limits(head_s=0.3 * S, heartbeat_s=60, unfinished_s=0.3 * S, stalled_s=0.4 * S)


@pytest.fixture
async def echo() -> Echo:
    """An application that says back what it hears."""
    return Echo()


@pytest.fixture
async def served(
    echo: Echo, limits: Limits, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Served]:
    """A server of it that has nothing left at the end, and nothing to complain about."""
    async with serve(echo, limits) as found:
        yield found
        await eventually(lambda: not found.state.connections)
        await eventually(lambda: not found.state.tasks)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- before a request


async def test_silent_connection_is_closed(served: Served) -> None:
    """Who connects and says nothing is gone at the deadline, without a word."""
    async with Client.open(served) as client:
        await eventually(lambda: served.state.connections)
        assert await client.reader.read() == b""


@pytest.mark.parametrize("said", [b"G", b"GET / HTTP/1.1\r\n", GET, upgrade()[:-2]])
async def test_slow_head_is_cut(served: Served, said: bytes) -> None:
    """A head that is not whole at the deadline is 408, however it drips."""
    async with Client.open(served, said) as client:
        assert (await client.head()).startswith("HTTP/1.1 408 ")
        await client.ends()


async def test_second_head_has_a_deadline_too(served: Served) -> None:
    """Between requests nobody may dawdle either."""
    async with Client.open(served, GET + b"\r\n" + GET) as client:
        assert "200 OK" in await client.head()
        await client.reader.readuntil(b"\r\n0\r\n\r\n")
        assert (await client.head()).startswith("HTTP/1.1 408 ")


async def test_line_breaks_are_no_request(served: Served) -> None:
    """Empty lines before a request do not keep a connection open."""
    async with Client.open(served) as client:
        await client.flood(b"\r\n", every_s=0.01)


@pytest.mark.parametrize(
    "said, status",
    [
        (b"GET /" + b"a" * 16384 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * (1 << 20), 414),
        (GET + b"x: " + b"a" * 8192 + b"\r\n\r\n", 431),
        (GET + b"x" * 9000 + b": 1\r\n\r\n", 431),
        (GET + (b"x: " + b"a" * 4096 + b"\r\n") * 8 + b"\r\n", 431),
        (GET + b"x: 1\r\n" * 100 + b"\r\n", 431),
        (GET + b"x: " + b"a" * (2 << 20), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nhost a\r\n\r\n", 400),
        (GET + b" folded\r\n\r\n", 400),
        (GET + b"x: a\x00b\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (GET + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (GET + b"content-length: 1\r\ncontent-length: 2\r\n\r\na", 400),
        (GET.replace(b"GET", b"POST") + b"transfer-encoding: chunked\r\n\r\nxx\r\n", 400),
    ],
)
async def test_bad_head_is_refused(served: Served, said: bytes, status: int) -> None:
    """What is too long or malformed gets its status, and the connection ends."""
    async with Client.open(served, said) as client:
        assert (await client.head()).startswith(f"HTTP/1.1 {status} ")
        await client.ends()


async def test_head_at_its_limits_is_served(served: Served) -> None:
    """What is as long as it may be is answered, in however many pieces it comes."""
    head = b"GET /" + b"a" * 16383 + b" HTTP/1.1\r\nhost: a\r\n"
    head += b"".join(b"x%02d: %b\r\n" % (number, b"a" * 8180) for number in range(3))
    head += b"y: 1\r\n" * 96 + b"\r\n"
    async with Client.open(served) as client:
        for start in range(0, len(head), 4096):
            client.writer.write(head[start : start + 4096])
            await client.writer.drain()
        assert "200 OK" in await client.head()


async def test_endless_pipeline_is_cut(served: Served) -> None:
    """Requests beyond what may wait for their answers end the connection."""
    async with Client.open(served, (GET + b"\r\n") * 5000) as client:
        await client.ends()


async def test_connections_are_counted_from_their_beginning(echo: Echo) -> None:
    """Silent ones count too; one too many is told 503, and there is room again afterwards."""
    async with serve(echo, Limits(connections=3)) as served:
        async with Client.open(served), Client.websocket(served), Client.open(served) as third:
            await eventually(lambda: len(served.state.connections) == 3)
            async with Client.open(served) as fourth:
                assert (await fourth.head()).startswith("HTTP/1.1 503 ")
                await fourth.ends()
            third.writer.write(GET + b"\r\n")
            assert "200 OK" in await third.head()
        await eventually(lambda: not served.state.connections)
        async with Client.websocket(served):
            pass


# --- on an open WebSocket


@pytest.mark.parametrize(
    "name, said, code",
    [
        ("unmasked", frame(1, b"{}", masked=False), 1002),
        ("rsv1", frame(1, b"{}", first=0xC0), 1002),
        ("rsv2", frame(1, b"{}", first=0xA0), 1002),
        ("rsv3", frame(2, b"{}", first=0x90), 1002),
        *((f"opcode {opcode}", frame(opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 15)),
        ("fragmented ping", frame(9, first=0), 1002),
        ("long ping", frame(9, b"x" * 126), 1002),
        ("continuation of nothing", frame(0), 1002),
        ("new text in fragments", frame(1, b"{", first=0) + frame(1, b"}"), 1002),
        ("close in fragments", frame(1, b"{", first=0) + frame(8, b"\x03\xe8"), 1002),
        ("close of one byte", frame(8, b"\x03"), 1002),
        *(
            (f"close {code}", frame(8, code.to_bytes(2)), 1002)
            for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)
        ),
        ("close with bad text", frame(8, b"\x03\xe8\xff"), 1007),
        ("bad text", frame(1, b"\xff"), 1007),
        ("bad text in two", frame(1, b"\xc3", first=0) + frame(0, b"\x28"), 1007),
        ("64 KiB and one", frame(1, b" " * 65537), 1009),
        ("64 KiB and one, announced", frame(1, b" " * 65537)[:10], 1009),
        ("2^63 announced", b"\x82\xff\x80" + bytes(7), 1009),
        ("in fragments", frame(2, b" " * 65530, first=0) + frame(0, b" " * 8), 1009),
        ("65 fragments", frame(1, b"a", first=0) + frame(0, b"b", first=0) * 64, 1008),
        ("empty fragments", frame(1, first=0) + frame(0, first=0) * 50_000, 1008),
        ("pings", frame(9) * 50_000, 1008),
        ("pongs", frame(10, b"x" * 125) * 5_000, 1008),
        ("messages", frame(1) * 50_000, 1008),
        ("never an end", frame(1, b"a", first=0), 1008),
    ],
)
async def test_what_breaks_the_rules_is_cut(
    served: Served, echo: Echo, name: str, said: bytes, code: int
) -> None:
    """The client reads the code that is documented, though it goes on sending; so is the end."""
    async with Client.websocket(served, said) as client:
        assert await client.close_code() == code, name
        await client.ends()
        await eventually(lambda: echo.ends)

    assert echo.ends == [{"type": "websocket.disconnect", "code": code}]


@pytest.mark.parametrize("said", [frame(9), frame(1, first=0), frame(0, first=0), frame(8)])
async def test_flood_costs_next_to_nothing(served: Served, said: bytes) -> None:
    """A client that floods without end is cut after a megabyte, for milliseconds of our time."""
    async with Client.websocket(served) as client:
        flood = said * 100_000
        began_s = time.process_time()
        await client.flood(flood)
        assert time.process_time() - began_s < 0.5 * S  # the client's own time included


async def test_flood_after_our_close_is_cut() -> None:
    """Who does not answer our close frame, and talks on, is cut too."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4500})

    async with serve(app) as served, Client.websocket(served) as client:
        assert await client.close_code() == 4500
        await client.flood(frame(1, b"x") * 10_000)
        await eventually(lambda: not served.state.connections)


async def test_data_before_the_answer_is_bounded() -> None:
    """While an application makes up its mind a client may not fill our memory."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await send({"type": "websocket.accept"})

    async with serve(app) as served, Client.open(served, upgrade()) as client:
        await client.flood(bytes(10_000))
        await eventually(lambda: not served.state.tasks)


async def test_upgrade_behind_an_unanswered_request_is_refused() -> None:
    """A WebSocket cannot begin while an answer on the same connection is due."""
    go_on = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await go_on.wait()
        await send({"type": "http.response.body"})

    async with serve(app) as served:
        for answer_begins in (False, True):
            async with Client.open(served, GET + b"\r\n") as client:
                if answer_begins:
                    await client.head()
                client.writer.write(upgrade())
                await client.ends()
        go_on.set()
        await eventually(lambda: not served.state.connections)
