"""Live: what Plex pushes to its clients, by WebSocket and by server-sent events.

Each playback that begins, changes or ends is a ``playing``; a transcode starts, is updated, ends.
An end is told once, with everything that tells whose it was; the transcodes of a session end before
it. The feed begins now: there is no replay and no snapshot, clients re-read ``/status/sessions``
when they come. A reader that falls too far behind is cut and does the same.

Rendered once for all who see the same sessions; only the number of an item that was never shown
before is still missing then, and is given on the way out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from msgspec.json import encode
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.auth.credentials import Credential, check_origin, networks, origins
from gateway.auth.principals import Principal
from gateway.connections.lifecycle import (
    CLOSE_WITHIN_S,
    ClientClosed,
    ConnectionEnded,
    ServerClose,
    TaskConnection,
)
from gateway.context import caller_key
from gateway.core.errors import CloseCode, Draining, GatewayError
from gateway.core.event import (
    StreamStarted,
    StreamStopped,
    StreamUpdated,
    Unwatched,
    Updated,
    Watching,
)
from gateway.core.model import Session, Stream, Watch
from gateway.core.query import View
from gateway.dialects.plex import schema
from gateway.dialects.plex.render import (
    is_transcode,
    notification,
    numbered,
    state_of,
    transcode_session,
)
from gateway.dialects.plex.state import ITEM, Plex
from gateway.dialects.plex.style import PlexCall, PlexStyle
from gateway.http.request import Request, check_target, read_pairs
from gateway.live.channel import Subscription
from gateway.live.commit_view import CommitView, EventItem, Step
from gateway.live.outbound import Tick

DIALECT: Final = "plex"
PLAYING: Final = "playing"
PAYLOADS: Final = {PLAYING: "PlaySessionStateNotification"}
TRANSCODES: Final = "TranscodeSession"
SSE: Final = "text/event-stream"
PING_S: Final = 10.0  # between two pings of an event stream
PING: Final = b"event: ping\ndata: {}\n\n"
FILTERS_MAX: Final = 64  # types in one filter

Wants = Callable[[str], bool]
Start = Callable[[], Awaitable[None]]


class Unnumbered(EventItem, frozen=True):
    """A ``playing`` about an item that has no number yet."""

    said: schema.Notification
    key: str


class Renderer:
    """Says what a change means in Plex's schema.

    Args:
        plex: What this dialect shares.
    """

    def __init__(self, plex: Plex) -> None:
        self._plex = plex

    def __call__(self, view: View, change: CommitView) -> list[EventItem]:
        """Return what is pushed to those who have *view*."""
        after = change.after
        if after is None or not view.matches(after):
            return []
        items: list[EventItem] = []
        if after.closed and change.before:
            for stream in change.before.streams:
                items.extend(self._transcode("end", view, change.before, stream, after.closed.at))
        steps = change.steps
        for number, step in enumerate(steps):
            if isinstance(step.event, Updated) and _ends(steps[number + 1 :]):
                continue  # where a watch ended is told by its end
            items.extend(self._step(view, step, change.entry.at))
        return items

    def _step(self, view: View, step: Step, at: int) -> list[EventItem]:
        before, after = step.before, step.after
        match step.event:
            case Watching() | Updated() if after.watch and (
                before is None or before.watch != after.watch
            ):
                return [self._playing(view, after, after.watch, state_of(after.watch), at)]
            case Unwatched() if before and before.watch:
                return [self._playing(view, before, before.watch, "stopped", at)]
            case StreamStarted(stream=stream):
                return self._transcode("start", view, after, stream, at)
            case StreamUpdated(stream=stream):
                return self._transcode("update", view, after, stream, at)
            case StreamStopped(key=key) if before:
                return [
                    item
                    for stream in before.streams
                    if stream.key == key
                    for item in self._transcode("end", view, before, stream, at)
                ]
            case _:
                return []

    def _playing(
        self, view: View, session: Session, watch: Watch, state: schema.State, at: int
    ) -> EventItem:
        transcode = None
        if state != "stopped":
            transcode = self._plex.transcodes.first(session, view.visibility, at)
        number = self._plex.numbers.known(ITEM, watch.key)
        said = notification(
            session, watch, state, at, item=number, transcode=transcode[0] if transcode else None
        )
        if number is None:
            return Unnumbered(PLAYING, b"", said, watch.key)
        return EventItem(PLAYING, encode(said))

    def _transcode(
        self, what: str, view: View, session: Session, stream: Stream, at: int
    ) -> list[EventItem]:
        if not is_transcode(stream):
            return []
        name = self._plex.transcodes.name(session, stream, view.visibility)
        shape = transcode_session(session, stream, name, at)
        return [EventItem(f"transcodeSession.{what}", encode(shape))]


def _ends(steps: Sequence[Step]) -> bool:
    """Whether the watch ends in one of *steps*."""
    return any(isinstance(step.event, Unwatched) for step in steps)


async def told(plex: Plex, item: EventItem) -> bytes:
    """Return the JSON of *item*, its number given if it had none.

    Raises:
        GatewayError: As ``Node.apply``.
    """
    if isinstance(item, Unnumbered):
        return encode(numbered(item.said, await plex.numbers.give(ITEM, item.key)))
    return item.data


def frame(kind: str, data: bytes) -> bytes:
    """Return a message of the WebSocket; exactly three members: python-plexapi counts them."""
    payload = PAYLOADS.get(kind, TRANSCODES).encode()
    return b'{"NotificationContainer":{"type":"%b","size":1,"%b":[%b]}}' % (
        kind.encode(),
        payload,
        data,
    )


def event(kind: str, data: bytes) -> bytes:
    """Return an event of the stream; no container and no list around it."""
    payload = PAYLOADS.get(kind, TRANSCODES).encode()
    return b'event: %b\ndata: {"%b":%b}\n\n' % (kind.encode(), payload, data)


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


class _PlexLine(TaskConnection):
    """A connection on which Plex's pushes are told."""

    async def tell(self, plex: Plex, subscription: Subscription, wants: Wants) -> None:
        """Tell what happens, as long as the reader keeps up."""
        while True:
            delivery = await subscription.next()
            if not isinstance(delivery, Tick):
                raise ServerClose(CloseCode.TOO_SLOW, "too_slow", self.reconnect_after_ms())
            for item in delivery.items:
                if wants(item.type):
                    await self.send(self.put(item.type, await told(plex, item)))

    def put(self, kind: str, data: bytes) -> bytes:
        """Return a push as it is sent here."""
        raise NotImplementedError


