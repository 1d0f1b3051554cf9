"""A gateway for tests: a real node on the shared Valkey, served by a real server on a free port."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx2
import pytest

from gateway.app import running, server
from gateway.context import Context
from gateway.node import Node
from gateway.settings import ApiKey, Settings
from gateway.settings.table import ScopeName
from gateway.store.embedded import EmbeddedValkey
from tests.support import TLS, S, eventually

ADMIN: Final = "admin-key-of-the-tests"

ALLOWED_ORIGIN: Final = "https://app.example.com"


def api_key(
    token: str,
    *scopes: ScopeName,
    workspace: str | None = None,
    account: str | None = None,
) -> ApiKey:
    """Return the setting that lets *token* in."""
    sha256 = hashlib.sha256(token.encode()).hexdigest()
    return ApiKey(name=token, sha256=sha256, scopes=scopes, workspace=workspace, account=account)


API_KEYS: Final = (
    api_key("reader", "read"),
    api_key("ann", "connect", account="ann", workspace="ws-1"),
    api_key("bob", "connect", account="bob", workspace="ws-1"),
    api_key("ws-1", "connect", "read", "write", "close", workspace="ws-1"),
    api_key("ws-2", "connect", "read", "write", "close", workspace="ws-2"),
    api_key("writer", "read", "write"),
    api_key("nothing"),
)
"""Who the gateway of the tests knows; a key's token is its name."""


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs: where it is, and what is inside."""

    url: str
    context: Context
    token: str = ADMIN

    @property
    def node(self) -> Node:
        """Its node."""
        return self.context.node

    def http(self, token: str | None = ADMIN) -> httpx2.AsyncClient:
        """Return a client that shows *token*; use it with ``async with``."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=5 * S, verify=TLS)


def settings_for(valkey: EmbeddedValkey, prefix: str) -> Settings:
    """Return how a gateway of the tests is set up."""
    return Settings(
        port=0,
        redis_url=valkey.url,
        key_prefix=prefix,
        node_name="node-a",
        admin_key=ADMIN,
        api_keys=API_KEYS,
        allowed_origins=(ALLOWED_ORIGIN,),
    )


@pytest.fixture
def settings(valkey: EmbeddedValkey, prefix: str) -> Settings:
    """How the gateway of a test is set up; a module may override this fixture."""
    return settings_for(valkey, prefix)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Gateway]:
    """Run a gateway with these *settings*."""
    async with running(settings) as context:
        web = server(context)
        task = asyncio.create_task(web.serve())
        try:
            await eventually(lambda: web.started or task.done())
            port = web.servers[0].sockets[0].getsockname()[1]
            yield Gateway(f"http://127.0.0.1:{port}", context)
        finally:
            web.should_exit = True
            await task


@pytest.fixture
async def gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway of its own for each test, with keys of its own in the shared Valkey."""
    async with serving(settings) as running_gateway:
        yield running_gateway


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that shows the admin key."""
    async with gateway.http() as client:
        yield client
