"""TLS: connections count when they are accepted, and a handshake has a deadline."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx2
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect

from gateway.settings import Settings
from gateway.transport import Limits, server_context
from tests.server.conftest import ADMIN, serving
from tests.server.echo import Client, Echo, Served, frame, serve
from tests.support import S, eventually

GET: Final = b"GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of localhost that vouches for itself; return its file and the key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, secret


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of a certificate and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """How the server speaks TLS."""
    return server_context(*certificate)


@pytest.fixture(scope="session")
def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """How a client does that knows the certificate."""
    return ssl.create_default_context(cafile=certificate[0])


@pytest.fixture
async def echo() -> Echo:
    """An application that says back what it hears."""
    return Echo()


@pytest.fixture
async def served(
    echo: Echo, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Served]:
    """A server of it, for three connections, that has nothing left at the end."""
    async with serve(echo, Limits(connections=3, handshake_s=0.5 * S), tls) as found:
        yield found
        await eventually(lambda: not found.state.connections)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def ask(served: Served, trusting: ssl.SSLContext) -> bytes:
    """Return the answer to a request over TLS."""
    reader, writer = await asyncio.open_connection("localhost", served.port, ssl=trusting)
    writer.write(GET)
    answer = await reader.read()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return answer


async def test_requests_are_answered(served: Served, echo: Echo, trusting: ssl.SSLContext) -> None:
    """A request over TLS is a request; the application sees where it came from."""
    assert (await ask(served, trusting)).startswith(b"HTTP/1.1 200 ")
    (scope,) = echo.scopes
    assert (scope["scheme"], scope["path"], scope["client"][0]) == ("https", "/a", "127.0.0.1")


async def test_websockets_are_spoken(served: Served, echo: Echo, trusting: ssl.SSLContext) -> None:
    """Messages of every size come back over TLS, and a goodbye is heard."""
    url = f"wss://localhost:{served.port}"
    async with connect(url, ssl=trusting, max_size=None) as client:
        for size in (0, 1, 65_536):
            await client.send("x" * size)
            assert await client.recv() == "x" * size
    await eventually(lambda: echo.ends)
    assert echo.ends[0]["code"] == 1000
    assert echo.scopes[0]["scheme"] == "wss"


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
async def test_slow_handshake_is_cut(served: Served, said: bytes) -> None:
    """A client that says nothing, or little by little, is gone at the deadline."""
    async with Client.open(served) as client:
        await eventually(lambda: served.state.connections)
        began_s = asyncio.get_running_loop().time()
        if said:
            await client.flood(said[:1], every_s=0.01)
        await client.ends()
        assert asyncio.get_running_loop().time() - began_s < 1.5 * S


async def test_silent_clients_count(
    served: Served, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection counts before its handshake; one too many is cut long before the deadline."""
    async with AsyncExitStack() as clients:
        for _ in range(3):
            await clients.enter_async_context(Client.open(served))
        await eventually(lambda: len(served.state.connections) == 3)
        began_s = asyncio.get_running_loop().time()
        async with Client.open(served) as fourth:
            assert await fourth.reader.read() == b""
        assert asyncio.get_running_loop().time() - began_s < 0.3 * S
        assert "connections are refused: there are too many" in caplog.text
        caplog.clear()
    await eventually(lambda: not served.state.connections)
    assert (await ask(served, trusting)).startswith(b"HTTP/1.1 200 ")


async def test_connection_counts_once(served: Served, trusting: ssl.SSLContext) -> None:
    """As many clients as may be are served, none of them counted twice for its handshake."""
    async with AsyncExitStack() as clients:
        for _ in range(3):
            url = f"wss://localhost:{served.port}"
            await clients.enter_async_context(connect(url, ssl=trusting))
        assert len(served.state.connections) == 3


async def test_what_is_no_handshake_ends_at_once(served: Served) -> None:
    """A request in plain text is no TLS; it is not waited for more."""
    began_s = asyncio.get_running_loop().time()
    async with Client.open(served, GET) as client:
        await client.ends()
    assert asyncio.get_running_loop().time() - began_s < 0.3 * S


async def test_client_that_leaves_is_forgotten(served: Served) -> None:
    """A handshake that breaks off leaves nothing behind."""
    for said in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"):
        async with Client.open(served, said):
            await eventually(lambda: served.state.connections)
        await eventually(lambda: not served.state.connections, within=0.4 * S)


