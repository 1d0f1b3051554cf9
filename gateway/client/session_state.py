"""What a client and its gateway said to each other, and what it makes of the session; pure.

A socket tells a session's client when it is accepted, warned or stopped, not the session itself:
the client folds its own accepted words into what the hello showed. The last word of each kind is
kept as well: a session that is found again knows them, one that had to be opened anew is told them
again.
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


class SessionState:
    """The accepted words of one client, the last of each kind."""

    def __init__(self) -> None:
        self._update: dict[str, Any] = {}
        self._watch: WatchMessage | None = None
        self._streams: dict[str, StreamMessage] = {}

    def record(self, message: FromClient) -> None:
        """Remember *message*, which the gateway accepted."""
        match message:
            case WatchMessage():
                self._watch = replace(message, ref=None)
            case ProgressMessage() if self._watch:
                self._watch = replace(self._watch, **_words(message))
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
        """Forget a stream that somebody else ended."""
        self._streams.pop(key, None)

    def replay(self) -> list[FromClient]:
        """Return the messages that bring a new session to where the old one was."""
        messages: list[FromClient] = []
        if self._update:
            messages.append(UpdateMessage(changes=convert(self._update, UpdateChanges)))
        if self._watch:
            messages.append(self._watch)
        messages.extend(self._streams.values())
        return messages


def _stacked(earlier: Any, later: Any) -> Any:  # noqa: ANN401 - JSON
    """Return one merge patch that does what two do: unlike a merge it keeps what removes."""
    if not isinstance(earlier, dict) or not isinstance(later, dict):
        return later
    return {
        **earlier,
        **{name: _stacked(earlier.get(name), value) for name, value in later.items()},
    }


def _words(message: FromClient) -> dict[str, Any]:
    """Return what *message* says, as JSON, without what it leaves open."""
    return {
        name: value
        for name, value in to_builtins(message).items()
        if value is not None and name not in ("type", "ref")
    }


def after_message(session: Session, message: FromClient) -> Session:
    """Return *session* after the gateway accepted *message*; only the gateway knows the times."""
    match message:
        case WatchMessage():
            watch = diff(session.get("watch") or {}, _words(message))
            return merge(session, {"watch": watch, "is_watching": True})
        case ProgressMessage() if "watch" in session:
            return merge(session, {"watch": _words(message)})
        case UnwatchMessage():
            return merge(session, {"watch": None, "is_watching": False})
        case UpdateMessage(changes=changes):
            return merge(session, to_builtins(changes))
        case StreamMessage(key=key, state="stopped"):
            return _without_stream(session, key)
        case StreamMessage(key=key):
            stream = {"data": {}, **_words(message)}
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
    """Return *session* as *notice* shows it."""
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
