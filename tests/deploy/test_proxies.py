"""nginx and HAProxy of Debian in front of two gateways, with the configurations in ``deploy/``."""

import asyncio
import shutil
import ssl
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as dial
from websockets.typing import Origin

from gateway.client import Changes, Gateway, SessionClient, connect, events
from gateway.store.embedded import EmbeddedValkey
from tests.processes import ADMIN, AUTH, Process, gateways, heard, reserved_port
from tests.server.test_transport_tls import make_certificate
from tests.support import S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
CLIENTS: Final = 20
NAMES: Final = ("a", "b")
PROXIES: Final = ("nginx", "haproxy")


@dataclass(frozen=True)
class Site:
    """A proxy that runs, and the two gateways behind it."""

    url: str
    trust: ssl.SSLContext
    certificate: Path
    nodes: list[Process]
    flags: tuple[str, ...]

    @asynccontextmanager
    async def restarted(self, number: int) -> AsyncIterator[None]:
        """Start a gateway again that has stopped, on its port."""
        again = Process(*self.flags, name=NAMES[number], port=self.nodes[number].port)
        try:
            await again.ready()
            yield
        finally:
            again.end()

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx2.AsyncClient]:
        """Return a client with the admin key."""
        async with httpx2.AsyncClient(
            base_url=self.url, headers=AUTH, verify=self.trust, timeout=8 * S
        ) as client:
            yield client

    @asynccontextmanager
    async def page(self, path: str) -> AsyncIterator[ClientConnection]:
        """Open a WebSocket as a page of this site does."""
        address = self.url.replace("https", "wss") + path
        async with dial(
            address,
            additional_headers=AUTH,
            origin=Origin(self.url),
            ssl=self.trust,
        ) as client:
            yield client


def commands(kind: str, folder: Path, ports: tuple[int, int, int]) -> list[str]:
    """Write the configuration as an operator would change it; return the command of the proxy."""
    public, *behind = ports
    certificate, key = folder / "cert.pem", folder / "key.pem"
    both = folder / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    name = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[kind]
    text = (DEPLOY / kind / name).read_text()
    for before, after in (
        ("127.0.0.1:8081", f"127.0.0.1:{behind[0]}"),
        ("127.0.0.1:8082", f"127.0.0.1:{behind[1]}"),
        ("listen 443", f"listen 127.0.0.1:{public}"),
        ("bind :443", f"bind 127.0.0.1:{public}"),
        ("/etc/ssl/certs/gateway.pem", str(certificate)),
        ("/etc/ssl/private/gateway.key", str(key)),
        ("/etc/ssl/private/gateway.pem", str(both)),
        ("worker_rlimit_nofile 65536", "worker_rlimit_nofile 4096"),
        ("worker_connections 32768", "worker_connections 1024"),
        ("worker_processes auto", f"worker_processes 1; daemon off; pid {folder}/nginx.pid"),
        ("maxconn 65536", "maxconn 1024"),
        ("http {", f"http {{ access_log off; {temporary(folder)}"),
    ):
        text = text.replace(before, after)
    config = folder / name
    config.write_text(text)
    if kind == "nginx":
        return ["nginx", "-e", str(folder / "error.log"), "-c", str(config)]
    return ["haproxy", "-db", "-f", str(config)]


