"""Outbound messages: what a channel sends to its subscribers, encoded once for all of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

from msgspec import Raw

from gateway.core.frames import TEXT, frame
from gateway.core.position import Position
from gateway.core.protocol import Events, FromServer, ResyncMessage, SnapshotMessage, render
from gateway.live.commit_view import EventItem


class _SharedMessage(ABC):
    """A message for many subscribers, encoded and framed once."""

    @property
    def message(self) -> bytes:
        """Its JSON text; not cached, because few subscribers need it without a frame."""
        return render(self._message())

    @cached_property
    def frame(self) -> bytes:
        """The message as a WebSocket frame."""
        return frame(TEXT, self.message)

    @abstractmethod
    def _message(self) -> FromServer:
        """Return the message before it is encoded."""


class Tick(_SharedMessage):
    """The events of one batch in one channel: an ``events`` message."""

    def __init__(self, position: Position, items: list[EventItem], start: Position) -> None:
        self.position = position
        self.items = items
        self.start = start  # the position before the batch

    def _message(self) -> FromServer:
        return Events(position=str(self.position), events=[Raw(item.data) for item in self.items])

    @property
    def size(self) -> int:
        """About how many bytes the ring keeps for it."""
        return 64 + 2 * sum(len(item.data) for item in self.items)  # the items and the frame


class SnapshotPage(_SharedMessage):
    """A page of a snapshot: a ``snapshot`` message."""

    def __init__(self, position: str, sessions: list[bytes], *, more: bool) -> None:
        self.position = position
        self.sessions = sessions
        self.more = more

    def _message(self) -> FromServer:
        return SnapshotMessage(
            sessions=[Raw(session) for session in self.sessions],
            position=self.position,
            more=self.more,
        )


@dataclass(frozen=True)
class Restart(_SharedMessage):
    """The subscriber starts over with a snapshot: a ``resync`` message."""

    reason: str

    def _message(self) -> FromServer:
        return ResyncMessage(reason=self.reason)


OutboundMessage = Tick | SnapshotPage | Restart
