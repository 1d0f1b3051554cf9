"""Sealing: the last look at a record before a commit stores it, and the way back to the one before.

What is once stored is read by every node, so nothing may get there that one of them cannot read.
"""

from typing import Any, Final

from msgspec import UNSET, ValidationError
from msgspec.json import Decoder, encode
from msgspec.structs import replace

from gateway.core.command import UPDATABLE
from gateway.core.errors import Invalid, LimitExceeded, excerpt
from gateway.core.event import (
    AnyEvent,
    Opened,
    SessionEntry,
    StreamStarted,
    StreamUpdated,
    Updated,
    Watching,
)
from gateway.core.model import (
    KNOWN,
    RECORD_MAX_BYTES,
    Bounded,
    Object,
    Session,
    encode_session,
    same_json,
    session_from,
    session_to,
    touched,
)

_REQUIRED: Final[Object] = {"id": "-", "number": 0, "revision": 0, "created_at": 0}
_BLANK: Final = session_from(_REQUIRED)
_bounded: Final = Decoder(Bounded)


def encode_checked(before: Session | None, entry: SessionEntry) -> bytes:
    """Return the text of the record after the commit *entry*, after a last look at it.

    What a client adds must leave the record within :data:`~gateway.core.model.RECORD_MAX_BYTES`.
    Nothing else is refused for its size: whatever a record holds, it can be closed. *before* was
    read from such a text, so only what the commit changed is read once more.

    Raises:
        LimitExceeded: Its events make the record too large.
        Invalid: A value in it is not what its type allows; no node could read it back.
    """
    data = encode_session(entry.record)
    if (
        len(data) > RECORD_MAX_BYTES
        and any(map(_adds, entry.events))
        and (before is None or len(data) > len(encode_session(before)))
    ):
        raise LimitExceeded(f"A session's record holds at most {RECORD_MAX_BYTES} bytes.")
    try:
        _bounded.decode(_news(entry, data))
    except ValidationError as error:
        raise Invalid(excerpt(str(error))) from error
    return data


def _news(entry: SessionEntry, data: bytes) -> bytes:
    record = entry.record
    if entry.before is not None:
        record = replace(_BLANK, **{name: getattr(record, name) for name in entry.before})
    elif not record.unknown:
        return data
    return encode(record)


def _adds(event: AnyEvent) -> bool:
    if isinstance(event, Updated):
        return any(getattr(event, name) is not UNSET for name in (*UPDATABLE, "watch"))
    return isinstance(event, Opened | Watching | StreamStarted | StreamUpdated)


def changed_fields(before: Session | None, after: Session) -> dict[str, Any] | None:
    """Return the fields of *before* that *after* changed, as ``SessionEntry.before`` keeps them."""
    if before is None:
        return None
    return {
        name: value
        for name in touched(before, after)
        if not same_json(value := getattr(before, name), getattr(after, name))
    }


def merge_unchanged(before: Session, entry: SessionEntry) -> Session:
    """Return the record after the commit *entry*, made of the objects of *before* where it can.

    Both were read from texts and share nothing; what is the same object needs no comparison.
    """
    record, changed = entry.record, entry.before
    if changed is None or not changed.keys() <= KNOWN or before.revision + 1 != record.revision:
        return record
    return replace(before, **{name: getattr(record, name) for name in changed})


def reuse_evolved(evolved: Session, record: Session) -> Session:
    """Return *record*, as the session that *evolved* to it if it is the same but for its commit."""
    own = replace(evolved, revision=record.revision, ops=record.ops)
    return own if encode_session(own) == encode_session(record) else record


def restore(record: Session, before: dict[str, Any] | None) -> Session | None:
    """Return the session before the commit that led to *record*: :func:`changed_fields` undone."""
    if before is None:
        return None
    if not before.keys() <= KNOWN:
        return session_from({**session_to(record), **before})
    former = session_from({**_REQUIRED, **before})
    return replace(record, **{name: getattr(former, name) for name in before})
