"""What every door has in its hands: the node, who may come in, and the settings."""

from collections.abc import Callable

from msgspec import Struct

from gateway.auth.credentials import Credential
from gateway.auth.principals import Authenticator, Principal, secret_matches, split_session_token
from gateway.auth.users import Users
from gateway.core.errors import NotFound, SessionClosed, TokenExpired, Unauthorized
from gateway.lines import Sockets
from gateway.node import Node
from gateway.settings import Settings


class Context(Struct, frozen=True):
    """Given to the doors by ``app``; found at ``request.app.state.context``.

    Args:
        node: Commands, mirror, subscriptions.
        authenticator: Tokens to principals.
        sockets: The open WebSockets of this process.
        settings: As the operator set them.
        users: People who log in with a password.
        wall_ms: Milliseconds since the Unix epoch by this machine's clock; for token expiry only.
    """

    node: Node
    authenticator: Authenticator
    sockets: Sockets
    settings: Settings
    users: Users
    wall_ms: Callable[[], int]

    async def principal_of(self, shown: Credential) -> Principal:
        """Return whose the token is that was shown; a session's own stands for that session.

        Raises:
            Unauthorized: There is none, or none that is good.
            TokenExpired: It was good once.
        """
        try:
            return await self.authenticator.authenticate(shown.token, self.wall_ms())
        except TokenExpired:
            raise
        except Unauthorized:
            token = split_session_token(shown.token or "")
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
