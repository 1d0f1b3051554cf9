"""How many connections are served: idle ones make room, descriptors are raised and kept back."""

import asyncio
import json
import logging
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from unittest.mock import ANY

import httpx2
import pytest
from msgspec.structs import replace
from redis import Redis
from starlette.types import Receive, Scope, Send
from websockets.sync.client import connect

from gateway.cli.serving import fit_descriptors
from gateway.settings import TABLE, Settings
from gateway.transport import Limits
from gateway.transport.descriptors import RESERVE, needed_for, raise_limit
from tests.server.command import KEY
from tests.server.command import Served as Command
from tests.server.command import serve as run_gateway
from tests.server.conftest import serving
from tests.server.echo import Client, Echo, Served, serve
from tests.support import S, eventually

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


async def answer(client: Client) -> None:
    """Ask, and read the whole answer."""
    client.writer.write(GET)
    assert " 200 OK" in await client.head()
    await client.reader.readuntil(b"\r\n0\r\n\r\n")


# --- idle connections


async def test_idle_connection_is_kept_as_long_as_is_set() -> None:
    """Between two requests a connection stays for its time, and no longer; bytes begin it anew."""
    loop = asyncio.get_running_loop()
    async with (
        serve(Echo(), Limits(keep_alive_s=0.4 * S)) as served,
        Client.open(served) as client,
    ):
        await answer(client)
        await answer(client)
        began_s = loop.time()
        await client.ends()
        assert 0.35 * S < loop.time() - began_s < 2 * S


async def test_empty_lines_keep_no_connection() -> None:
    """Line breaks between two requests are no request, and prolong nothing."""
    async with (
        serve(Echo(), Limits(keep_alive_s=0.3 * S)) as served,
        Client.open(served) as client,
    ):
        await answer(client)
        await client.flood(b"\r\n", every_s=0.01)


def test_idle_time_outlasts_load_balancers() -> None:
    """By default a connection lives longer than the 60 s that balancers keep theirs."""
    assert float(TABLE["keep_alive_s"].default) > 60
    assert Limits().keep_alive_s == Settings().keep_alive_s == 75


async def test_idle_time_is_a_setting(settings: Settings) -> None:
    """A gateway closes idle connections when its settings say so."""
    async with serving(replace(settings, keep_alive_s=0.2)) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        async with Client.open(Served(port, None), GET.replace(b"/", b"/livez", 1)) as client:  # type: ignore[arg-type]
            assert " 200 OK" in await client.head()
            await client.ends()


async def test_connection_that_was_idle_longest_makes_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When there are as many as may be, a newcomer is served, and the idlest one is closed."""
    async with (
        serve(Echo(), Limits(connections=3)) as served,
        Client.open(served) as first,
        Client.open(served) as second,
        Client.websocket(served),
    ):
        for client in (first, second, first):  # so the second is idle for longer
            await answer(client)
        async with Client.open(served) as newcomer:
            await answer(newcomer)
            await second.ends()
            await answer(first)
            await eventually(lambda: len(served.state.connections) == 3)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_connection_at_work_makes_no_room(caplog: pytest.LogCaptureFixture) -> None:
    """A request that is served, one that is coming and a WebSocket are not closed for others."""
    go_on = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async with (
        serve(app, Limits(connections=2)) as served,
        Client.open(served, GET) as asking,
        Client.open(served, GET[:9]) as coming,
    ):
        await eventually(lambda: served.state.tasks)
        async with Client.open(served) as newcomer:
            assert (await newcomer.head()).startswith("HTTP/1.1 503 ")
            await newcomer.ends()
        go_on.set()
        coming.writer.write(GET[9:])
        for client in (asking, coming):
            assert " 200 OK" in await client.head()
    assert caplog.text.count("connections are refused: there are too many") == 1


async def test_refused_connections_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """However many come too many, few are told so at a time; the others are cut."""
    async with serve(Echo(), Limits(connections=1)) as served, AsyncExitStack() as clients:
        await clients.enter_async_context(Client.open(served))
        await eventually(lambda: served.state.connections)
        opening = [clients.enter_async_context(Client.open(served)) for _ in range(300)]
        came = await asyncio.gather(*opening)  # before the first ones are over
        assert len(served.state.connections) < 150
        said = [await client.reader.read() for client in came]
        assert b"" in said
        assert any(reply.startswith(b"HTTP/1.1 503 ") for reply in said)
        await eventually(lambda: len(served.state.connections) == 1)
    assert caplog.text.count("connections are refused: there are too many") == 1


# --- descriptors


@contextmanager
def files(soft: int) -> Iterator[None]:
    """Let processes that begin here have so many files open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def soft_limit(gateway: Command) -> int:
    """Return how many files the process may have open."""
    return resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)[0]


