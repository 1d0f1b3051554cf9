"""What every door has in its hands: the node, who may come in, and the settings."""

from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from msgspec import Struct, field
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import Credential, client_address, networks
from gateway.auth.principals import Authenticator, Principal, secret_matches, split_session_token
from gateway.auth.rate_limit import RateLimiter
from gateway.auth.users import Users
from gateway.connections.registry import ConnectionRegistry
from gateway.core.errors import NotFound, SessionClosed, TokenExpired, Unauthorized
from gateway.node import Node
from gateway.settings import Settings

T = TypeVar("T")


def caller_key(principal: Principal) -> Hashable:
    """Return what makes two principals the same caller."""
    return principal.name, principal.session


class Context(Struct, frozen=True):
    """Given to the doors by ``app``; found at ``request.app.state.context``.

    Args:
        node: Commands, replica, subscriptions.
        authenticator: Tokens to principals.
        connections: The open WebSockets of this process.
        settings: As the operator set them.
        users: People who log in with a password.
        rate_limiter: How many requests a second a caller may send, whatever doors it uses.
        wall_ms: Milliseconds since the Unix epoch by this machine's clock; for token expiry only.
    """

    node: Node
    authenticator: Authenticator
    connections: ConnectionRegistry
    settings: Settings
    users: Users
    wall_ms: Callable[[], int]
    rate_limiter: RateLimiter = field(default_factory=RateLimiter)

    async def rate_limited(
        self, scope: AsgiScope, asking: Awaitable[T], who: Callable[[T], Hashable]
    ) -> T:
        """Return who asks, and count the request; without a good token the address is counted.

        Args:
            scope: The request.
            asking: Finds out whose it is.
            who: What makes two callers the same one.

        Raises:
            RateLimited: It has used up what it may (``requests_per_s``).
            GatewayError: What *asking* raises.
        """
        rate_per_s, now_ms = self.settings.requests_per_s, self.node.clock.monotonic_ms()
        try:
            caller = await asking
        except Unauthorized:
            address = client_address(scope, networks(self.settings.trusted_proxies)).address
            self.rate_limiter.consume(address, rate_per_s, now_ms)
            raise
        self.rate_limiter.consume(who(caller), rate_per_s, now_ms)
        return caller

    async def principal_of(self, credential: Credential) -> Principal:
        """Return whose the token is that was shown; a session's own stands for that session.

        Raises:
            Unauthorized: There is none, or none that is good.
            TokenExpired: It was good once.
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
