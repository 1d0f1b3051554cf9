"""Conditions: what a request says about when it may be done: once, or only if nothing changed.

An Idempotency-Key becomes the command's *op*, which the record remembers (its last eight); ETags
and ``If-Match`` are RFC 9110 section 13. A session's own tag is its revision.
"""

import hashlib
import re
from typing import Any, Final

from msgspec.json import encode

from gateway.api.operation import Call
from gateway.auth.principals import Principal
from gateway.core.errors import BadRequest, IdempotencyMismatch, RevisionMismatch
from gateway.core.model import Session

IDEMPOTENCY_KEY: Final = r"^[!-\"$-~]{1,64}$"  # visible ASCII but #; eight fit a record
IF_MATCH: Final = r'^(\*|(W/)?"[!#-~]*")$'  # RFC 9110 section 13.1.1; a list makes no sense here

_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')
_REVISION: Final = re.compile(r'"([0-9]{1,16})"')

AnyCall = Call[Any, Any]


def operation_of(call: AnyCall, session: Session | None) -> str | None:
    """Return what names this request in the record, if it has an Idempotency-Key.

    Raises:
        IdempotencyMismatch: The record remembers the key with another request.
    """
    key = idempotency_key(call)
    if key is None:
        return None
    scope = call.scope
    parts = (*identity(call.principal), scope["method"], scope["path"], scope["query_string"])
    said = hashlib.sha256(encode([*map(_text, parts), _text(call.raw_body)])).hexdigest()
    op = f"{key}#{said[:16]}"
    if session and any(known.startswith(f"{key}#") and known != op for known in session.ops):
        raise IdempotencyMismatch
    return op


def idempotency_key(call: AnyCall) -> str | None:
    """Return the request's Idempotency-Key.

    Raises:
        BadRequest: It is longer than 64 characters or not visible ASCII.
    """
    key = call.header("idempotency-key")
    if key is not None and not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise BadRequest("An Idempotency-Key is 1 to 64 visible ASCII characters without #.")
    return key


def identity(principal: Principal) -> tuple[str | None, ...]:
    """Return what makes a caller the same one with another token."""
    return principal.name, principal.account, principal.workspace


def _text(part: str | bytes | None) -> str | None:
    return part.decode("latin-1") if isinstance(part, bytes) else part


def matches_tag(call: AnyCall, tag: str) -> bool:
    """Whether ``If-None-Match`` names *tag*; compared weakly (RFC 9110 section 13.1.2)."""
    wanted = call.header("if-none-match")
    if wanted is None:
        return False
    return wanted.strip() == "*" or tag.removeprefix("W/").strip('"') in _ENTITY_TAG.findall(wanted)


def expected_revision(call: AnyCall) -> int | None:
    """Return the revision that ``If-Match`` asks for; ``*`` is any.

    Raises:
        BadRequest: It is no entity tag.
        RevisionMismatch: It is the tag of something else, or a weak one: no session has it.
    """
    text = call.header("if-match")
    if text is None or text == "*":
        return None
    if not re.fullmatch(IF_MATCH, text):
        raise BadRequest("If-Match is one entity tag in quotes, or an asterisk.")
    match = _REVISION.fullmatch(text)
    if match is None:
        raise RevisionMismatch
    return int(match[1])
