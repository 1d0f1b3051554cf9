"""Plex's dialect, served at its prefix and at the root, over a real node and a real server."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import uvicorn

from gateway.app import create_app, running
from gateway.context import Context
from gateway.core.model import Session, Watch
from gateway.node import Node
from gateway.settings import ApiKey, Settings
from gateway.settings.table import ScopeName
from gateway.store.embedded import EmbeddedValkey
from gateway.transport import Limits, http_protocol
from tests.nodes import blank
from tests.support import TLS, S, eventually

ADMIN: Final = "admin-key-of-the-tests"


def key(
    token: str, *scopes: ScopeName, workspace: str | None = None, account: str | None = None
) -> ApiKey:
    """Return the setting that lets *token* in."""
    sha256 = hashlib.sha256(token.encode()).hexdigest()
    return ApiKey(name=token, sha256=sha256, scopes=scopes, workspace=workspace, account=account)


KEYS: Final = (
    key("ann", "connect", account="ann", workspace="films"),
    key("bob", "connect", account="bob"),
    key("reader", "read"),
    key("films", "read", "close", workspace="films"),
    key("music", "read", "close", workspace="music"),
    key("films-writer", "read", "write", workspace="films"),
    key("shows-writer", "read", "write", workspace="shows"),
    key("writer-elsewhere", "write", workspace="shows", account="ann"),
    key("nothing"),
)
"""Who the gateway of the tests knows; a key's token is its name."""


@dataclass(frozen=True)
class Plex:
    """A server that runs: where it is, and what is inside."""

    url: str
    context: Context

    @property
    def node(self) -> Node:
        """Its node."""
        return self.context.node

    def http(
        self, token: str | None = ADMIN, base: str = "", accept: str = "application/json"
    ) -> httpx2.AsyncClient:
        """Return a client of the paths under *base*; use it with ``async with``."""
        headers = {"Accept": accept, **({"X-Plex-Token": token} if token else {})}
        return httpx2.AsyncClient(
            base_url=self.url + base, headers=headers, timeout=5 * S, verify=TLS
        )

    async def play(self, session_id: str, watch: Watch | None = None, **facts: object) -> Session:
        """Open a session that watches, as any door could."""
        what = watch or Watch(key="/library/metadata/101", title="A film", duration_ms=90_000)
        return await self.node.open(blank(session_id, watch=what, **facts))


@pytest.fixture
def settings(valkey: EmbeddedValkey, prefix: str, tmp_path: Path) -> Settings:
    """How the gateway of a test is set up; a test may override this fixture."""
    return Settings(
        redis_url=valkey.url,
        key_prefix=prefix,
        node_name="node-a",
        admin_key=ADMIN,
        api_keys=KEYS,
        data_dir=tmp_path,
        dialect="plex=/",
    )


@asynccontextmanager
async def serving(context: Context) -> AsyncIterator[str]:
    """Serve the dialect over *context*; yield the server's URL."""
    limits = Limits(heartbeat_s=context.settings.heartbeat_s, pong_s=context.settings.pong_s)
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
    try:
        await eventually(lambda: server.started or task.done())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await context.connections.drain(0)
        await task


@pytest.fixture
async def plex(settings: Settings) -> AsyncIterator[Plex]:
    """The dialect over a node of its own for each test."""
    async with running(settings) as context, serving(context) as url:
        yield Plex(url, context)


@pytest.fixture
async def http(plex: Plex) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that shows the admin key and asks for JSON."""
    async with plex.http() as client:
        yield client


@pytest.fixture
def golden() -> Callable[[str], Any]:
    """Return the function that reads a golden file."""

    def read(name: str) -> Any:  # noqa: ANN401 - JSON
        path = Path(__file__).parent / "golden" / name
        text = path.read_text()
        return json.loads(text) if path.suffix == ".json" else text

    return read
