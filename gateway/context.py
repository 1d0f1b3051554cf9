"""Context: what every door is given: the node, who may come in, and the settings.

Every request and every WebSocket handshake is counted here, whichever door it comes through. A
token is checked first, because that costs less than the request itself: a good one is charged to
its caller, a bad one to the address. A password costs 64 MiB and a core for 30 ms and more, so the
address is charged before it is checked, and gets its charge back if the password is right.
"""

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar

from msgspec import Struct, field
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import Credential, OriginRefused, Peer, client_address, networks
from gateway.auth.principals import Authenticator, Principal, secret_matches, split_session_token
from gateway.auth.rate_limit import LoginLimiter, RateLimiter, address_key
from gateway.auth.users import Users
from gateway.connections.registry import ConnectionRegistry
from gateway.core.errors import (
    GatewayError,
    NotFound,
    RateLimited,
    SessionClosed,
    TokenExpired,
    Unauthorized,
)
from gateway.logs.request import current
from gateway.logs.throttle import Throttle
from gateway.metrics import AUTH_FAILURES
from gateway.node import Node
from gateway.settings import Settings

NATIVE: Final = "native"  # the name of our own API, beside those of the dialects
LOGGED_MAX: Final = 128  # characters of a name or a path that are logged

T = TypeVar("T")

log = logging.getLogger(__name__)


class CallerKey(NamedTuple):
    """What makes two principals the same caller."""

    name: str
    workspace: str | None
    session: str | None


def caller_key(principal: Principal) -> CallerKey:
    """Return what makes two principals the same caller."""
    return CallerKey(principal.name, principal.workspace, principal.session)


def door_of(scope: AsgiScope) -> str:
    """Return the API that a request is for: a dialect, or ``native``."""
    door: str = scope.get("door", NATIVE)
    return door


