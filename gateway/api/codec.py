"""Codec: the native messages, as WebSocket frames and as server-sent events.

On a WebSocket every message is one frame: JSON text, or the same UTF-8 in a binary frame. In an
event stream each event comes by itself, under its type; ``hello``, ``snapshot``, ``resync``,
``heartbeat`` and ``bye`` are the observer socket's messages. Only the last event of a frame and the
last page of a snapshot have an ``id``, so that a reader that reconnects with it misses nothing.

Not here: the handling of a client's messages (``socket_handlers``).
"""

from typing import Final, assert_never

from gateway.connections.lifecycle import ServerClose
from gateway.core import protocol
from gateway.core.document import Message
from gateway.core.event import CloseCancelled, CloseExtended, ClosingScheduled, StreamStopped
from gateway.core.frames import INVALID_DATA, TEXT, frame
from gateway.core.model import Session
from gateway.core.protocol import FromServer, ServerHeartbeat, render
from gateway.core.public import render_session, rfc3339
from gateway.node import Node, Restart, SnapshotPage, Subscription, Tick
from gateway.realtime.codec import Announcement, ClosingFrames
from gateway.realtime.sse import sse_event
from gateway.realtime.subscriber import position_of


def text_frame(message: FromServer) -> bytes:
    """Return *message* as a frame."""
    return frame(TEXT, render(message))


def observer_hello(node: Node, subscription: Subscription, heartbeat_ms: int) -> FromServer:
    """Return the first message of a subscription."""
    return protocol.ObserverHello(
        position=subscription.position,
        mode=subscription.mode,
        reason=subscription.reason,
        heartbeat_ms=heartbeat_ms,
        node=node.name,
    )


def heartbeat_message(node: Node, subscription: Subscription | None) -> ServerHeartbeat:
    """Return the ``heartbeat`` of a subscription."""
    position = position_of(node, subscription)
    return ServerHeartbeat(position=position, at=rfc3339(node.now_ms()))


class NativeCodec:
    """The native messages on WebSockets; it has no state, so many connections share one.

    Args:
        node: This node.
        heartbeat_ms: Milliseconds of silence after which there is a heartbeat.
        is_full: Whether the client may see the whole of its session.
    """

    __slots__ = ("_heartbeat_ms", "_is_full", "_node")

    shares_frames: Final = True

    def __init__(self, node: Node, heartbeat_ms: int, *, is_full: bool = False) -> None:
        self._is_full = is_full
        self._node = node
        self._heartbeat_ms = heartbeat_ms

    def receive(self, data: str | bytes) -> str | None:
        """Return the text of a message; it is parsed when it is handled.

        Raises:
            ServerClose: It is not UTF-8.
        """
        if isinstance(data, str):
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:  # as the transport does for text frames
            raise ServerClose(INVALID_DATA, "not UTF-8") from None

    def greet(self, subject: Session | Subscription, token: str | None) -> bytes:
        """Return the ``hello`` of a session or of a subscription."""
        if isinstance(subject, Subscription):
            return text_frame(observer_hello(self._node, subject, self._heartbeat_ms))
        hello = protocol.Hello(
            session=render_session(subject, full=self._is_full),
            session_token=token,
            position=position_of(self._node, None),
            heartbeat_ms=self._heartbeat_ms,
        )
        return text_frame(hello)

    def notify(self, notice: Announcement) -> bytes:
        """Return *notice* as a frame."""
        match notice:
            case ClosingScheduled(closing=closing):
                message: FromServer = protocol.ClosingNotice(
                    closes_at=rfc3339(closing.at),
                    in_ms=self._in_ms(closing.at),
                    extend_max_ms=closing.extend_max_ms,
                    reason=closing.reason,
                )
            case CloseExtended(closing=closing):
                message = protocol.CloseExtendedNotice(
                    closes_at=rfc3339(closing.at), in_ms=self._in_ms(closing.at)
                )
            case CloseCancelled():
                message = protocol.CloseCancelledNotice()
            case StreamStopped():
                message = protocol.StopStream(key=notice.key)
            case Message():
                message = protocol.MessageNotice(
                    topic=notice.topic, body=notice.body, sender=notice.sender
                )
            case Tick() | SnapshotPage() | Restart():
                return notice.frame
            case _:
                assert_never(notice)
        return text_frame(message)

    def heartbeat(self, subscription: Subscription | None) -> bytes:
        """Return a ``heartbeat``."""
        return text_frame(heartbeat_message(self._node, subscription))

    def close(self, ended: ServerClose) -> ClosingFrames:
        """Return a ``bye``, and the close frame after it."""
        return ClosingFrames(
            last=text_frame(ended.message), code=int(ended.code), reason=ended.close_reason
        )

    def _in_ms(self, at: int) -> int:
        return max(0, at - self._node.now_ms())


class NativeStreamCodec:
    """The native messages in an event stream.

    Args:
        node: This node.
        heartbeat_ms: Milliseconds of silence after which there is a heartbeat.
    """

    shares_frames: Final = False

    def __init__(self, node: Node, heartbeat_ms: int) -> None:
        self._node = node
        self._heartbeat_ms = heartbeat_ms

    def receive(self, data: str | bytes) -> None:
        """Return ``None``: an event stream has no input."""

    def greet(self, subject: Session | Subscription, token: str | None) -> bytes:  # noqa: ARG002
        """Return the ``hello`` of a subscription."""
        if not isinstance(subject, Subscription):
            raise TypeError("An event stream has no session.")
        return sse_event("hello", render(observer_hello(self._node, subject, self._heartbeat_ms)))

    def notify(self, notice: Announcement) -> bytes:
        """Return the events of a message of the subscription."""
        match notice:
            case Tick(items=items, position=at):
                *others, last = items
                told = [sse_event(item.type, item.data) for item in others]
                return b"".join([*told, sse_event(last.type, last.data, str(at))])
            case SnapshotPage():
                position = None if notice.more else notice.position
                return sse_event("snapshot", notice.message, position)
            case Restart():
                return sse_event("resync", notice.message)
            case _:
                return b""

    def heartbeat(self, subscription: Subscription | None) -> bytes:
        """Return a ``heartbeat``."""
        beat = heartbeat_message(self._node, subscription)
        is_behind = subscription is not None and subscription.is_behind
        return sse_event("heartbeat", render(beat), None if is_behind else beat.position)

    def close(self, ended: ServerClose) -> ClosingFrames:
        """Return a ``bye``, and the delay before a reconnect."""
        last = sse_event("bye", render(ended.message))
        if ended.retry_after_ms is not None:
            last = b"retry: %d\n%b" % (ended.retry_after_ms, last)
        return ClosingFrames(last=last)
