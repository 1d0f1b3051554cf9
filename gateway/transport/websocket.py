"""WebSocket: one connection after its request, as ASGI messages and as raw frames.

Handshake and messages follow ASGI, denial responses included. The websockets library parses frames
and answers control frames; the handshake is ours, because the library's costs as much as all else.

Below the messages, ``scope["extensions"]["gateway.frames"]["writer"]`` is a
:class:`~gateway.core.frames.Writer`: frames made once are written to many connections. They mix
with ``websocket.send``. Once accepted, a connection may be *adopted* by a listener: then the
application returns, and an idle connection costs no task.

``websocket.disconnect`` has a ``reason`` only if the client sent a close frame, whose code it tells
(1005: none). Without one, ``code`` says what happened: 1006 the connection broke or was aborted;
1012 this server stops; 4002 the client took nothing; 4003 no frame came after a ping; any other:
the code of our own close frame, for a protocol violation or by the application.

Every wait for a client has a deadline: pings, the last fragment of a message, a full write buffer
and the close. After it the connection is aborted.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final

from starlette.types import ASGIApp, Message, Scope
from websockets.exceptions import ProtocolError
from websockets.protocol import OPEN

from gateway.core.errors import CloseCode
from gateway.core.frames import BINARY, POLICY_VIOLATION, TEXT, Listener, frame
from gateway.logs.request import mark_in
from gateway.transport.handshake import HandshakeRequest, switching
from gateway.transport.keepalive import Keepalive
from gateway.transport.limits import CLOSE_WITHIN_S, Limits
from gateway.transport.parser import Parser
from gateway.transport.receive_queue import NULL_LISTENER, ReceiveQueue
from gateway.transport.responses import FAILED, SHUTTING_DOWN, response
from gateway.transport.tcp import LingeringClose
from gateway.transport.uvicorn_internals import ClientDisconnected, ServerState
from gateway.transport.write_buffer import HIGH_WATER_BYTES, LOW_WATER_BYTES, WriteBuffer

EXTENSION: Final = "gateway.frames"
EARLY_MAX_BYTES: Final = 64 * 1024  # that come before the answer to the handshake

LOST: Final = 1006  # RFC 6455 section 7.4.1; IANA for the last
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012

log = logging.getLogger(__name__)

_Denial = tuple[int, list[tuple[bytes, bytes]], bytes]


class _Stage(Enum):
    ASKED = auto()  # the application has not responded to the handshake
    REFUSING = auto()  # it has begun an HTTP response instead
    OPEN = auto()
    CLOSING = auto()  # our close frame is sent; the client's has not come
    OVER = auto()  # nothing is sent any more


class WebSocket(WriteBuffer):
    """One WebSocket connection, made when the head of its request has been parsed.

    Args:
        request: The parsed request.
        transport: The connection.
        loop: Its event loop.
        state: uvicorn's list of all connections.
        limits: Limits of this connection.
    """

    __slots__ = (
        "_denial",
        "_early",
        "_end",
        "_headers",
        "_keepalive",
        "_limits",
        "_lingering_close",
        "_listener",
        "_loop",
        "_parser",
        "_request",
        "_stage",
        "_state",
        "_unfinished",
        "is_reading",
    )

    def __init__(
        self,
        request: HandshakeRequest,
        transport: asyncio.Transport,
        *,
        loop: asyncio.AbstractEventLoop,
        state: ServerState,
        limits: Limits,
    ) -> None:
        super().__init__(transport, limits.stalled_s)
        self.is_reading = True
        self._request: HandshakeRequest | None = request
        self._state = state
        self._limits = limits
        self._loop = loop
        self._stage = _Stage.ASKED
        self._early = b""
        self._denial: _Denial | None = None
        self._parser: Parser | None = None
        self._keepalive: Keepalive | None = None
        self._listener: Listener = ReceiveQueue()
        self._unfinished: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._lingering_close: LingeringClose | None = None

    def begin(self, app: ASGIApp, scope: Scope, early: bytes) -> None:
        """Start the application.

        Args:
            app: Who is asked.
            scope: Without ``extensions``.
            early: What came after the request.
        """
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: {"writer": self}}
        self._headers = [*self._state.default_headers, mark_in(scope).header]
        self._state.connections.add(self)  # type: ignore[arg-type]  # typed with uvicorn's own classes
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)
        if early:
            self.data_received(early)
        task = self._loop.create_task(self._run(app, scope))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        failed = False
        try:
            await app(scope, self.receive, self.send)
        except ClientDisconnected:  # the application wrote after the end
            pass
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception:
            log.exception("the application failed on a WebSocket")
            failed = True
        match self._stage:
            case _Stage.ASKED | _Stage.REFUSING:
                self._write_last(FAILED.response(self._headers))
            case _Stage.OPEN if failed:
                self.cut(INTERNAL_ERROR)
            case _Stage.OPEN if self._receive_queue:  # returned without a close: so does this
                self._write_last(b"")

    # --- the application's side

    async def receive(self) -> Message:
        """Return the next ASGI message; the last one is repeated."""
        if self._receive_queue is None:
            raise RuntimeError("This connection has been adopted.")
        message = await self._receive_queue.get()
        if not self.is_reading and not self._receive_queue.is_full:
            self._read_on()
        return message

    @property
    def _receive_queue(self) -> ReceiveQueue | None:
        """Messages that the application has not fetched; none once a listener has adopted."""
        return self._listener if isinstance(self._listener, ReceiveQueue) else None

    async def send(self, message: Message) -> None:
        """Send an ASGI message; waits while ``HIGH_WATER_BYTES`` are unsent.

        Raises:
            ClientDisconnected: The connection is over.
            RuntimeError: It is not the time for this message.
        """
        kind = message["type"]
        if kind == "websocket.send":
            await self.wait_writable()
        match self._stage, kind:
            case _Stage.OPEN, "websocket.send":
                text = message.get("text")
                op, data = (BINARY, message["bytes"]) if text is None else (TEXT, text.encode())
                self.write(frame(op, data))
            case _Stage.OPEN, "websocket.close":
                self._close(message.get("code") or 1000, message.get("reason") or "")
            case _Stage.ASKED, "websocket.accept":
                self._accept(message.get("subprotocol"), message.get("headers") or ())
            case _Stage.ASKED, "websocket.close":
                self._write_last(response(403, self._headers, b""))
            case _Stage.ASKED, "websocket.http.response.start":
                self._stage = _Stage.REFUSING
                self._denial = message["status"], [*self._headers, *message.get("headers", ())], b""
            case _Stage.REFUSING, "websocket.http.response.body" if self._denial:
                status, headers, body = self._denial
                self._denial = (status, headers, body + message.get("body", b""))
                if not message.get("more_body", False):
                    self._write_last(response(*self._denial))
            case _Stage.OVER, _:
                raise ClientDisconnected
            case stage, _:
                raise RuntimeError(f"{kind} cannot be sent: the WebSocket is {stage.name}")

    def _accept(self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> None:
        request = self._request
        if request is None or (subprotocol is not None and subprotocol not in request.subprotocols):
            raise RuntimeError("This subprotocol was not offered.")
        reply = switching(request, subprotocol, [*self._headers[-1:], *headers])
        self._request, self._headers = None, []
        self._stage = _Stage.OPEN
        self._parser = Parser(self._limits.caps, self._loop.time())
        self._keepalive = Keepalive(self, self._limits, self._loop)
        self.write(reply)
        if self._early:
            early, self._early = self._early, b""
            self._parse(self._parser, early)

    def _close(self, code: int, reason: str, last: bytes = b"") -> None:
        """Send a close frame and wait for the client's; further messages are ignored."""
        if self._parser is None or self._parser.state is not OPEN:
            return  # the client closed at the same time; _finish follows
        try:
            self._parser.send_close(code, reason)
        except ProtocolError as error:
            raise RuntimeError(f"{code} cannot be sent as a close code.") from error
        self.write(last + self._parser.take_outgoing())
        self._stage = _Stage.CLOSING
        if self._receive_queue is not None:
            self._receive_queue.clear()
            self._receive_queue.on_close(code)
        self._stop_timers()
        self._end = self._loop.call_later(CLOSE_WITHIN_S, self.abort)
        self._read_on()

    # --- below the messages: core.frames.Writer

    def write(self, data: bytes) -> bool:
        """Send whole frames, however much is unsent; return whether there is room for more."""
        if self._stage is _Stage.OPEN:
            self.written += len(data)
            self._transport.write(data)
        return not self.is_full

    def close(self, code: int | None, reason: str, last: bytes = b"") -> None:
        """Send the frames *last*, say close and end; what the client still says is not heard."""
        self._listener = NULL_LISTENER
        if self._stage is _Stage.OPEN and code is None:
            self._write_last(last)
        elif self._stage is _Stage.OPEN and code is not None:
            self._close(code, reason, last)

    def abort(self) -> None:
        """End the connection at once; what is unsent is lost."""
        self._leave(LOST)
        self._transport.abort()

    def probe(self, answered: Callable[[], None]) -> None:
        """Ping the client now; *answered* is called when it has answered, if it does."""
        if self._keepalive is not None:
            self._keepalive.probe(answered)

    def adopt(self, listener: Listener) -> None:
        """Let *listener* hear the client from now on; the application may return meanwhile."""
        queue = self._receive_queue
        if queue is None:
            raise RuntimeError("This connection has been adopted.")
        self._listener = listener
        queue.pass_on(listener)
        self._read_on()

    # --- the client's side

    def data_received(self, data: bytes) -> None:
        """Parse received bytes."""
        if self._lingering_close is not None:
            self._lingering_close.discard(len(data))
        elif self._stage is _Stage.OVER:
            pass
        elif self._parser is not None:
            self._parse(self._parser, data)
        else:
            self._early += data
            if len(self._early) > EARLY_MAX_BYTES:
                self.abort()

    def _parse(self, parser: Parser, data: bytes) -> None:
        reply = parser.receive(data, self._loop.time())
        if reply:
            self._transport.write(reply)
        if parser.messages:
            self._forget_unfinished()
            if self._stage is _Stage.OPEN:
                for message in parser.messages:
                    self._listener.on_message(message)
                queue = self._receive_queue
                if queue is not None and queue.is_full and self.is_reading:
                    self.is_reading = False
                    self._transport.pause_reading()
            parser.messages.clear()
        if parser.eof_sent:
            self._finish(parser)
            return
        if parser.has_frame and self._keepalive is not None:
            self._keepalive.on_frame(parser.pong)
            parser.has_frame, parser.pong = False, None
        if parser.is_unfinished and self._unfinished is None:
            self._unfinished = self._loop.call_later(
                self._limits.unfinished_s, self.cut, POLICY_VIOLATION
            )

    def _finish(self, parser: Parser) -> None:
        """End after the closing handshake or a protocol violation."""
        said, answered = parser.close_rcvd, parser.close_sent
        if said is not None and parser.is_orderly:
            self._leave(said.code, said.reason)
            self._transport.close()
            self._end = self._loop.call_later(CLOSE_WITHIN_S, self._transport.abort)
        else:
            self._leave(answered.code if answered is not None else LOST)
            self._lingering_close = LingeringClose(self._transport)

    def eof_received(self) -> None:
        """End the connection: the client closed its side without a close frame."""
        if self._stage is not _Stage.OVER:
            self._leave(LOST)
            self._end = self._loop.call_later(CLOSE_WITHIN_S, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Clean up after the connection is gone."""
        self._leave(LOST)
        self.resume_writing()
        if self._lingering_close is not None:
            self._lingering_close.done()
        if self._parser is not None:
            self._parser.release()
            self._parser = None
        self._state.connections.discard(self)

    def _is_open(self) -> bool:
        return self._stage is _Stage.OPEN

    def _on_writable(self) -> None:
        self._listener.on_writable()

    def _stall(self) -> None:
        self.cut(CloseCode.TOO_SLOW)

    # --- the end

    def shutdown(self) -> None:
        """Close the connection because this server stops."""
        if self._stage is _Stage.OPEN:
            self.cut(SERVICE_RESTART)
        elif self._stage in (_Stage.ASKED, _Stage.REFUSING):
            self._write_last(SHUTTING_DOWN.response(self._headers))

    def cut(self, code: int) -> None:
        """Close with *code*; without a close frame if the client takes nothing."""
        if self._parser is None or self.is_full:
            self._leave(code)
            self._transport.abort()
            return
        self._parser.fail(code)
        self._transport.write(self._parser.take_outgoing())
        self._leave(code)
        self._lingering_close = LingeringClose(self._transport)

    def _write_last(self, data: bytes) -> None:
        """Write *data* as the last bytes and close once they are sent."""
        self._transport.write(data)
        self._leave(LOST)
        self._lingering_close = LingeringClose(self._transport)

    def _leave(self, code: int, reason: str | None = None) -> None:
        was_over, self._stage = self._stage is _Stage.OVER, _Stage.OVER
        self._stop_timers()
        if not was_over:
            self._listener.on_close(code, reason)

    def _stop_timers(self) -> None:
        self._forget_unfinished()
        if self._keepalive is not None:
            self._keepalive.stop()
            self._keepalive = None
        self._stop_stall_detector()
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _forget_unfinished(self) -> None:
        if self._unfinished is not None:
            self._unfinished.cancel()
            self._unfinished = None

    def _read_on(self) -> None:
        if not self.is_reading:
            self.is_reading = True
            self._transport.resume_reading()
