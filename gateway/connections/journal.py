"""Connection journal: what the log and the metrics tell of a connection's start and end.

The request of a connection is over long before its end, so its names are kept here.
"""

import logging
from typing import Final

from msgspec import Struct

from gateway.connections.lifecycle import ClientClosed, ConnectionEnded, ServerClose
from gateway.core.errors import CloseCode
from gateway.core.model import Session
from gateway.logs.request import RequestMark
from gateway.logs.throttle import Throttle
from gateway.metrics import CLOSES, CONNECTS

_KNOWN: Final = frozenset({*CloseCode, *range(1000, 1016)})  # RFC 6455 section 7.4.1, and ours

log = logging.getLogger(__name__)


class ConnectionJournal(Struct, gc=False):
    """What the log tells of one connection.

    Args:
        path: The path of its request.
        address: The address of the client behind trusted proxies.
        mark: The names of its request.
        throttle: The budget of lines about connections that are refused.
        account: The account of its session; that of the caller is in the mark.
        session_id: The session, if it has one.
        opened_s: When it opened, in loop time; ``None`` before.
    """

    path: str
    address: str | None
    mark: RequestMark
    throttle: Throttle
    account: str | None = None
    session_id: str | None = None
    opened_s: float | None = None

    def attach(self, session: Session) -> None:
        """Note the session of the connection."""
        self.session_id, self.account = session.id, session.account

    def opened(self, now_s: float) -> None:
        """Note that the client was admitted and is served from now on."""
        self.opened_s = now_s
        CONNECTS.inc()
        if log.isEnabledFor(logging.INFO):
            log.info("a connection opened", extra=self._facts())

    def ended(self, ended: ConnectionEnded, now_s: float) -> None:
        """Note how the connection ended, whether or not it opened."""
        code = getattr(ended, "code", None)
        if self.opened_s is not None and code is not None:
            CLOSES.labels(int(code) if code in _KNOWN else "other").inc()
        if not log.isEnabledFor(logging.INFO):
            return
        about = self._facts()
        if isinstance(ended, ServerClose):
            about |= {"ended_by": "gateway", "reason": ended.reason, "code": int(ended.code)}
        elif isinstance(ended, ClientClosed):
            about |= {"ended_by": "client", "reason": ended.cause, "code": ended.code}
        if self.opened_s is None:
            if (fields := self.throttle.admit()) is not None:
                log.info("a connection is refused", extra={**about, **fields})
        else:
            about["lasted_s"] = round(now_s - self.opened_s, 3)
            log.info("a connection ended", extra=about)

    def _facts(self) -> dict[str, object]:
        return {
            "request_id": self.mark.request_id,
            "trace_id": self.mark.trace_id,
            "path": self.path,
            "address": self.address,
            "account": self.mark.account or self.account,
            "session_id": self.session_id,
        }