class Context(Struct, frozen=True):
    """Given to the doors by ``app``; found at ``request.app.state.context``.

    Args:
        node: Commands, replica, subscriptions.
        authenticator: Tokens to principals.
        connections: The open WebSockets of this process.
        settings: As the operator set them.
        users: People who log in with a password.
        rate_limiter: Limits the requests of a caller, at all doors together.
        login_limiter: How many wrong passwords a name may get.
        throttles: The budgets of the lines that clients cause, by kind.
        wall_ms: Milliseconds since the Unix epoch by this machine's clock; for token expiry only.
    """

    node: Node
    authenticator: Authenticator
    connections: ConnectionRegistry
    settings: Settings
    users: Users
    wall_ms: Callable[[], int]
    rate_limiter: RateLimiter = field(default_factory=RateLimiter)
    login_limiter: LoginLimiter = field(default_factory=LoginLimiter)
    throttles: defaultdict[str, Throttle] = field(default_factory=lambda: defaultdict(Throttle))

    def peer(self, scope: AsgiScope) -> Peer:
        """Return the client of a connection, as a trusted proxy names it."""
        return client_address(scope, networks(self.settings.trusted_proxies))

    def facts(self, scope: AsgiScope) -> dict[str, object]:
        """Return what the log tells of a request; a WebSocket has no method."""
        return {
            "method": scope.get("method"),
            "path": scope["path"][:LOGGED_MAX],
            "address": self.peer(scope).address,
        }

    # --- rate limits

    async def rate_limited(
        self, scope: AsgiScope, checking: Awaitable[T], who: Callable[[T], Hashable]
    ) -> T:
        """Return the caller of a token, and charge it; without a valid token charge the address.

        Args:
            scope: The request or handshake.
            checking: Checks the token.
            who: What makes two callers the same one.

        Raises:
            RateLimited: The caller has used up what it may (``requests_per_s``).
            GatewayError: What *checking* raises.
        """
        try:
            caller = await checking
        except GatewayError as error:
            if not error.retry:  # else it could not be checked
                AUTH_FAILURES.labels(door_of(scope), error.code).inc()
                if not isinstance(error, OriginRefused):  # which has a line of its own
                    self._tell_refused(scope, error)
                self._charge(scope, address_key(self.peer(scope).address))
            raise
        self._known(scope, who(caller))
        return caller

    async def log_in(self, scope: AsgiScope, name: str, password: str) -> Principal:
        """Return the user of this name and password; see :meth:`checked_login`.

        Raises:
            Unauthorized: There is no such user, or the password is wrong; they look the same.
            RateLimited: As :meth:`checked_login`.
            Overloaded: Too many log in at once.
        """
        return await self.checked_login(
            scope, name, lambda: self.users.verify(name, password, self.wall_ms()), caller_key
        )

    async def checked_login(
        self,
        scope: AsgiScope,
        name: str,
        check: Callable[[], Awaitable[T]],
        who: Callable[[T], Hashable],
    ) -> T:
        """Return the caller who logs in; the address is charged first, and refunded on success.

        The name is counted as well, except for addresses from which its owner has logged in.

        Args:
            scope: The request.
            name: The name that was given; for the log.
            check: Checks the password; not called if the address has nothing left.
            who: What makes two callers the same one.

        Raises:
            RateLimited: The address, the name or the caller has used up what it may.
            GatewayError: What *check* raises.
        """
        address, now_ms = self.peer(scope).address, self.node.monotonic_ms
        key = address_key(address)
        self._charge(scope, key)
        try:
            with self._telling(scope):
                self.login_limiter.begin(name, key, self.settings.requests_per_s, now_ms())
            caller = await check()
        except Unauthorized as error:
            AUTH_FAILURES.labels(door_of(scope), error.code).inc()
            self.rate_limiter.forfeit(key, now_ms())
            self.login_limiter.failed(name, now_ms())
            if (fields := self.throttles["logins"].admit()) is not None:
                about = {"account": name[:LOGGED_MAX], **self.facts(scope), **fields}
                log.warning("a login is refused: wrong name or password", extra=about)
            raise
        except RateLimited:
            self.rate_limiter.give_back(key)
            raise
        except GatewayError:  # nothing was found out about the password
            self.rate_limiter.give_back(key)
            self.login_limiter.unchecked(name, key)
            raise
        self.rate_limiter.give_back(key)
        self.login_limiter.succeeded(name, key)
        self._known(scope, who(caller))
        return caller

    def _tell_refused(self, scope: AsgiScope, error: GatewayError) -> None:
        if (fields := self.throttles["credentials"].admit()) is not None:
            about = {"code": error.code, "reason": error.detail}
            log.info("a credential is refused", extra={**self.facts(scope), **about, **fields})

    def _known(self, scope: AsgiScope, caller: Hashable) -> None:
        """Charge a caller, and name it in the log."""
        if (mark := current.get()) is not None and isinstance(caller, CallerKey):
            mark.account = None if caller.session else caller.name
        self._charge(scope, caller)

    def _charge(self, scope: AsgiScope, caller: Hashable) -> None:
        rate_per_s = self.settings.requests_per_s
        if rate_per_s:
            with self._telling(scope):
                self.rate_limiter.consume(caller, rate_per_s, self.node.monotonic_ms())

    @contextmanager
    def _telling(self, scope: AsgiScope) -> Iterator[None]:
        """Log a refusal."""
        try:
            yield
        except RateLimited:
            if (fields := self.throttles["rates"].admit()) is not None:
                log.warning("a request is refused: too many", extra={**self.facts(scope), **fields})
            raise

    # --- authentication

    async def principal_of(self, credential: Credential) -> Principal:
        """Return the principal of a credential; a session token identifies its session.

        Raises:
            Unauthorized: There is no valid token.
            TokenExpired: The token has expired.
        """
        try:
            return await self.authenticator.authenticate(credential.token, self.wall_ms())
        except TokenExpired:
            raise
        except Unauthorized:
            token = split_session_token(credential.token or "")
            if token is None:
                raise
        session_id, secret = token
        try:
            session = await self.node.find(session_id)
            kept = session.private.token_hash
        except SessionClosed as error:
            kept = getattr(getattr(error.record, "private", None), "token_hash", None)
        except NotFound:
            kept = None
        if not secret_matches(kept, secret):
            raise Unauthorized
        return Principal.of_session(session_id)
