"""Access: authentication in Webida's way, by a bare token in ``Authorization``.

All tokens of the gateway are accepted as well. Webida's tokens are issued here, on any node for
every node. A login mints the id of a session, which is opened when its socket connects; a renewal
keeps the id for as long as that session can live. A renewal checks again that the user exists and
has the same password, so a removed user is out when the last ACCESS token expires. A token that was
made of another one expires with it, or after a day. No token is made of a session token, because
that is not a login and nothing that follows from it may open a session.

A restricted token is valid for one workspace only; an *unrestricted* one for all that its owner's
scopes allow. An expired ACCESS token opens and reads nothing, but still identifies the session of
its bearer, because a Socket.IO client reconnects with its first query, however old that is.

Not here: what a caller may do to a session (``endpoints_sessions``, ``session_socket``).
"""

import asyncio
import secrets
from typing import Final

from msgspec import UNSET, Struct
from msgspec.structs import replace
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import Credential
from gateway.auth.principals import ADMIN, Principal, Scope, admin
from gateway.context import Context
from gateway.core.errors import Forbidden, Unauthorized, Unavailable
from gateway.core.public import rfc3339
from gateway.dialects.webida.schema import Token
from gateway.dialects.webida.tokens import ACCESS_S, MASTER_S, Kind, Signer, WebidaClaims
from gateway.settings import SettingsError

DERIVED_S: Final = 86_400  # a token that is made of one without expiry is valid for a day
SCHEMES: Final = ("bearer", "token")  # words before a token, which are no part of it

NEED_TOKEN: Final = "need access token"  # noqa: S105 - the product's words
WRONG_TYPE: Final = "invalid token type"
INVALID: Final = "invalid token"
FAILED: Final = "authentication failed"

_ALL_OF_ONE: Final = frozenset({Scope.CONNECT, Scope.READ, Scope.WRITE, Scope.CLOSE})


class WebidaCaller(Struct, frozen=True, kw_only=True):
    """The caller of a request or a socket.

    Args:
        principal: Rights; its ``session`` is the one that the caller is, or will be.
        claims: What the token says if it is Webida's.
        is_expired: Only the session that it names may still be come back to.
    """

    principal: Principal
    claims: WebidaClaims | None = None
    is_expired: bool = False

    @property
    def is_session(self) -> bool:
        """Whether the credential is a session token, which opens nothing and is no login."""
        return self.claims is None and self.principal.session is not None


