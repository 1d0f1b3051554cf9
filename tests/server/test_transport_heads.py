"""Request heads that break HTTP, and targets that are no path: the same at every door.

The transport is asked alone with everything that httptools lets through; a whole gateway is asked
below each door's own path, because none of the products' error documents may be the answer.
"""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from starlette.types import Scope

from gateway.transport.request_head import HOSTS_KEPT, is_authority
from tests.server.conftest import Gateway
from tests.server.echo import Client, Echo, Served, serve, upgrade
from tests.support import S, eventually

DOORS = {
    "native": b"/v1/sessions",
    "neko": b"/neko/api/sessions",
    "plex": b"/plex/status/sessions",
    "webida": b"/webida/api/sessions",
    "gameye": b"/gameye/session",
    "maxscale": b"/maxscale/v1/sessions",
}

CHUNKED = b"\r\n0\r\n\r\n"  # the end of a head, and a body of no chunks

REFUSED = {
    "no Host": (b"GET %b HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET %b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "the same Host twice": (b"GET %b HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "two Hosts in 1.0": (b"GET %b HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "Host with a blank": (b"GET %b HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "Host with a path": (b"GET %b HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "Host with a user": (b"GET %b HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "Host that is a list": (b"GET %b HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "Host with a port too high": (b"GET %b HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    "Host with a word for a port": (b"GET %b HTTP/1.1\r\nHost: a:http\r\n\r\n", 400),
    "Host that is half an address": (b"GET %b HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    "Host that is no address": (b"GET %b HTTP/1.1\r\nHost: [1:2]\r\n\r\n", 400),
    "Host not in ASCII": (b"GET %b HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", 400),
    "malformed Host in 1.0": (b"GET %b HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
    "two lengths": (
        b"POST %b HTTP/1.1\r\nHost: a\r\n" + b"Content-Length: 1\r\n" * 2 + b"\r\na",
        400,
    ),
    "other lengths": (
        b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\naa",
        400,
    ),
    **{
        f"length {length}": (
            b"POST %%b HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\na" % length.encode(),
            400,
        )
        for length in ("", "a", "-1", "+1", "1, 1", "1 1", "0x1", "1.0", "9" * 30)
    },
    "length and coding": (
        b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"
        + CHUNKED,
        400,
    ),
    "coding and length": (
        b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n"
        + CHUNKED,
        400,
    ),
    **{
        f"coding {coding!r}": (
            b"POST %%b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: %b\r\n%b" % (coding, CHUNKED),
            status,
        )
        for coding, status in (
            (b"gzip, chunked", 501),
            (b"identity, chunked", 501),
            (b"gzip;q=1,chunked", 501),
            (b"gzip\r\nTransfer-Encoding: chunked", 501),
            (b"chunked, gzip", 400),
            (b"chunked, chunked", 400),
            (b"chunked\r\nTransfer-Encoding: chunked", 400),
            (b"chunked\r\nTransfer-Encoding: identity", 400),
            (b", chunked", 400),
            (b"chunked,", 400),
            (b"gzip", 400),
            (b"identity", 400),
            (b"xchunked", 400),
            (b"chunked;a=b", 400),
            (b'"chunked"', 400),
            (b"", 400),
        )
    },
    "coding in 1.0": (
        b"POST %b HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + CHUNKED,
        400,
    ),
    "upgrade without a Host": (upgrade("%b", host=""), 400),
    "upgrade with two Hosts": (upgrade("%b").replace(b"\r\n\r\n", b"\r\nhost: b\r\n\r\n"), 400),
    "upgrade with a bad Host": (upgrade("%b", host="a b"), 400),
    "upgrade with a body": (upgrade("%b", content_length="2") + b"{}", 400),
    "upgrade with chunks": (upgrade("%b", transfer_encoding="chunked") + CHUNKED[2:], 400),
    "other upgrade with a coding": (
        upgrade("%b", upgrade="h2c", transfer_encoding="gzip, chunked") + CHUNKED[2:],
        501,
    ),
    "name with a blank": (b"GET %b HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", 400),
    "no name": (b"GET %b HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", 400),
    "name that is no token": (b"GET %b HTTP/1.1\r\nHost: a\r\nX[1]: a\r\n\r\n", 400),
    "name not in ASCII": (b"GET %b HTTP/1.1\r\nHost: a\r\nX\xe9: a\r\n\r\n", 400),
    "line without a colon": (b"GET %b HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    "folded line": (b"GET %b HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    "blank before the first name": (b"GET %b HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "NUL in a value": (b"GET %b HTTP/1.1\r\nHost: a\r\nX: a\x00\r\n\r\n", 400),
    "control in a value": (b"GET %b HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n", 400),
    "DEL in a value": (b"GET %b HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n", 400),
    "bare CR": (b"GET %b HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    "bare LF": (b"GET %b HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    "bare LF at the end": (b"GET %b HTTP/1.1\r\nHost: a\r\n\n", 400),
    "only LF": (b"GET %b HTTP/1.1\nHost: a\n\n", 400),
    "no version": (b"GET %b\r\nHost: a\r\n\r\n", 400),
    "version 2.0": (b"GET %b HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "version 1.2": (b"GET %b HTTP/1.2\r\nHost: a\r\n\r\n", 400),
    "word behind the version": (b"GET %b HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
    "target with a fragment": (b"GET %b#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target with a blank": (b"GET %b a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target with a control": (b"GET %b\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target not in ASCII": (b"GET %b\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target that is an authority": (b"GET a:80%.0b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target without a slash": (b"GET *%b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "asterisk and a path": (b"OPTIONS *%b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "asterisk for GET": (b"GET *%.0b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "other scheme": (b"GET ftp://a%b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no authority": (b"GET http://%b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "authority with a user": (b"GET http://a@b%b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "authority without a host": (b"GET http://:80%b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "absolute target without a Host": (b"GET http://a%b HTTP/1.1\r\n\r\n", 400),
    "absolute target and two Hosts": (
        b"GET http://a%b HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        400,
    ),
    "tunnel": (b"CONNECT a:80%.0b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tunnel to a path": (b"CONNECT %b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
}
"""Requests with a place for the path, and the status that refuses each."""

BEHIND = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"  # what a refused request may not carry in


@pytest.fixture
async def echo() -> Echo:
    """An application that answers requests with their path."""
    return Echo()


@pytest.fixture
async def served(echo: Echo, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Served]:
    """A server of it that has nothing left at the end, and nothing to complain about."""
    async with serve(echo) as found:
        yield found
        await eventually(lambda: not found.state.connections)
        await eventually(lambda: not found.state.tasks)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def heard(served: Served, *said: bytes) -> bytes:
    """Return everything that the server says until it closes the connection."""
    async with Client.open(served, *said) as client, asyncio.timeout(5 * S):
        return await client.reader.read()


def is_bare(reply: bytes, status: int) -> bool:
    """Whether *reply* is one status and nothing that a product would have said."""
    head, _, rest = reply.partition(b"\r\n\r\n")
    lines = head.lower().splitlines()
    return (
        lines[0].startswith(b"http/1.1 %d " % status)
        and b"content-length: 0" in lines
        and b"connection: close" in lines
        and not any(line.startswith(b"content-type") for line in lines)
        and rest == b""
    )


@pytest.mark.parametrize("name", REFUSED)
async def test_request_that_breaks_http_reaches_no_application(
    served: Served, echo: Echo, name: str
) -> None:
    """It gets a bare status and its connection ends; what stands behind it is not served."""
    request, status = REFUSED[name]
    reply = await heard(served, request % b"/", BEHIND)

    assert is_bare(reply, status), reply
    assert echo.scopes == []


@pytest.mark.parametrize("name", REFUSED)
async def test_request_is_refused_in_whatever_pieces_it_comes(
    served: Served, echo: Echo, name: str
) -> None:
    """Byte by byte it is the same request."""
    request, status = REFUSED[name]
    async with Client.open(served) as client:
        for byte in request % b"/":
            client.writer.write(bytes([byte]))
            await client.writer.drain()
        async with asyncio.timeout(5 * S):
            reply = await client.reader.read()

    assert is_bare(reply, status), reply
    assert echo.scopes == []


@pytest.mark.parametrize("door", DOORS)
async def test_refusal_is_the_same_at_every_door(gateway: Gateway, door: str) -> None:
    """What breaks HTTP is a bare status whatever the path; no product's document is sent."""
    served = Served(int(gateway.url.rpartition(":")[2]), None)  # type: ignore[arg-type]
    replies = {
        name: await heard(served, request % DOORS[door], BEHIND)
        for name, (request, _) in REFUSED.items()
    }

    wrong = {name: reply for name, reply in replies.items() if not is_bare(reply, REFUSED[name][1])}
    assert wrong == {}


# --- what is served


def host(scope: Scope) -> list[bytes]:
    """Return every Host that an application sees."""
    return [value for name, value in scope["headers"] if name == b"host"]


@pytest.mark.parametrize(
    "value",
    [
        *(b"a", b"A.example", b"a:1", b"a:", b"127.0.0.1:80", b"[::1]", b"[::1]:8080", b"a%2Fb"),
        *(b"a_b", b"", b"a \t", b"localhost:65535"),
    ],
)
async def test_host_is_what_was_said(served: Served, echo: Echo, value: bytes) -> None:
    """A Host with or without a port reaches the application, without blanks around it."""
    request = b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % value

    assert b" 200 OK" in await heard(served, request)
    assert host(echo.scopes[0]) == [value.strip()]


async def test_old_request_needs_no_host(served: Served, echo: Echo) -> None:
    """HTTP/1.0 knows no Host."""
    assert b" 200 OK" in await heard(served, b"GET / HTTP/1.0\r\n\r\n")
    assert host(echo.scopes[0]) == []


@pytest.mark.parametrize(
    "target, seen",
    [
        (b"http://h/a/b", (b"/a/b", b"", b"h")),
        (b"http://h:81/a%0Ab?c=/d?e", (b"/a%0Ab", b"c=/d?e", b"h:81")),
        (b"HTTPS://[::1]:1/", (b"/", b"", b"[::1]:1")),
        (b"http://h", (b"/", b"", b"h")),
        (b"http://h?a=b", (b"/", b"a=b", b"h")),
        (b"http://h//evil/", (b"//evil/", b"", b"h")),
    ],
)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_absolute_target_is_its_path(
    served: Served, echo: Echo, target: bytes, seen: tuple[bytes, bytes, bytes], version: bytes
) -> None:
    """The authority of such a target is the Host, whatever the header says (RFC 9112 3.2.2)."""
    said = b"" if version == b"1.0" else b"Host: other\r\n"
    request = b"GET %b HTTP/%b\r\n%bX: 1\r\nConnection: close\r\n\r\n" % (target, version, said)

    assert b" 200 OK" in await heard(served, request)
    (scope,) = echo.scopes
    assert (scope["raw_path"], scope["query_string"], *host(scope)) == seen
    assert (b"x", b"1") in scope["headers"]


async def test_websocket_may_name_an_absolute_target(served: Served, echo: Echo) -> None:
    """A handshake through a proxy is one for the path, and its Host is the authority."""
    async with Client.open(served, upgrade("http://h:1/a%20b?c")) as client:
        assert (await client.head()).startswith("HTTP/1.1 101 ")

    (scope,) = echo.scopes
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"c")
    assert host(scope) == [b"h:1"]


async def test_absolute_target_of_an_ignored_upgrade_is_its_path(
    served: Served, echo: Echo
) -> None:
    """A request that asks for HTTP/2 is read again, and its authority is still the Host."""
    async with Client.open(served, upgrade("http://h/a?b", upgrade="h2c")) as client:
        assert " 200 OK" in await client.head()

    (scope,) = echo.scopes
    assert (scope["raw_path"], scope["query_string"], host(scope)) == (b"/a", b"b", [b"h"])


@pytest.mark.parametrize(
    "path", [b"/a%0Ab", b"/a%00", b"/%ff", b"/a%2Fb", b"/..", b"/a//b", b"/%", b'/"<>\\^`{|}']
)
async def test_strange_path_reaches_the_application_as_it_was(
    served: Served, echo: Echo, path: bytes
) -> None:
    """What a path may be is the application's to say; nothing of it is lost before."""
    request = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path

    assert b" 200 OK" in await heard(served, request)
    assert echo.scopes[0]["raw_path"] == path


@pytest.mark.parametrize("target", [b"*", b"http://h", b"http://h:1"])
async def test_options_of_the_whole_server_are_told(
    served: Served, echo: Echo, target: bytes
) -> None:
    """``OPTIONS *`` asks about no path: it is told every method, and the connection goes on."""
    request = b"OPTIONS %b HTTP/1.1\r\nHost: a\r\n" % target
    reply = await heard(served, request + b"\r\n", request + b"Connection: close\r\n\r\n")

    assert reply.count(b"HTTP/1.1 204 No Content\r\n") == 2
    assert reply.count(b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n") == 2
    assert reply.endswith(b"\r\n\r\n")
    assert echo.scopes == []


async def test_blanks_around_a_value_are_none_of_it(served: Served, echo: Echo) -> None:
    """Whitespace around a header's value is not a part of it (RFC 9112 section 5.1)."""
    request = (
        b"POST / HTTP/1.1\r\nHost:a\r\nX: \t b c \t \r\nContent-Length: 1 \r\n"
        b"Connection: close\r\n\r\na"
    )
    assert b" 200 OK" in await heard(served, request)
    assert (b"x", b"b c") in echo.scopes[0]["headers"]
    assert (b"content-length", b"1") in echo.scopes[0]["headers"]


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED "])
async def test_chunks_are_read(served: Served, coding: bytes) -> None:
    """The one transfer coding that is read has a name without case."""
    request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: %b\r\nConnection: close\r\n%b"

    assert b" 200 OK" in await heard(served, request % (coding, CHUNKED))


@pytest.mark.parametrize(
    "headers",
    [
        {"connection": "keep-alive, Upgrade"},
        {"connection": "Upgrade\r\nconnection: keep-alive"},
        {"upgrade": "WebSocket"},
        {"upgrade": "h2c, websocket"},
        {"content_length": "0"},
    ],
)
async def test_upgrade_may_be_said_in_many_ways(served: Served, headers: dict[str, str]) -> None:
    """Lists and repeated lines ask for a WebSocket as well (RFC 9110 section 7.8)."""
    async with Client.open(served, upgrade(**headers)) as client:
        assert (await client.head()).startswith("HTTP/1.1 101 ")


def test_remembered_hosts_are_bounded() -> None:
    """Whoever names ever new hosts fills no memory."""
    for number in range(2 * HOSTS_KEPT):
        is_authority(b"%d.example" % number)

    assert is_authority.cache_info().currsize == HOSTS_KEPT
