"""Record codec: validate and encode a record for commit; restore its predecessor from the log.

Every node reads what is stored, so a record that some node could not read must never get there.
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
    """Validate and encode the record after the commit *entry*.

    What a client adds must leave the record within :data:`~gateway.core.model.RECORD_MAX_BYTES`.
    Other commits are not refused for their size, so that every session can be closed. *before* was
    validated when it was written, so only the fields that the commit changed are validated again.

    Raises:
        LimitExceeded: The events make the record too large.
        Invalid: A value is outside the bounds of its type, so that no node could read it.
    """
    data = encode_session(entry.record)
    if (
        len(data) > RECORD_MAX_BYTES
        and any(map(_adds_content, entry.events))
        and (before is None or len(data) > len(encode_session(before)))
    ):
        raise LimitExceeded(f"A session's record holds at most {RECORD_MAX_BYTES} bytes.")
    try:
        _bounded.decode(_changed_part(entry, data))
    except ValidationError as error:
        raise Invalid(excerpt(str(error))) from error
    return data


def _changed_part(entry: SessionEntry, data: bytes) -> bytes:
    record = entry.record
    if entry.before is not None:
        record = replace(_BLANK, **{name: getattr(record, name) for name in entry.before})
    elif not record.unknown:
        return data
    return encode(record)


def _adds_content(event: AnyEvent) -> bool:
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
    """Return the record after the commit *entry*, with the unchanged objects of *before*.

    Both were decoded separately; comparisons are cheap once they share the unchanged objects.
    """
    record, changed = entry.record, entry.before
    if changed is None or not changed.keys() <= KNOWN or before.revision + 1 != record.revision:
        return record
    return replace(before, **{name: getattr(record, name) for name in changed})


def reuse_evolved(evolved: Session, record: Session) -> Session:
    """Return *evolved* with the revision of *record* if they are equal otherwise, else *record*."""
    own = replace(evolved, revision=record.revision, ops=record.ops)
    return own if encode_session(own) == encode_session(record) else record


def restore(record: Session, before: dict[str, Any] | None) -> Session | None:
    """Return the session before the commit of *record*; the inverse of :func:`changed_fields`."""
    if before is None:
        return None
    if not before.keys() <= KNOWN:
        return session_from({**session_to(record), **before})
    former = session_from({**_REQUIRED, **before})
    return replace(record, **{name: getattr(former, name) for name in before})
