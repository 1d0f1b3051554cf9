"""Connection: one WebSocket of any product from its handshake to its end.

The connection was taken over from the server: input arrives by method calls, and output is written
at once. So an idle connection costs no task and no coroutine; a task runs only while the handling
of a message waits.

``connection_state`` has the states and transitions. How a connection ends is decided once, by the
first caller that ends it.

Not here: admission (``handshake``), the content of messages (a product's codec and handler).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from gateway.connections.journal import ConnectionJournal
from gateway.connections.lifecycle import (
    ClientClosed,
    ConnectionEnded,
    LiveConnection,
    ServerClose,
    close_cause,
)
from gateway.connections.registry import ConnectionRegistry
from gateway.core.errors import CloseCode, RateLimited
from gateway.core.frames import Writer
from gateway.core.token_bucket import BURST_S, TokenBucket
from gateway.logs.request import current
from gateway.metrics import OVERFLOWS
from gateway.node import Push
from gateway.realtime.codec import Codec, HeartbeatRule, SocketHandler
from gateway.realtime.connection_state import ConnectionState, Transition, next_state

DONE_WITHIN_S: Final = 3.0  # to handle what a client sent before it left; a write is done by then
ANSWERED_WITHIN_S: Final = 1.0  # the last answer leaves before our close, if it does so in time
INBOX_MAX: Final = 256  # messages that wait to be handled; the rate limit and outages cause fewer
INBOX_MAX_BYTES: Final = 256 * 1024  # of them; four of the longest
SENT_MAX_BYTES: Final = 1 << 20  # unsent to a client that takes nothing; then it is too slow (4002)
REASON_MAX_BYTES: Final = 123  # of a close frame (RFC 6455 section 5.5)

M = TypeVar("M")


class WebSocketConnection(LiveConnection, Generic[M]):
    """One WebSocket.

    Args:
        writer: The connection below the messages.
        registry: All connections of this process.
        make_codec: Makes the codec of this connection.
        journal: What the log tells of it.
        heartbeat: When it is checked and sends a heartbeat.
        messages_per_s: Messages that the client may send a second, ``BURST_S`` times as many at
            once; one more ends it (4006).
    """

    __slots__ = (
        "_bucket",
        "_ended",
        "_final_frames",
        "_handler",
        "_heard_at_s",
        "_heartbeat_rule",
        "_inbox",
        "_inbox_bytes",
        "_is_working",
        "_messages_per_s",
        "_registry",
        "_sent_bytes",
        "_silence_timer",
        "_state",
        "_tasks",
        "_writable",
        "_writer",
        "codec",
        "journal",
    )

    def __init__(
        self,
        writer: Writer,
        registry: ConnectionRegistry,
        make_codec: "Callable[[WebSocketConnection[M]], Codec[M]]",
        *,
        journal: ConnectionJournal,
        heartbeat: HeartbeatRule,
        messages_per_s: float,
    ) -> None:
        super().__init__(registry.chance, heartbeat.interval_s, registry.loop)
        self.journal = journal
        self._writer = writer
        self._registry = registry
        self._heartbeat_rule = heartbeat
        self._messages_per_s = messages_per_s
        self._state = ConnectionState.CONNECTING
        self._handler: SocketHandler[M] | None = None
        self._inbox: list[tuple[M, int]] = []  # with the size of each
        self._inbox_bytes = 0  # at least the number of characters
        self._sent_bytes = 0  # since the buffer was writable last
        self._is_working = False
        self._writable: asyncio.Event | None = None  # the handling task waits for it
        self._ended: ConnectionEnded | None = None  # how it ends, once that is decided
        self._final_frames = b""  # to be sent with the close
        self._tasks: set[asyncio.Task[None]] | None = None
        self._bucket: TokenBucket | None = None  # made by the first message; many send none
        self._heard_at_s = self._sent_at_s
        self._silence_timer: asyncio.TimerHandle | None = None
        self.codec = make_codec(self)

    @property
    def state(self) -> ConnectionState:
        """The state of the connection."""
        return self._state

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended, so that output is discarded."""
        return self._state is ConnectionState.CLOSED

    def _move(self, transition: Transition) -> None:
        self._state = next_state(self._state, transition)

    # --- output

    @property
    def is_full(self) -> bool:
        """Whether the write buffer is full, so that output that can wait should wait."""
        return self._writer.is_full

    @property
    def push(self) -> Push:
        """What a channel writes by, past all this: see ``SocketHandler.last_sent_at_s``."""
        return self._writer.write

    def write(self, data: bytes) -> bool:
        """Send whole frames; return whether the client keeps up.

        While the connection waits for its last answer they are kept, to leave with the close.
        """
        if self._state is ConnectionState.CLOSING:
            if isinstance(self._ended, ServerClose):
                self._final_frames += data
            return True
        self._sent_at_s = self._loop.time()
        return self._writer.write(data)

    def send(self, data: bytes) -> None:
        """Send whole frames that cannot wait, but are bounded; may be empty."""
        if data and not self.write(data):
            self._sent_bytes += len(data)
            if self._sent_bytes > SENT_MAX_BYTES:
                OVERFLOWS.labels("said").inc()
                self.end(self.too_slow())

    def probe(self, answered: Callable[[], None]) -> None:
        """Ping the client now; *answered* is called when it has answered, if it does."""
        self._writer.probe(answered)

    def _last_sent_at_s(self) -> float:
        if not self._heartbeat_rule.in_silence:
            return 0.0  # a beat is due each time
        past_s = 0.0 if self._handler is None else self._handler.last_sent_at_s()
        return max(self._sent_at_s, past_s)

    def _on_heartbeat(self, *, is_due: bool) -> None:
        if self._handler is None:
            return
        try:
            data = self._handler.heartbeat()
        except Exception as error:  # noqa: BLE001 - the top of a timer; logged if unforeseen
            self.end(self.closing_of(error))
            return
        if data and is_due:
            self.write(data)

    # --- input: core.frames.Listener

    def on_message(self, message: str | bytes) -> None:
        """The client sent a message."""
        if self._ended is not None:
            return
        now_s = self._heard_at_s = self._loop.time()
        try:
            received = self.codec.receive(message)
        except Exception as error:  # noqa: BLE001 - who calls must go on; logged if unforeseen
            self.end(self.closing_of(error))
            return
        if received is None:
            return
        if self._bucket is None:
            per_s = self._messages_per_s
            self._bucket = TokenBucket(per_s, per_s * BURST_S, now_s)
        self._inbox_bytes += len(message)
        is_full = len(self._inbox) >= INBOX_MAX or self._inbox_bytes > INBOX_MAX_BYTES
        if not self._bucket.take(now_s) or is_full:
            self.end(
                ServerClose(
                    CloseCode.RATE_LIMITED,
                    RateLimited.code,
                    self.reconnect_after_ms(),
                    detail=RateLimited.title,
                )
            )
            return
        self._inbox.append((received, len(message)))
        if self._state is ConnectionState.OPEN:
            self._work_on()

    def on_writable(self) -> None:
        """The write buffer drained below the low-water mark."""
        self._sent_bytes = 0
        if self._writable is not None:
            self._writable.set()
        if self._handler is not None and self._state is ConnectionState.OPEN:
            self._handler.on_writable()

    def on_close(self, code: int, reason: str | None) -> None:
        """The client or the network ended the connection; earlier messages are still handled."""
        ended = ClientClosed(close_cause(code, reason), code)
        if self._is_working or self._inbox:
            self._close_within(ended, DONE_WITHIN_S)
        else:
            self.end(ended)

    # --- handling

    def _work_on(self) -> None:
        if self._inbox and self._handler is not None and not self._is_working:
            self._is_working = True
            self.spawn(self._work(self._handler))

    def _request_facts(self) -> dict[str, str | None]:
        return {"request_id": self.journal.mark.request_id, "trace_id": self.journal.mark.trace_id}

    async def _work(self, handler: SocketHandler[M]) -> None:
        current.set(self.journal.mark)
        while self._inbox and not isinstance(self._ended, ServerClose):
            if self._writer.is_full and self._ended is None:
                self._writable = asyncio.Event()
                await self._writable.wait()
                self._writable = None
                continue  # it may have waited for its end
            message, size = self._inbox.pop(0)
            self._inbox_bytes -= size
            await handler.handle(message)
        self._is_working = False
        if self._state is ConnectionState.CLOSING:
            self._finish()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run *work* while the connection lives; an exception in it ends the connection."""
        if self._state is ConnectionState.CLOSED:
            work.close()
            return None
        task = self._registry.spawn(work)
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if self._tasks is not None:
            self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.end(self.closing_of(error))

    # --- life

    def bind(self, handler: SocketHandler[M] | None) -> None:
        """Set the handler, which serves the client from :meth:`start` on and gets its end."""
        self._handler = handler

    def start(self) -> None:
        """Serve the client from now on, including what it sent before."""
        self._move(Transition.START)
        self.journal.opened(self._loop.time())
        if self._state is ConnectionState.OPEN:
            self.start_heartbeat()
            if self._heartbeat_rule.silence_s is not None:
                self._check_silence(self._heartbeat_rule.silence_s)
            self._work_on()
        elif self._inbox and isinstance(self._ended, ClientClosed):
            self._work_on()
        else:
            self._finish()

    def _check_silence(self, silence_s: float) -> None:
        """End the connection if the client was silent for too long; else check again later."""
        left_s = self._heard_at_s + silence_s - self._loop.time()
        if left_s <= 0:
            reconnect_ms = self.reconnect_after_ms()
            self.end(ServerClose(CloseCode.NO_HEARTBEAT, "no_heartbeat", reconnect_ms))
        else:
            self._silence_timer = self._loop.call_later(left_s, self._check_silence, silence_s)

    def end_after_answer(self, ended: ServerClose) -> None:
        """End with *ended* after the answer to the current message, if it comes in time."""
        if self._is_working:
            self._close_within(ended, ANSWERED_WITHIN_S)
        else:
            self.end(ended)

    def _close_within(self, ended: ConnectionEnded, within_s: float) -> None:
        if self._decide(ended):
            self._loop.call_later(within_s, self.end, ended)
            if self._writable is not None:
                self._writable.set()

    def _decide(self, ended: ConnectionEnded) -> bool:
        """Set how the connection ends; return whether that was still undecided."""
        if self._ended is not None:
            return False
        self._ended = ended
        self._move(Transition.CLOSE)
        return True

    def end(self, ended: ConnectionEnded) -> None:
        """End at once; the first call decides how.

        A connection whose handshake is not over ends when that has come to its end.
        """
        match self._state:
            case ConnectionState.CONNECTING:
                self._decide(ended)
                self._inbox.clear()
            case ConnectionState.ABANDONED:
                self._inbox.clear()
            case ConnectionState.OPEN | ConnectionState.CLOSING:
                self._ended = self._ended or ended
                self._finish()
            case ConnectionState.CLOSED:
                pass

    def refuse(self, ended: ConnectionEnded) -> None:
        """End a connection whose handshake failed, unless somebody ended it otherwise before."""
        if self._state is not ConnectionState.CLOSED:
            self._ended = self._ended or ended
            self._finish()

    def _finish(self) -> None:
        self._move(Transition.FINISH)
        ended = self._ended
        assert ended is not None  # noqa: S101 - decided before, see the callers
        self.journal.ended(ended, self._loop.time())
        self.stop_timers()  # a connection that ended before its start may have timers since
        self._inbox.clear()
        try:
            if isinstance(ended, ServerClose):
                self._send_close(ended)
            for task in self._tasks or ():
                if task is not asyncio.current_task():
                    task.cancel()
        finally:
            if self._handler is None:
                self.release()
            else:
                self._handler.on_end(ended)

    def _send_close(self, ended: ServerClose) -> None:
        frames = self.codec.close(ended)
        reason = frames.reason.encode()[:REASON_MAX_BYTES].decode(errors="ignore")
        self._writer.close(frames.code, reason, self._final_frames + frames.last)

    def stop_timers(self) -> None:
        """Stop the heartbeat and the expiry."""
        super().stop_timers()
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None

    def release(self) -> None:
        """Leave the registry: nothing more has to be done for this connection."""
        self._handler = None  # which holds this: no work for the garbage collector
        self._registry.remove(self)
