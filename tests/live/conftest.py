"""Fixtures for tests of what lives in one node's memory."""

from collections.abc import AsyncIterator

import pytest_asyncio

from gateway.node import Node
from gateway.store.embedded import EmbeddedValkey
from tests.nodes import running_node


@pytest_asyncio.fixture
async def node(valkey: EmbeddedValkey, prefix: str) -> AsyncIterator[Node]:
    """One running node."""
    async with running_node(valkey.url, prefix) as node:
        yield node
