"""Connections by themselves: when they end, beside what is being done."""

import asyncio

import pytest

from gateway.connections.journal import ConnectionJournal
from gateway.connections.lifecycle import ClientClosed, ConnectionEnded, ServerClose
from gateway.connections.registry import ConnectionRegistry
from gateway.core.errors import CloseCode
from gateway.core.model import Session
from gateway.live.channel import Subscription
from gateway.logs.request import RequestMark
from gateway.logs.throttle import Throttle
from gateway.realtime.codec import Announcement, ClosingFrames, HeartbeatRule
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.connection_state import (
    TRANSITIONS,
    ConnectionState,
    IllegalTransition,
    Transition,
    next_state,
)
from tests.support import MS, eventually


class Stuck:
    """A connection whose client takes nothing."""

    def __init__(self, *, is_full: bool = True) -> None:
        self.is_full = is_full
        self.codes: list[int | None] = []
        self.sent: list[bytes] = []

    @property
    def unsent(self) -> int:
        """As much as may be."""
        return 1 << 18

    def write(self, data: bytes) -> bool:
        """Keep it."""
        self.sent.append(data)
        return not self.is_full

    def close(self, code: int | None, _reason: str, last: bytes = b"") -> None:
        """Note how it ends."""
        self.codes.append(code)
        self.sent.append(last)

    def abort(self) -> None:
        """End at once."""

    def probe(self, _answered: object) -> None:
        """Never answer."""

    def adopt(self, _listener: object) -> None:
        """Hear for somebody."""


class Plain:
    """A codec of words: what is heard is asked, and a close is told by its reason."""

    shares_frames = True

    def receive(self, data: str | bytes) -> str | None:
        """Hear all but what begins with a hash."""
        text = data if isinstance(data, str) else data.decode()
        return None if text.startswith("#") else text

    def greet(self, _subject: Session | Subscription, _token: str | None) -> bytes:
        """Say nothing."""
        return b""

    def notify(self, _notice: Announcement) -> bytes:
        """Say nothing."""
        return b""

    def heartbeat(self, _subscription: Subscription | None) -> bytes:
        """Say nothing."""
        return b""

    def close(self, ended: ServerClose) -> ClosingFrames:
        """Say why."""
        return ClosingFrames(last=ended.reason.encode(), code=int(ended.code))


class Noting:
    """Handles a connection: notes what it is asked, and how it ends."""

    def __init__(self, connection: WebSocketConnection[str]) -> None:
        self.asked: list[str] = []
        self.ended: list[ConnectionEnded] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._connection = connection

    async def handle(self, message: str) -> None:
        """Note *message*, and answer it when that may be."""
        self.asked.append(message)
        await self.may_answer.wait()
        self._connection.send(message.encode())

    def heartbeat(self) -> bytes:
        """Say nothing."""
        return b""

    def on_writable(self) -> None:
        """Need none."""

    def last_sent_at_s(self) -> float:
        """Was told nothing."""
        return 0.0

    def on_end(self, ended: ConnectionEnded) -> None:
        """Let go."""
        self.ended.append(ended)
        self._connection.release()


def connected(
    writer: Stuck, *, silence_s: float | None = None
) -> tuple[WebSocketConnection[str], Noting, ConnectionRegistry]:
    """Return a connection whose handshake is not over, its handler, and the registry."""
    sockets = ConnectionRegistry(1, lambda: 0.5)
    connection: WebSocketConnection[str] = WebSocketConnection(
        writer,
        sockets,
        lambda _: Plain(),
        journal=ConnectionJournal("/v1/connect", None, RequestMark("r1"), Throttle()),
        heartbeat=HeartbeatRule(interval_s=15, silence_s=silence_s),
        messages_per_s=20,
    )
    sockets.add(connection)
    handler = Noting(connection)
    connection.bind(handler)
    return connection, handler, sockets


@pytest.mark.parametrize("state", ConnectionState)
@pytest.mark.parametrize("transition", Transition)
def test_connection_moves_as_its_table_says(state: ConnectionState, transition: Transition) -> None:
    """Whatever the table does not name raises; nothing leads out of the last state."""
    if transition in TRANSITIONS[state]:
        assert next_state(state, transition) is TRANSITIONS[state][transition]
        assert state is not ConnectionState.CLOSED
    else:
        with pytest.raises(IllegalTransition, match=state.name):
            next_state(state, transition)


