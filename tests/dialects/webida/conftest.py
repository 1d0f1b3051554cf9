"""Webida's dialect, served at its prefix and at the root, over a real node and a real server."""

import asyncio
import fcntl
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import uvicorn
from msgspec.structs import replace

from gateway.app import create_app, running
from gateway.auth.principals import Scope
from gateway.context import Context
from gateway.core.errors import SessionClosed
from gateway.core.model import Session, State
from gateway.live.hub import Mailbox
from gateway.node import Node
from gateway.realtime.contest import ALIVE
from gateway.settings import ApiKey, Settings
from gateway.settings.table import ScopeName
from gateway.store.embedded import EmbeddedValkey
from gateway.transport import Limits, http_protocol
from tests.dialects.webida.client import Client
from tests.support import TLS, S, eventually

ADMIN: Final = "admin-key-of-the-tests"
NOW_MS: Final = 1_767_323_045_678  # of the wall clock when a test begins to wind it
PAGE: Final = "https://ide.example.com"
PACKAGES: Final = (
    "webida-restful-api@0.8.1",
    "socket.io-client-1@npm:socket.io-client@1.7.4",
    "socket.io-client-2@npm:socket.io-client@2.5.0",
)
"""Clients of other people; both of Socket.IO speak Engine.IO 3."""

Json = Any


def key(
    token: str, *scopes: ScopeName, workspace: str | None = None, account: str | None = None
) -> ApiKey:
    """Return the setting that lets *token* in."""
    digest = sha256(token.encode()).hexdigest()
    return ApiKey(name=token, sha256=digest, scopes=scopes, workspace=workspace, account=account)


KEYS: Final = (
    key("reader", "read"),
    key("ann", "connect", account="ann", workspace="ws-1"),
    key("ide", "connect", "read", "write", "close"),
    key("ws-1", "connect", "read", "write", "close", workspace="ws-1"),
    key("ws-2", "connect", "read", "write", "close", workspace="ws-2"),
    key("nothing"),
)
"""Who the gateway of the tests knows; a key's token is its name."""


@dataclass
class Wall:
    """A clock of the wall that tests wind by hand; the life of tokens goes by it."""

    now_ms: int = NOW_MS

    def __call__(self) -> int:
        """Return what it shows."""
        return self.now_ms

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += round(seconds * 1000)


@dataclass(frozen=True)
class Webida:
    """A server that runs: where it is, and what is inside."""

    url: str
    context: Context
    wall: Wall
    clients: list[Client]

    @property
    def node(self) -> Node:
        """Its node."""
        return self.context.node

    def http(self, token: str | None = ADMIN, base: str = "/webida") -> httpx2.AsyncClient:
        """Return a client of the paths under *base*; use it with ``async with``."""
        headers = {"Authorization": token} if token else {}
        url = f"{self.url}{base}/api"
        return httpx2.AsyncClient(base_url=url, headers=headers, timeout=5 * S, verify=TLS)

    async def log_in(self, name: str = "admin", password: str = ADMIN) -> Json:
        """Return the Token of who logs in."""
        async with self.http(None) as http:
            given = {"loginId": name, "loginPassword": password}
            answer = await http.post("/auth/login", json=given)
            assert answer.status_code == 200, answer.text
            return answer.json()

    async def connect(self, token: str | None, **query: str) -> Client:
        """Return a client whose WebSocket is open; it is not in its session yet."""
        generation = self.context.settings.webida_generation
        client = await Client.open(self.url, generation, token, **query)
        self.clients.append(client)
        return client

    async def join(self, token: str | None, **query: str) -> Client:
        """Return a client that is in its session."""
        client = await self.connect(token, **query)
        await client.join()
        return client

    def session(self, session_id: str) -> Session:
        """Return a session that is open."""
        return self.node.replica.sessions[session_id]