def temporary(folder: Path) -> str:
    """Return where nginx may write, if it is not the system's."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)


@contextmanager
def proxy(kind: str, folder: Path, ports: tuple[int, int, int]) -> Iterator[None]:
    """Run a proxy within a ``with`` block."""
    if shutil.which(kind) is None:
        pytest.skip(f"{kind} is not installed")
    with subprocess.Popen(commands(kind, folder, ports)) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture(params=PROXIES)
async def site(
    request: pytest.FixtureRequest, tmp_path: Path, valkey: EmbeddedValkey, prefix: str
) -> AsyncIterator[Site]:
    """Two gateways behind a proxy that ends TLS."""
    certificate, _ = make_certificate(tmp_path)
    trust = ssl.create_default_context(cafile=certificate)
    flags = (
        "--redis-url",
        valkey.url,
        "--key-prefix",
        prefix.rstrip(":"),
        "--trusted-proxies",
        "127.0.0.1",
    )
    async with gateways(*NAMES, data_dir=tmp_path / "data", options=flags) as nodes:
        ports = (reserved_port(), nodes[0].port, nodes[1].port)
        with proxy(request.param, tmp_path, ports):
            found = Site(f"https://localhost:{ports[0]}", trust, certificate, nodes, flags)
            async with found.http() as client:

                async def serves() -> bool:
                    try:
                        return (await client.get("/readyz")).status_code == httpx2.codes.OK
                    except httpx2.TransportError:
                        return False

                await eventually(serves)
            yield found


async def test_pages_sockets_and_streams_come_through(site: Site) -> None:
    """A browser's WebSocket is let in, an event stream is not held up, and addresses are real."""
    async with site.page("/v1/connect?name=Ann") as ann:
        session = (await heard(ann, "hello"))["session"]
        assert session["connection"]["address"] == "127.0.0.1"
        assert session["connection"]["tls"] is True
        async with site.http() as client, AsyncExitStack() as stack:
            stream = await stack.enter_async_context(
                client.stream("GET", "/v1/events", headers={"Accept": "text/event-stream"})
            )
            lines = stream.aiter_lines()
            await anext(lines)
            forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Prefix": "/evil"}
            opened = await client.post("/v1/sessions", json={"id": "s-1"}, headers=forged)
            assert opened.headers["location"] == "/v1/sessions/s-1"
            async for line in lines:
                if line == "event: session.opened":
                    break
            assert (await client.get("/metrics")).status_code == 404


async def test_prefix_is_kept_in_locations_and_links(site: Site) -> None:
    """Below a prefix of another site everything that is answered leads back below it."""
    async with site.http() as client:
        opened = await client.post("/live/v1/sessions", json={"id": "s-1"})
        assert opened.headers["location"] == "/live/v1/sessions/s-1"
        problem = (await client.get("/live/v1/sessions/unknown")).json()
        assert problem["type"] == "/live/docs#not_found"
        assert (await client.get("/live/docs")).status_code == 200
        listed = (await client.get("/live/maxscale/v1/sessions")).json()
        assert listed["links"]["self"].startswith(f"{site.url}/live/maxscale/v1/sessions")
    async with site.page("/live/v1/connect?name=Ann") as ann:
        assert (await heard(ann, "hello"))["session"]["state"] == "connected"


async def test_rolling_restart_loses_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gateway is replaced in turn: same sessions, no failed call, one return each time."""
    monkeypatch.setenv("SSL_CERT_FILE", str(site.certificate))
    told: Counter[tuple[str, str]] = Counter()
    calls = failures = 0

    def returns() -> Counter[str]:
        return Counter({one: told["session.connected", one] for one in ids})

    async def watch() -> None:
        async for item in events(site.url, token=ADMIN):
            if isinstance(item, Changes):
                told.update((event["type"], event["session_id"]) for event in item.events)

    async def call(gateway: Gateway) -> None:
        nonlocal calls, failures
        while True:
            try:
                await gateway.stats()
                await gateway.patch("kept", {"name": f"n{calls}"})
                async for _ in gateway.list_sessions():
                    break
            except Exception:  # noqa: BLE001 - counted
                failures += 1
            calls += 1
            await asyncio.sleep(0.02)

    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(Gateway(site.url, token=ADMIN))
        clients: list[SessionClient] = [
            await stack.enter_async_context(connect(site.url, token=ADMIN, name=f"c{number}"))
            for number in range(CLIENTS)
        ]
        await gateway.open({"id": "kept"})
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(watch()), group.create_task(call(gateway))]
        ids = {client.id for client in clients}
        left: Counter[str] = Counter()
        for number, node in enumerate(site.nodes):
            mine = {client.id for client in clients if on(client) == NAMES[number]}
            left.update(mine)
            assert node.stop() == 0

            async def all_are_back(mine: set[str] = mine) -> bool:
                shown = [session async for session in gateway.list_sessions()]
                there = {one["id"] for one in shown if one["is_connected"]}
                return mine <= there

            await eventually(all_are_back, within=30 * S)
            await stack.enter_async_context(site.restarted(number))
        await eventually(lambda: returns().total() >= left.total())
        assert {client.id for client in clients} == ids
        assert all(client.closed is None for client in clients)
        for task in tasks:
            task.cancel()

    assert (failures, calls > 0) == (0, True)
    assert {ended: told["session.closed", ended] for ended in ids} == dict.fromkeys(ids, 0)
    assert returns() == left


def on(client: SessionClient) -> str:
    """Return the node that a client is connected to."""
    connection: dict[str, Any] = client.session["connection"]
    return str(connection["node"]).partition(":")[0]
