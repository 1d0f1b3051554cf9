"""What must hold while Redis answers but takes no writes, and after it, or another one, does."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from gateway.app import running
from gateway.core.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey, valkey_binary
from tests.server.conftest import Gateway, serving, settings_for
from tests.support import Proxy, S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

READONLY = "READONLY You can't write against a read only replica."
BEGUN, OVER = "the store takes no writes ", "the store takes writes again "


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[tuple[EmbeddedValkey, Redis, int]]:
    """Run a server that others can replicate; yield it, a client and its TCP port."""
    async with EmbeddedValkey(folder) as valkey, Redis.from_url(valkey.url) as client:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        await client.config_set("port", port)
        yield valkey, client, port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """How the gateway of a test is set up; it names the store itself."""
    return replace(settings_for(EmbeddedValkey(tmp_path), "roles"), data_dir=tmp_path)


async def tries(http: httpx2.AsyncClient, name: str) -> httpx2.Response:
    """Try to open a session."""
    return await http.post("/v1/sessions", json={"name": name})


async def opens(http: httpx2.AsyncClient, name: str) -> bool:
    """Whether a session can be opened."""
    return (await tries(http, name)).status_code == 201


async def is_ready(gateway: Gateway) -> httpx2.Response:
    """Ask as a load balancer does."""
    async with gateway.http(None) as http:
        return await http.get("/readyz")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log tells of the store's role."""
    found = [record for record in caplog.records if record.name == "gateway.store.roles"]
    return [f"{record.msg} {vars(record).get('reason', '')}" for record in found]


async def test_writes_go_on_with_the_new_primary(
    tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections lead to a demoted server and new ones to its heir: they are made anew.

    Sessions, sockets and watchers stay; it is told once when it begins and when it is over.
    """
    async with (
        server(tmp_path / "a") as (first, a, a_port),
        server(tmp_path / "b") as (second, b, b_port),
        Proxy(first.url) as proxy,
        serving(replace(settings, redis_url=proxy.url)) as gateway,
        gateway.http() as http,
        connect(f"{gateway.url.replace('http', 'ws')}/v1/events?token={gateway.token}") as watcher,
    ):
        await b.replicaof("127.0.0.1", a_port)
        assert await opens(http, "before")
        await eventually(lambda: _is_synced(a, b), within=20 * S)

        proxy.lead_to(second.url)
        await b.replicaof("NO", "ONE")
        await a.replicaof("127.0.0.1", b_port)
        refused = await tries(http, "refused")
        ready = await is_ready(gateway)
        assert (refused.status_code, ready.status_code) == (503, 503)
        assert READONLY.removesuffix(".") in refused.json()["detail"]
        assert READONLY in ready.json()["detail"]

        await eventually(lambda: opens(http, "after"), within=5 * S)
        await eventually(lambda: _is_ready(gateway), within=5 * S)
        listed = (await http.get("/v1/sessions")).json()["sessions"]
        assert {session["name"] for session in listed} >= {"before", "after"}
        begun, over = lines(caplog)
        assert (begun, over[: len(OVER)]) == (BEGUN + READONLY, OVER)
        async with asyncio.timeout(5 * S):
            while "after" not in str(await watcher.recv()):
                pass


async def _is_synced(primary: Redis, replica: Redis) -> bool:
    there, here = await primary.info("replication"), await replica.info("replication")
    return (
        here.get("master_link_status") == "up"
        and here.get("slave_repl_offset") == there["master_repl_offset"]
    )


async def _is_ready(gateway: Gateway) -> bool:
    return (await is_ready(gateway)).status_code == 200


@pytest.mark.parametrize("cause", ["READONLY", "MASTERDOWN", "NOREPLICAS"])
async def test_idle_node_finds_out_and_goes_on_when_the_same_server_takes_writes(
    tmp_path: Path, settings: Settings, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that writes nothing but its lease is not ready either, until the server is mended."""
    async with (
        server(tmp_path / "a") as (valkey, client, _),
        serving(replace(settings, redis_url=valkey.url)) as gateway,
        gateway.http() as http,
    ):
        assert await opens(http, "before")
        if cause == "NOREPLICAS":
            await client.config_set("min-replicas-to-write", 1)
        else:
            await client.config_set(
                "replica-serve-stale-data", "yes" if cause == "READONLY" else "no"
            )
            await client.replicaof("127.0.0.1", 1)  # nobody is there

        await eventually(lambda: lines(caplog), within=10 * S)
        ready = await is_ready(gateway)
        assert (ready.status_code, ready.json()["code"]) == (503, "store_unavailable")
        assert f"The store takes no writes: {cause} " in ready.json()["detail"]
        assert (await tries(http, "refused")).status_code == 503
        await eventually(lambda: not gateway.node.lease.is_fresh or None, within=10 * S)

        await client.config_set("min-replicas-to-write", 0)
        await client.replicaof("NO", "ONE")
        await eventually(lambda: _is_ready(gateway), within=10 * S)
        assert await opens(http, "after")
        begun, over = lines(caplog)
        assert begun.startswith(BEGUN + cause)
        assert over.startswith(OVER)


@contextmanager
def loading(folder: Path, dump: bytes) -> Iterator[str]:
    """Run a server that takes seconds to read *dump*; yield its address."""
    folder.mkdir()
    (folder / "dump.rdb").write_bytes(dump)
    options = ("--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
    command = [str(valkey_binary()), "--port", "0", "--unixsocket", "s", *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"unix://{folder / 's'}"
        finally:
            process.kill()


async def test_server_that_reads_its_data_is_waited_for(
    tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that was started again and still loads is told by its own word."""
    async with (
        server(tmp_path / "a") as (valkey, client, _),
        Proxy(valkey.url) as proxy,
        serving(replace(settings, redis_url=proxy.url)) as gateway,
        gateway.http() as http,
    ):
        for number in range(200):
            await client.set(f"filler {number}", "x" * 1_000)
        assert await opens(http, "before")
        await client.save()
        with loading(tmp_path / "slow", (tmp_path / "a" / "dump.rdb").read_bytes()) as url:
            await eventually((tmp_path / "slow" / "s").exists, within=10 * S)
            proxy.lead_to(url)
            async with proxy.cut():
                pass
            await eventually(lambda: lines(caplog), within=10 * S)
            assert "LOADING" in lines(caplog)[0]
            assert (await is_ready(gateway)).status_code == 503

            await eventually(lambda: opens(http, "after"), within=20 * S)
            listed = (await http.get("/v1/sessions")).json()["sessions"]
            assert {session["name"] for session in listed} == {"before", "after"}


async def test_start_on_a_replica_says_why(tmp_path: Path, settings: Settings) -> None:
    """A gateway that is led to a replica does not start, and names the reason."""
    async with server(tmp_path / "a") as (valkey, client, _):
        await client.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreUnavailable, match="READONLY"):
            async with running(replace(settings, redis_url=valkey.url)):
                pass
