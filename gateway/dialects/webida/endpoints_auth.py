"""Authentication endpoints: login, the caller, and another token."""

from typing import Final

from msgspec import UNSET
from starlette.responses import Response

from gateway.core.errors import Unauthorized
from gateway.dialects.webida.access import Access, WebidaCaller
from gateway.dialects.webida.schema import LoginBody, Token, TokenQuery, WebidaUser
from gateway.dialects.webida.tokens import Kind
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing, reply

KINDS: Final[dict[str, Kind]] = {"MASTER": "M", "ACCESS": "A"}


class AuthEndpoints:
    """Handlers of the paths under ``/auth``.

    Args:
        access: Tokens.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    def table(self) -> tuple[AnyEndpoint, ...]:
        """Return the rows."""
        return (
            Endpoint(
                "POST", "/api/auth/login", self.login,
                "Log in with an id and a password, or with a MASTER token",
                body=LoginBody, returns={200: Token},
                is_public=True,  # the login itself is counted
                errors=(Unauthorized,),
                tag="auth",
            ),
            Endpoint(
                "GET", "/api/auth/info", self.get_info, "Who is logged in",
                returns={200: WebidaUser}, tag="auth",
            ),
            Endpoint(
                "POST", "/api/auth/token", self.issue_token, "Make another token of this one",
                query=TokenQuery, returns={200: Token}, tag="auth",
            ),
        )  # fmt: skip

    async def login(self, call: Call[WebidaCaller, Nothing, LoginBody]) -> Response:
        """Return an ACCESS token to a person who shows a password or a MASTER token."""
        given = call.body
        name, password, master = given.login_id, given.login_password, given.master_token
        return _secret(await self._access.login(call.request.scope, name, password, master))

    async def get_info(self, call: Call[WebidaCaller, Nothing, Nothing]) -> Response:
        """Return who the caller is."""
        principal = call.caller.principal
        known = principal.account or principal.name
        email = known if "@" in known else UNSET
        return reply(WebidaUser(id=known, email=email, name=principal.name))

    async def issue_token(self, call: Call[WebidaCaller, TokenQuery, Nothing]) -> Response:
        """Return another token: a new ACCESS token of the same session, or a MASTER token."""
        kind, workspace = KINDS[call.query.type], call.query.workspace_id
        return _secret(await self._access.renew(call.caller, kind, workspace))


def _secret(token: Token) -> Response:
    return reply(token, headers={"Cache-Control": "no-store"})