async def test_end_during_the_handshake_waits_for_it() -> None:
    """A connection that is ended before it began ends when it begins, as the first one said."""
    writer = Stuck(is_full=False)
    connection, handler, sockets = connected(writer)
    connection.end(ServerClose(CloseCode.DRAINING, "first"))
    connection.end(ServerClose(CloseCode.KICKED, "second"))
    assert (connection.state, writer.codes) == (ConnectionState.ABANDONED, [])

    connection.start()
    assert (connection.state, writer.codes) == (ConnectionState.CLOSED, [4001])
    assert (writer.sent, len(handler.ended), sockets.count) == ([b"first"], 1, 0)
    with pytest.raises(IllegalTransition):
        connection.start()


async def test_what_was_said_before_the_handshake_was_over_is_done() -> None:
    """A client that says something and leaves before it is greeted is heard."""
    connection, handler, sockets = connected(Stuck(is_full=False))
    connection.on_message("leave")
    connection.on_close(1000, "")
    connection.start()
    assert connection.state is ConnectionState.CLOSING
    await eventually(lambda: handler.ended)

    assert (handler.asked, sockets.count) == (["leave"], 0)
    assert handler.ended[0].cause == "clean"


async def test_last_answer_leaves_with_the_close() -> None:
    """What is answered while a close waits for it goes out in the write of the close."""
    writer = Stuck(is_full=False)
    connection, handler, _ = connected(writer)
    connection.start()
    handler.may_answer.clear()
    connection.on_message("leave")
    await eventually(lambda: handler.asked)
    connection.end_after_answer(ServerClose(CloseCode.SESSION_CLOSED, "left"))
    connection.on_message("too late")
    handler.may_answer.set()
    await eventually(lambda: writer.codes)

    assert (writer.codes, writer.sent, handler.asked) == ([4500], [b"leaveleft"], ["leave"])


async def test_what_is_passed_over_costs_nothing() -> None:
    """Messages that mean nothing to a product are not counted; the others are, and end it."""
    writer = Stuck(is_full=False)
    connection, _, _ = connected(writer)
    connection.start()
    for _ in range(100):
        connection.on_message("#")
    assert not writer.codes
    for _ in range(41):  # two seconds' worth, and one
        connection.on_message("word")
    assert writer.codes == [4006]


async def test_silent_client_is_gone_where_the_protocol_says_so() -> None:
    """In a protocol in which the client pings, one that sends nothing for too long is gone."""
    writer = Stuck(is_full=False)
    connection, handler, _ = connected(writer, silence_s=20 * MS)
    connection.start()
    connection.on_message("#")
    await eventually(lambda: writer.codes)

    assert writer.codes == [4003]
    assert not isinstance(handler.ended[0], ClientClosed)


@pytest.mark.parametrize("comes", [True, False], ids=["room comes", "no room comes"])
async def test_socket_that_waits_for_room_ends_at_once(*, comes: bool) -> None:
    """Where nothing is being done a goodbye waits for nothing, and nothing more is done."""
    writer = Stuck()
    connection, handler, sockets = connected(writer)
    connection.start()
    connection.on_message("late")
    await eventually(lambda: connection._writable)  # noqa: SLF001 - it waits by now

    connection.end_after_answer(ServerClose(CloseCode.SESSION_CLOSED, "closed"))
    if comes:
        writer.is_full = False
        connection.on_writable()
    await eventually(lambda: writer.codes, within=500 * MS)  # half of what an answer may take

    assert (writer.codes, handler.asked, sockets.count) == ([4500], [], 0)


async def test_drain_beside_a_poll_whose_time_is_just_over() -> None:
    """A request that is ending by itself keeps nobody from being sent elsewhere."""
    sockets = ConnectionRegistry(1, lambda: 0.5)
    is_over, drained = asyncio.Event(), asyncio.Event()

    async def poll() -> None:
        async with sockets.bounded_wait(0):
            try:
                await asyncio.Event().wait()
            finally:
                is_over.set()
                await drained.wait()

    polling = asyncio.create_task(poll())
    await is_over.wait()
    await sockets.drain(0)
    drained.set()
    with pytest.raises(TimeoutError):
        await polling
