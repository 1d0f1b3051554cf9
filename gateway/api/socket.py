"""Socket: what every native WebSocket does.

A :class:`Socket` has taken its connection over from the server: what the client says reaches it by
a plain call, and what it says is written at once. So an idle socket costs no task and no
coroutine; a task works only while there is something to do that waits.

How a connection ended is told by the transport: a close frame with its reason, even if empty; a
broken connection without one.

Not here: who may come in (``handshake``), what is said (``presence``, ``events``).
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from gateway.connections.lifecycle import ClientClosed, ConnectionEnded, LiveConnection, ServerClose
from gateway.connections.registry import ConnectionRegistry
from gateway.core.errors import (
    BadRequest,
    CloseCode,
    GatewayError,
    Invalid,
)
from gateway.core.frames import TEXT, Writer, frame
from gateway.core.model import Cause
from gateway.core.protocol import Ack, ClientMessage, Error, FromServer, parse, render
from gateway.live.channel import Push
from gateway.metrics import OVERFLOWS

DONE_WITHIN_S: Final = 3.0  # for what a client said before it left; a write is known by then
ANSWERED_WITHIN_S: Final = 1.0  # the last answer leaves before the goodbye, if it does so in time
BURST_S: Final = 2.0  # seconds' worth of messages that may come at once
INBOX_MAX: Final = 256  # messages read and not handled; more than rate and outages can pile up
INBOX_MAX_BYTES: Final = 256 * 1024  # of them; four of the longest
SAID_MAX_BYTES: Final = 1 << 20  # said to a client that has no room; then it is too slow
ERRORS_MAX: Final = 10  # unreadable messages within ERRORS_S end the socket: its client is broken
ERRORS_S: Final = 10.0
UNSUPPORTED_DATA: Final = 1003  # RFC 6455 section 7.4.1: binary where text is spoken
NO_STATUS: Final = 1005  # RFC 6455 section 7.4.1: a close frame without a code
SERVICE_RESTART: Final = 1012  # what the transport says when this process stops

_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # escaped NUL, but no escaped backslash
_CLEAN: Final = (1000, 1001)  # RFC 6455 section 7.4.1: done; going away, as a page reload does
_FROM_HERE: Final = (CloseCode.TOO_SLOW, SERVICE_RESTART)  # our doing, not the client's

log = logging.getLogger(__name__)


class SocketHandler(Protocol):
    """Whose socket it is, once it is let in."""

    async def handle(self, message: ClientMessage) -> int | None:
        """Do what a message asks; return the revision for its ``ack``, or raise a GatewayError."""
        ...

    def heartbeat(self) -> bytes:
        """Return what is sent in silence; raises ``ConnectionEnded`` if the socket may not stay."""
        ...

    def on_writable(self) -> None:
        """Take that the client takes more again."""
        ...

    def last_sent_at_s(self) -> float:
        """Return when something was written past the socket last, by the loop's time."""
        ...

    def left(self, ended: ConnectionEnded) -> None:
        """Let go of everything, and then of the socket (``release``): it is over."""
        ...


