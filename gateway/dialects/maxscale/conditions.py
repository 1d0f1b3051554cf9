"""Conditions: validators of replies, and requests that are done only if they still hold.

MaxScale hashes a document together with values that age, so that its tags never repeat, and it
judges preconditions after the deed. Here a tag is made of what *happened* to a session: its
revision, and when its client was last heard of; a 304 means that only time has passed. What a
request depends on is judged first (RFC 9110 section 13.2.2). ``If-Match`` looks at the revision
alone, so that a tag from a GET fits the DELETE after it.

A session has no date of its last change. ``Last-Modified`` is when this node first showed the
present state. It is never before the change, which is all that a date must promise.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final

from msgspec import Struct

from gateway.core.errors import RevisionMismatch
from gateway.core.model import Session
from gateway.dialects.maxscale.render import heard_at

KNOWN_MAX: Final = 4096  # representations whose date is kept; the oldest are dropped first

_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"|([^\s,"]+)')  # MaxScale takes tags without quotes


class Validators(Struct, frozen=True):
    """What tells whether a representation is still the same.

    Args:
        tag: Of what happened to it, without quotes.
        seen_ms: When this node first showed it so, in milliseconds since the Unix epoch.
        now_ms: The present.
    """

    tag: str
    seen_ms: int
    now_ms: int

    def headers(self) -> Mapping[str, str]:
        """Return the headers that tell them.

        The date is the first whole second that is not before the change, or, as no date may lie
        in the future (RFC 9110 section 8.8.2.1), the present one until then.
        """
        second = min(-(-self.seen_ms // 1000), self.now_ms // 1000)
        date = format_datetime(datetime.fromtimestamp(second, UTC), usegmt=True)
        return {"ETag": f'"{self.tag}"', "Last-Modified": date}


class ValidatorCache:
    """The dates at which recently requested representations were first shown as they are."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[str, int]] = OrderedDict()

    def validators(self, key: bytes, tag: str, now_ms: int) -> Validators:
        """Return the validators of a representation; *now_ms* is always by the same clock."""
        known, seen_ms = self._known.pop(key, ("", now_ms))
        if known != tag:
            seen_ms = now_ms
        self._known[key] = tag, seen_ms
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return Validators(tag, seen_ms, now_ms)


def tag_of(session: Session, active_at: int | None) -> str:
    """Return what happened to a session: its revision and when its client was last heard of."""
    return f"{session.revision}-{heard_at(session, active_at) or 0}"


def is_unmodified(headers: Mapping[str, str], current: Validators, *, is_read: bool) -> bool:
    """Whether a request with these *headers* (names in lower case) is to be answered with 304.

    Raises:
        RevisionMismatch: A precondition does not hold.
    """
    revision = current.tag.partition("-")[0]
    if (wanted := headers.get("if-match")) is not None:
        if not any(tag == "*" or tag.partition("-")[0] == revision for tag in _tags(wanted)):
            raise RevisionMismatch
    elif (
        (until := _date(headers.get("if-unmodified-since"))) is not None
        # To the second: what changed within it cannot be told apart from what was shown in it.
        and current.seen_ms // 1000 * 1000 > until
    ):
        raise RevisionMismatch
    if (known := headers.get("if-none-match")) is not None:
        if not any(tag in ("*", current.tag) for tag in _tags(known)):
            return False
        if not is_read:
            raise RevisionMismatch
        return True
    since = _date(headers.get("if-modified-since"))
    return is_read and since is not None and current.seen_ms <= since


def _tags(text: str) -> list[str]:
    return [quoted or bare for quoted, bare in _TAG.findall(text)]


def _date(text: str | None) -> int | None:
    """Return a date in milliseconds; one that cannot be read is as if it were not there."""
    try:
        date = parsedate_to_datetime(text or "")
    except (OverflowError, ValueError):
        return None
    return int(date.replace(tzinfo=date.tzinfo or UTC).timestamp() * 1000)
