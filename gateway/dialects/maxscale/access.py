"""Access: MaxScale's logins: a cookie, a bearer token, or a name and a password.

An account of MaxScale is ``admin`` or ``basic`` (which may only read). Ours have scopes: a caller
without the scope that a request needs is told what MaxScale tells a ``basic`` user. All tokens of
the gateway are good here. Tokens that are issued here are good at all doors if the gateway has a
key to sign with; else the key is made of the store's secret, and they are good here alone.
"""

import hashlib
import hmac
from base64 import b64decode
from contextlib import suppress
from typing import Final

from msgspec.structs import replace
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import (
    Credential,
    check_same_site,
    cookie_value,
    cors_origin,
    headers,
    networks,
    one_header,
    origins,
)
from gateway.auth.principals import TOKEN_MAX, Principal, principal_of_claims
from gateway.auth.tokens import Claims, Verifier, configured_key, create_token
from gateway.context import Context, caller_key
from gateway.core.errors import Unauthorized
from gateway.settings import Settings

COOKIE: Final = "token_sig"
LIFE_S: Final = 28_800  # of a token, unless max-age asks for another
LIFE_MAX_S: Final = 86_400  # MaxScale's default of admin_jwt_max_age
PAIR_MAX: Final = 4096  # characters of a name and a password in base64

_PURPOSE: Final = b"maxscale tokens"


class MaxScaleLogins:
    """Finds out whose a request is, and issues tokens.

    Args:
        context: Users, tokens, and the store's secret.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._signing = context.settings
        self._verifier: Verifier | None = None
        if not _can_sign(context.settings):
            self._signing = _own(context.settings, context.node.secret)
            self._verifier = Verifier(self._signing)

    async def caller(self, scope: AsgiScope) -> Principal:
        """Return who sends a request, and count it; a cookie counts before a header.

        Raises:
            RateLimited: It asks too often.
            Unauthorized: There is no credential, or none that is good.
            Forbidden: A page of another origin asks, with what the browser adds by itself.
            Overloaded: Too many log in at once.
        """
        known = await self._by_cookie(scope)
        if known is None and _authorization(scope)[0] == "basic":
            return await self.login(scope)
        return await self._context.rate_limited(scope, self._by_token(scope, known), caller_key)

    async def _by_cookie(self, scope: AsgiScope) -> Principal | None:
        if not (cookie := cookie_value(scope, COOKIE)):
            return None
        try:
            principal = await self._bearer(cookie)
        except Unauthorized:
            return None  # an old cookie does not shut out who logs in anew
        self._check_site(scope, cookie)
        return principal

    async def _by_token(self, scope: AsgiScope, known: Principal | None) -> Principal:
        kind, token = _authorization(scope)
        if known is None and kind != "bearer":
            raise Unauthorized
        return known or await self._bearer(token)

    async def login(self, scope: AsgiScope) -> Principal:
        """Return whose name and password a request shows.

        Raises:
            GatewayError: As :meth:`caller`.
        """
        kind, text = _authorization(scope)
        name, colon, password = _pair(text).partition(":") if kind == "basic" else ("", "", "")
        if not colon:
            raise Unauthorized
        principal = await self._context.log_in(scope, name, password)
        if headers(scope, b"sec-fetch-site"):
            self._check_site(scope, text)  # browsers remember passwords and send them unasked
        return principal

    def issue(self, principal: Principal, life_s: int | None) -> str:
        """Return a new token of *principal*, good for *life_s* seconds, a day at most."""
        now_ms = self._context.wall_ms()
        claims = Claims(
            account=principal.account or principal.name,
            workspace=principal.workspace,
            scopes=frozenset(principal.scopes),
            expires_at=now_ms + min(life_s or LIFE_S, LIFE_MAX_S) * 1000,
        )
        return create_token(self._signing, claims, now_ms)

    async def _bearer(self, token: str) -> Principal:
        if self._verifier is not None and len(token) <= TOKEN_MAX and token.isascii():
            with suppress(Unauthorized):
                return principal_of_claims(
                    await self._verifier.verify(token, self._context.wall_ms())
                )
        return await self._context.principal_of(Credential(token=token, source="header"))

    def _check_site(self, scope: AsgiScope, token: str) -> None:
        settings = self._context.settings
        if cors_origin(scope, origins(settings.allowed_origins)) is None:
            shown = Credential(token=token, source="cookie")
            check_same_site(scope, shown, networks(settings.trusted_proxies))


def _can_sign(settings: Settings) -> bool:
    """Whether the gateway can sign tokens that it would take itself."""
    if not settings.jwt_key or settings.jwks:
        return False
    return bool(configured_key(settings).key.is_private)


def _own(settings: Settings, secret: bytes) -> Settings:
    """Return settings under which tokens are signed with a key made of the store's *secret*."""
    return replace(
        settings,
        jwt_key=hmac.digest(secret, _PURPOSE, hashlib.sha256).hex(),
        jwt_algorithm="HS256",
        jwks=None,
        jwt_issuer="maxscale",
        jwt_audience=None,
    )


def _authorization(scope: AsgiScope) -> tuple[str, str]:
    kind, _, text = (one_header(scope, b"authorization") or "").partition(" ")
    return kind.lower(), text.strip()


def _pair(text: str) -> str:
    if len(text) > PAIR_MAX:
        raise Unauthorized
    try:
        return b64decode(text, validate=True).decode()
    except ValueError as error:  # binascii.Error and UnicodeDecodeError are ValueErrors
        raise Unauthorized from error
