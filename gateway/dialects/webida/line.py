"""Line: a WebSocket that speaks Engine.IO: what is heard, how long it may be silent, how it ends.

A client of Socket.IO comes back by itself after every end but one: when the server disconnects it
from its namespace. So that is said when it shall stay away, and nothing when it shall come back.

In this protocol the client pings. Who said nothing for the time between two pings and the time that
one may take is gone.

Not here: the protocol (``engineio``), what is said (``visit``).
"""

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.connections.lifecycle import (
    CLOSE_WITHIN_S,
    ClientClosed,
    ConnectionEnded,
    ServerClose,
    TaskConnection,
)
from gateway.context import Context
from gateway.core.errors import CloseCode
from gateway.core.model import Cause
from gateway.dialects.webida.engineio import EngineSocket, Joining, Sign

BURST_S: Final = 2.0  # seconds' worth of messages that may come at once
TOLD_WITHIN_S: Final = 1.0  # for the server to say how a connection ended that cannot be written
CLEAN: Final = (1000, 1001)  # RFC 6455 section 7.4.1: done; going away, as a page reload does
NO_STATUS: Final = 1005  # RFC 6455 section 7.4.1: a close frame without a code
SERVICE_RESTART: Final = 1012  # what uvicorn says for us when it stops
BELOW: Final = "gateway.frames"  # the extension of our transport


class Refused(ServerClose):
    """The client may not come in; ``reason`` is what it is told."""

    def __init__(self, reason: str) -> None:
        super().__init__(CloseCode.FORBIDDEN, reason)


def _nothing() -> None:
    return


class EngineLine(TaskConnection):
    """One WebSocket that speaks Engine.IO.

    Args:
        websocket: The connection.
        context: The node and its surroundings.
        engine: Its protocol.
    """

    def __init__(self, websocket: WebSocket, context: Context, engine: EngineSocket) -> None:
        settings = context.settings
        super().__init__(context.connections.chance, settings.heartbeat_s)
        self.joined: asyncio.Future[Joining] = self._loop.create_future()
        self.on_said: Callable[[], None] = _nothing
        self._websocket = websocket
        self._engine = engine
        self._silence_s = settings.heartbeat_s + settings.pong_s
        self._timeout_ms = round(settings.pong_s * 1000)
        self._writing = asyncio.Lock()
        self._per_s = settings.messages_per_s
        self._credit = self._per_s * BURST_S
        self._credit_at_s = self._loop.time()

    async def open(self) -> None:
        """Begin the protocol; raises as :meth:`send`."""
        for heard in self._engine.open(self.heartbeat_ms, self._timeout_ms):
            if isinstance(heard, Joining):
                self.joined.set_result(heard)
        await self.flush()

    def probe(self, answered: Callable[[], None]) -> None:
        """Ping the client's WebSocket now; *answered* is called if it answers."""
        if (below := self._websocket.scope["extensions"].get(BELOW)) is not None:
            below["writer"].probe(answered)

    async def flush(self) -> None:
        """Send what the protocol has to say; raises as :meth:`send`."""
        async with self._writing:
            for text in self._engine.texts_to_send():
                await self.send(text.encode())

    async def close(self, ended: ConnectionEnded) -> None:
        """Close, unless the client has done that; takes ``CLOSE_WITHIN_S``."""
        if not isinstance(ended, ServerClose):
            return
        if isinstance(ended, Refused):
            self._engine.refuse(ended.reason)
        elif not ended.message.reconnect:
            self._engine.dismiss()
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                for text in self._engine.texts_to_send():
                    await self._websocket.send_text(text)
                await self._websocket.close(int(ended.code))
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            return

    async def _write(self, data: bytes) -> None:
        if not data:  # the beat: in this protocol it is the client that pings
            return
        try:
            await self._websocket.send({"type": "websocket.send", "text": data.decode()})
        except (WebSocketDisconnect, RuntimeError):
            await asyncio.sleep(TOLD_WITHIN_S)  # _listen hears how it ended and cancels this
            raise ClientClosed("lost") from None

    async def _listen(self) -> NoReturn:
        while True:
            text = await self._heard()
            self._spend()
            if text is None:
                continue  # binary: attachments of an event that means nothing here
            for heard in self._engine.receive(text):
                match heard:
                    case Joining():
                        self.joined.set_result(heard)
                    case Sign.SAID:
                        self.on_said()
                    case Sign.LEFT:
                        raise ClientClosed("clean")
            await self.flush()

    async def _heard(self) -> str | None:
        """Return what the client says next.

        Raises:
            Left: It went.
            Goodbye: It said nothing for so long that it must be gone.
        """
        try:
            async with asyncio.timeout(self._silence_s):
                message = await self._websocket.receive()
        except TimeoutError:
            raise ServerClose(
                CloseCode.NO_HEARTBEAT, "no_heartbeat", self.reconnect_after_ms()
            ) from None
        if message["type"] == "websocket.disconnect":
            raise ClientClosed(cause_of(message))
        text: str | None = message.get("text")
        return text

    def _spend(self) -> None:
        now_s = self._loop.time()
        earned = (now_s - self._credit_at_s) * self._per_s
        self._credit = min(self._per_s * BURST_S, self._credit + earned) - 1
        self._credit_at_s = now_s
        if self._credit < 0:
            raise ServerClose(CloseCode.RATE_LIMITED, "rate_limited", self.reconnect_after_ms())


def cause_of(message: Message) -> Cause:
    """Return how a connection ended; a broken one is told without a reason, as far as we know."""
    code: int = message.get("code") or NO_STATUS
    told = "reason" in message
    if code == SERVICE_RESTART and not told:
        return "server"
    return "clean" if code in CLEAN or (code == NO_STATUS and told) else "lost"
