"""The types of a write and of its result, between the store and its callers.

The Lua scripts beside this file define what a write does.
"""

from hashlib import sha1
from importlib.resources import files
from typing import Literal

from msgspec import Struct

from gateway.core.errors import GatewayError, Repairing, StoreUnavailable
from gateway.store.connection import Reply


class Commit(Struct, frozen=True, kw_only=True, gc=False):
    """One write, see ``commit.lua``.

    Args:
        field: Session id or document field; empty to write only a log entry.
        expected: The revision that the record must have; 0 if there must be no record or tombstone.
        value: The record after; empty deletes it. Without a field it is the key of the history row
            to delete.
        entry: The log entry.
        not_before_ms: The deadline that must have passed by Redis time; 0 = none.
        amnesty_ms: How far an outage postpones that deadline.
        tombstone: The record to store in ``gone``; empty for none.
        rows: Rows for the history.
    """

    entry: bytes
    field: str = ""
    expected: int = 0
    value: bytes = b""
    not_before_ms: int = 0
    amnesty_ms: int = 0
    tombstone: bytes = b""
    rows: tuple[bytes, ...] = ()


class Result(Struct, frozen=True, gc=False):
    """The result of a commit.

    Args:
        status: ``done``; or why nothing was written: the record has ``changed`` or is ``gone``, or
            it is too ``early``.
        time_ms: Redis time of the answer.
        offset: The offset of the log entry, when done.
        current: The record (``changed``) or tombstone (``gone``) in the store, ``revision JSON``.
        due_ms: When it may be tried again (``early``).
    """

    status: Literal["done", "changed", "gone", "early"]
    time_ms: int
    offset: int = 0
    current: bytes = b""
    due_ms: int = 0


class LeaseState(Struct, frozen=True):
    """The answer to a lease renewal: Redis time, since when the gateway is up, all leases."""

    time_ms: int
    up_since_ms: int
    nodes: dict[str, tuple[int, bytes]]


class Meta(Struct, frozen=True):
    """The state of a partition: epoch (empty if its data was lost), last and first offset."""

    epoch: str
    offset: int
    first: int


class Script:
    """A Lua file of this package, run by its hash."""

    def __init__(self, name: str) -> None:
        self.text = files("gateway.store").joinpath(name).read_text()
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


def split_value(value: bytes) -> tuple[int, bytes]:
    """Return revision and JSON of a stored ``revision JSON``."""
    revision, _, record = value.partition(b" ")
    return int(revision), record


def join_value(revision: int, record: bytes) -> bytes:
    """Return the stored ``revision JSON``; the inverse of :func:`split_value`."""
    return b"%d %b" % (revision, record)


def result_of(reply: Reply, time_ms: int) -> Result | GatewayError:
    """Return the result of one commit of ``commit.lua``, or the error that refused it."""
    if isinstance(reply, int):
        return Result("done", time_ms, offset=reply)
    match reply[0]:
        case b"changed":
            return Result("changed", time_ms, current=reply[1])
        case b"gone":
            return Result("gone", time_ms, current=reply[1])
        case b"early":
            return Result("early", time_ms, due_ms=reply[1])
        case b"lost":
            return Repairing()
        case _:
            return StoreUnavailable(f"The store refused: {reply[1].decode()}.")
