"""Redis probe: reads the records, the log and the leases, and writes nothing.

It uses plain commands on its own connection, not the code that a node uses to read.

Not here: what the results mean (``checker``).
"""

from collections.abc import AsyncIterator
from typing import Final, Self

from msgspec import DecodeError, to_builtins

from gateway.audit.checker import PromiseChecker, Revisions
from gateway.core.errors import Invalid
from gateway.core.event import Opened, SessionEnded, SessionEntry, decode_entry
from gateway.core.model import Session, decode_session
from gateway.core.position import Position
from gateway.core.public import render_session
from gateway.live.replica import Replica
from gateway.store.commit import split_value
from gateway.store.connection import RedisConnection, Reply
from gateway.store.keys import keys

NAME: Final = "Redis"
SCAN_COUNT: Final = 1_000  # fields a step
LOG_COUNT: Final = 1_000  # entries a read
ASKED_AT_ONCE: Final = 500  # fields a HMGET


class RedisProbe:
    """The records, the log and the leases of a gateway.

    Args:
        checker: Compares the probes.
        connection: A connection for this probe only.
        prefix: Start of the key names.
        partitions: How many there are.
    """

    def __init__(
        self, checker: PromiseChecker, connection: RedisConnection, prefix: str, partitions: int
    ) -> None:
        self._checker = checker
        self._connection = connection
        self._keys = [keys(prefix, number) for number in range(partitions)]
        self._read_to = [0] * partitions
        self._logged: dict[str, int] = {}  # revision of each session in the log
        self._ended: set[str] = set()  # sessions whose end is in the log

    @classmethod
    async def open(cls, checker: PromiseChecker, url: str, prefix: str, here: Position) -> Self:
        """Connect, and check that this is the Redis of the gateway at position *here*.

        Raises:
            StoreUnavailable: It cannot be reached.
            Invalid: It is another gateway's.
        """
        connection = RedisConnection(url, "audit")
        root = keys(prefix, 0)
        partitions = int(await connection.call("HGET", root.meta, "partitions") or 0)
        replica = Replica(max(partitions, 1))
        probe = cls(checker, connection, prefix, partitions)
        for number, part in enumerate(probe._keys):
            epoch, offset = await connection.call("HMGET", part.meta, "epoch", "offset")
            replica.epochs[number] = (epoch or b"").decode()
            probe._read_to[number] = int(offset or 0)
        if not partitions or replica.position().epoch != here.epoch:
            await connection.close()
            raise Invalid("This Redis does not hold the data of this gateway.")
        return probe

    async def close(self) -> None:
        """Drop the connection."""
        await self._connection.close()

    async def look(self) -> Revisions:
        """Read every record, the new part of the log, and the leases."""
        found: Revisions = {}
        connected: dict[str, str] = {}
        for number, part in enumerate(self._keys):
            await self._read_log(number)
            ids = []
            async for session in self._records(part.live):
                found[session.id] = session.revision
                ids.append(session.id)
                if session.connection and session.is_connected:
                    connected[session.id] = session.connection.node
                self._checker.shows(
                    NAME,
                    to_builtins(render_session(session)),
                    to_builtins(render_session(session, full=True)),
                )
            await self._check_gone(number, ids)
        await self._leases(connected)
        return found

    async def _records(self, key: str) -> AsyncIterator[Session]:
        cursor = b"0"
        while True:
            cursor, values = await self._connection.call("HSCAN", key, cursor, "COUNT", SCAN_COUNT)
            for field, value in zip(values[::2], values[1::2], strict=True):
                if b"/" in field:
                    continue  # a document
                revision, record = split_value(value)
                session = decode_session(record)
                if revision != session.revision or field.decode() != session.id:
                    self._checker.violated(1, f"{NAME}: the record at {field!r} is another's")
                yield session
            if cursor == b"0":
                return

    async def _check_gone(self, number: int, ids: list[str]) -> None:
        """A session is open or closed, never both."""
        part = self._keys[number]
        for start in range(0, len(ids), ASKED_AT_ONCE):
            some = ids[start : start + ASKED_AT_ONCE]
            gone = [
                session_id
                for session_id, value in zip(
                    some, await self._connection.call("HMGET", part.gone, *some), strict=True
                )
                if value is not None
            ]
            for session_id in gone:  # closed since we read its record, or open and closed
                if await self._connection.call("HEXISTS", part.live, session_id):
                    self._checker.violated(4, f"{NAME}: {session_id} is open and closed at once")
        self._checker.checked(4, "records looked at", len(ids))

    async def _read_log(self, number: int) -> None:
        part = self._keys[number]
        while True:
            after = self._read_to[number]
            entries = await self._connection.call(
                "XRANGE", part.log, f"({after}-0", "+", "COUNT", LOG_COUNT
            )
            for entry_id, fields in entries:
                offset = int(entry_id.partition(b"-")[0])
                if offset != self._read_to[number] + 1:
                    self._checker.violated(
                        2, f"{NAME}: entry {offset} of log {number} follows {self._read_to[number]}"
                    )
                self._read_to[number] = offset
                self._entry(fields)
            if len(entries) < LOG_COUNT:
                return

    def _entry(self, fields: list[bytes]) -> None:
        self._checker.checked(2, "log entries")
        try:
            entry = decode_entry(fields[1])
        except DecodeError as error:
            self._checker.violated(2, f"{NAME}: an entry of the log cannot be read: {error}")
            return
        if not isinstance(entry, SessionEntry):
            return
        record = entry.record
        before = self._logged.get(record.id)
        opens = any(isinstance(event, Opened) for event in entry.events)
        ends = sum(isinstance(event, SessionEnded) for event in entry.events)
        if record.id in self._ended:
            self._checker.violated(4, f"{NAME}: the log goes on for {record.id}, which was closed")
        if ends > 1:
            self._checker.violated(3, f"{NAME}: one entry of the log closes {record.id} twice")
        if opens and (before is not None or record.revision != 1):
            self._checker.violated(4, f"{NAME}: the log opens {record.id} at {record.revision}")
        if before is not None and record.revision != before + 1:
            self._checker.violated(
                2, f"{NAME}: revision {record.revision} of {record.id} follows {before} in the log"
            )
        self._logged[record.id] = record.revision
        if ends:
            self._ended.add(record.id)

    async def _leases(self, connected: dict[str, str]) -> None:
        root = self._keys[0]
        replies: list[Reply] = await self._connection.pipeline(
            [("TIME",), ("HGET", root.meta, "up_since"), ("HGETALL", root.nodes)]
        )
        (second, micro), up_since, nodes = replies
        self._checker.leases(
            connected,
            {
                node.decode(): split_value(lease)[0]
                for node, lease in zip(nodes[::2], nodes[1::2], strict=True)
            },
            int(up_since or 0),
            int(second) * 1000 + int(micro) // 1000,
        )
