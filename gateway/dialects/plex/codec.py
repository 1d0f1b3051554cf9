"""Codec: what Plex pushes to its clients, by WebSocket and by server-sent events.

Each playback that begins, changes or ends is a ``playing``; a transcode starts, is updated, ends.
An end is told once, with everything that tells whose it was; the transcodes of a session end before
it. The feed begins now: there is no replay and no snapshot, clients re-read ``/status/sessions``
when they come. A reader that falls too far behind is cut and does the same.

A playback of which nothing was heard for a while is told again: players of Plex report every ten
seconds, and monitors take a playback for dead of which they heard nothing for five minutes.

Rendered once for all who see the same sessions; only the number of an item that was never shown
before is still missing then, and is given on the way out.
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
PING_S: Final = 10.0  # seconds between two looks at what is to be told again, or two pings
QUIET_MS: Final = 60_000  # a playback of which nothing was told for so long is told again
TURNS: Final = 12  # looks in which all playbacks have their turn: 500 of 6 000 take 5 ms
FILTERS_MAX: Final = 64  # types in one filter

Wants = Callable[[str], bool]


class Unnumbered(EventItem, frozen=True):
    """A ``playing`` about an item that has no number yet."""

    said: schema.Notification
    key: str


def pushes_of(plex: Plex, view: View, change: CommitView) -> list[EventItem]:
    """Return what is pushed of a change to those who have *view*."""
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
            continue  # where a watch ended is told by its end
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
    """Return what ``filters`` asks for: ``a,b`` only these, ``-a`` all but, empty all."""
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
        plex: What this dialect shares.
        wants: Which types are wanted.
        too_slow: Returns how a reader ends that fell too far behind.
    """

    shares_frames: Final = False

    def __init__(self, plex: Plex, wants: Wants, too_slow: Callable[[], ServerClose]) -> None:
        self._plex = plex
        self._wants = wants
        self._too_slow = too_slow
        self._turn = 0

    def receive(self, data: str | bytes) -> None:
        """Pass over what the client says: some beat once a second."""

    def greet(self, subject: Session | Subscription, token: str | None) -> bytes:  # noqa: ARG002
        """Say nothing at first."""
        return b""

    def notify(self, notice: Announcement) -> bytes | Awaitable[bytes]:
        """Return the wanted pushes of a tick; a restart is for a reader that fell behind.

        Raises:
            ServerClose: What cannot be told in full is not told in part.
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
        """Tell playbacks again of which nothing was heard; each look is for a part of them."""
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
        """Send a ping, so that something is there to be seen."""
        return PING

    def heartbeat(self, subscription: Subscription | None) -> bytes:
        """Send a ping, and what is told again."""
        return PING + super().heartbeat(subscription)

    def push(self, kind: str, data: bytes) -> bytes:
        """Return one event."""
        return sse_event(kind, b'{"%b":%b}' % (PAYLOADS.get(kind, TRANSCODES), data))

    def close(self, ended: ServerClose) -> ClosingFrames:  # noqa: ARG002
        """End the reply without another word."""
        return ClosingFrames()
