"""Gameye's dialect, served at its prefix and at the root, over a real node and a real server."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from gateway.app import running
from gateway.context import Context
from gateway.dialects.gameye import application
from gateway.node import Node
from gateway.settings import ApiKey, Settings
from gateway.settings.table import ScopeName
from gateway.store.embedded import EmbeddedValkey
from gateway.transport import Limits, http_protocol
from tests.support import TLS, S, eventually

ADMIN: Final = "admin-key-of-the-tests"
PORT: Final = 8443  # where the gateway says it is
HOST: Final = "192.0.2.44"
START: Final = {"location": "eu-west-1", "image": "arena"}


def key(
    token: str, *scopes: ScopeName, workspace: str | None = None, account: str | None = None
) -> ApiKey:
    """Return the setting that lets *token* in."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    return ApiKey(name=token, sha256=digest, scopes=scopes, workspace=workspace, account=account)


KEYS: Final = (
    key("reader", "read"),
    key("starter", "read", "write"),
    key("stopper", "read", "close"),
    key("red", "read", "write", "close", workspace="red"),
    key("blue", "read", "write", "close", workspace="blue"),
    key("blind", "write"),
    key("ann", "write", "close", workspace="red", account="ann"),
)
"""Who the gateway of the tests knows; a key's token is its name."""


@dataclass(frozen=True)
class Served:
    """A server that runs: where it is, and the node behind it."""

    url: str
    context: Context

    @property
    def node(self) -> Node:
        """Its node."""
        return self.context.node

    def http(self, token: str | None = ADMIN, base: str = "/gameye") -> httpx2.AsyncClient:
        """Return a client of the paths under *base*; use it with ``async with``."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx2.AsyncClient(
            base_url=self.url + base, headers=headers, timeout=5 * S, verify=TLS
        )


@pytest.fixture
def settings(valkey: EmbeddedValkey, prefix: str) -> Settings:
    """How the gateway of a test is set up; a module may override this fixture."""
    return Settings(
        port=PORT,
        redis_url=valkey.url,
        key_prefix=prefix,
        node_name="node-a",
        admin_key=ADMIN,
        api_keys=KEYS,
        gameye_host=HOST,
        gameye_stop_after_s=0.1,
    )


@asynccontextmanager
async def serving(context: Context, tls: tuple[Path, Path] | None = None) -> AsyncIterator[str]:
    """Serve the dialect over *context*; yield the server's URL.

    Args:
        context: A running node.
        tls: Files of a certificate and its key.
    """
    below, root = application(context, "/gameye"), application(context, "")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/gameye"):
            await below({**scope, "root_path": "/gameye"}, receive, send)
        else:
            await root(scope, receive, send)

    config = uvicorn.Config(
        app,
        http=http_protocol(Limits()),
        ws="none",
        host="127.0.0.1",
        port=0,
        lifespan="off",
        log_config=None,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started or task.done())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@pytest.fixture
async def served(settings: Settings) -> AsyncIterator[Served]:
    """The dialect over a node of its own for each test."""
    async with running(settings) as context, serving(context) as url:
        yield Served(url, context)


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that shows the admin key."""
    async with served.http() as client:
        yield client


async def begin(http: httpx2.AsyncClient, **facts: object) -> str:
    """Start a session and return its id."""
    answer = await http.post("/session", json={**START, **facts})
    assert answer.status_code == 201, answer.text
    started: str = answer.json()["id"]
    return started


async def listed(http: httpx2.AsyncClient, query: str = "") -> list[str]:
    """Return the ids in a list."""
    answer = await http.get(f"/session{query}")
    assert answer.status_code == 200, answer.text
    return [entry["id"] for entry in answer.json()["sessions"]]


async def stop_and_wait(served: Served, session_id: str) -> None:
    """Stop a session and wait until it has ended."""
    async with served.http() as http:
        assert (await http.delete(f"/session/{session_id}")).status_code == 204
    await eventually(lambda: session_id in served.node.replica.gone)
