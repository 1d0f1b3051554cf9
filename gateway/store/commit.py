"""What is written and what comes back: the types between the store and those who use it.

The scripts beside this file say what happens in between.
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
        field: Session id or document field; empty for a log entry alone.
        expected: The revision that must stand there; 0 = nothing, and never closed.
        value: The record after; empty deletes it. Without a field it is the key of the history row
            to delete.
        entry: The log entry.
        not_before_ms: The deadline that must have passed by Redis time; 0 = none.
        amnesty_ms: How much of that deadline outages prolong.
        tombstone: What stands in ``gone`` from now on; empty for none.
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
    """What became of a commit.

    Args:
        status: ``done``; or nothing was written: the record ``changed``, is ``gone``, or it is too
            ``early``.
        time_ms: Redis time of the answer.
        offset: The log entry's place, when done.
        current: What stands there (``changed``) or the tombstone (``gone``), ``revision JSON``.
        due_ms: When it may be tried again (``early``).
    """

    status: Literal["done", "changed", "gone", "early"]
    time_ms: int
    offset: int = 0
    current: bytes = b""
    due_ms: int = 0


class LeaseState(Struct, frozen=True):
    """What a lease renewal tells: Redis time, since when the gateway is up, every lease."""

    time_ms: int
    up_since_ms: int
    nodes: dict[str, tuple[int, bytes]]


class Meta(Struct, frozen=True):
    """What a partition says of itself: epoch (empty if it lost its data), last and first offset."""

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
    """Return the stored ``revision JSON``, the way back of :func:`split_value`."""
    return b"%d %b" % (revision, record)


def result_of(reply: Reply, time_ms: int) -> Result | GatewayError:
    """Return what ``commit.lua`` answered to one commit at *time_ms*, an error if it refused."""
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
