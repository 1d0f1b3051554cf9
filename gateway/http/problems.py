"""Problems: errors as RFC 9457 documents.

``code`` is for programs, ``detail`` for people, and ``request_id`` finds the line in the log. An
unexpected error becomes ``internal``, without details.

Not here: which errors there are (``core.errors``), how a WebSocket is refused (``realtime``).
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec import Struct, to_builtins
from msgspec.json import encode
from starlette.responses import Response

from gateway.auth.principals import Principal
from gateway.core.errors import GatewayError, NotFound, SessionClosed
from gateway.core.model import Session
from gateway.core.public import PublicSession, render_session

MEDIA_TYPE = "application/problem+json"

T = TypeVar("T")


class Problem(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A problem document (RFC 9457); ``session`` is the final record of a closed session."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    session: PublicSession | None = None


def problem(
    error: GatewayError, request_id: str, principal: Principal | None = None, *, root: str
) -> Response:
    """Return the problem reply for *error* to *principal*.

    A closed session that the caller may not see is answered like one that never existed. The type
    is an anchor on the page of errors (``api.pages``), below *root*, where the API is mounted.
    """
    session: PublicSession | None = None
    if isinstance(error, SessionClosed) and isinstance(error.record, Session):
        if principal is None or not principal.visibility().allows(error.record):
            return problem(NotFound(), request_id, root=root)
        session = render_session(error.record, full=principal.is_full)
    document: dict[str, Any] = to_builtins(
        Problem(
            type=f"{root}/docs#{error.code}",
            title=error.title,
            status=error.status,
            detail=error.detail,
            code=error.code,
            request_id=request_id,
            session=session,
        )
    )
    headers = {"Cache-Control": "no-store"}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return Response(encode({**error.extra, **document}), error.status, headers, MEDIA_TYPE)


def nearest(table: Mapping[type[GatewayError], T], kind: type[GatewayError], default: T) -> T:
    """Return the entry of errors of *kind*, else that of the nearest ancestor."""
    return next((table[ancestor] for ancestor in kind.__mro__ if ancestor in table), default)
