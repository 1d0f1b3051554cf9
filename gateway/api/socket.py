"""Socket: what every native WebSocket does.

A :class:`Socket` is a line that also listens, with limits on how much and how much nonsense.

How a connection ended is told by the transport: a close frame with a reason key, even if empty; a
broken connection without one.

Not here: who may come in (``handshake``), what is said (``presence``, ``events``).
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NoReturn

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.core.errors import (
    BadRequest,
    CloseCode,
    GatewayError,
    Invalid,
)
from gateway.core.model import Cause
from gateway.core.protocol import Ack, ClientMessage, Error, FromServer, parse, render
from gateway.lines import CLOSE_WITHIN_S, Ended, Goodbye, Left, Line

TOLD_WITHIN_S: Final = 1.0  # for the server to say how a connection ended that cannot be written
DONE_WITHIN_S: Final = 3.0  # for what a client said before it left; a write is known by then
BURST_S: Final = 2.0  # seconds' worth of messages that may come at once
INBOX_MAX: Final = 256  # messages read and not handled; more than rate and outages can pile up
ERRORS_MAX: Final = 10  # unreadable messages within ERRORS_S end the socket: its client is broken
ERRORS_S: Final = 10.0
UNSUPPORTED_DATA: Final = 1003  # RFC 6455 section 7.4.1: binary where text is spoken
NO_STATUS: Final = 1005  # RFC 6455 section 7.4.1: a close frame without a code
SERVICE_RESTART: Final = 1012  # what uvicorn says for us when it stops

_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # escaped NUL, but no escaped backslash
_CLEAN: Final = (1000, 1001)  # RFC 6455 section 7.4.1: done; going away, as a page reload does

Handle = Callable[[ClientMessage], Awaitable[int | None]]
"""Does what a message asks; returns the revision for its ``ack``, or raises a GatewayError."""


class Socket(Line):
    """One WebSocket, after its handshake.

    Messages are read as fast as they come, because a server that does not read sees no pong
    either, and handled one after the other; each is answered with ``ack`` or ``error``.

    Args:
        websocket: The connection.
        chance: See :class:`Line`.
        heartbeat_s: See :class:`Line`.
        messages_per_s: How many the client may send, ``BURST_S`` times as many at once.
    """

    def __init__(
        self,
        websocket: WebSocket,
        chance: Callable[[], float],
        *,
        heartbeat_s: float,
        messages_per_s: float,
    ) -> None:
        super().__init__(chance, heartbeat_s)
        self.speaking = asyncio.Lock()  # held from reading a message until it is answered
        self._websocket = websocket
        self._handle: Handle | None = None
        self._inbox: deque[str] = deque()
        self._is_working = False
        self._gone = asyncio.Event()  # the client is: nobody hears what is said
        self._idle = asyncio.Event()  # everything that was read is handled
        self._idle.set()
        self._per_s = messages_per_s
        self._credit = messages_per_s * BURST_S
        self._credit_at_s = self._loop.time()
        self._errors: deque[float] = deque(maxlen=ERRORS_MAX)
        self._is_closed = False

    async def say(self, message: FromServer) -> None:
        """Send a message; raises as :meth:`send`."""
        await self.send(render(message))

    def begin(self, handle: Handle) -> None:
        """Handle what the client says from now on, and what it said before."""
        self._handle = handle
        self._work_on()

    async def close(self, ended: Ended) -> None:
        """Say goodbye and close, unless the client has done that; takes ``CLOSE_WITHIN_S``."""
        if self._is_closed or not isinstance(ended, Goodbye):
            return
        self._is_closed = True
        reason = ended.reason.encode()[:120].decode(errors="ignore")  # RFC 6455 section 5.5: 123
        closing = {"type": "websocket.close", "code": int(ended.code), "reason": reason}
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._websocket.send(_text(render(ended.message)))
                await self._websocket.send(closing)
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            return

    async def _write(self, data: bytes) -> None:
        if self._gone.is_set():
            return
        try:
            await self._websocket.send(_text(data))
        except (WebSocketDisconnect, RuntimeError):  # the latter after uvicorn closed by itself
            try:
                async with asyncio.timeout(TOLD_WITHIN_S):
                    await self._gone.wait()  # _listen hears how it ended
            except TimeoutError:
                raise Left("lost") from None

    async def _listen(self) -> NoReturn:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                self._gone.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(DONE_WITHIN_S):
                        await self._idle.wait()
                raise Left(_cause(message))
            text: str | None = message.get("text")
            if text is None:
                raise Goodbye(UNSUPPORTED_DATA, "binary")
            self._spend()
            self._inbox.append(text)
            self._idle.clear()
            self._work_on()

    def _spend(self) -> None:
        now_s = self._loop.time()
        earned = (now_s - self._credit_at_s) * self._per_s
        self._credit = min(self._per_s * BURST_S, self._credit + earned) - 1
        self._credit_at_s = now_s
        if self._credit < 0 or len(self._inbox) >= INBOX_MAX:
            raise Goodbye(CloseCode.RATE_LIMITED, "rate_limited", self.away_ms())

    def _work_on(self) -> None:
        if self._inbox and self._handle is not None and not self._is_working:
            self._is_working = True
            self.spawn(self._work(self._handle))

    async def _work(self, handle: Handle) -> None:
        while self._inbox:
            async with self.speaking:
                await self._answer(self._inbox.popleft(), handle)
        self._is_working = False
        self._idle.set()

    async def _answer(self, text: str, handle: Handle) -> None:
        ref: str | None = None
        try:
            message = parse(text)
            if message is None:
                return
            ref = message.ref
            if _NUL.search(text):
                raise Invalid("A text in the message holds NUL.")
            revision = await handle(message)
        except GatewayError as error:
            ref = ref or error.extra.get("ref")
            await self.say(Error(code=error.code, message=error.detail, ref=ref))
            self._count(error)
        else:
            await self.say(Ack(ref=ref, revision=revision))

    def _count(self, error: GatewayError) -> None:
        """Count messages that cannot be understood; being refused is not the client's fault."""
        if not isinstance(error, BadRequest | Invalid):
            return
        now_s = self._loop.time()
        self._errors.append(now_s)
        if len(self._errors) == ERRORS_MAX and now_s - self._errors[0] < ERRORS_S:
            raise Goodbye(CloseCode.BAD_REQUEST, "bad_request")


def _text(data: bytes) -> Message:
    return {"type": "websocket.send", "text": data.decode()}


def _cause(message: Message) -> Cause:
    """Return how a connection ended, as far as the server tells; see the module's docstring."""
    code: int = message.get("code") or NO_STATUS
    told = "reason" in message
    if code == SERVICE_RESTART and not told:
        return "server"
    return "clean" if code in _CLEAN or (code == NO_STATUS and told) else "lost"
