"""The port of a product's long-lived connections: its codec and its handler.

A product provides a *codec*, one object per connection, which encodes what happens and decodes what
the client sends, and a *handler*, which handles the decoded messages. Everything else is the same
at every door: the handshake, the states of a connection, its limits and deadlines, the attachment
to a session, subscriptions and drain.

A codec neither writes nor waits (except in :meth:`Codec.notify`), so it can be tested without a
socket. The handler of a connection that
only watches is an :class:`~gateway.realtime.subscriber.ObserverSocket`, the handler of a session's
client a :class:`~gateway.realtime.session_socket.SessionSocket`; a product derives from one of them
and adds ``handle``.
"""

from collections.abc import Awaitable
from typing import Protocol, TypeVar

from msgspec import Struct

from gateway.connections.lifecycle import ConnectionEnded, ServerClose
from gateway.core.document import Message
from gateway.core.event import CloseCancelled, CloseExtended, ClosingScheduled, StreamStopped
from gateway.core.model import Session
from gateway.node import OutboundMessage, Subscription

M_co = TypeVar("M_co", covariant=True)
M_contra = TypeVar("M_contra", contravariant=True)

SessionNotice = ClosingScheduled | CloseExtended | CloseCancelled | StreamStopped | Message
"""What the client of a session is told of it.

``ClosingScheduled`` comes again as a reminder before the deadline; ``StreamStopped`` only if
somebody else ended the stream.
"""

Announcement = SessionNotice | OutboundMessage
"""Besides, what a subscription has for its reader: ``Tick``, ``SnapshotPage`` or ``Restart``."""


class HeartbeatRule(Struct, frozen=True, kw_only=True):
    """When a connection is checked and sends a heartbeat.

    Args:
        interval_s: Seconds between two checks, give or take a tenth.
        in_silence: Whether ``Codec.heartbeat`` is sent only after so much silence.
        silence_s: Seconds without a message of the client after which it is gone (4003), for
            protocols in which the client pings; ``None``: the transport's own pings decide.
    """

    interval_s: float
    in_silence: bool = True
    silence_s: float | None = None


class SocketRules(Struct, frozen=True, kw_only=True):
    """The differences of one product's session sockets.

    Args:
        reattaches: Whether a connection that another node ended by mistake attaches again; if not
            it ends with 4009, so that the client comes back by itself.
        reminds: Whether the client is reminded of a pending close before its deadline.
        hears_notices: Whether the session's notices are sent to the client as they come. If not,
            the product calls ``SessionSocket.fence`` from its subscription, in the order of that;
            only the question of a contest reaches such a socket.
    """

    reattaches: bool = True
    reminds: bool = True
    hears_notices: bool = True


class ClosingFrames(Struct, frozen=True, kw_only=True):
    """How the gateway closes a connection.

    Args:
        last: Whole frames to send before the close; may be empty.
        code: The close code; ``None`` ends the connection without a close frame.
        reason: For the close frame; what is over 123 bytes is cut off (RFC 6455 section 5.5).
    """

    last: bytes = b""
    code: int | None = None
    reason: str = ""


class Codec(Protocol[M_co]):
    """Encodes and decodes one product's messages on one connection.

    All bytes are what goes to the transport: whole WebSocket frames (``core.frames.frame``), or
    events of an event stream.
    """

    @property
    def shares_frames(self) -> bool:
        """Whether a subscription's messages are sent as they are framed for all (``.frame``).

        Then the channel writes to the connection by itself, and :meth:`notify` is not asked.
        """
        ...

    def receive(self, data: str | bytes) -> M_co | None:
        """Decode a message of the client; ``None`` means that it is ignored.

        A decoded message counts towards ``messages_per_s`` and is passed to
        ``SocketHandler.handle`` in order.

        Raises:
            ConnectionEnded: The connection may not go on.
        """
        ...

    def greet(self, subject: Session | Subscription, token: str | None) -> bytes:
        """Return the first bytes of a session's connection, or of a subscription.

        Args:
            subject: The session as attaching left it, or the subscription that begins.
            token: The session's token, if this connection opened it.
        """
        ...

    def notify(self, notice: Announcement) -> bytes | Awaitable[bytes]:
        """Return the product's encoding of *notice*; empty if it has none.

        Only messages of a subscription may be awaited; the next one waits for them.

        Raises:
            ConnectionEnded: The connection may not go on.
        """
        ...

    def heartbeat(self, subscription: Subscription | None) -> bytes:
        """Return the heartbeat; empty if there is none."""
        ...

    def close(self, ended: ServerClose) -> ClosingFrames:
        """Return how the connection is closed."""
        ...


class SocketHandler(Protocol[M_contra]):
    """Serves an open connection; ``ObserverSocket`` is one that others derive from."""

    async def handle(self, message: M_contra) -> None:
        """Handle a message and answer it.

        Messages are handled one after the other. A ``GatewayError`` that is raised ends the
        connection with its code, as does a ``ConnectionEnded``.
        """
        ...

    def heartbeat(self) -> bytes:
        """Return what is sent in silence.

        Raises:
            ConnectionEnded: The connection may not stay.
        """
        ...

    def on_writable(self) -> None:
        """Continue sending: the write buffer drained below the low-water mark."""
        ...

    def last_sent_at_s(self) -> float:
        """Return when a channel last wrote directly to the transport, in loop time."""
        ...

    def on_end(self, ended: ConnectionEnded) -> None:
        """Clean up, then release the connection (``release``), which is closed."""
        ...
