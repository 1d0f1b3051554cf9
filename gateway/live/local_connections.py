"""Local connections: the connections that sockets of this process hold, and how they end.

When a socket ends, its session is disconnected; if the store is away, this is retried. A connection
of this node that no socket holds any more (its write was answered too late) is ended as an orphan.
The connections of a dead node are ended by each node that notices its death.

Not here: the sockets (``connections.lifecycle``), which nodes are dead (``lease``).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from gateway.core.command import AnyCommand, Disconnect
from gateway.core.errors import GatewayError, Unavailable
from gateway.core.event import ActiveEntry, encode_entry
from gateway.core.model import Cause, Session
from gateway.live.replica import Replica
from gateway.store.commit import Commit
from gateway.store.store import Store

ORPHAN_MS: Final = 10_000  # a connection of this node that no socket holds is ended after this
ACTIVE_MAX: Final = 500  # sessions in one report of activity: about 25 kB
WORKERS: Final = 256  # concurrent commands: a full pipeline

T = TypeVar("T")


class LocalConnections:
    """The connections of one node.

    Args:
        store: Takes the reports of activity.
        replica: The records.
        node_id: This node.
        apply: Applies a command.
    """

    def __init__(
        self,
        store: Store,
        replica: Replica,
        node_id: str,
        apply: Callable[[str, AnyCommand], Awaitable[Session]],
    ) -> None:
        self._store = store
        self._replica = replica
        self._node_id = node_id
        self._apply = apply
        self._held: dict[str, str] = {}  # connection id to session id
        self._pending_disconnects: dict[str, tuple[str, Cause]] = {}
        self._active: dict[str, int] = {}

    def hold(self, session_id: str, connection_id: str) -> None:
        """Note that a socket of this process holds this connection."""
        self._held[connection_id] = session_id

    def release(self, connection_id: str) -> None:
        """Note that no socket of this process holds this connection any more."""
        del self._held[connection_id]

    async def disconnect(self, session_id: str, connection_id: str, cause: Cause) -> None:
        """End a connection; if the store is away, this is retried until it is back."""
        self._pending_disconnects[connection_id] = (session_id, cause)
        await self._attempt_disconnect(connection_id)

    async def _attempt_disconnect(self, connection_id: str) -> None:
        if connection_id not in self._pending_disconnects:
            return
        session_id, cause = self._pending_disconnects[connection_id]
        try:
            await self._apply(session_id, Disconnect(connection=connection_id, cause=cause))
        except GatewayError as error:
            if error.retry:
                return
        self._pending_disconnects.pop(connection_id, None)

    def touch(self, session_id: str) -> None:
        """Note that the client was active; other nodes learn it every 10 s."""
        if session_id in self._replica.sessions:
            self._active[session_id] = self._replica.active[session_id] = self._store.clock.now_ms()

    async def reconcile(self, now_ms: int) -> None:
        """Retry pending disconnects, and end connections that no socket holds."""
        await each(list(self._pending_disconnects), self._attempt_disconnect)
        if self._replica.nodes[self._node_id] > len(self._held):
            await self._end_orphans(now_ms)

    async def end_all(self) -> None:
        """End every connection of this node, because it stops."""
        await each(
            list(self._held.items()), lambda held: self.disconnect(held[1], held[0], "server")
        )
        await self.end_connections_of({self._node_id})

    async def end_connections_of(self, nodes: set[str]) -> None:
        """End the connections of these nodes, because they died."""
        ends = [
            (session.id, session.connection.id)
            for session in self._replica.sessions.values()
            if session.connection and session.is_connected and session.connection.node in nodes
        ]
        await each(ends, lambda end: self.disconnect(*end, "server"))

    async def _end_orphans(self, now_ms: int) -> None:
        for session in list(self._replica.sessions.values()):
            connection = session.connection
            if (
                connection
                and session.is_connected
                and connection.node == self._node_id
                and connection.id not in self._held
                and connection.connected_at < now_ms - ORPHAN_MS
            ):
                await self.disconnect(session.id, connection.id, "lost")

    async def report_active(self) -> None:
        """Report to the other nodes when clients of this one were last active."""
        active, self._active = list(self._active.items()), {}
        for start in range(0, len(active), ACTIVE_MAX):
            some = dict(active[start : start + ACTIVE_MAX])
            entry = ActiveEntry(at=self._store.clock.now_ms(), active=some)
            try:
                await self._store.commit(0, Commit(entry=encode_entry(entry)))
            except Unavailable:
                self._active = dict(active[start:]) | self._active
                raise


async def each(items: list[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Run *work* on all items, ``WORKERS`` at a time, so that commits share pipelines."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(WORKERS, len(items))):
            group.create_task(worker())
