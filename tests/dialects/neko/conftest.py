"""neko under real uvicorn on a free port, over one or two real nodes and a real Valkey."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio
import uvicorn
from argon2 import PasswordHasher
from msgspec.structs import replace
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.auth.principals import Authenticator, Scope
from gateway.auth.users import Users
from gateway.connections.registry import ConnectionRegistry
from gateway.context import Context
from gateway.dialects.neko import application, run
from gateway.node import Node
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from gateway.transport import Limits, http_protocol
from tests.dialects.neko.client import Neko
from tests.nodes import running_node
from tests.support import S, eventually

ADMIN_KEY = "the-admin-key"
PASSWORD = "correct horse"
HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PEOPLE: dict[str, tuple[list[Scope], str | None]] = {
    "root": ([Scope.CONNECT, Scope.READ, Scope.WRITE, Scope.CLOSE], None),
    "ruth": ([Scope.CONNECT, Scope.READ, Scope.WRITE, Scope.CLOSE], None),
    "mia": ([Scope.CONNECT, Scope.READ], None),
    "bo": ([Scope.CONNECT, Scope.READ], None),
    "cy": ([Scope.CONNECT, Scope.READ], None),
    "wanda": ([Scope.CONNECT, Scope.READ], "ws-1"),
    "wilma": ([Scope.CONNECT, Scope.READ, Scope.WRITE, Scope.CLOSE], "ws-1"),
    "hermit": ([Scope.CONNECT], None),
    "reader": ([Scope.READ], None),
}


@dataclass(frozen=True)
class Gateway:
    """One node with neko's door."""

    context: Context
    url: str

    @property
    def node(self) -> Node:
        """The node."""
        return self.context.node

    def client(self) -> Neko:
        """Return a client that nobody knows yet."""
        return Neko(self.url)

    async def login(self, name: str, password: str = PASSWORD) -> Neko:
        """Return a client that has logged in."""
        client = self.client()
        status, body = await client.post("/api/login", username=name, password=password)
        assert status == 200, body
        client.token = body["token"]
        return client


Start = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest_asyncio.fixture
async def start(valkey: EmbeddedValkey, prefix: str, tmp_path: Path) -> Start:
    """Start a node with neko's door; more of them are nodes of one gateway."""
    users = Users(tmp_path / "users.json", hasher=HASHER)
    for name, (scopes, workspace) in PEOPLE.items():
        users.add(name, PASSWORD, scopes=scopes, workspace=workspace)
    users.close()

    @asynccontextmanager
    async def starting(
        name: str = "a", *, mount: str = "", partitions: int | None = None, **settings: object
    ) -> AsyncIterator[Gateway]:
        async with running_node(valkey.url, prefix, name, partitions) as node:
            chosen = replace(Settings(admin_key=ADMIN_KEY, data_dir=tmp_path), **settings)
            people = Users(chosen.users_path, admin_key=ADMIN_KEY, hasher=HASHER)
            context = Context(
                node,
                Authenticator(chosen),
                ConnectionRegistry(100, lambda: 0.5),
                chosen,
                people,
                lambda: time.time_ns() // 1_000_000,
            )
            work = asyncio.create_task(run(context))
            try:
                async with serving(context, mount) as url:
                    yield Gateway(context, url)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                people.close()

    return starting


@asynccontextmanager
async def serving(context: Context, mount: str) -> AsyncIterator[str]:
    """Serve neko on a free port."""
    app = application(context, mount)

    async def served(scope: AsgiScope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": mount}, receive, send)

    config = uvicorn.Config(
        served,
        port=0,
        http=http_protocol(Limits()),
        ws="none",  # WebSockets are part of the transport
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started, within=5 * S)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}{mount}"
    finally:
        server.should_exit = True
        server.force_exit = True
        await task


@pytest_asyncio.fixture
async def gateway(start: Start) -> AsyncIterator[Gateway]:
    """One node with neko's door."""
    async with start() as gateway:
        yield gateway
