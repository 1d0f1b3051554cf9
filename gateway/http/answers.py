"""Answers: the line of the log about an answer by HTTP; failures of ours are told at ``info``."""

import logging
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import Scope

from gateway.context import Context
from gateway.core.errors import GatewayError

log = logging.getLogger(__name__)


def tell_answer(
    context: Context,
    scope: Scope,
    response: Response,
    error: GatewayError | None,
    ms: float | None = None,
) -> None:
    """Log the answer to a request.

    Args:
        context: The node and its surroundings.
        scope: The request.
        response: The answer.
        error: What it tells, if it refuses the request.
        ms: How long it took to make.
    """
    has_failed = response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    level = logging.INFO if has_failed else logging.DEBUG
    if not log.isEnabledFor(level):
        return
    fields = context.throttles["failures"].admit() if has_failed else {}
    if fields is None:
        return
    about = {
        **context.facts(scope),
        "status": response.status_code,
        "bytes": len(getattr(response, "body", b"")),  # a stream has none yet
        "ms": None if ms is None else round(ms, 1),
        "code": error and error.code,
        "reason": error.detail if error and has_failed else None,
    }
    log.log(level, "a request is answered", extra={**about, **fields})
