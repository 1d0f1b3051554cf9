"""Line: one WebSocket of neko's: what it is sent, what of it is heard, how it ends.

neko has no error messages: what cannot be understood is passed over. What only moves pixels would
come too often to look at each, so such input is heard a few times a second.

Not here: who is at the other end (``visit``), how it comes in (``socket``).
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn, TypeVar

from msgspec import MsgspecError
from msgspec.json import decode
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.connections.lifecycle import ClientClosed, ConnectionEnded, ServerClose, TaskConnection
from gateway.core.errors import CloseCode
from gateway.core.model import Cause
from gateway.dialects.neko.render import HEARTBEAT, event
from gateway.dialects.neko.schema import ClientEvent, Notice
from gateway.dialects.neko.service import Service

HEARTBEAT_S: Final = 10.0  # between two heartbeats; neko's constant
GOODBYE_S: Final = 1.0  # for the last message to leave
DONE_S: Final = 3.0  # for what a client said before it left
TOLD_S: Final = 1.0  # for the server to say how a connection ended that cannot be written
INBOX_MAX: Final = 256  # messages read and not handled
BURST_S: Final = 2.0  # seconds' worth of messages that may come at once
INPUT_EVERY_S: Final = 0.25  # between two inputs (a mouse moves 60 times a second) that are heard
CLEAN: Final = (1000, 1001)  # close codes that are announced at once
SERVICE_RESTART: Final = 1012  # what uvicorn says for us when it stops

HEARD: Final = ("control/", "send/", "system/logs")  # events that mean something here
INPUT: Final = tuple(
    f"control/{kind}"
    for kind in (
        *("move", "scroll", "button", "key", "touch"),
        *("cut", "copy", "paste", "select_all"),
    )
)

T = TypeVar("T")

log = logging.getLogger(__name__)


class Farewell(ConnectionEnded):
    """The connection ends and the client is told why; it does not come back by itself.

    Args:
        message: What it is told.
        cause: What the record shall say.
    """

    def __init__(self, message: str, cause: Cause = "kicked") -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause


class NekoLine(TaskConnection):
    """One WebSocket: sends messages, hears what means something."""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        context = service.context
        super().__init__(context.connections.chance, HEARTBEAT_S * 2)  # its own beat is never due
        self.inbox: asyncio.Queue[ClientEvent] = asyncio.Queue(INBOX_MAX)
        self.on_message: Callable[[], None] = _nothing
        self._websocket = websocket
        self._per_s = context.settings.messages_per_s
        self._credit = self._per_s * BURST_S
        self._credit_at_s = self._loop.time()
        self._input_at_s = 0.0

    async def beat(self) -> None:
        """Send neko's heartbeat every ten seconds, whatever else is said."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self.send(HEARTBEAT)

    async def _write(self, data: bytes) -> None:
        try:
            await self._websocket.send({"type": "websocket.send", "text": data.decode()})
        except (WebSocketDisconnect, RuntimeError):
            await asyncio.sleep(TOLD_S)  # _listen hears how it ended and cancels this
            raise ClientClosed("lost") from None

    async def _listen(self) -> NoReturn:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                with suppress(TimeoutError):
                    async with asyncio.timeout(DONE_S):
                        await self.inbox.join()
                raise ClientClosed(_cause(message))
            said = understood(message.get("text") or message.get("bytes") or b"", ClientEvent)
            if said is None:
                continue
            self.on_message()
            if said.event.startswith(HEARD) and not self._is_too_soon(said):
                self._spend()
                self.inbox.put_nowait(said)

    def _is_too_soon(self, said: ClientEvent) -> bool:
        if not said.event.startswith(INPUT):
            return False
        now_s = self._loop.time()
        if now_s - self._input_at_s < INPUT_EVERY_S:
            return True
        self._input_at_s = now_s
        return False

    def _spend(self) -> None:
        now_s = self._loop.time()
        earned = (now_s - self._credit_at_s) * self._per_s
        self._credit = min(self._per_s * BURST_S, self._credit + earned) - 1
        self._credit_at_s = now_s
        if self._credit < 0 or self.inbox.full():
            raise ServerClose(CloseCode.RATE_LIMITED, "rate_limited", self.reconnect_after_ms())

    async def say_goodbye(self, message: str) -> None:
        """Tell the client why it ends, if it can still be told."""
        data = event("system/disconnect", Notice(message)).decode()
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._websocket.send({"type": "websocket.send", "text": data})
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            return


def understood(data: str | bytes, kind: type[T]) -> T | None:
    """Return what a client said; nothing if it cannot be understood: neko has no answer to it."""
    try:
        return decode(data, type=kind)
    except (MsgspecError, ValueError, RecursionError):
        log.debug("a client said something that cannot be read")
        return None


def _cause(message: Message) -> Cause:
    code = message.get("code")
    if code == SERVICE_RESTART and "reason" not in message:
        return "server"
    return "clean" if code in CLEAN else "lost"


def _nothing() -> None:
    return None
