"""Requests on one connection: bodies, trailers, upgrades that are ignored, and who is answered."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from starlette.types import Receive, Scope, Send

from gateway.transport import Limits
from tests.server.echo import Client, Served, serve, upgrade
from tests.support import MS, S, eventually

GET = b"GET / HTTP/1.1\r\nhost: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n"


class Reader:
    """Reads each request to its end, and answers with its body once it may.

    ``begun`` has the paths of all requests, ``left`` of those whose client went, ``headers`` those
    of the last one at its end.
    """

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.begun: list[str] = []
        self.left: list[str] = []
        self.headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self.begun.append(scope["path"])
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.append(scope["path"])
                return
            body += message["body"]
            more = message["more_body"]
        self.headers = scope["headers"]
        await self.may_answer.wait()
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def reader() -> Reader:
    """An application that reads requests and answers at once."""
    reader = Reader()
    reader.may_answer.set()
    return reader


@pytest.fixture
async def served(reader: Reader, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Served]:
    """A server of it that has nothing left at the end, and nothing to complain about."""
    async with serve(reader, Limits(head_s=0.3 * S)) as found:
        yield found
        await eventually(lambda: not found.state.connections)
        await eventually(lambda: not found.state.tasks)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def rest(client: Client) -> bytes:
    """Return what still comes until the connection ends."""
    heard = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(5 * S):
            while data := await client.reader.read(65536):
                heard += data
    return heard


# --- trailers


@pytest.mark.parametrize(
    "said",
    [b"0\r\nx: " + b"a" * (1 << 20), b"0\r\n" + b"x: 1\r\n" * (1 << 18), b"1;" + b"a" * (1 << 20)],
)
async def test_endless_trailer_is_refused(served: Served, reader: Reader, said: bytes) -> None:
    """What comes without end, and is no body, ends the request as an endless head does."""
    async with Client.open(served, CHUNKED + b"\r\n") as client:
        await eventually(lambda: reader.begun)
        client.writer.write(said)
        assert (await client.head()).startswith("HTTP/1.1 431 ")
        await client.ends()
        await eventually(lambda: reader.left)


async def test_body_may_be_longer_than_a_head(served: Served) -> None:
    """What is a body is not counted as a head or a trailer, in however small pieces it comes."""
    body = b"1000\r\n" + b"a" * 4096 + b"\r\n"
    async with Client.open(served, CHUNKED + b"\r\n") as client:
        for piece in [body[:9], body[9:]] * 32:
            client.writer.write(piece)
            await client.writer.drain()
        client.writer.write(b"0\r\n\r\n")
        assert "200 OK" in await client.head()
        assert await client.reader.readexactly(32 * 4096) == b"a" * 32 * 4096


async def test_trailer_is_no_header(served: Served, reader: Reader) -> None:
    """A field behind the body tells the application nothing (RFC 9110 section 6.5.1)."""
    trailer = b"authorization: Bearer a\r\nexpect: 100-continue\r\n"
    async with Client.open(served, CHUNKED + b"\r\n1\r\na\r\n0\r\n" + trailer + b"\r\n") as client:
        assert "200 OK" in await client.head()

    assert reader.headers == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]


# --- upgrades that are ignored

H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQ\r\n"


@pytest.mark.parametrize("pieces", [1, 2, 1000])
@pytest.mark.parametrize(
    "head, body",
    [
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n", b"hello"),
        (CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
        (b"POST / HTTP/1.0\r\nhost: a\r\ncontent-length: 5\r\n", b"hello"),
    ],
)
async def test_body_of_an_ignored_upgrade_is_read(
    served: Served, reader: Reader, head: bytes, body: bytes, pieces: int
) -> None:
    """A request that asks for another protocol is read whole (RFC 9110 section 7.8)."""
    said = head + H2C + b"\r\n" + body
    length = -(-len(said) // pieces) if pieces != 2 else len(said) - len(body)
    async with Client.open(served) as client:
        for start in range(0, len(said), length):
            client.writer.write(said[start : start + length])
            await client.writer.drain()
        assert "200 OK" in await client.head()
        assert await client.reader.readexactly(5) == b"hello"

    assert (b"http2-settings", b"AAMAAABkAAQ") in reader.headers
    assert b"upgrade" not in [name for name, _ in reader.headers]


async def test_ignored_upgrades_may_be_pipelined(served: Served, reader: Reader) -> None:
    """Whatever stands before and behind them, each request gets its own answer, in order."""
    reader.may_answer.clear()
    said = [
        b"POST / HTTP/1.1\r\nhost: a\r\n%bcontent-length: 1\r\n\r\n%d"
        % (H2C if number % 3 else b"", number)
        for number in range(9)
    ]
    async with Client.open(served, *said) as client:
        await eventually(lambda: reader.begun)
        reader.may_answer.set()
        for number in range(9):
            assert "200 OK" in await client.head()
            assert await client.reader.readexactly(1) == b"%d" % number


async def test_client_of_an_ignored_upgrade_may_wait_to_send(served: Served) -> None:
    """A client that expects ``100 Continue`` gets it before its body, and its bounds hold."""
    head = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n" + H2C
    async with Client.open(served, head + b"\r\n") as client:
        assert (await client.head()).startswith("HTTP/1.1 100 ")
        client.writer.write(b"hello")
        assert "200 OK" in await client.head()
        assert await client.reader.readexactly(5) == b"hello"
    trailer = b"0\r\nx: " + b"a" * 9000 + b"\r\n\r\n"
    async with Client.open(served, CHUNKED + H2C + b"\r\n" + trailer) as client:
        assert (await client.head()).startswith("HTTP/1.1 431 ")


async def test_tunnel_is_refused(served: Served, reader: Reader) -> None:
    """``CONNECT`` asks for what nobody here does; no application is asked."""
    for target in (b"a:1", b"/a"):
        async with Client.open(
            served, b"CONNECT %b HTTP/1.1\r\nhost: a\r\n\r\n" % target
        ) as client:
            assert (await client.head()).startswith("HTTP/1.1 400 ")
            await client.ends()

    assert reader.begun == []


# --- whose answer it is


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        b"BAD\r\n\r\n",
        GET + b"\r\nBAD\r\n\r\n",
        GET + b"\r\n" + upgrade(),
        GET + b"x: " + b"a" * 9000 + b"\r\n\r\n",
        CHUNKED + b"\r\nxx\r\n",
    ],
)
async def test_refusal_is_no_answer_to_another_request(said: bytes, begins: bool) -> None:
    """What is refused behind an answer that is due ends the connection without a word."""
    begun: list[str] = []
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["path"])
        await receive()
        if begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        told.append((await receive())["type"])

    first = b"GET /first HTTP/1.1\r\nhost: a\r\n\r\n"
    async with serve(app) as served, Client.open(served, first) as client:
        await eventually(lambda: begun)
        if begins:
            assert "200 OK" in await client.head()
        client.writer.write(said)
        assert await rest(client) == b""
        await eventually(lambda: told)
        await eventually(lambda: not served.state.tasks)
    assert (begun, told) == (["/first"], ["http.disconnect"])


async def test_body_that_breaks_at_once_is_not_asked_for(served: Served, reader: Reader) -> None:
    """Whoever waits for 100 Continue, and sends a broken body with its head, hears of one fault."""
    said = CHUNKED + b"expect: 100-continue\r\n\r\nxx\r\n"
    async with Client.open(served, said) as client:
        assert (await client.head()).startswith("HTTP/1.1 400 ")
        assert await rest(client) == b""
    await eventually(lambda: reader.left)


async def test_response_before_the_body_is_not_lost() -> None:
    """A client that is still sending its body when it is refused reads why, and not a reset."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"connection", b"close"), (b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"big"})

    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\n"
    async with serve(app) as served, Client.open(served, head) as client:
        assert " 413 " in await client.head()
        for _ in range(9):
            client.writer.write(bytes(50_000))
            await client.writer.drain()
        assert await client.reader.read() == b"big"
        await eventually(lambda: not served.state.connections)


