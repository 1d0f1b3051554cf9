"""Request mark: the id of the request that is being handled, in every line that this causes.

A proxy's ``X-Request-Id`` is kept, so that its log and ours tell of the same request; without one,
or with one that could harm a log, the request gets an id of its own. The reply names it. The trace
of a valid ``traceparent`` (W3C Trace Context, section 3.2) is kept beside it.
"""

import random
import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final

from msgspec import Struct

HEADER: Final = b"x-request-id"  # what nginx, HAProxy and Envoy are told to send
ID_MAX: Final = 128  # characters of an id that is kept; a longer one is replaced

_KEY: Final = "gateway.request"  # in the ASGI scope
_ID: Final = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,%d}" % ID_MAX)
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
_FIRST_VERSION: Final = b"00-"


class RequestMark(Struct, gc=False):
    """The names of one request.

    Args:
        request_id: Told in the reply, and in every line of the log.
        trace_id: Of the caller's ``traceparent``.
        account: The caller, once its credential has been checked.
    """

    request_id: str
    trace_id: str | None = None
    account: str | None = None

    @property
    def header(self) -> tuple[bytes, bytes]:
        """The header of the reply."""
        return HEADER, self.request_id.encode()


current: Final[ContextVar[RequestMark | None]] = ContextVar("request", default=None)


def new_id() -> str:
    """Return 64 random bits as text; they tell requests apart and are no secret."""
    return f"{random.getrandbits(64):016x}"


def mark_in(scope: Any) -> RequestMark:  # noqa: ANN401 - typed differently by each library
    """Return the mark of a request, which is made when it is first asked for.

    Args:
        scope: The ASGI scope; ``None`` if no request has begun.
    """
    if scope is None:
        return mark_of(())
    mark: RequestMark | None = scope.get(_KEY)
    if mark is None:
        mark = scope[_KEY] = mark_of(scope["headers"])
    return mark


def mark_of(headers: Iterable[tuple[bytes, bytes]]) -> RequestMark:
    """Return the mark of a request with these headers, whose names are in lower case."""
    request_id = traceparent = None
    for name, value in headers:
        if name == HEADER:
            request_id = value if request_id is None else b""  # two are none
        elif name == b"traceparent":
            traceparent = value if traceparent is None else b""
    return RequestMark(
        request_id.decode() if request_id and _ID.fullmatch(request_id) else new_id(),
        _trace_id(traceparent) if traceparent else None,
    )


def _trace_id(traceparent: bytes) -> str | None:
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[2] is not None and traceparent.startswith(_FIRST_VERSION)):
        return None
    return found[1].decode()