async def _live(  # noqa: PLR0917 - each is one thing
    plex: Plex, request: Request, caller: Principal, line: _PlexLine, beat: bytes, start: Start
) -> ConnectionEnded:
    """Live on *line* until it ends; nothing is missed from its *start* on.

    Raises:
        Overloaded: There are too many different subscriptions; nothing was started.
    """
    view = View(visibility=caller.visibility(), dialect=DIALECT)
    wants = wanted(read_pairs(request.scope))
    here = plex.node.replica.position(view.hash32)
    with plex.context.connections.registered(line), plex.node.subscribe(view, here) as subscription:
        await start()
        line.expire_at(caller.expires_at, plex.context.wall_ms)
        return await line.run(lambda: beat, line.tell(plex, subscription, wants))


# --- WebSocket


class _SocketLine(_PlexLine):
    """A WebSocket. What the client says is not listened to: some beat once a second."""

    def __init__(self, plex: Plex, websocket: WebSocket) -> None:
        super().__init__(plex.context.connections.chance, plex.context.settings.heartbeat_s)
        self._websocket = websocket

    def put(self, kind: str, data: bytes) -> bytes:
        return frame(kind, data)

    async def close(self, ended: ConnectionEnded) -> None:
        """Close, unless the client has done that."""
        if isinstance(ended, ServerClose):
            with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    await self._websocket.close(int(ended.code), ended.reason)

    async def _write(self, data: bytes) -> None:
        if not data:  # the beat: here the server's pings do that
            return
        try:
            await self._websocket.send({"type": "websocket.send", "text": data.decode()})
        except (WebSocketDisconnect, RuntimeError):
            raise ClientClosed("lost") from None

    async def _listen(self) -> NoReturn:
        while True:
            if (await self._websocket.receive())["type"] == "websocket.disconnect":
                raise ClientClosed("clean")


class Notifications:
    """``/:/websockets/notifications``.

    Args:
        plex: What this dialect shares.
        style: Reads the handshake and words a refusal of it.
    """

    def __init__(self, plex: Plex, style: PlexStyle) -> None:
        self._plex = plex
        self._style = style

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket; who may not come in is told so before the upgrade."""
        context = self._plex.context
        websocket = WebSocket(scope, receive, send)
        request = Request({**scope, "method": "GET"})
        try:
            allowed = origins(context.settings.allowed_origins)
            trusted = networks(context.settings.trusted_proxies)
            check_target(request)
            check_origin(scope, Credential(), allowed, trusted)
            asking = self._style.credential(request, None)
            caller = await context.rate_limited(scope, asking, caller_key)
            _check_room(self._plex)
            line = _SocketLine(self._plex, websocket)
            ended = await _live(self._plex, request, caller, line, b"", websocket.accept)
        except GatewayError as error:
            await websocket.send_denial_response(self._style.refuse(error, request, None))
        except (OSError, RuntimeError, WebSocketDisconnect):  # it left meanwhile
            return
        else:
            await line.close(ended)


def _check_room(plex: Plex) -> None:
    """Do nothing if one more may listen.

    Raises:
        Draining: This node is going.
        Overloaded: There are as many connections as may be.
    """
    if plex.node.is_draining:
        raise Draining
    plex.context.connections.check_capacity()


# --- server-sent events


class EventStream(Response):
    """``/:/eventsource/notifications``: a reply that goes on for as long as the reader stays."""

    media_type = SSE

    def __init__(self, plex: Plex, call: PlexCall) -> None:
        _check_room(plex)
        super().__init__()
        del self.headers["content-length"]
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        self._plex = plex
        self._call = call

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Tell until the reader leaves or may not stay."""
        line = _EventLine(self._plex, receive, send, self.raw_headers)
        call = self._call
        try:
            await _live(self._plex, call.request, call.caller, line, PING, line.start)
            await line.close()
        except ConnectionEnded:  # it left meanwhile
            return


class _EventLine(_PlexLine):
    """An event stream as a line."""

    def __init__(
        self, plex: Plex, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]
    ) -> None:
        super().__init__(plex.context.connections.chance, PING_S)
        self._receive = receive
        self._send = send
        self._headers = headers

    def put(self, kind: str, data: bytes) -> bytes:
        return event(kind, data)

    async def start(self) -> None:
        """Send the head, and something to see that it came."""
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await self.send(PING)

    async def close(self) -> None:
        """End the reply."""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._send({"type": "http.response.body", "body": b""})

    async def _write(self, data: bytes) -> None:
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError:
            raise ClientClosed("lost") from None

    async def _listen(self) -> NoReturn:
        while True:
            message: Any = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientClosed("clean")
