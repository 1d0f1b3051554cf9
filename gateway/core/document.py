"""Documents and messages: what the store and the log hold besides sessions.

A *document* is a small record that is not a session: a dialect's member or room, a number given to
an account, a handle (a door's own id for a session). It lives in the same store, log and replica,
and in no public list. A *message* is delivered once to live connections and is kept only in the
log.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from gateway.core.model import Key, SessionId

BODY_MAX_BYTES: Final = 16 * 1024  # of a document
MESSAGE_MAX_BYTES: Final = 4 * 1024  # of a message's body


class Document(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A record of a dialect. An empty body stands for a document that was deleted.

    Args:
        kind: What kind of record it is, such as ``neko.member``.
        key: Which one; unique within its kind.
        revision: +1 for each commit; a new document's starts at the time in milliseconds.
        body: Any JSON object, at most 16 KiB.
    """

    kind: str
    key: str
    revision: int = 0
    body: dict[str, Any] = {}

    @property
    def field(self) -> str:
        """The hash field of the document; session ids contain no slash."""
        return f"{self.kind}/{self.key}"


class Recipients(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The recipients of a message: one session, a workspace, or everybody if neither is set."""

    session: SessionId | None = None
    workspace: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A message, delivered once to the live connections of its recipients.

    Args:
        to: The recipients.
        topic: What the message is about.
        body: Any JSON, at most 4 KiB.
        sender: The account or session it comes from, as the door knows it.
    """

    to: Recipients
    topic: Key
    body: Any = None
    sender: str | None = None
