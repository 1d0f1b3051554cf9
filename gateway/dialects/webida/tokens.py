"""Tokens: signs and verifies the tokens of Webida's clients. Pure.

A token is a JSON Web Token (RFC 7519) with one header, one key and one algorithm (HS256): a text
that does not begin with exactly that header is not ours, so algorithms cannot be confused. A MASTER
token is for logging in and valid for half a year. An ACCESS token is for everything else, valid for
minutes, and names the session of its bearer.

Not here: who gets one (``access``).
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, Literal

from msgspec import MsgspecError, Struct
from msgspec.json import decode, encode

Kind = Literal["M", "A"]

ACCESS_S: Final = {"A": 600, "C": 900}  # an ACCESS token's life, by generation, as the product's
MASTER_S: Final = 180 * 86_400  # a MASTER token's life, as the product's
LEEWAY_S: Final = 5  # how far the clocks of two nodes may differ
TEXT_MAX: Final = 4096  # characters; ours have about 500

_HEADER: Final = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode() + "."
_PURPOSE: Final = b"webida tokens"


class WebidaClaims(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The claims of a token. Times in seconds since the Unix epoch.

    Args:
        type: ``M`` for MASTER, ``A`` for ACCESS.
        jti: A unique id.
        iat: When it was issued.
        exp: When it expires.
        sub: The user who logged in.
        scopes: What the bearer may do.
        account: The account of the bearer.
        workspace_id: The only workspace it is valid for.
        session_id: The session of the bearer.
        mark: Changes with the password that was shown; empty when another token was.
        until: Of tokens that follow from another one: none of them lives longer.
    """

    type: Kind
    jti: str
    iat: int
    exp: int
    sub: str
    scopes: tuple[str, ...] = ()
    account: str | None = None
    workspace_id: str | None = None
    session_id: str | None = None
    mark: str = ""
    until: int | None = None

    def is_expired(self, now_ms: int) -> bool:
        """Whether the token has expired."""
        return now_ms >= (self.exp + LEEWAY_S) * 1000


class Signer:
    """Signs tokens and verifies them.

    Args:
        secret: Of the store: every node has the same.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, _PURPOSE, "sha256")

    def sign(self, claims: WebidaClaims) -> str:
        """Return the text of a token."""
        signed = _HEADER + _text(encode(claims))
        return f"{signed}.{self._signature(signed)}"

    def read(self, text: str) -> WebidaClaims | None:
        """Return the claims of a token, expired or not; ``None`` if its signature is not ours."""
        if not text.startswith(_HEADER) or len(text) > TEXT_MAX or not text.isascii():
            return None
        signed, _, signature = text.rpartition(".")
        if not hmac.compare_digest(signature, self._signature(signed)):
            return None
        payload = signed.removeprefix(_HEADER)
        try:
            return decode(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=WebidaClaims)
        except (MsgspecError, ValueError):  # signed by a version that says it otherwise
            return None

    def mark(self, kept: str) -> str:
        """Return the mark of a stored password for use in tokens; it cannot be inverted."""
        return hmac.digest(self._key, kept.encode(), "sha256").hex()[:16]

    def _signature(self, signed: str) -> str:
        return _text(hmac.new(self._key, signed.encode(), hashlib.sha256).digest())


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
