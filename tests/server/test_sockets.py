"""Sockets by themselves: when they end, beside what is being done."""

import asyncio

import pytest

from gateway.api.socket import Socket
from gateway.connections.lifecycle import ConnectionEnded, ServerClose
from gateway.connections.registry import ConnectionRegistry
from gateway.core.errors import CloseCode
from gateway.core.protocol import ClientMessage
from tests.support import MS, eventually


class Stuck:
    """A connection whose client takes nothing."""

    def __init__(self) -> None:
        self.is_full = True
        self.codes: list[int] = []

    @property
    def unsent(self) -> int:
        """As much as may be."""
        return 1 << 18

    def write(self, _data: bytes) -> bool:
        """Keep it."""
        return not self.is_full

    def close(self, code: int, _reason: str, _last: bytes = b"") -> None:
        """Note how it ends."""
        self.codes.append(code)

    def abort(self) -> None:
        """End at once."""

    def adopt(self, _listener: object) -> None:
        """Hear for somebody."""


class Guest:
    """Whose socket it is; notes what it is asked."""

    def __init__(self, socket: Socket) -> None:
        self.asked: list[ClientMessage] = []
        self._socket = socket

    async def handle(self, message: ClientMessage) -> int | None:
        """Note *message*."""
        self.asked.append(message)
        return None

    def heartbeat(self) -> bytes:
        """Say nothing."""
        return b""

    def on_writable(self) -> None:
        """Need none."""

    def last_sent_at_s(self) -> float:
        """Was told nothing."""
        return 0.0

    def left(self, _ended: ConnectionEnded) -> None:
        """Let go."""
        self._socket.release()


@pytest.mark.parametrize("comes", [True, False], ids=["room comes", "no room comes"])
async def test_socket_that_waits_for_room_ends_at_once(*, comes: bool) -> None:
    """Where nothing is being done a goodbye waits for nothing, and nothing more is done."""
    writer, sockets = Stuck(), ConnectionRegistry(1, lambda: 0.5)
    socket = Socket(writer, sockets, number=1, heartbeat_s=15, messages_per_s=20)
    sockets.add(socket)
    guest = Guest(socket)
    socket.begin(guest)
    socket.on_message('{"type":"watch","key":"late"}')
    await eventually(lambda: socket._waiting)  # noqa: SLF001 - it waits by now

    socket.end_after_answer(ServerClose(CloseCode.SESSION_CLOSED, "closed"))
    if comes:
        writer.is_full = False
        socket.on_writable()
    await eventually(lambda: writer.codes, within=500 * MS)  # half of what an answer may take

    assert (writer.codes, guest.asked, sockets.count) == ([4500], [], 0)


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
