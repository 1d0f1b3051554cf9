"""Codec: encodes and decodes neko's WebSocket messages, and closes its connections.

neko has no error messages, so unreadable messages are ignored. Input that only moves pixels is too
frequent to handle each, so it counts a few times a second.

A client that gets ``system/disconnect`` stays away; one that does not reconnects within the grace
period. So the message is sent only to clients that should stay away, and not when this node drains
or the connection ended by mistake. neko closes without a close frame (clients see 1006).

Not here: the handling of messages and the handshake (``session_socket``).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec import MsgspecError
from msgspec.json import decode
from msgspec.structs import asdict

from gateway.connections.lifecycle import ServerClose
from gateway.core.errors import CloseCode
from gateway.core.frames import TEXT, frame
from gateway.core.model import Cause, Session
from gateway.dialects.neko.login import NekoCaller, shown_id
from gateway.dialects.neko.render import (
    HEARTBEAT,
    PLUGINS,
    control_host,
    event,
    session_data,
    state_of,
)
from gateway.dialects.neko.rooms import Fence, News, room_of
from gateway.dialects.neko.schema import (
    Admin,
    BroadcastStatus,
    ClientEvent,
    Init,
    NekoNotice,
    ScreenConfiguration,
    StateOf,
)
from gateway.dialects.neko.service import Service
from gateway.node import Subscription, Tick
from gateway.realtime.codec import Announcement, ClosingFrames
from gateway.realtime.connection import WebSocketConnection

INPUT_EVERY_S: Final = 0.25  # between two inputs that count (a mouse moves 60 times a second)

HEARD: Final = ("control/", "send/", "system/logs")  # events that are handled
INPUT: Final = tuple(
    f"control/{kind}"
    for kind in (
        *("move", "scroll", "button", "key", "touch"),
        *("cut", "copy", "paste", "select_all"),
    )
)

REPLACED: Final = "connection replaced"
DISCONNECTED: Final = "session disconnected"
DELETED: Final = "session deleted"
SHUTDOWN: Final = "connection shutdown"

ENDS: Final[dict[int, str]] = {
    CloseCode.DISPLACED: REPLACED,
    CloseCode.KICKED: DISCONNECTED,
    CloseCode.SESSION_CLOSED: DELETED,
}
"""The message of each end that is in the record."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Dismissal(ServerClose):
    """Ends a connection with a message, after which the client does not reconnect.

    Args:
        message: The message.
        cause: The cause for the record.
    """

    def __init__(self, message: str, cause: Cause = "kicked") -> None:
        super().__init__(CloseCode.FORBIDDEN, message)
        self.cause = cause


class NekoCodec:
    """neko's messages on one WebSocket.

    Args:
        service: neko on this node.
        connection: The connection of the client.
    """

    shares_frames: Final = False

    def __init__(self, service: Service, connection: WebSocketConnection[ClientEvent]) -> None:
        self.caller: NekoCaller | None = None  # the client's caller, once it is admitted
        self.session: Session | None = None
        self.on_fence: Callable[[Fence], bool] = _stay
        self.on_received: Callable[[], None] = _nothing
        self._service = service
        self._connection = connection
        self._is_fenced = False  # the session is another connection's: nothing is sent any more
        self._input_at_s = 0.0

    def receive(self, data: str | bytes) -> ClientEvent | None:
        """Decode an event that is handled; ``None`` for any other."""
        received = understood(data, ClientEvent)
        if received is None:
            return None
        self.on_received()
        is_heard = received.event.startswith(HEARD) and not self._is_too_soon(received)
        return received if is_heard else None

    def _is_too_soon(self, received: ClientEvent) -> bool:
        if not received.event.startswith(INPUT):
            return False
        now_s = asyncio.get_running_loop().time()
        if now_s - self._input_at_s < INPUT_EVERY_S:
            return True
        self._input_at_s = now_s
        return False

    def greet(self, subject: Session | Subscription, token: str | None) -> bytes:  # noqa: ARG002
        """Return the first messages of a new client: a consistent snapshot of what it may see."""
        if isinstance(subject, Subscription) or self.caller is None:
            return b""
        caller, service = self.caller, self._service
        control = service.control
        data = Init(
            session_id=caller.id,
            control_host=control_host("", control.host_id(caller)),
            screen_size=ScreenConfiguration(),
            sessions={
                (name := shown_id(known)): session_data(name, known)
                for known in service.sessions(caller)
            },
            settings=control.room_of(caller).shown,
        )
        texts = [event("system/init", data)]
        if caller.profile.is_admin:
            texts.append(
                event("system/admin", Admin(broadcast_status=BroadcastStatus(is_active=False)))
            )
        state = StateOf(id=caller.id, **asdict(state_of(subject)))
        texts += [event("session/state", state), *PLUGINS]
        return b"".join(frame(TEXT, text) for text in texts)

    def notify(self, notice: Announcement) -> bytes:
        """Return the messages that a tick of the node's channel has for this client.

        Raises:
            ServerClose: The client is too slow, history was lost, or the session is not its own.
        """
        if not isinstance(notice, Tick):
            raise self._connection.too_slow()
        frames: list[bytes] = []
        for item in notice.items:
            if self._is_fenced or not isinstance(item, News):
                continue
            if item.fence is not None and self._is_meant(item):
                self._connection.write(b"".join(frames))  # messages before an end are sent
                frames.clear()
                self._is_fenced = not self.on_fence(item.fence)
            elif item.fence is None and (data := self._data(item)):
                frames.append(frame(TEXT, data))
        return b"".join(frames)

    def _is_meant(self, news: News) -> bool:
        own = self.session.id if self.session else None
        return news.only in (None, own) and news.but != own

    def _data(self, news: News) -> bytes | None:
        caller, session = self.caller, self.session
        if caller is None or session is None or not self._is_meant(news):
            return None
        if news.room not in (None, room_of(session)):
            return None
        if news.workspace not in (None, caller.workspace):
            return None
        if news.sees_room not in (None, caller.visibility.by in ("all", "workspace")):
            return None
        if news.about is not None and not caller.visibility.allows(news.about):
            return news.blind
        return news.data

    def heartbeat(self, subscription: Subscription | None) -> bytes:  # noqa: ARG002 - the port's
        """Return neko's heartbeat."""
        return frame(TEXT, HEARTBEAT)

    def close(self, ended: ServerClose) -> ClosingFrames:
        """Return the reason for a client that should stay away, and close."""
        message = self._reason(ended)
        if message is None:
            return ClosingFrames()
        return ClosingFrames(last=frame(TEXT, event("system/disconnect", NekoNotice(message))))

    def _reason(self, ended: ServerClose) -> str | None:
        if isinstance(ended, Dismissal):
            return ended.reason
        if ended.code == CloseCode.DRAINING:
            node = self._service.node
            return SHUTDOWN if node.is_alone else None
        return ENDS.get(ended.code)


def understood(data: str | bytes, kind: type[T]) -> T | None:
    """Decode a message of a client; ``None`` if it is invalid, which neko does not answer."""
    try:
        return decode(data, type=kind)
    except (MsgspecError, ValueError, RecursionError):
        log.debug("a message is ignored: it cannot be read")
        return None


def _stay(_fence: Fence) -> bool:
    return True


def _nothing() -> None:
    return None
