"""Answers: the lines of the log about an answer by HTTP; failures of ours are told at ``info``."""

import logging
from http import HTTPStatus
from typing import Final

from starlette.responses import Response
from starlette.types import Scope

from gateway.auth.credentials import OriginRefused, headers, networks, own_origin
from gateway.context import Context
from gateway.core.errors import GatewayError

PROBES: Final = ("/livez", "/readyz")

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
    if isinstance(error, OriginRefused):
        _tell_origin(context, scope, error)
    is_probe = scope["path"].endswith(PROBES)  # it asks for the state, of which there are lines
    has_failed = response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR and not is_probe
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


def _tell_origin(context: Context, scope: Scope, error: OriginRefused) -> None:
    if (fields := context.throttles["origins"].admit()) is not None:
        about = {
            "origin": next(iter(headers(scope, b"origin")), None),
            "own_origin": own_origin(scope, networks(context.settings.trusted_proxies)),
            "reason": error.detail,
        }
        log.warning("an origin is refused", extra={**context.facts(scope), **about, **fields})
