"""Session runner: keeps one session connected, over as many connections as that takes.

Promises: each message is answered once, whatever the connection does meanwhile, because a message
that is sent again has the same ``ref`` and the gateway recognizes it. After a drop the session is
connected again, unless the gateway said not to. Every wait and queue is bounded.

Three tasks run: one keeps a connection and reads from it, one writes to it, one calls the handlers.
Handlers run beside the reader, so that they may send a message and wait for its answer.

Not here: the public API (``session``), one connection (``connection``), which end is final
(``disconnect``).
"""

import asyncio
import inspect
import logging
import secrets
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from msgspec.structs import replace

from gateway.client.connection import Dialer, GatewayConnection
from gateway.client.disconnect import ABNORMAL, NORMAL, Closed
from gateway.client.protocol import Notice, Query, error_of, given, render
from gateway.client.session_state import ReplayLog, after_message, after_notice
from gateway.client.state import Session
from gateway.core import protocol
from gateway.core.errors import CloseCode, OutcomeUnknown, Overloaded, Unavailable

CALL_WITHIN_S: Final = 15.0  # from a message to its answer, including a reconnect
CALLS_MAX: Final = 256  # messages without an answer; one more is refused here
NOTICES_MAX: Final = 256  # notices without a handler call; one more is dropped, counted and logged

Handlers = Mapping[type[Notice], Callable[[Any], object] | None]

log: Final = logging.getLogger("gateway.client")


