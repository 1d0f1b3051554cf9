"""Commands: what a session's client asks for, in the words of the core."""

from msgspec import to_builtins

from gateway.core import command, model, protocol
from gateway.core.command import AnyCommand
from gateway.core.protocol import ClientMessage


def command_of(message: ClientMessage, via: str, now_ms: int) -> AnyCommand:
    """Return the command that *message* asks for.

    Args:
        message: One that changes the session.
        via: The connection that says so.
        now_ms: Redis time in milliseconds.
    """
    match message:
        case protocol.WatchMessage():
            watch = model.Watch(
                key=message.key,
                title=message.title,
                kind=message.kind,
                state=message.state,
                position_ms=message.position_ms,
                duration_ms=message.duration_ms,
                bandwidth=message.bandwidth,
                item=message.item,
            )
            return command.Watch(watch=watch, via=via)
        case protocol.UnwatchMessage():
            return command.Unwatch(via=via)
        case protocol.UpdateMessage():
            return command.Update(patch=to_builtins(message.changes), via=via)
        case protocol.StreamMessage():
            return command.EndStream(key=message.key, via=via)
        case protocol.SavingMessage():
            return command.Saving(via=via)
        case protocol.SavedMessage():
            return command.Saved(via=via)
        case protocol.NeedMoreMessage():
            return command.ExtendClose(at=now_ms + message.ms, via=via)
        case protocol.LeaveMessage():
            return command.Close(outcome="left", via=via)
    raise AssertionError(message)
