"""The public form of an event, with the changes to its session.

``changes`` is the merge patch from the public session before the event to the one after it. Most
events change few fields, so only the public fields that depend on the changed fields of the record
are rendered and compared. The tests compare this with ``diff`` of both sessions rendered whole.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from msgspec import to_builtins

from gateway.core.event import AnyEvent, Opened
from gateway.core.model import Session, touched
from gateway.core.public import (
    PublicEvent,
    PublicSession,
    diff,
    render_closed,
    render_closing,
    render_connection,
    render_session,
    render_stream,
    render_watch,
    rfc3339,
)

# The public fields that depend on a field of the record; all others have the same name.
_DECIDED_BY: Final[dict[str, tuple[str, ...]]] = {
    "revision": (),  # the event itself says it
    "connection": ("state", "is_connected", "connection"),
    "watch": ("is_watching", "watch"),
    "closing": ("state", "closes_at", "closing"),
    "closed": ("state", "closed_at", "closed"),
}
_TIMES: Final = (
    "created_at", "connected_at", "disconnected_at", "watching_since", "unwatched_at",
    "closes_at", "closed_at",
)  # fmt: skip
_RENDERERS: Final[dict[str, Callable[[Any], object]]] = {
    **dict.fromkeys(_TIMES, rfc3339),
    "client": to_builtins,
    "profile": to_builtins,
    "watch": lambda watch: to_builtins(render_watch(watch)),
    "streams": lambda streams: to_builtins(tuple(map(render_stream, streams))),
    "closing": lambda closing: to_builtins(render_closing(closing)),
    "closed": lambda closed: to_builtins(render_closed(closed)),
}


def render_event(
    event: AnyEvent,
    before: Session | None,
    after: Session,
    revision: int,
    at: int,
    *,
    full: bool = False,
) -> PublicEvent:
    """Return *event* as it is shown.

    Args:
        event: What happened.
        before: The session before it; ``None`` if there was none.
        after: The session after it.
        revision: The revision that its commit gave the session.
        at: When it happened, in milliseconds of Redis time.
        full: Which level is shown.
    """
    if before is None or isinstance(event, Opened):
        changes = {**to_builtins(render_session(after, full=full)), "revision": revision}
    else:
        names = _affected_fields(touched(before, after))
        changes = diff(
            _render_fields(before, names, full=full), _render_fields(after, names, full=full)
        )
    kind = str(event.__struct_config__.tag)
    return PublicEvent(
        type=kind, session_id=after.id, revision=revision, at=rfc3339(at), changes=changes
    )


@lru_cache(maxsize=1024)
def _affected_fields(changed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the public fields, in their order, that depend on these fields of the record."""
    told = {name for field in changed for name in _DECIDED_BY.get(field, (field,))}
    return tuple(name for name in PublicSession.__struct_fields__ if name in told)


def _render_fields(session: Session, names: tuple[str, ...], *, full: bool) -> dict[str, Any]:
    """Return these fields of :func:`render_session` as a map."""
    shown: dict[str, Any] = {}
    for name in names:
        value = getattr(session, name)
        if value is None or value in ({}, ()) or (name == "profile" and not full):
            continue
        if name == "connection":
            value = to_builtins(render_connection(value, full=full))
        elif form := _RENDERERS.get(name):
            value = form(value)
        shown[name] = value
    return shown
