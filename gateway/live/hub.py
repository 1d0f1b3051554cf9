"""Hub: delivers changes to this node's subscribers.

*Channels* serve the subscribers of a view. *Mailboxes* deliver what happens to one session to the
socket that is attached to it on this node. Only the replicator calls :meth:`Hub.publish`.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from msgspec import Struct

from gateway.core.document import Message
from gateway.core.errors import Overloaded
from gateway.core.event import MessageEntry, SessionEntry
from gateway.core.model import Session
from gateway.core.position import Position
from gateway.core.query import Index, View, indexes_of
from gateway.live.channel import Channel, Replay, Subscription
from gateway.live.commit_view import CommitView, EventItem
from gateway.live.outbound import Tick
from gateway.live.replica import Replica
from gateway.metrics import OVERFLOWS

MAILBOX_MAX: Final = 256  # notices that wait for a session's socket; one more, and it is too slow
CHANNELS_MAX: Final = 100_000  # different views at once; one more is refused with Overloaded

Renderer = Callable[[View, CommitView], list[EventItem]]


class Notice(Struct, frozen=True, gc=False):
    """A notice to a session's own socket: a change of its session, or a message.

    A notice with neither says that changes were missed, so the socket has to read its session
    again.
    """

    change: CommitView | None = None
    message: Message | None = None


class NoticeSink(Protocol):
    """The receiver of the notices of one session."""

    @property
    def workspace(self) -> str | None:
        """The workspace of the session."""
        ...

    def put(self, notice: Notice) -> None:
        """Accept a notice; this must not block or raise."""
        ...


class Mailbox:
    """A bounded queue of the notices of one session."""

    def __init__(self, session: Session) -> None:
        self.session_id = session.id
        self.workspace = session.workspace
        self.overflowed = False
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(MAILBOX_MAX)

    def put(self, notice: Notice) -> None:
        """Add a notice; a full mailbox sets ``overflowed``, and its socket is too slow."""
        try:
            self._queue.put_nowait(notice)
        except asyncio.QueueFull:
            self.overflowed = True
            OVERFLOWS.labels("mailbox").inc()

    async def get(self) -> Notice:
        """Return the next notice."""
        return await self._queue.get()


class Hub:
    """This node's channels and mailboxes.

    Args:
        replica: The source of snapshots.
        clock_ms: A monotonic clock in milliseconds.
    """

    def __init__(self, replica: Replica, clock_ms: Callable[[], float]) -> None:
        self._replica = replica
        self._clock_ms = clock_ms
        self._channels: dict[bytes, Channel] = {}
        self._by_index: dict[Index | None, dict[bytes, Channel]] = {}
        self._in_dialects: dict[bytes, Channel] = {}
        self._mailboxes: dict[str, tuple[NoticeSink, ...]] = {}
        self._renderers: dict[str, Renderer] = {"": _native}

    def register(self, dialect: str, renderer: Renderer) -> None:
        """Render views of *dialect* with *renderer*."""
        self._renderers[dialect] = renderer

    def render(self, view: View, change: CommitView) -> list[EventItem]:
        """Return the events of *change* in *view*, rendered for its dialect."""
        return self._renderers[view.dialect](view, change)

    # --- subscribing

    def subscribe(
        self,
        view: View,
        since: Position | None = None,
        missed: Replay | None = None,
        *,
        reason: str | None = None,
    ) -> Subscription:
        """Subscribe to *view* until the subscription is closed.

        Args:
            view: The view.
            since: The position of the subscriber; ``None`` starts with a snapshot.
            missed: Replays what happened between two positions, if the ring does not have it.
            reason: Why there is a snapshot although a position was given.

        Raises:
            Overloaded: There are ``CHANNELS_MAX`` different views already.
        """
        channel = self._channel(view)
        here = self._replica.position(channel.hash32)
        subscription = Subscription(
            channel,
            self._replica,
            self._clock_ms,
            mode="snapshot" if since is None else "resume",
            reason=reason,
            position=since or here,
        )
        if since is None:
            subscription.start()
        elif (sequence := channel.after(since)) is not None:
            subscription.resume(sequence)
        elif missed:
            subscription.replay(missed, since, here)
        return subscription

    def channel_sizes(self) -> tuple[int, int]:
        """Return the number of channels, and the bytes in their rings."""
        channels = self._channels.values()
        return len(channels), sum(channel.ring_bytes for channel in channels)

    def _drop(self, channel: Channel) -> None:
        key = channel.view.key
        self._channels.pop(key, None)
        self._in_dialects.pop(key, None)
        members = self._by_index[channel.index]
        members.pop(key, None)
        if not members:
            del self._by_index[channel.index]

    def _channel(self, view: View) -> Channel:
        channel = self._channels.get(view.key)
        if channel is None:
            if len(self._channels) >= CHANNELS_MAX:
                OVERFLOWS.labels("channels").inc()
                raise Overloaded("There are too many different subscriptions.")
            channel = self._channels[view.key] = Channel(view, self._replica.position(), self._drop)
            self._by_index.setdefault(channel.index, {})[view.key] = channel
            if view.dialect:
                self._in_dialects[view.key] = channel
        return channel

    @contextmanager
    def mailbox(self, session: Session) -> Iterator[Mailbox]:
        """Collect the notices of *session* from now on."""
        sink = Mailbox(session)
        self.attach(session.id, sink)
        try:
            yield sink
        finally:
            self.detach(session.id, sink)

    def attach(self, session_id: str, sink: NoticeSink) -> None:
        """Deliver the notices of a session to *sink* from now on."""
        self._mailboxes[session_id] = (*self._mailboxes.get(session_id, ()), sink)

    def detach(self, session_id: str, sink: NoticeSink) -> None:
        """Deliver no more notices to *sink*."""
        others = tuple(one for one in self._mailboxes.get(session_id, ()) if one is not sink)
        if others:
            self._mailboxes[session_id] = others
        else:
            self._mailboxes.pop(session_id, None)

    # --- publishing

    def publish(self, changes: Iterable[CommitView], before: Position) -> None:
        """Deliver one batch of changes; the replica has applied it already.

        Args:
            changes: The changes of the batch.
            before: The position before the batch.
        """
        ticks: dict[Channel, list[EventItem]] = {}
        for change in changes:
            self._deliver(change)
            for channel in self._interested(change):
                items = self.render(channel.view, change)
                if items:
                    ticks.setdefault(channel, []).extend(items)
        for channel, items in ticks.items():
            channel.append(Tick(self._replica.position(channel.hash32), items, before))

    def restart(self, reason: str) -> None:
        """Make every subscriber start over, because the replica was loaded again."""
        for channel in self._channels.values():
            channel.restart(reason, self._replica.position())
        for sinks in list(self._mailboxes.values()):
            for sink in sinks:
                sink.put(Notice())

    def _interested(self, change: CommitView) -> Iterable[Channel]:
        if not self._channels:
            return ()
        if change.after is None:  # documents and messages: only dialects render them
            return list(self._in_dialects.values())
        everywhere = self._by_index.get(None, {})
        if len(self._by_index) == bool(everywhere):  # no channel has an index
            return list(everywhere.values())
        found = dict(everywhere)
        for session in (change.before, change.after):
            if session:
                for index in indexes_of(session):
                    if index in self._by_index:
                        found.update(self._by_index[index])
        return found.values()

    def _deliver(self, change: CommitView) -> None:
        if isinstance(change.entry, SessionEntry):
            for sink in self._mailboxes.get(change.entry.record.id, ()):
                sink.put(Notice(change=change))
        elif isinstance(change.entry, MessageEntry):
            message = change.entry.message
            for sinks in self._recipients(message):
                for sink in sinks:
                    if message.to.workspace is None or sink.workspace == message.to.workspace:
                        sink.put(Notice(message=message))

    def _recipients(self, message: Message) -> Iterable[tuple[NoticeSink, ...]]:
        if message.to.session is not None:
            return (self._mailboxes.get(message.to.session, ()),)
        return list(self._mailboxes.values())


def _native(view: View, change: CommitView) -> list[EventItem]:
    return change.native(view)
