"""Session state of a client: its accepted messages, and the session that results; pure.

The gateway acknowledges messages but does not send the changed session, so the client applies its
accepted messages to the session of the hello. The last message of each kind is kept as well: if the
session had to be opened anew, they are replayed.
"""

from typing import Any

from msgspec import convert, to_builtins
from msgspec.structs import replace

from gateway.client.protocol import Notice
from gateway.client.state import Session
from gateway.core import protocol
from gateway.core.protocol import (
    FromClient,
    ProgressMessage,
    StreamMessage,
    UnwatchMessage,
    UpdateChanges,
    UpdateMessage,
    WatchMessage,
)
from gateway.core.public import diff, merge


class ReplayLog:
    """The accepted messages of one client, the last of each kind."""

    def __init__(self) -> None:
        self._update: dict[str, Any] = {}
        self._watch: WatchMessage | None = None
        self._streams: dict[str, StreamMessage] = {}

    def record(self, message: FromClient) -> None:
        """Record *message*, which the gateway accepted."""
        match message:
            case WatchMessage():
                self._watch = replace(message, ref=None)
            case ProgressMessage() if self._watch:
                self._watch = replace(self._watch, **_set_fields(message))
            case UnwatchMessage():
                self._watch = None
            case UpdateMessage(changes=changes):
                self._update = _stacked(self._update, to_builtins(changes))
            case StreamMessage(key=key, state="stopped"):
                self._streams.pop(key, None)
            case StreamMessage(key=key):
                self._streams[key] = replace(message, ref=None)
            case _:
                pass

    def forget_stream(self, key: str) -> None:
        """Forget a stream that another caller ended."""
        self._streams.pop(key, None)

    def replay(self) -> list[FromClient]:
        """Return the messages that bring a new session to the state of the old one."""
        messages: list[FromClient] = []
        if self._update:
            messages.append(UpdateMessage(changes=convert(self._update, UpdateChanges)))
        if self._watch:
            messages.append(self._watch)
        messages.extend(self._streams.values())
        return messages


def _stacked(earlier: Any, later: Any) -> Any:  # noqa: ANN401 - JSON
    """Return one merge patch with the effect of two; unlike a merge it keeps the nulls."""
    if not isinstance(earlier, dict) or not isinstance(later, dict):
        return later
    return {
        **earlier,
        **{name: _stacked(earlier.get(name), value) for name, value in later.items()},
    }


def _set_fields(message: FromClient) -> dict[str, Any]:
    """Return the set fields of *message* as JSON."""
    return {
        name: value
        for name, value in to_builtins(message).items()
        if value is not None and name not in ("type", "ref")
    }


def after_message(session: Session, message: FromClient) -> Session:
    """Return *session* after the gateway accepted *message*, except for its times."""
    match message:
        case WatchMessage():
            watch = diff(session.get("watch") or {}, _set_fields(message))
            return merge(session, {"watch": watch, "is_watching": True})
        case ProgressMessage() if "watch" in session:
            return merge(session, {"watch": _set_fields(message)})
        case UnwatchMessage():
            return merge(session, {"watch": None, "is_watching": False})
        case UpdateMessage(changes=changes):
            return merge(session, to_builtins(changes))
        case StreamMessage(key=key, state="stopped"):
            return _without_stream(session, key)
        case StreamMessage(key=key):
            stream = {"data": {}, **_set_fields(message)}
            streams = list(session.get("streams", ()))
            places = [n for n, known in enumerate(streams) if known["key"] == key]
            if places:
                streams[places[0]] = stream
            else:
                streams.append(stream)
            return {**session, "streams": streams}
        case _:
            return session


def after_notice(session: Session, notice: Notice) -> Session:
    """Return *session* after *notice*."""
    match notice:
        case protocol.ClosingNotice(closes_at=at, extend_max_ms=extend_max_ms, reason=reason):
            closing = {"at": at, "extend_max_ms": extend_max_ms, "reason": reason}
            return merge(session, {"state": "closing", "closes_at": at, "closing": closing})
        case protocol.CloseExtendedNotice(closes_at=at):
            return merge(session, {"closes_at": at, "closing": {"at": at}})
        case protocol.CloseCancelledNotice():
            return merge(session, {"state": "connected", "closes_at": None, "closing": None})
        case protocol.StopStream(key=key):
            return _without_stream(session, key)
        case protocol.MessageNotice():
            return session


def _without_stream(session: Session, key: str) -> Session:
    streams = [stream for stream in session.get("streams", ()) if stream["key"] != key]
    return merge(session, {"streams": streams or None})
