"""Commands: the requests to change a session.

A command holds absolute times only. It carries no rights, because the door has checked them.
:func:`gateway.core.session.decide` returns the events that follow from it.
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
        via: The connection that the command came over. The command is refused when the record names
            another connection, or says that this one ended: a displaced socket has no say.
        revision: The revision that the session must still have.
    """

    via: str | None = None
    revision: int | None = None


class Open(Command, frozen=True):
    """Create the session; with a ``connection`` it is attached in the same commit."""

    session: Session


class Connect(Command, frozen=True):
    """Attach a socket.

    Args:
        connection: The new connection; its ``connected_at`` becomes the time of the commit.
        displace: Whether it takes the place of a live connection; if not, it is refused then.
        readmit: Whether the client has shown the session's own token.
        again: The connection that was ended by mistake and is attached again. This is refused if
            another connection came meanwhile, even if that one has gone since.
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


class StartWatch(Command, frozen=True):
    """Begin to watch something; a watch of another key ends."""

    watch: model.Watch


class Progress(Command, frozen=True):
    """Report the position of the current watch; the node coalesces such reports."""

    position_ms: int | None = None
    state: str | None = None
    bandwidth: int | None = None


class Unwatch(Command, frozen=True):
    """End the watch; ``position_ms`` is where it ended, if the producer knows."""

    position_ms: int | None = None


class Report(Command, frozen=True):
    """Report that a producer without a socket is alive; this renews only ``keepalive_at``."""


class Update(Command, frozen=True):
    """Change fields: by name (``None`` unsets one), by a merge patch, or both.

    Args:
        patch: A merge patch (RFC 7396) of the fields below. It is applied to the session as it is
            when the command is decided, so that two concurrent patches both take effect.
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
        """The fields that the command names, with their new values."""
        fields = zip(UPDATABLE, _values(self), strict=True)
        return {name: value for name, value in fields if value is not UNSET}


class StartStream(Command, frozen=True):
    """Add a stream, or update the stream of this key."""

    stream: Stream


class UpdateStream(Command, frozen=True):
    """Change a stream's state or data; the node coalesces such commands."""

    stream: Stream


class EndStream(Command, frozen=True):
    """End a stream."""

    key: str


class Join(Command, frozen=True):
    """Add members; those that are there already stay."""

    members: tuple[str, ...]


class Leave(Command, frozen=True):
    """Remove members."""

    members: tuple[str, ...]


class RequestClose(Command, frozen=True):
    """Close at ``at``; this moves a pending close and starts a new extension budget."""

    at: int
    reason: str | None = None
    by: str | None = None
    extend_max_ms: int = 0


class ExtendClose(Command, frozen=True):
    """Extend the pending close to ``at``, at most to the first deadline + ``extend_max_ms``."""

    at: int


class CancelClose(Command, frozen=True):
    """Cancel the pending close."""


class Saving(Command, frozen=True):
    """Report that the client got the warning and is saving."""


class Saved(Command, frozen=True):
    """Report that the client has saved, so that the session closes now."""


class Expire(Command, frozen=True):
    """Act on a deadline that passed, if the record still has that ``kind`` and ``at``.

    ``amnesty_ms`` is how far an outage postpones the deadline; ``commit.lua`` checks that again.
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
    Open | Connect | Disconnect | Kick | StartWatch | Progress | Unwatch | Report | Update
    | StartStream | UpdateStream | EndStream | Join | Leave | RequestClose | ExtendClose
    | CancelClose | Saving | Saved | Expire | Close
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