async def test_request_in_the_last_packet_of_the_handshake_is_read(
    served: Served, certificate: tuple[Path, Path]
) -> None:
    """What a client says in one packet with the end of its handshake is not lost."""
    context = ssl.create_default_context(cafile=certificate[0])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    spoken = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    async with Client.open(served) as client, asyncio.timeout(5 * S):
        while True:
            try:
                spoken.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.writer.write(outgoing.read())
                incoming.write(await client.reader.read(65_536))
        spoken.write(GET)
        client.writer.write(outgoing.read())
        answer = b""
        while not answer:
            try:
                answer = spoken.read()
            except ssl.SSLWantReadError:
                incoming.write(await client.reader.read(65_536))
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_server_that_stops_ends_handshakes(echo: Echo, tls: ssl.SSLContext) -> None:
    """Silent clients do not hold up the end of the server."""
    async with AsyncExitStack() as clients:
        async with serve(echo, Limits(handshake_s=60), tls) as served:
            client = await clients.enter_async_context(Client.open(served))
            await eventually(lambda: served.state.connections)
        assert await client.reader.read() == b""
        await eventually(lambda: not served.state.connections)


async def test_old_versions_are_not_spoken(served: Served, trusting: ssl.SSLContext) -> None:
    """TLS 1.1 and older are refused."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(OSError):  # noqa: PT011 - whatever the client makes of it
        await ask(served, old)
    assert (await ask(served, trusting)).startswith(b"HTTP/1.1 200 ")


async def test_stuck_reader_is_given_up_over_tls(
    tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """A flood that is refused, and a client that does not read, end over TLS as without it."""
    echo = Echo()
    async with serve(echo, Limits(stalled_s=0.3), tls) as served:
        reader, writer = await asyncio.open_connection("localhost", served.port, ssl=trusting)
        client = Client(reader, writer)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        await client.head()
        writer.write(frame(9) * 5_000)
        assert await client.close_code() == 1008
        await client.ends()
        writer.transport.abort()
        await eventually(lambda: not served.state.connections)
    assert echo.ends == [{"type": "websocket.disconnect", "code": 1008}]


@pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_response_before_the_body_is_not_lost(
    tls: ssl.SSLContext,
    trusting: ssl.SSLContext,
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A client that is refused while it sends its body reads why, over TLS as well."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"connection", b"close"), (b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"big"})

    async def scenario() -> None:
        async with serve(app, None, tls) as served:
            reader, writer = await asyncio.open_connection("localhost", served.port, ssl=trusting)
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\n")
            assert b" 413 " in await reader.readuntil(b"\r\n\r\n")
            for _ in range(9):
                writer.write(bytes(50_000))
                await writer.drain()
            assert await reader.read() == b"big"
            writer.transport.abort()
            await eventually(lambda: not served.state.connections)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


async def test_gateway_speaks_tls_as_it_is_set(
    settings: Settings, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    """With a certificate and a key the whole gateway is there over TLS, and only so."""
    secret = replace(settings, host="localhost", tls_cert=certificate[0], tls_key=certificate[1])
    async with serving(secret) as gateway:
        url = gateway.url.replace("http://127.0.0.1", "https://localhost")
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with httpx2.AsyncClient(verify=trusting, headers=headers) as client:
            opened = await client.post(f"{url}/v1/sessions", json={})
            assert opened.status_code == 201
        token = opened.json()["session_token"]
        where = f"{url.replace('https', 'wss')}/v1/connect?session_token={token}"
        async with connect(where, ssl=trusting) as session:
            hello = json.loads(await session.recv())
            assert hello["session"]["id"] == opened.json()["id"]
        async with httpx2.AsyncClient() as client:
            with pytest.raises(httpx2.TransportError):
                await client.get(f"{gateway.url}/livez")


def test_handshakes_are_bounded_on_the_loop_that_serves(
    tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """On uvloop, too, silent clients count, are cut at the deadline, and make room."""

    async def scenario() -> None:
        echo = Echo()
        async with serve(echo, Limits(connections=3, handshake_s=0.5 * S), tls) as served:
            assert (await ask(served, trusting)).startswith(b"HTTP/1.1 200 ")
            await eventually(lambda: not served.state.connections)
            async with Client.open(served, GET) as plain:
                await plain.ends()
            await eventually(lambda: not served.state.connections)
            async with (
                Client.open(served),
                Client.open(served, b"\x16"),
                Client.open(served) as last,
            ):
                await eventually(lambda: len(served.state.connections) == 3)
                async with Client.open(served) as fourth:
                    assert await fourth.reader.read() == b""
                assert served.state.connections
                assert await last.reader.read() == b""
                await eventually(lambda: not served.state.connections)
                assert (await ask(served, trusting)).startswith(b"HTTP/1.1 200 ")
            await eventually(lambda: not served.state.connections)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