def limited(soft: int, hard: int, code: str) -> str:
    """Return what *code* prints in a process with these limits."""
    begin = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + code], check=True, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def test_soft_limit_is_raised_to_what_connections_need(tmp_path: Path) -> None:
    """A gateway that is started with the usual 1,024 files serves all its connections."""
    with files(1024), run_gateway(tmp_path, "--admin-key", KEY, "--max-connections", "2000") as ran:
        assert soft_limit(ran) == needed_for(2000 + 384)
        said = ran.stop()
    assert (said.code, "lowered" in said.err) == (0, False)


@pytest.mark.parametrize(
    "soft, hard, fits",
    [(1024, 20_000, 16_000), (20_000, 20_000, 16_000), (256, 2000, 1424), (256, 256, 32)],
)
def test_missing_descriptors_are_told(soft: int, hard: int, fits: int) -> None:
    """Where the hard limit is too low there are fewer connections, and the log says what to do."""
    said = limited(
        soft,
        hard,
        "from gateway.logs import formats\nfrom gateway.cli.serving import fit_descriptors\n"
        "from gateway.settings import Settings\nformats.configure('text', 'info', 'a')\n"
        "print(fit_descriptors(Settings()).max_connections)",
    )
    assert said.splitlines()[0] == str(fits)
    assert ("files_needed=16576" in said) == (fits < 16_000)
    assert (f"files_allowed={hard}" in said) == (fits < 16_000)


def test_node_without_descriptors_does_not_start() -> None:
    """Next to none is an error, in words."""
    said = limited(
        64,
        64,
        "from gateway.transport.descriptors import raise_limit\n"
        "try:\n    raise_limit(1000)\nexcept OSError as error:\n    print(error.strerror)",
    )
    assert "at most 64 files may be open" in said


def test_few_connections_need_few_descriptors() -> None:
    """A limit that suffices is left as it is."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert raise_limit(10) == 10
    assert fit_descriptors(Settings(max_connections=10)).max_connections == 10
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


@pytest.mark.slow
@pytest.mark.timeout(60)  # a process that imports a whole server
def test_store_is_reached_whatever_clients_do(tmp_path: Path) -> None:
    """With every descriptor taken that a client can take, the store is connected to anew."""
    flags = ("--admin-key", KEY, "--max-connections", "1000")
    with run_gateway(tmp_path, *flags) as ran, ExitStack() as stack:
        resource.prlimit(ran.process.pid, resource.RLIMIT_NOFILE, (300, 300))
        port = int(ran.url.rpartition(":")[2])
        session = stack.enter_context(
            connect(f"ws://127.0.0.1:{port}/v1/connect?token={KEY}", compression=None)
        )
        assert json.loads(session.recv())["type"] == "hello"
        for _ in range(600):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            held.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        taken = len(list(Path(f"/proc/{ran.process.pid}/fd").iterdir()))
        assert taken <= 300 - RESERVE + 16  # the last ones are about to be cut
        with Redis(unix_socket_path=str(ran.data_dir / "valkey.sock")) as store:
            store.client_kill_filter(skipme=True)
        session.send('{"type":"update","ref":"1","changes":{"name":"a"}}')
        assert json.loads(session.recv()) == {"type": "ack", "ref": "1", "revision": ANY}
        stack.close()
        assert httpx2.get(ran.url + "/readyz").status_code == 200
        said = ran.stop()
    assert said.code == 0
    assert said.err.count("too few file descriptors") == 1
    assert "Traceback" not in said.err