async def test_request_is_not_answered_twice() -> None:
    """A body that turns out bad after its request was answered ends the connection."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    async with serve(app) as served, Client.open(served, CHUNKED + b"\r\n") as client:
        assert "200 OK" in await client.head()
        client.writer.write(b"xx\r\n")
        assert await rest(client) == b""


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("pieces", [[b"one"], [b"one", b"two", b""], [b"", b""], [b""]])
async def test_old_client_is_sent_no_chunks(method: bytes, pieces: list[bytes]) -> None:
    """A response without a length ends with its connection for HTTP/1.0 (RFC 9112 section 6.1)."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, piece in enumerate(pieces, 1):
            more = number < len(pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    async with serve(app) as served, Client.open(served, method + b" / HTTP/1.0\r\n\r\n") as client:
        head = await client.head()
        assert "transfer-encoding" not in head
        assert "connection: close" in head
        assert await rest(client) == (b"" if method == b"HEAD" else b"".join(pieces))


async def test_old_client_is_sent_the_length_that_is_known(served: Served) -> None:
    """HTTP/1.0 knows lengths."""
    said = b"POST / HTTP/1.0\r\ncontent-length: 5\r\n\r\nhello"
    async with Client.open(served, said) as client:
        assert "content-length: 5\r\n" in await client.head()
        assert await rest(client) == b"hello"


async def test_stream_with_a_request_behind_it_hears_that_its_client_left() -> None:
    """Whoever answers is told that the connection is gone, whatever else was asked on it."""
    told: list[str] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"beat", "more_body": True})
            await asyncio.sleep(MS)
        told.append(gone.result()["type"])

    async with serve(app) as served:
        async with Client.open(served, GET + b"\r\n" + GET + b"\r\n") as client:
            await client.head()
        await eventually(lambda: told)
    assert told == ["http.disconnect"]


# --- heads that come while an answer is due


async def test_head_behind_an_answer_has_its_time_from_then_on(
    served: Served, reader: Reader
) -> None:
    """However long an answer takes, the next head is not late before; then it has a deadline."""
    reader.may_answer.clear()
    async with Client.open(served, GET + b"\r\n" + GET) as client:
        await eventually(lambda: reader.begun)
        await asyncio.sleep(0.6 * S)  # twice the deadline
        reader.may_answer.set()
        assert "200 OK" in await client.head()
        assert (await client.head()).startswith("HTTP/1.1 408 ")


async def test_answer_outlives_the_idle_time_after_the_one_before(reader: Reader) -> None:
    """A connection is not idle though its request began before the last answer was whole."""
    reader.may_answer.clear()
    async with serve(reader) as served, Client.open(served, GET + b"\r\n" + GET) as client:
        await eventually(lambda: reader.begun)
        (connection,) = served.state.connections
        connection.timeout_keep_alive = 0.1 * S  # type: ignore[union-attr]
        reader.may_answer.set()
        assert "200 OK" in await client.head()
        reader.may_answer.clear()
        client.writer.write(b"\r\n")
        await eventually(lambda: len(reader.begun) == 2)
        await asyncio.sleep(0.3 * S)  # three times as long
        reader.may_answer.set()
        assert "200 OK" in await client.head()
        await client.ends()
