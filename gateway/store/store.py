"""The store: commits, load and history over Redis or Valkey.

Promises: a commit is atomic and answered once: with ``done``, with the record that is there
instead, or with an error that says whether it may have happened. No write is repeated implicitly.

Not here: what to write (``core.session``), sending commits (``group_commit``), following the log
(``log``).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Literal

from redis.exceptions import ResponseError

from gateway.core.errors import GatewayError, OutcomeUnknown, StoreUnavailable
from gateway.store.clock import RedisClock
from gateway.store.commit import Commit, LeaseState, Meta, Result, Script, split_value
from gateway.store.connection import Command, RedisConnection, Reply, error_from_reply
from gateway.store.group_commit import OUTAGE_MS, AckCallback, GroupCommit, run_scripts
from gateway.store.keys import CLUSTER_PARTITIONS, Keys, keys, partition_of
from gateway.store.roles import WriteAccess

SCHEMA: Final = 1  # of the keys; a newer one in the store refuses the start
HISTORY_ROWS_MAX: Final = 100_000  # rows kept, and for
HISTORY_AGE_MS: Final = 7 * 86_400_000
GONE_MAX: Final = 200_000  # tombstones kept, and for
GONE_AGE_MS: Final = 24 * 3_600_000
FORGET_COUNT: Final = 1_000  # tombstones removed by one command
SCAN_COUNT: Final = 1_000  # fields a HSCAN step
EVICTING: Final = "The store evicts keys (maxmemory-policy {policy}); set it to noeviction."


class StoreRefused(Exception):
    """The server or its data cannot be used, so the gateway does not start; the text says why."""


class Store:
    """One Redis or Valkey server as the gateway's store.

    Args:
        url: Where it is (redis-py's URL form).
        clock: Gets Redis time from every answer.
        prefix: First part of every key.
        partitions: How many parts the data has; ``None`` takes what the data was created with,
            else 1 (16 in a cluster).
    """

    def __init__(
        self, url: str, clock: RedisClock, *, prefix: str = "gateway", partitions: int | None = None
    ) -> None:
        self.clock = clock
        self.partitions = partitions or 1
        self._wanted_partitions = partitions
        self._prefix = prefix
        self._url = url
        self._lease, self._epoch = Script("lease.lua"), Script("epoch.lua")
        self.access = WriteAccess(clock.monotonic_ms)
        self._write_connection = self.new_connection("commit")
        self._read_connection = self.new_connection("read")
        self._lease_connection = self.new_connection("lease")
        self._group_commit = GroupCommit(self._write_connection, clock)
        self._numbered: dict[int, int] = {}  # the last number reserved here, by partition
        self.secret = b""
        self.keys: tuple[Keys, ...] = ()

    def new_connection(self, name: str) -> RedisConnection:
        """Return another connection to the same server, for a log reader."""
        return RedisConnection(self._url, f"{self._prefix}-{name}", self.access)

    def partition(self, session_id: str) -> int:
        """Return the partition that holds *session_id*."""
        return partition_of(session_id, self.partitions)

    async def open(self, token: Callable[[], str]) -> None:
        """Check the server, create missing metadata and read it.

        Args:
            token: Returns random text, for an epoch or secret that does not exist yet.

        Raises:
            StoreUnavailable: The server does not answer.
            StoreRefused: It is too old, evicts keys, or holds data of a newer schema or of other
                partitions.
        """
        info = _info(await self._read_connection.call("INFO"))
        _check_server(info)
        clustered = info.get("cluster_enabled") == "1"
        if (
            clustered
            and _info(await self._read_connection.call("CLUSTER", "INFO")).get("cluster_size")
            != "1"
        ):
            raise StoreRefused("A cluster of several primaries is not supported yet.")
        wanted = self._wanted_partitions or (CLUSTER_PARTITIONS if clustered else 1)
        root = keys(self._prefix, 0)
        _raise_first(
            await self._read_connection.pipeline(
                [
                    ("HSETNX", root.meta, "schema", SCHEMA),
                    ("HSETNX", root.meta, "partitions", wanted),
                    ("HSETNX", root.meta, "secret", token() + token()),
                ]
            )
        )
        schema, partitions, secret = await self._read_connection.call(
            "HMGET", root.meta, "schema", "partitions", "secret"
        )
        if int(schema) > SCHEMA:
            raise StoreRefused(
                f"The data has schema {int(schema)}, this version reads up to {SCHEMA}."
            )
        if self._wanted_partitions and int(partitions) != self._wanted_partitions:
            raise StoreRefused(
                f"The data has {int(partitions)} partitions, not {self._wanted_partitions}."
            )
        self.partitions, self.secret = int(partitions), secret
        self._wanted_partitions = self.partitions  # also when the data is lost and created again
        self.keys = tuple(keys(self._prefix, number) for number in range(self.partitions))
        self._group_commit.keys = self.keys
        epochs: list[Command] = [("HSETNX", part.meta, "epoch", token()[:8]) for part in self.keys]
        _raise_first(await self._read_connection.pipeline(epochs))
        self.access.is_open = True

    # --- writes

    def commit(
        self, partition: int, commit: Commit, on_ack: AckCallback | None = None
    ) -> asyncio.Future[Result]:
        """Write *commit*, together with concurrent ones.

        Args:
            partition: The partition.
            commit: The write.
            on_ack: Completes the answer of a done commit, now or later; by default at once.

        Raises:
            Overloaded: Too many commits wait already; nothing was done.
            StoreUnavailable: The server cannot be reached or refused it; nothing was done.
            Repairing: The server has lost its data; nothing was done.
            OutcomeUnknown: It was sent and no answer came.
        """
        return self._group_commit.commit(partition, commit, on_ack)

    async def run(self) -> None:
        """Send queued commits until cancelled."""
        await self._group_commit.run()

    async def renew_lease(self, node_id: str, announcement: bytes) -> LeaseState:
        """Renew *node_id*'s lease; a silence of all nodes above ``OUTAGE_MS`` moves ``up_since``.

        Raises:
            StoreUnavailable: The server did not answer.
        """
        commands: list[Command] = []
        for part in self.keys:
            named = "" if commands else node_id
            scope = (self._lease.sha, 2, part.meta, part.nodes)
            commands.append(("EVALSHA", *scope, named, announcement, OUTAGE_MS))
        await self._lease_connection.connect()
        sent_ms = self.clock.monotonic_ms()
        [reply, *_] = _raise_first(await run_scripts(self._lease_connection, self._lease, commands))
        self.clock.sample(sent_ms, self.clock.monotonic_ms(), reply[0])
        nodes = {}
        for node, lease in zip(reply[2::2], reply[3::2], strict=True):
            at, announced = split_value(lease)
            nodes[node.decode()] = (at, announced)
        memory = _info(await self._lease_connection.call("INFO", "memory"))
        self.access.measured(int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0)))
        return LeaseState(reply[0], reply[1], nodes)

    async def forget_node(self, node_id: str) -> None:
        """Remove a node's lease."""
        await self._lease_connection.call("HDEL", self.keys[0].nodes, node_id)

    async def new_epoch(self, partition: int, lost: str, fresh: str) -> str:
        """Replace the epoch *lost* by *fresh*, unless another node did; return the current one.

        Session numbers that were reserved by this node are not issued again.
        """
        meta, numbered = self.keys[partition].meta, self._numbered.get(partition, 0)
        command: Command = ("EVALSHA", self._epoch.sha, 1, meta, lost, fresh, numbered)
        [epoch] = _raise_first(await run_scripts(self._read_connection, self._epoch, [command]))
        return bytes(epoch).decode()

    async def reserve_numbers(self, partition: int, count: int) -> range:
        """Return *count* session numbers that no other node gets."""
        last = int(
            await self._read_connection.call("HINCRBY", self.keys[partition].meta, "number", count)
        )
        self._numbered[partition] = max(last, self._numbered.get(partition, 0))
        first = (last - count + 1) * self.partitions + partition
        return range(first, last * self.partitions + partition + 1, self.partitions)

    async def forget_gone(self, partition: int, session_ids: list[str]) -> None:
        """Remove tombstones that are too old."""
        for start in range(0, len(session_ids), FORGET_COUNT):
            some = session_ids[start : start + FORGET_COUNT]
            await self._read_connection.call("HDEL", self.keys[partition].gone, *some)

    async def trim_history(self, partition: int, now_ms: int) -> None:
        """Remove history rows that are too old or too many."""
        history = self.keys[partition].history
        _raise_first(
            await self._read_connection.pipeline(
                [
                    ("XTRIM", history, "MINID", "~", now_ms - HISTORY_AGE_MS),
                    ("XTRIM", history, "MAXLEN", "~", HISTORY_ROWS_MAX),
                ]
            )
        )

    # --- reads

    async def read(self, partition: int, field: str) -> tuple[bytes | None, bytes | None]:
        """Return the ``revision JSON`` in ``live`` and in ``gone`` under *field*.

        Raises:
            StoreUnavailable: The server did not answer; a read changes nothing, sent or not.
        """
        part = self.keys[partition]
        commands = [("HGET", part.live, field), ("HGET", part.gone, field)]
        try:
            live, gone = _raise_first(await self._read_connection.pipeline(commands))
        except OutcomeUnknown:
            raise StoreUnavailable from None
        return live, gone

    async def meta(self, partition: int) -> Meta:
        """Return the partition's epoch, last offset and the first one the log still has."""
        part = self.keys[partition]
        (epoch, offset), first = _raise_first(
            await self._read_connection.pipeline(
                [
                    ("HMGET", part.meta, "epoch", "offset"),
                    ("XRANGE", part.log, "-", "+", "COUNT", 1),
                ]
            )
        )
        last = int(offset or 0)
        return Meta((epoch or b"").decode(), last, _offset(first[0][0]) if first else last + 1)

    async def load(
        self, partition: int, which: Literal["live", "gone"]
    ) -> AsyncIterator[list[tuple[str, bytes]]]:
        """Yield all fields of a hash in steps of about a thousand.

        A field that changes meanwhile may be missed or yielded twice.
        """
        key, scan = getattr(self.keys[partition], which), b"0"
        while True:
            scan, found = await self._read_connection.call("HSCAN", key, scan, "COUNT", SCAN_COUNT)
            yield [
                (field.decode(), value)
                for field, value in zip(found[::2], found[1::2], strict=True)
            ]
            if scan == b"0":
                return

    async def entries(self, partition: int, after: int, count: int) -> list[tuple[int, bytes]]:
        """Return up to *count* log entries after *after*; a trimmed log starts later."""
        found = await self._read_connection.call(
            "XRANGE", self.keys[partition].log, f"({after}-0", "+", "COUNT", count
        )
        return [(_offset(entry_id), fields[1]) for entry_id, fields in found]

    async def history(
        self, partition: int, before: str, count: int
    ) -> list[tuple[str, int, bytes]]:
        """Return up to *count* rows older than the row key *before*, newest first.

        Each is its key, its number and the row as JSON.
        """
        end = f"({before}" if before else "+"
        found = await self._read_connection.call(
            "XREVRANGE", self.keys[partition].history, end, "-", "COUNT", count
        )
        return [
            (key.decode(), self.row_number(partition, int(fields[1])), fields[3])
            for key, fields in found
        ]

    def row_number(self, partition: int, count: int) -> int:
        """Return the number of the partition's history row that was the *count*-th one."""
        return count * self.partitions + partition

    async def close(self) -> None:
        """Drop all connections."""
        for connection in (self._write_connection, self._read_connection, self._lease_connection):
            await connection.close()


def _offset(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _raise_first(replies: list[Reply]) -> list[Reply]:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise error_from_reply(reply) from reply
        if isinstance(reply, GatewayError):
            raise reply
    return replies


def _info(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode().splitlines())
    return {name: value for name, _, value in lines if value}


def _check_server(info: dict[str, str]) -> None:
    valkey = info.get("valkey_version")
    version = valkey or info.get("redis_version", "0")
    if int(version.partition(".")[0]) < (8 if valkey else 7):
        raise StoreRefused(f"Redis 7 or Valkey 8 is needed, this is {version}.")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StoreRefused(EVICTING.format(policy=policy))