class LinkState(StrEnum):
    """The state of a client's connection to the gateway."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"


class _Call:
    """A message that awaits its answer."""

    __slots__ = ("answer", "connection", "message", "text")

    def __init__(self, message: protocol.FromClient) -> None:
        self.message = message
        self.text = render(message)
        self.connection: GatewayConnection | None = None  # the last one it was sent on
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class SessionRunner:
    """Keeps one session connected; made in a running event loop.

    Args:
        dialer: Opens the connections.
        opening: What a new session is opened with.
        session_id: The session; ``None`` opens a new one.
        session_token: Proves that this may be that session.
        reopen: Whether to open a new session when this one ended while nobody was connected.
        call_within_s: How long a message may wait for its answer.
        handlers: The handler of each type of notice.
    """

    def __init__(
        self,
        dialer: Dialer,
        opening: Query,
        *,
        session_id: str | None,
        session_token: str | None,
        reopen: bool,
        call_within_s: float,
        handlers: Handlers,
    ) -> None:
        self.state = LinkState.CONNECTING
        self.session: Session = {}
        self.session_token = session_token
        self.notices_dropped = 0
        self.started = asyncio.Event()  # once connected, or ended
        self.over: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        self._dialer = dialer
        self._opening = opening
        self._id = session_id
        self._reopen = reopen
        self._call_within_s = call_within_s
        self._handlers = handlers
        self._replay_log = ReplayLog()
        self._calls: dict[str, _Call] = {}
        self._calls_made = 0
        self._ref_prefix = secrets.token_hex(6)  # another program may be this session later
        self._to_send = asyncio.Event()
        self._notices: asyncio.Queue[Notice] = asyncio.Queue(NOTICES_MAX)
        self._left = False

    @property
    def closed(self) -> Closed | None:
        """How the session client ended; ``None`` while it runs."""
        return self.over.result() if self.over.done() else None

    async def send(self, message: protocol.FromClient) -> None:
        """Send a message and return when it is accepted; raises as ``SessionClient`` does."""
        if self.closed:
            raise self.closed.error()
        if len(self._calls) >= CALLS_MAX:
            raise Overloaded(f"{CALLS_MAX} messages await an answer.")
        self._calls_made += 1
        ref = f"{self._ref_prefix}-{self._calls_made}"
        call = self._calls[ref] = _Call(replace(message, ref=ref))
        self._to_send.set()
        try:
            async with asyncio.timeout(self._call_within_s):
                await call.answer
        except TimeoutError:
            late = OutcomeUnknown if call.connection else Unavailable
            raise late(f"There was no answer in {self._call_within_s:g} s.") from None
        finally:
            del self._calls[ref]

    async def run(self) -> None:
        """Keep the session connected until it ends for good."""
        closed = Closed(ABNORMAL, "The client failed.")
        try:
            closed = await self._keep_connected()
        except asyncio.CancelledError:
            closed = Closed(NORMAL, "The client was left.")
            raise
        finally:
            self.state = LinkState.CLOSED
            for call in self._calls.values():
                if not call.answer.done():
                    call.answer.set_exception(closed.error())
            self.over.set_result(closed)
            self.started.set()

    async def handle(self) -> None:
        """Call the handlers, one notice after the other."""
        while True:
            notice = await self._notices.get()
            if handler := self._handlers.get(type(notice)):
                try:
                    result = handler(notice)
                    if inspect.isawaitable(result):
                        await result
                except Exception:  # a failing handler does not end the session
                    log.exception("the handler of a %s failed", type(notice).__name__)

    async def _keep_connected(self) -> Closed:
        while True:
            connection = await self._dialer.dial(self._query())
            if isinstance(connection, GatewayConnection):
                try:
                    closed = await self._live(connection)
                finally:
                    self.state = LinkState.CONNECTING
                    await connection.close()
                again = self._dialer.connection_lost(connection, closed)
                if (
                    self._left and again
                ):  # accepted, and the connection broke before the gateway's bye
                    return Closed(int(CloseCode.SESSION_CLOSED), closed.reason)
                if not again:
                    return closed
            elif self._reopen and self._id and self.session and connection.code == CloseCode.GONE:
                log.info("session %s ended meanwhile; opening a new one", self._id)
                self._id = self.session_token = None
            else:
                return connection

    def _query(self) -> Query:
        known = given(session=self._id, session_token=self.session_token)
        # A session_token opens no session, so the fields for opening are not sent with it.
        return known if self.session and self.session_token else known + self._opening

    async def _live(self, connection: GatewayConnection) -> Closed:
        """Serve *connection* until it ends."""
        session = connection.hello.session
        if session is None:
            return Closed(int(CloseCode.BAD_REQUEST), "This is not a session's socket.")
        anew = bool(self.session) and session["number"] != self.session["number"]
        first = self._replay_log.replay() if anew else []
        if anew or connection.hello.session_token:
            self.session_token = connection.hello.session_token
        self.session, self._id = session, session["id"]
        self.state = LinkState.CONNECTED
        self.started.set()
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write(connection, first))
            closed = await self._read(connection)
            writer.cancel()
        return closed

    async def _write(self, connection: GatewayConnection, first: list[protocol.FromClient]) -> None:
        """Send *first*, then everything that was not sent on this connection, in order."""
        for message in first:
            await connection.send(render(message))
            self.session = after_message(self.session, message)
        while True:
            self._to_send.clear()
            for ref, call in list(self._calls.items()):
                if call.connection is not connection and ref in self._calls:
                    call.connection = connection
                    await connection.send(call.text)
            await self._to_send.wait()

    async def _read(self, connection: GatewayConnection) -> Closed:
        while True:
            match await connection.receive():
                case Closed() as closed:
                    return closed
                case protocol.Ack() as ack:
                    self._on_ack(ack)
                case protocol.Error() as error:
                    self._on_error(error)
                case (
                    protocol.ClosingNotice()
                    | protocol.CloseExtendedNotice()
                    | protocol.CloseCancelledNotice()
                    | protocol.StopStream()
                    | protocol.MessageNotice()
                ) as notice:
                    self._on_notice(notice)
                case _:
                    pass

    def _on_ack(self, ack: protocol.Ack) -> None:
        call = self._calls.get(ack.ref or "")
        if not call or call.answer.done():
            return
        if isinstance(call.message, protocol.LeaveMessage | protocol.SavedMessage):
            self._left = True
        self._replay_log.record(call.message)
        self.session = after_message(self.session, call.message)
        if ack.revision is not None and ack.revision > self.session["revision"]:
            self.session = {**self.session, "revision": ack.revision}
        call.answer.set_result(None)

    def _on_error(self, error: protocol.Error) -> None:
        call = self._calls.get(error.ref or "")
        if call and not call.answer.done():
            call.answer.set_exception(error_of(error.code, error.message))
        else:
            log.warning("the gateway refused %s: %s %s", error.ref, error.code, error.message)

    def _on_notice(self, notice: Notice) -> None:
        if isinstance(notice, protocol.StopStream):
            self._replay_log.forget_stream(notice.key)
        self.session = after_notice(self.session, notice)
        if not self._handlers.get(type(notice)):
            return
        try:
            self._notices.put_nowait(notice)
        except asyncio.QueueFull:
            self.notices_dropped += 1
            log.warning("the handlers are too slow: a %s is dropped", type(notice).__name__)
