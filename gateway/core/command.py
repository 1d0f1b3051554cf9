"""Commands: what somebody asks of a session.

A command names absolute times only and carries no right: who may send it was settled at the door.
:func:`gateway.core.session.decide` says what follows from it.
"""

from operator import attrgetter
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType

from gateway.core import model
from gateway.core.model import (
    Cause,
    Client,
    Connection,
    Deadline,
    DurationMs,
    Key,
    Labels,
    Members,
    Name,
    Object,
    Outcome,
    Profile,
    Session,
    Stream,
)


class Command(Struct, frozen=True, kw_only=True, tag=True):
    """Base of all commands.

    Args:
        via: The connection it came over. A displaced socket must not speak for the session any
            more: refused when the record names another connection, or the same as ended.
        revision: Only if the session still has it.
    """

    via: str | None = None
    revision: int | None = None


class Open(Command, frozen=True):
    """Create the session; with a ``connection`` it is attached in the same commit."""

    session: Session


class Connect(Command, frozen=True):
    """Attach a socket.

    Args:
        connection: The new one; its ``connected_at`` becomes the time of the commit.
        displace: Whether it ends a live one; if not, a live one refuses it.
        readmit: Whether the door saw the session's own token.
        again: Only if the record still names this connection, which was ended by mistake; another
            one that came meanwhile refuses it, also if it has gone since.
    """

    connection: Connection
    displace: bool = True
    readmit: bool = False
    again: bool = False


class Disconnect(Command, frozen=True):
    """The named connection ended; ignored when the record names another."""

    connection: str
    cause: Cause


class Kick(Command, frozen=True):
    """End the live connection, keep the session."""


class Watch(Command, frozen=True):
    """Look at something; another key ends the watch before."""

    watch: model.Watch


class Progress(Command, frozen=True):
    """Where the current watch is; coalesced by the node."""

    position_ms: int | None = None
    state: str | None = None
    bandwidth: int | None = None


class Unwatch(Command, frozen=True):
    """Look at nothing; ``position_ms`` is where the watch ended, if the producer says so."""

    position_ms: int | None = None


class Report(Command, frozen=True):
    """A producer without a socket is alive: renews ``keepalive_at``, nothing else."""


class Update(Command, frozen=True):
    """Change fields: replace them by name (``None`` unsets), or with a merge patch, or both.

    Args:
        patch: A merge patch (RFC 7396) of the fields below, applied to the session as it is when
            this is decided, so that two patches at once both count.
    """

    patch: Object | None = None
    name: str | UnsetType | None = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    attributes: Object | UnsetType = UNSET
    profile: Profile | UnsetType | None = UNSET
    client: Client | UnsetType | None = UNSET
    members: tuple[str, ...] | UnsetType = UNSET
    phase: str | UnsetType | None = UNSET
    linger_ms: int | UnsetType | None = UNSET
    grace_ms: int | UnsetType | None = UNSET
    keepalive_ms: int | UnsetType | None = UNSET
    ttl_ms: int | UnsetType | None = UNSET

    @property
    def wanted(self) -> dict[str, Any]:
        """The fields that are named, with their new values."""
        fields = zip(UPDATABLE, _values(self), strict=True)
        return {name: value for name, value in fields if value is not UNSET}


class StartStream(Command, frozen=True):
    """Add a stream; a known key is updated."""

    stream: Stream


class UpdateStream(Command, frozen=True):
    """Change a stream's state or data; coalesced by the node."""

    stream: Stream


class EndStream(Command, frozen=True):
    """End a stream."""

    key: str


class Join(Command, frozen=True):
    """Members come in; those already there stay."""

    members: tuple[str, ...]


class Leave(Command, frozen=True):
    """Members go."""

    members: tuple[str, ...]


class RequestClose(Command, frozen=True):
    """Close at ``at``; moves a pending close and starts a new extension budget."""

    at: int
    reason: str | None = None
    by: str | None = None
    extend_max_ms: int = 0


class ExtendClose(Command, frozen=True):
    """The client needs until ``at``; granted up to the first deadline + ``extend_max_ms``."""

    at: int


class CancelClose(Command, frozen=True):
    """Call a pending close off."""


class Saving(Command, frozen=True):
    """The client heard the warning and is saving."""


class Saved(Command, frozen=True):
    """The client has saved: close now."""


class Expire(Command, frozen=True):
    """A deadline passed; ignored unless the record still says ``kind`` and ``at``.

    ``amnesty_ms`` is how much of it outages prolong; the store has the last word on that.
    """

    kind: Deadline
    at: int
    amnesty_ms: int = 0


class Close(Command, frozen=True):
    """Close now; ``position_ms`` as in :class:`Unwatch`."""

    outcome: Outcome = "closed"
    reason: str | None = None
    by: str | None = None
    code: int = 4500
    position_ms: int | None = None


AnyCommand = (
    Open | Connect | Disconnect | Kick | Watch | Progress | Unwatch | Report | Update | StartStream
    | UpdateStream | EndStream | Join | Leave | RequestClose | ExtendClose | CancelClose | Saving
    | Saved | Expire | Close
)  # fmt: skip


class Updatable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields that an update may change, as a session holds them."""

    name: Name | None = None
    labels: Labels = {}
    attributes: Object = {}
    profile: Profile | None = None
    client: Client | None = None
    members: Members = ()
    phase: Key | None = None
    linger_ms: DurationMs | None = None
    grace_ms: DurationMs | None = None
    keepalive_ms: DurationMs | None = None
    ttl_ms: DurationMs | None = None


UPDATABLE: Final = Updatable.__struct_fields__
_values: Final = attrgetter(*UPDATABLE)
