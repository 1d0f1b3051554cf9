"""Bad HTTP: what is no request, or half of one, ends the connection and reaches nobody."""

import asyncio

import pytest

from gateway.api import style
from tests.server.conftest import Gateway
from tests.support import S


async def raw(gateway: Gateway, request: bytes) -> bytes:
    """Send *request* as it stands and return all that comes until the gateway hangs up."""
    port = int(gateway.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(5 * S):
        reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    return reply


@pytest.mark.parametrize(
    "host",
    [
        *(b"Host: a/b?\r\n", b"Host: x@evil\r\n", b"Host: x:99999\r\n", b"Host: x y\r\n"),
        *(b"Host: x\r\nHost: y\r\n", b"", b"Host: [::1\r\n"),
    ],
)
async def test_bad_host_is_refused(gateway: Gateway, host: bytes) -> None:
    """A request without one readable Host is a 400 (RFC 9112 section 3.2)."""
    reply = await raw(gateway, b"GET /livez HTTP/1.1\r\n%bConnection: close\r\n\r\n" % host)

    assert reply.startswith(b"HTTP/1.1 400 ")


async def test_host_is_never_believed(gateway: Gateway) -> None:
    """No reply repeats the Host, so that nobody can send others to a false address."""
    async with gateway.http() as http:
        reply = await http.post("/v1/sessions", json={}, headers={"Host": "evil.example"})

    assert reply.status_code == 201
    assert "evil" not in f"{reply.headers}{reply.text}"


async def test_token_of_an_address_is_not_remembered(gateway: Gateway) -> None:
    """What queries say is kept for those who repeat them, but none that may hold a token."""
    async with gateway.http(None) as http:
        before = style._read.cache_info()  # noqa: SLF001
        reply = await http.get("/v1/events?token=nothing", headers={"Accept": "text/event-stream"})
        after = style._read.cache_info()  # noqa: SLF001

    assert reply.status_code == 403  # its rights are looked at after all that it asks for was read
    assert after == before


async def test_old_and_pipelined_requests_are_served_in_order(gateway: Gateway) -> None:
    """HTTP/1.0 is served, and a hundred requests at once are answered in their order."""
    old = await raw(gateway, b"GET /livez HTTP/1.0\r\n\r\n")
    one = b"GET /livez?pretty=%b HTTP/1.1\r\nHost: x\r\n\r\n"
    many = await raw(
        gateway,
        b"".join(one % (b"maybe" if number % 2 else b"false") for number in range(99))
        + b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )

    assert b" 200 OK" in old.partition(b"\r\n")[0]
    found = [part[:3] for part in many.split(b"HTTP/1.1 ")[1:]]
    assert found == [b"400" if number % 2 else b"200" for number in range(99)] + [b"200"]


@pytest.mark.parametrize(
    "request_text",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        (
            b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_http_ends_the_connection(gateway: Gateway, request_text: bytes) -> None:
    """Smuggled, garbled or foreign bytes are a 400, or nothing at all, and the end."""
    reply = await raw(gateway, request_text)

    assert reply == b"" or reply.split(b" ", 2)[1] in (b"400", b"401")
