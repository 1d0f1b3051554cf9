"""Idempotency: a request that is repeated with its ``Idempotency-Key`` is done once.

The key becomes the command's *op*, of which a record remembers the last eight.
"""

import hashlib
import re
from typing import Any, Final

from msgspec.json import encode

from gateway.auth.principals import Principal
from gateway.core.errors import BadRequest, IdempotencyMismatch
from gateway.core.model import Session
from gateway.http.endpoint import Call

IDEMPOTENCY_KEY: Final = r"^[!-\"$-~]{1,64}$"  # visible ASCII but #; eight fit a record

NativeCall = Call[Principal, Any, Any]


def operation_of(call: NativeCall, session: Session | None) -> str | None:
    """Return the operation name of this request, if it has an Idempotency-Key.

    Raises:
        IdempotencyMismatch: The record remembers the key with another request.
    """
    key = idempotency_key(call)
    if key is None:
        return None
    scope = call.request.scope
    parts = (*identity(call.caller), scope["method"], scope["path"], scope["query_string"])
    said = hashlib.sha256(encode([*map(_text, parts), _text(call.request.body)])).hexdigest()
    op = f"{key}#{said[:16]}"
    if session and any(known.startswith(f"{key}#") and known != op for known in session.ops):
        raise IdempotencyMismatch
    return op


def idempotency_key(call: NativeCall) -> str | None:
    """Return the request's Idempotency-Key.

    Raises:
        BadRequest: It is longer than 64 characters or not visible ASCII.
    """
    key = call.request.header("idempotency-key")
    if key is not None and not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise BadRequest("An Idempotency-Key is 1 to 64 visible ASCII characters without #.")
    return key


def identity(principal: Principal) -> tuple[str | None, ...]:
    """Return a key of the caller that does not depend on its token."""
    return principal.name, principal.account, principal.workspace


def _text(part: str | bytes | None) -> str | None:
    return part.decode("latin-1") if isinstance(part, bytes) else part