class Access:
    """Checks and issues the tokens of this door.

    Args:
        context: Users, tokens, and the store's secret.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._signer = Signer(context.node.secret)
        self._access_s = ACCESS_S[context.settings.webida_generation]

    # --- authentication

    async def caller(self, text: str | None) -> WebidaCaller:
        """Return the caller of the token of a request.

        Raises:
            Unauthorized: The token is missing, unknown, for logging in only, or expired.
        """
        caller = await self.visitor(text)
        if caller.is_expired:
            raise Unauthorized(INVALID)
        return caller

    async def visitor(self, text: str | None) -> WebidaCaller:
        """Return the caller of the token of a socket; the token may have expired.

        Raises:
            Unauthorized: As :meth:`caller`.
        """
        token = bare(text)
        if not token:
            raise Unauthorized(NEED_TOKEN)
        claims = self._signer.read(token)
        if claims is None:
            try:
                shown = Credential(token=token, source="header")
                return WebidaCaller(principal=await self._context.principal_of(shown))
            except Unauthorized:
                raise Unauthorized(INVALID) from None
        if claims.type != "A":
            raise Unauthorized(WRONG_TYPE)
        is_expired = claims.is_expired(self._context.wall_ms())
        return WebidaCaller(principal=_principal(claims), claims=claims, is_expired=is_expired)

    # --- tokens

    async def login(self, scope: AsgiScope, name: str, password: str, master: str | None) -> Token:
        """Check a login; return an ACCESS token with a new session id.

        Args:
            scope: The request.
            name: As it was given; means nothing beside a master token.
            password: As it was given; the same.
            master: The text of a MASTER token.

        Raises:
            Unauthorized: Nobody we know.
            RateLimited: Too many logins come from this address, or of this person.
            Overloaded: Too many log in at once.
        """
        try:
            if master:
                return await self._context.rate_limited(
                    scope, self._by_master(master), lambda _: ("webida", master)
                )
            principal = await self._context.log_in(scope, name, password)
            marks = [mark for mark, known in await self._known(name) if known == principal]
        except Unauthorized:
            raise Unauthorized(FAILED) from None
        return self._issue("A", principal, marks[0] if marks else "", None)

    async def _by_master(self, master: str) -> Token:
        claims = self._signer.read(master)
        if claims is None or claims.type != "M" or claims.is_expired(self._now_ms()):
            raise Unauthorized
        return self._issue("A", await self._again(claims), claims.mark, claims.until)

    async def renew(self, caller: WebidaCaller, kind: Kind, workspace: str | None) -> Token:
        """Return another token of *caller*.

        Args:
            caller: Who shows a good ACCESS token.
            kind: What it shall be good for.
            workspace: The only workspace it shall be good for; ``None`` leaves that as it is.

        Raises:
            Unauthorized: The person is not there any more, or has another password.
            Forbidden: The caller may not see that workspace, or shows the token of a session.
        """
        if caller.is_session:
            raise Forbidden("The token of a session is no login.")
        claims, principal = caller.claims, caller.principal
        until: int | None
        if claims is None:
            ends_at = principal.expires_at or self._now_ms() + DERIVED_S * 1000
            mark, until = "", ends_at // 1000
        else:
            mark, until = claims.mark, claims.until
            principal = await self._again(claims)
        if workspace is not None:
            if not may_enter(principal, workspace):
                raise Forbidden("This token is not good for that workspace.")
            principal = restricted(principal, workspace)
        return self._issue(kind, principal, mark, until, self._kept_id(caller, principal))

    def _kept_id(self, caller: WebidaCaller, principal: Principal) -> str | None:
        """Return the session id that a renewed token keeps, ``None`` if it gets another one."""
        node, session_id = self._context.node, caller.principal.session
        if session_id is None or node.tombstone(session_id) is not None:
            return None  # an id is never reused, so it need not be kept
        session = node.sessions.get(session_id)
        if session is not None and not principal.covers(session.workspace):
            return None  # the new token is for another workspace
        return session_id

    def _issue(
        self,
        kind: Kind,
        principal: Principal,
        mark: str,
        until_s: int | None,
        session: str | None = None,
    ) -> Token:
        now_s = self._now_ms() // 1000
        expires_s = now_s + (MASTER_S if kind == "M" else self._access_s)
        if until_s is not None:
            expires_s = min(expires_s, until_s)
        claims = WebidaClaims(
            type=kind,
            jti=secrets.token_hex(8),
            iat=now_s,
            exp=expires_s,
            sub=principal.name,
            scopes=tuple(sorted(principal.scopes)),
            account=principal.account,
            workspace_id=principal.workspace,
            session_id=(session or new_id()) if kind == "A" else None,
            mark=mark,
            until=until_s,
        )
        return Token(
            text=self._signer.sign(claims),
            token_type="ACCESS" if kind == "A" else "MASTER",
            expires_at=rfc3339(expires_s * 1000),
            issued_at=rfc3339(now_s * 1000),
            session_id=claims.session_id or UNSET,
            workspace_id=claims.workspace_id or UNSET,
        )

    # --- users of tokens

    async def _again(self, claims: WebidaClaims) -> Principal:
        """Return the principal of a token as the users file has it today.

        Raises:
            Unauthorized: Not there any more, or not with that password.
        """
        if not claims.mark:
            if claims.until is None or self._now_ms() >= claims.until * 1000:
                raise Unauthorized(INVALID)
            return _principal(claims)
        workspace = claims.workspace_id
        for mark, principal in await self._known(claims.sub):
            if mark != claims.mark:
                continue
            if workspace is None:
                return principal
            if principal.workspace in (None, workspace):
                return restricted(principal, workspace)
        raise Unauthorized(INVALID)

    async def _known(self, name: str) -> list[tuple[str, Principal]]:
        """Return every principal of this name, with the mark of its stored password."""
        found: list[tuple[str, Principal]] = []
        key = self._context.settings.admin_key
        if name == ADMIN and key is not None:
            found.append((self._signer.mark(key), admin()))
        try:
            people = await asyncio.to_thread(self._context.users.list)
        except SettingsError as error:
            raise Unavailable("Nobody can log in right now.") from error
        if (person := people.get(name)) is not None:
            found.append((self._signer.mark(person.hash), person.principal(name)))
        return found

    def _now_ms(self) -> int:
        return self._context.wall_ms()


def new_id() -> str:
    """Return a new session id: 96 random bits, never ``*``, which means all."""
    return secrets.token_hex(12)


def bare(text: str | None) -> str:
    """Return the token in a header; some clients put a scheme before it."""
    first, _, rest = (token := (text or "").strip()).partition(" ")
    return rest.strip() if first.lower() in SCHEMES else token


def may_enter(principal: Principal, workspace: str) -> bool:
    """Whether the caller may be in *workspace*: it is the token's own, or it may see it anyway."""
    if principal.workspace == workspace:
        return True
    sees = principal.has(Scope.READ) or principal.has(Scope.WRITE)
    return sees and principal.covers(workspace)


def restricted(principal: Principal, workspace: str) -> Principal:
    """Return *principal* with rights in *workspace* only."""
    scopes = principal.scopes
    if Scope.ADMIN in scopes:
        scopes = _ALL_OF_ONE
    return replace(principal, workspace=workspace, scopes=scopes)


def _principal(claims: WebidaClaims) -> Principal:
    return Principal.of_token(
        claims.sub,
        claims.scopes,
        account=claims.account,
        workspace=claims.workspace_id,
        session=claims.session_id,
    )