class Socket(LiveConnection):
    """One WebSocket, from its handshake to its end.

    Messages are handled one after the other; each is answered with ``ack`` or ``error``.

    Args:
        writer: The connection.
        sockets: All of this process.
        number: Tells it apart in logs.
        heartbeat_s: See :class:`LiveConnection`.
        messages_per_s: How many the client may send, ``BURST_S`` times as many at once.
    """

    __slots__ = (
        "_closing",
        "_credit",
        "_credit_at_s",
        "_ended",
        "_errors",
        "_final_frame",
        "_handler",
        "_inbox",
        "_inbox_bytes",
        "_is_working",
        "_per_s",
        "_said_bytes",
        "_sockets",
        "_tasks",
        "_waiting",
        "_writer",
        "number",
    )

    def __init__(
        self,
        writer: Writer,
        sockets: ConnectionRegistry,
        *,
        number: int,
        heartbeat_s: float,
        messages_per_s: float,
    ) -> None:
        super().__init__(sockets.chance, heartbeat_s, sockets.loop)
        self.number = number
        self._writer = writer
        self._sockets = sockets
        self._handler: SocketHandler | None = None
        self._inbox: list[str] = []
        self._inbox_bytes = 0  # as many as the characters, at least
        self._said_bytes = 0  # since there was room last
        self._is_working = False
        self._waiting: asyncio.Event | None = None  # who works waits for room
        self._closing: ConnectionEnded | None = None  # how it ends when what was asked is done
        self._final_frame = b""  # to be sent with the goodbye
        self._ended: ConnectionEnded | None = None
        self._tasks: set[asyncio.Task[None]] | None = None
        self._per_s = messages_per_s
        self._credit = messages_per_s * BURST_S
        self._credit_at_s = self._loop.time()
        self._errors: deque[float] | None = None

    # --- what it says

    @property
    def is_over(self) -> bool:
        """Whether it has ended: what is said is not heard."""
        return self._ended is not None

    @property
    def is_full(self) -> bool:
        """Whether the client is so far behind that what can wait should wait."""
        return self._writer.is_full

    def say(self, message: FromServer) -> None:
        """Send a message; one that is over says nothing.

        What a channel has for the client waits for room; this cannot, and so it is bounded.
        """
        data = frame(TEXT, render(message))
        if not self.write(data):
            self._said_bytes += len(data)
            if self._said_bytes > SAID_MAX_BYTES:
                OVERFLOWS.labels("said").inc()
                self.end(ServerClose(CloseCode.TOO_SLOW, "too_slow", self.reconnect_after_ms()))

    def write(self, data: bytes) -> bool:
        """Send a frame; return whether the client keeps up."""
        self._sent_at_s = self._loop.time()
        return self._writer.write(data)

    @property
    def push(self) -> Push:
        """What a channel writes by, past all this: see ``SocketHandler.told_at_s``."""
        return self._writer.write

    def _last_sent_at_s(self) -> float:
        told_at_s = 0.0 if self._handler is None else self._handler.last_sent_at_s()
        return max(self._sent_at_s, told_at_s)

    def _on_heartbeat(self, *, is_due: bool) -> None:
        if self._handler is None:
            return
        try:
            data = self._handler.heartbeat()
        except ConnectionEnded as ended:
            self.end(ended)
            return
        if is_due:
            self.write(frame(TEXT, data))

    # --- what it hears: core.frames.Listener

    def on_message(self, message: str | bytes) -> None:
        """Take what the client said."""
        if self._ended is not None or self._closing is not None:
            return
        if isinstance(message, bytes):
            self.end(ServerClose(UNSUPPORTED_DATA, "binary"))
            return
        now_s = self._loop.time()
        earned = (now_s - self._credit_at_s) * self._per_s
        self._credit = min(self._per_s * BURST_S, self._credit + earned) - 1
        self._credit_at_s = now_s
        self._inbox_bytes += len(message)
        is_full = len(self._inbox) >= INBOX_MAX or self._inbox_bytes > INBOX_MAX_BYTES
        if self._credit < 0 or is_full:
            self.end(ServerClose(CloseCode.RATE_LIMITED, "rate_limited", self.reconnect_after_ms()))
            return
        self._inbox.append(message)
        self._work_on()

    def on_writable(self) -> None:
        """Take that the client takes more again."""
        self._said_bytes = 0
        if self._waiting is not None:
            self._waiting.set()
        if self._handler is not None and self._ended is None:
            self._handler.on_writable()

    def on_close(self, code: int, reason: str | None) -> None:
        """Take that the connection is over; what the client said before is still done."""
        ended = ClientClosed(_cause(code, reason))
        if self._is_working or self._inbox:
            self._part(ended, DONE_WITHIN_S)
        else:
            self.end(ended)

    # --- what is asked of it

    def _work_on(self) -> None:
        if self._inbox and self._handler is not None and not self._is_working:
            self._is_working = True
            self.spawn(self._work(self._handler))

    async def _work(self, guest: SocketHandler) -> None:
        while self._inbox and self._ended is None and not isinstance(self._closing, ServerClose):
            if self._writer.is_full and self._closing is None:
                self._waiting = asyncio.Event()
                await self._waiting.wait()
                self._waiting = None
                continue  # what it waited for may be its end
            text = self._inbox.pop(0)
            self._inbox_bytes -= len(text)
            await self._answer(text, guest)
        self._is_working = False
        if self._closing is not None:
            self.end(self._closing)

    async def _answer(self, text: str, guest: SocketHandler) -> None:
        ref: str | None = None
        try:
            message = parse(text)
            if message is None:
                return
            ref = message.ref
            if _NUL.search(text):
                raise Invalid("A text in the message holds NUL.")
            revision = await guest.handle(message)
        except GatewayError as error:
            ref = ref or error.extra.get("ref")
            self.say(Error(code=error.code, message=error.detail, ref=ref))
            self._count(error)
        else:
            answer = Ack(ref=ref, revision=revision)
            if isinstance(self._closing, ServerClose):
                self._final_frame = frame(TEXT, render(answer))  # one write with the goodbye
            else:
                self.say(answer)

    def _count(self, error: GatewayError) -> None:
        """Count messages that cannot be understood; being refused is not the client's fault."""
        if not isinstance(error, BadRequest | Invalid):
            return
        if self._errors is None:
            self._errors = deque(maxlen=ERRORS_MAX)
        now_s = self._loop.time()
        self._errors.append(now_s)
        if len(self._errors) == ERRORS_MAX and now_s - self._errors[0] < ERRORS_S:
            raise ServerClose(CloseCode.BAD_REQUEST, "bad_request")

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Do *work* as long as the socket lives; what it raises ends the socket."""
        if self._ended is not None:
            work.close()
            return None
        task = self._sockets.spawn(work)
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._tasks is not None:
            self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.end(self.ending(error))

    def ending(self, error: Exception) -> ConnectionEnded:
        """Return the end that *error* means; one that nobody foresaw is logged."""
        if isinstance(error, ConnectionEnded):
            return error
        if isinstance(error, GatewayError):
            return ServerClose.from_error(error, self.reconnect_after_ms())
        log.error("socket %d failed", self.number, exc_info=error)
        return ServerClose(CloseCode.SERVER_ERROR, "internal", self.reconnect_after_ms())

    # --- its life

    def begin(self, guest: SocketHandler) -> None:
        """Serve *guest* from now on, also what the client said before."""
        self._handler = guest
        if self._ended is not None:  # it left meanwhile, or was sent away
            self._leave(guest, self._ended)
            return
        self.start_heartbeat()
        self._work_on()

    def end_after_answer(self, goodbye: ServerClose) -> None:
        """End as *goodbye* says, after the answer to what is being done, if it comes in time."""
        if self._is_working:
            self._part(goodbye, ANSWERED_WITHIN_S)
        else:
            self.end(goodbye)

    def _part(self, ended: ConnectionEnded, within_s: float) -> None:
        if self._closing is None:
            self._closing = ended
            self._loop.call_later(within_s, self.end, ended)
        if self._waiting is not None:
            self._waiting.set()

    def end(self, ended: ConnectionEnded) -> None:
        """End at once, with a goodbye if it is ours; the first one to say so decides how.

        A socket whose guest is not let in yet ends when the handshake has come to its end.
        """
        if self._ended is not None:
            return
        self._ended = ended
        if self._handler is not None:
            self._leave(self._handler, ended)

    def _leave(self, guest: SocketHandler, ended: ConnectionEnded) -> None:
        log.info("socket %d: %r", self.number, ended)
        self.stop_timers()  # one that ended before it began may have got some since
        self._inbox.clear()
        try:
            self._say_goodbye(ended)
            for task in self._tasks or ():
                if task is not asyncio.current_task():
                    task.cancel()
        finally:
            guest.left(ended)

    def refuse(self, ended: ConnectionEnded) -> None:
        """End a socket that had no guest, as *ended* says unless somebody said otherwise."""
        if self._ended is None:
            self._ended = ended
        self.stop_timers()
        log.info("socket %d: %r", self.number, self._ended)
        self._say_goodbye(self._ended)
        self.release()

    def release(self) -> None:
        """Count as a socket no more: nothing has to be done for it."""
        self._sockets.remove(self)

    def _say_goodbye(self, ended: ConnectionEnded) -> None:
        if isinstance(ended, ServerClose):
            reason = ended.reason.encode()[:120].decode(errors="ignore")  # RFC 6455 section 5.5
            told = self._final_frame + frame(TEXT, render(ended.message))
            self._writer.close(int(ended.code), reason, told)


def _cause(code: int, reason: str | None) -> Cause:
    """Return what the record shall say; see the module's docstring."""
    if code in _FROM_HERE and reason is None:
        return "server"
    return "clean" if code in _CLEAN or (code == NO_STATUS and reason is not None) else "lost"
