"""Codec: Plex's notifications, by WebSocket and by server-sent events.

The start, a change and the end of a playback are a ``playing``; a transcode is started, updated and
ended. An end is sent once, with all data of its playback; the transcodes of a session end before
it. The feed starts now: there is no replay and no snapshot, and clients read ``/status/sessions``
when they connect. A reader that falls too far behind is cut and does the same.

A playback without news is sent again after a while, because players of Plex report every ten
seconds and monitors take a playback for dead after five minutes of silence.

A notification is rendered once for all who see the same sessions. Only the number of an item that
was never shown before is missing then; it is assigned before the notification is sent.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from msgspec.json import encode

from gateway.connections.lifecycle import ServerClose
from gateway.core import event
from gateway.core.errors import CloseCode
from gateway.core.frames import TEXT, frame
from gateway.core.model import Session, Stream, Watch
from gateway.core.query import View
from gateway.dialects.plex import render, schema
from gateway.dialects.plex.render import notification, state_of
from gateway.dialects.plex.state import ITEM, Plex
from gateway.node import CommitView, EventItem, Step, Subscription, Tick
from gateway.realtime.codec import Announcement, ClosingFrames
from gateway.realtime.sse import sse_event

PLAYING: Final = "playing"
PAYLOADS: Final = {PLAYING: b"PlaySessionStateNotification"}
TRANSCODES: Final = b"TranscodeSession"
PING: Final = sse_event("ping", b"{}")
PING_S: Final = 10.0  # between two rounds of repeats, or two pings
QUIET_MS: Final = 60_000  # a playback is sent again after so long without a notification
TURNS: Final = 12  # rounds until all playbacks were repeated: 500 of 6 000 take 5 ms
FILTERS_MAX: Final = 64  # types in one filter

Wants = Callable[[str], bool]


class Unnumbered(EventItem, frozen=True):
    """A ``playing`` about an item that has no number yet."""

    said: schema.Notification
    key: str


def pushes_of(plex: Plex, view: View, change: CommitView) -> list[EventItem]:
    """Return the notifications of a change in *view*."""
    after = change.after
    if after is None or not view.matches(after):
        return []
    items: list[EventItem] = []
    if after.closed and change.before:
        for stream in change.before.streams:
            items += _transcode(plex, view, "end", change.before, stream, after.closed.at)
    for number, step in enumerate(change.steps):
        later = (other.event for other in change.steps[number + 1 :])
        if isinstance(step.event, event.Updated) and any(
            isinstance(one, event.Unwatched) for one in later
        ):
            continue  # the end of the watch has its position
        items += _pushes_of_step(plex, view, step, change.entry.at)
    return items


def _pushes_of_step(plex: Plex, view: View, step: Step, at: int) -> list[EventItem]:
    before, after = step.before, step.after
    watch = after.watch
    match step.event:
        case event.Watching() | event.Updated() if watch and (
            before is None or before.watch != watch
        ):
            return [_playing(plex, view, after, watch, state_of(watch), at)]
        case event.Unwatched() if before and before.watch:
            return [_playing(plex, view, before, before.watch, "stopped", at)]
        case event.StreamStarted(stream=stream):
            return _transcode(plex, view, "start", after, stream, at)
        case event.StreamUpdated(stream=stream):
            return _transcode(plex, view, "update", after, stream, at)
        case event.StreamStopped(key=key) if before:
            for stream in before.streams:
                if stream.key == key:
                    return _transcode(plex, view, "end", before, stream, at)
    return []


def _playing(  # noqa: PLR0917 - each is one thing
    plex: Plex, view: View, session: Session, watch: Watch, state: schema.State, at: int
) -> EventItem:
    stops, number = state == "stopped", plex.numbers.known(ITEM, watch.key)
    first = None if stops else plex.transcodes.first(session, view.visibility, at)
    job = first[0] if first else None
    said = notification(session, watch, state, at, item=number, transcode=job)
    if number is None:
        return Unnumbered(PLAYING, b"", said, watch.key)
    return EventItem(PLAYING, encode(said))


def _transcode(  # noqa: PLR0917 - each is one thing
    plex: Plex, view: View, what: str, session: Session, stream: Stream, at: int
) -> list[EventItem]:
    if not render.is_transcode(stream):
        return []
    name = plex.transcodes.name(session, stream, view.visibility)
    shape = render.transcode_session(session, stream, name, at)
    return [EventItem(f"transcodeSession.{what}", encode(shape))]


def wanted(pairs: Iterable[tuple[str, str]]) -> Wants:
    """Return the filter of ``filters``: ``a,b`` only these, ``-a`` all but, empty all."""
    texts = [text for name, text in pairs if name in ("filters", "filter")]
    parts = [part.strip() for text in texts for part in text.split(",", FILTERS_MAX)]
    only = {part for part in parts if part and not part.startswith("-")}
    never = {part.removeprefix("-") for part in parts if part.startswith("-")}

    def wants(kind: str) -> bool:
        names = {kind, kind.partition(".")[0]}  # transcodeSession stands for its three
        return not names & never and (not only or bool(names & only))

    return wants


def too_slow() -> ServerClose:
    """Return how an event stream ends whose reader fell too far behind."""
    return ServerClose(CloseCode.TOO_SLOW, "too_slow")


class PushCodec:
    """Pushes on one connection, each as one object; what the client says is not listened to.

    Args:
        plex: The shared state of this dialect.
        wants: Whether a type is wanted.
        too_slow: Returns the end of a reader that fell too far behind.
    """

    shares_frames: Final = False

    def __init__(self, plex: Plex, wants: Wants, too_slow: Callable[[], ServerClose]) -> None:
        self._plex = plex
        self._wants = wants
        self._too_slow = too_slow
        self._turn = 0

    def receive(self, data: str | bytes) -> None:
        """Ignore messages of the client; some send heartbeats once a second."""

    def greet(self, subject: Session | Subscription, token: str | None) -> bytes:  # noqa: ARG002
        """Return nothing: there is no greeting."""
        return b""

    def notify(self, notice: Announcement) -> bytes | Awaitable[bytes]:
        """Return the wanted pushes of a tick; a restart is for a reader that fell behind.

        Raises:
            ServerClose: The reader fell too far behind.
        """
        if not isinstance(notice, Tick):
            raise self._too_slow()
        items = [item for item in notice.items if self._wants(item.type)]
        if any(isinstance(item, Unnumbered) for item in items):
            return self._numbered(items)
        return b"".join(self.push(item.type, item.data) for item in items)

    async def _numbered(self, items: Sequence[EventItem]) -> bytes:
        pushes = []
        for item in items:
            data = item.data
            if isinstance(item, Unnumbered):
                number = await self._plex.numbers.give(ITEM, item.key)
                data = encode(render.numbered(item.said, number))
            pushes.append(self.push(item.type, data))
        return b"".join(pushes)

    def heartbeat(self, subscription: Subscription | None) -> bytes:
        """Send silent playbacks again; each round is for a part of them."""
        if subscription is None or not self._wants(PLAYING):
            return b""
        node, now_ms = self._plex.node, self._plex.node.now_ms()
        self._turn = (self._turn + 1) % TURNS
        view, pushes = subscription.view, []
        for session in node.sessions.values():
            watch = session.watch
            if watch is None or session.number % TURNS != self._turn:
                continue
            told_ms = max(watch.position_at or 0, session.watching_since or 0)
            if told_ms < now_ms - QUIET_MS and view.visibility.allows(session):
                item = _playing(self._plex, view, session, watch, state_of(watch), now_ms)
                if not isinstance(item, Unnumbered):  # nobody can have heard of it
                    pushes.append(self.push(PLAYING, item.data))
        return b"".join(pushes)

    def push(self, kind: str, data: bytes) -> bytes:
        """Return a message of the WebSocket; exactly three members: python-plexapi counts them."""
        payload = PAYLOADS.get(kind, TRANSCODES)
        text = b'{"NotificationContainer":{"type":"%b","size":1,"%b":[%b]}}'
        return frame(TEXT, text % (kind.encode(), payload, data))

    def close(self, ended: ServerClose) -> ClosingFrames:
        """Close with the code and reason of its end."""
        return ClosingFrames(code=int(ended.code), reason=ended.close_reason)


class PushStreamCodec(PushCodec):
    """Pushes in an event stream; no container and no list around them."""

    def greet(self, subject: Session | Subscription, token: str | None) -> bytes:  # noqa: ARG002
        """Return a ping, so that the reader gets something at once."""
        return PING

    def heartbeat(self, subscription: Subscription | None) -> bytes:
        """Return a ping, and the playbacks that are sent again."""
        return PING + super().heartbeat(subscription)

    def push(self, kind: str, data: bytes) -> bytes:
        """Return one event."""
        return sse_event(kind, b'{"%b":%b}' % (PAYLOADS.get(kind, TRANSCODES), data))

    def close(self, ended: ServerClose) -> ClosingFrames:  # noqa: ARG002
        """End the reply without a last event."""
        return ClosingFrames()