@pytest.fixture
def settings(valkey: EmbeddedValkey, prefix: str, tmp_path: Path) -> Settings:
    """How the gateway of a test is set up; a module may override this fixture."""
    return Settings(
        redis_url=valkey.url,
        key_prefix=prefix,
        node_name="node-a",
        data_dir=tmp_path,
        admin_key=ADMIN,
        api_keys=KEYS,
        allowed_origins=(PAGE,),
        dialect="webida=/",
    )


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Webida]:
    """Run a gateway with these *settings*, and people who can log in."""
    async with running(settings) as made:
        wall = Wall()
        context = replace(made, wall_ms=wall)
        limits = Limits(heartbeat_s=settings.heartbeat_s, pong_s=settings.pong_s)
        config = uvicorn.Config(
            create_app(context),
            port=0,
            http=http_protocol(limits),
            ws="none",  # WebSockets are part of the transport
            lifespan="off",
            log_config=None,
            proxy_headers=False,
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        clients: list[Client] = []
        try:
            await eventually(lambda: server.started or task.done())
            port = server.servers[0].sockets[0].getsockname()[1]
            yield Webida(f"http://127.0.0.1:{port}", context, wall, clients)
        finally:
            for client in clients:
                await client.drop()
            server.should_exit = True
            await context.connections.drain(0)
            await task


@pytest.fixture
async def webida(settings: Settings) -> AsyncIterator[Webida]:
    """The dialect over a node of its own for each test."""
    async with serving(settings) as served:
        yield served


@pytest.fixture
async def http(webida: Webida) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that shows the admin key."""
    async with webida.http() as client:
        yield client


def add_user(webida: Webida, name: str, *scopes: Scope, workspace: str | None = None) -> None:
    """Let somebody log in; the password is the name."""
    webida.context.users.add(name, name, scopes=scopes, workspace=workspace)


async def away(webida: Webida, session_id: str) -> None:
    """Wait until a session has no client."""
    await eventually(lambda: webida.session(session_id).state is State.AWAY)


async def contested(webida: Webida, session_id: str) -> None:
    """Wait until the first client of a session has been asked, and has proved that it lives."""
    await eventually(lambda: session_id in webida.node.replica.sessions)
    box = Mailbox(webida.session(session_id))
    webida.node.hub.attach(session_id, box)
    try:
        async with asyncio.timeout(5 * S):
            while (message := (await box.get()).message) is None or message.topic != ALIVE:
                pass
    finally:
        webida.node.hub.detach(session_id, box)


async def outcome(webida: Webida, session_id: str) -> str | None:
    """Return how a session ended."""
    with pytest.raises(SessionClosed) as closed:
        await webida.node.find(session_id)
    record = closed.value.record
    assert isinstance(record, Session)
    return record.closed.outcome if record.closed else None


async def look(http: httpx2.AsyncClient, session_id: str) -> Json:
    """Return a session as Webida shows it."""
    answer = await http.get(f"/sessions/{session_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def close(http: httpx2.AsyncClient, session_id: str, after_s: int) -> None:
    """Ask for a close."""
    answer = await http.delete(f"/sessions/{session_id}", params={"closeAfter": after_s})
    assert answer.status_code == 200, answer.text


@pytest.fixture
def golden() -> Callable[[str], Json]:
    """Return the function that reads a golden file."""

    def read(name: str) -> Json:
        return json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text())

    return read


@pytest.fixture(scope="session")
def modules() -> Path:
    """Where clients of other people are."""
    place = Path(sys.prefix, "npm", "webida-" + sha256("".join(PACKAGES).encode()).hexdigest()[:8])
    place.parent.mkdir(exist_ok=True)
    with (place.parent / "lock").open("w") as lock:  # one process installs, the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            try:
                _install(place)
            except (OSError, subprocess.SubprocessError) as error:
                pytest.skip(f"the clients cannot be installed: {error}")
    return place / "node_modules"


def _install(place: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise FileNotFoundError("npm or node")
    beside = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        options = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(beside))
        command = [npm, "install", *options, *PACKAGES]
        subprocess.run(command, check=True, capture_output=True, timeout=100)
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
