"""Nodes for tests: real ones, in this process, over a real Valkey."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from gateway.core.model import Connection, Session
from gateway.node import Node
from gateway.store.clock import RedisClock
from gateway.store.store import Store


def clock() -> RedisClock:
    """Return a clock that has heard nothing yet."""
    return RedisClock(lambda: time.monotonic() * 1000)


def token() -> str:
    """Return random text."""
    return secrets.token_hex(16)


@asynccontextmanager
async def open_store(url: str, prefix: str, partitions: int | None = None) -> AsyncIterator[Store]:
    """Open a store and send what is committed."""
    store = Store(url, clock(), prefix=prefix, partitions=partitions)
    await store.open(token)
    run = asyncio.create_task(store.run())
    try:
        yield store
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await store.close()


@asynccontextmanager
async def running_node(
    url: str, prefix: str, name: str = "a", partitions: int | None = None
) -> AsyncIterator[Node]:
    """Run a node until the end of the block; it ends like a process that was killed."""
    store = Store(url, clock(), prefix=prefix, partitions=partitions)
    await store.open(token)
    node = Node(store, store.clock, name=name, boot=secrets.token_hex(4), token=token)
    await node.start()
    run = asyncio.create_task(node.run())
    try:
        await node.replicator.caught_up()
        yield node
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await store.close()


def blank(session_id: str, **facts: object) -> Session:
    """Return a session to open; the node fills in the rest."""
    return Session(**{"id": session_id, "number": 0, "revision": 0, "created_at": 0, **facts})  # type: ignore[arg-type]


def connection(node: Node, connection_id: str = "c1") -> Connection:
    """Return a connection on *node*, from now."""
    return Connection(id=connection_id, node=node.id, connected_at=node.clock.now_ms())


@contextmanager
def holding(node: Node, session_id: str, connection_id: str) -> Iterator[None]:
    """Let *node* hold this connection within a ``with`` block."""
    node.hold(session_id, connection_id)
    try:
        yield
    finally:
        node.release(connection_id)
