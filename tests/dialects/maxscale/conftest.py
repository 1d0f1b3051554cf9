"""MaxScale for tests: a real node behind the dialect's routes, on a real server and a free port."""

import asyncio
import hashlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import uvicorn
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.auth.principals import Authenticator, Scope
from gateway.auth.users import Users
from gateway.context import Context
from gateway.core.command import Connect, StartStream
from gateway.core.model import Connection, Session, Stream
from gateway.dialects.maxscale import application
from gateway.node import Node
from gateway.settings import ApiKey, Settings
from gateway.settings.table import ScopeName
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import blank, running_node
from tests.support import TLS, S, eventually

ADMIN: Final = "admin-key-of-the-tests"
NOW_MS: Final = 1_767_323_045_678  # of the wall clock when a test begins to wind it

Json = Any


def basic(name: str, password: str) -> dict[str, str]:
    """Return the header of a login."""
    return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"Authorization": f"Bearer {token}"}


def key(token: str, *scopes: ScopeName, workspace: str | None = None) -> ApiKey:
    """Return the setting that lets *token* in."""
    sha256 = hashlib.sha256(token.encode()).hexdigest()
    return ApiKey(name=token, sha256=sha256, scopes=scopes, workspace=workspace)


class Wall:
    """A clock of the wall that tests wind by hand; tokens and dates go by it."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


@dataclass(frozen=True)
class MaxScale:
    """A server that runs: where it is, and what is inside."""

    url: str
    node: Node
    wall: Wall
    users: Users

    def http(self, headers: dict[str, str] | None = None, path: str = "/") -> httpx2.AsyncClient:
        """Return a client; use it with ``async with``."""
        shown = basic("admin", ADMIN) if headers is None else headers
        return httpx2.AsyncClient(
            base_url=self.url + path, headers=shown, timeout=5 * S, verify=TLS
        )

    async def open(self, session_id: str, **facts: object) -> Session:
        """Open a session without a connection."""
        return await self.node.open(blank(session_id, **facts))

    async def connect(self, session_id: str, address: str | None = "192.0.2.7") -> Session:
        """Attach a connection to a session."""
        connection = Connection(
            id=f"c-{session_id}",
            node=self.node.id,
            connected_at=self.node.clock.now_ms(),
            address=address,
            port=51514,
        )
        return await self.node.apply(session_id, Connect(connection=connection))

    async def start_backend(self, session_id: str, server: str, thread: int = 0) -> Session:
        """Report a connection to a server."""
        data = {"server": server, "connection_id": thread}
        stream = Stream(key=f"k-{server}", kind="backend", data=data)
        return await self.node.apply(session_id, StartStream(stream=stream))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """How the gateway of a test is set up; a test may override this fixture."""
    return Settings(
        admin_key=ADMIN,
        data_dir=tmp_path,
        allowed_origins=("https://app.example.com",),
        trusted_proxies=("127.0.0.0/8",),
        api_keys=(
            key("reader", "read"),
            key("ws-1", "read", "write", "close", workspace="ws-1"),
            key("writer", "read", "write"),
            key("nothing"),
        ),
    )


@pytest.fixture
async def maxscale(
    settings: Settings, valkey: EmbeddedValkey, prefix: str
) -> AsyncIterator[MaxScale]:
    """MaxScale's API at the root and below ``/maxscale``, over a node of its own."""
    async with running_node(valkey.url, prefix) as node, served(settings, node) as server:
        yield server


class served:  # noqa: N801 - reads as a function
    """Serve the dialect over *node* until the end of the block."""

    def __init__(self, settings: Settings, node: Node) -> None:
        self._users = Users(settings.users_path, admin_key=settings.admin_key)
        self._wall = Wall()
        self._node = node
        context = Context(
            node=node,
            authenticator=Authenticator(settings),
            connections=None,  # type: ignore[arg-type] # this dialect has none
            settings=settings,
            users=self._users,
            wall_ms=self._wall,
        )
        below, root = application(context, "/maxscale"), application(context, "")

        async def app(scope: AsgiScope, receive: Receive, send: Send) -> None:
            if scope["path"].startswith("/maxscale"):
                await below({**scope, "root_path": "/maxscale"}, receive, send)
            else:
                await root(scope, receive, send)

        config = uvicorn.Config(
            app,
            port=0,
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
        )
        self._server = uvicorn.Server(config)

    async def __aenter__(self) -> MaxScale:
        self._serving = asyncio.create_task(self._server.serve())
        await eventually(lambda: self._server.started or self._serving.done())
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return MaxScale(f"http://127.0.0.1:{port}", self._node, self._wall, self._users)

    async def __aexit__(self, *_: object) -> None:
        self._serving.cancel()  # a polite end takes uvicorn a fifth of a second, for each test
        await asyncio.gather(self._serving, return_exceptions=True)
        for listener in self._server.servers:
            listener.close()
        self._users.close()


@pytest.fixture
async def http(maxscale: MaxScale) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that logs in as ``admin``."""
    async with maxscale.http() as client:
        yield client


@pytest.fixture
def golden() -> Callable[[str], Json]:
    """Return the function that reads a golden file."""

    def read(name: str) -> Json:
        return json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text())

    return read


__all__ = ["ADMIN", "MaxScale", "Scope", "basic", "bearer", "served"]
