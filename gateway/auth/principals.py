"""Principals: whom a token identifies, and what that caller may do and see.

A token is the admin key, an API key, or a JWT (``tokens``). A :class:`Principal` holds all that is
known of a caller, and doors use nothing else. Unknown and wrong tokens get the same answer after
the same work. A session token is not a login: it proves that its bearer opened one session, and
only its hash is stored.

Not here: where a token is in a request (``credentials``), passwords (``users``).
"""

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from enum import StrEnum
from hmac import compare_digest
from pathlib import Path
from typing import Final, Self

from msgspec import Struct

from gateway.auth.tokens import LEEWAY_MS, Claims, Verifier
from gateway.core.errors import Forbidden, Unauthorized
from gateway.core.model import Session
from gateway.core.query import Filter, View, Visibility
from gateway.settings import Settings, SettingsError

TOKEN_MAX: Final = 8192  # characters; a longer token fits neither a URL nor usual headers
BOUND_ADMIN: Final = (
    "The scope admin is not for one workspace; use connect, read, write and close there."
)
ADMIN: Final = "admin"  # the user whose password is the admin key, and that key's name in logs

_SESSION_TOKEN: Final = re.compile(r"([A-Za-z0-9_.:\-]{1,128})\.([A-Za-z0-9_\-]{43})")


class Scope(StrEnum):
    """What a principal may do; ``admin`` may do everything."""

    CONNECT = "connect"
    READ = "read"
    WRITE = "write"
    CLOSE = "close"
    ADMIN = "admin"


class Principal(Struct, frozen=True, kw_only=True):
    """An authenticated caller.

    Args:
        name: A name for logs and for ``by``; it grants nothing.
        scopes: What the caller may do.
        account: The caller's own account.
        workspace: The only workspace in which the scopes count; ``None`` is all.
        session: The session whose token the caller has.
        expires_at: When the token expires, in milliseconds since the Unix epoch.
    """

    name: str
    scopes: frozenset[Scope] = frozenset()
    account: str | None = None
    workspace: str | None = None
    session: str | None = None
    expires_at: int | None = None

    @classmethod
    def of_token(
        cls,
        name: str,
        scopes: Iterable[str],
        *,
        account: str | None,
        workspace: str | None,
        session: str | None = None,
        expires_at: int | None = None,
    ) -> Self:
        """Return whom a token that was signed for us speaks of; scopes of others are left out.

        Raises:
            Unauthorized: It makes an administrator of a single workspace, which nobody can be.
        """
        if is_bound_admin(scopes, workspace):
            raise Unauthorized(BOUND_ADMIN)
        return cls(
            name=name,
            scopes=frozenset(scope for scope in Scope if scope in scopes),
            account=account,
            workspace=workspace,
            session=session,
            expires_at=expires_at,
        )

    @classmethod
    def of_session(cls, session_id: str) -> Self:
        """Return the principal of a session token."""
        return cls(
            name=f"session {session_id}", scopes=frozenset({Scope.CONNECT}), session=session_id
        )

    def has(self, scope: Scope) -> bool:
        """Whether *scope* is granted, by itself or by ``admin``."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """Raise if *scope* is not granted.

        Raises:
            Forbidden: It is not granted.
        """
        if not self.has(scope):
            raise Forbidden(f"The scope {scope} is needed.")

    @property
    def is_full(self) -> bool:
        """Whether sessions are shown with addresses, nodes and profiles."""
        return self.has(Scope.WRITE)

    def visibility(self) -> Visibility:
        """Return which sessions the principal may see."""
        if Scope.ADMIN in self.scopes:
            return Visibility("all")
        if Scope.READ in self.scopes:
            return Visibility("workspace", self.workspace) if self.workspace else Visibility("all")
        if self.account:
            return Visibility("account", self.account, self.workspace or "")
        return Visibility("session", self.session) if self.session else Visibility()

    def view(self, wanted: Filter) -> View:
        """Return the view of the sessions that match *wanted* and that the principal may see.

        Args:
            wanted: A filter, or a query that asks for more: only equal filters make equal views.

        Raises:
            Forbidden: It filters by a field that the principal may not see.
        """
        if wanted.node is not None and not self.is_full:
            raise Forbidden("Only those who may write see nodes.")
        own = Filter(**{name: getattr(wanted, name) for name in Filter.__struct_fields__})
        return View(filter=own, visibility=self.visibility(), full=self.is_full)

    def covers(self, workspace: str | None) -> bool:
        """Whether the scopes count for a session of *workspace*."""
        return self.workspace in (None, workspace) or Scope.ADMIN in self.scopes

    def require_in(self, workspace: str | None) -> None:
        """Raise if the scopes do not count for a session of *workspace*.

        Raises:
            Forbidden: They count elsewhere.
        """
        if not self.covers(workspace):
            raise Forbidden("This token is good for another workspace.")

    def owns(self, session: Session) -> bool:
        """Whether *session* is the caller's own: by its token, or by its account.

        An account is a person of one workspace: the same name elsewhere is somebody else's. A
        caller without a workspace speaks for the installation, where an account is one person.
        """
        if not self.covers(session.workspace):
            return False
        if self.session is not None and self.session == session.id:
            return True
        return self.account is not None and self.account == session.account

    def refreshed(self, newer: Self) -> Self:
        """Return the principal of a live connection whose client sent the token of *newer*.

        Raises:
            Forbidden: The token is another caller's, or grants something else.
        """
        for one in ("account", "workspace", "scopes"):
            if getattr(self, one) != getattr(newer, one):
                raise Forbidden(f"A refresh must keep the {one}.")
        return newer


def is_bound_admin(scopes: Iterable[str], workspace: str | None) -> bool:
    """Whether *scopes* would make an administrator of one workspace.

    ``admin`` covers every workspace, so the two contradict each other. ``connect read write close``
    administer one workspace.
    """
    return workspace is not None and Scope.ADMIN in scopes


def may_attach(session: Session, principal: Principal | None, secret: str | None) -> bool:
    """Whether a caller may attach a connection to *session*.

    Args:
        session: The open session.
        principal: The principal of the caller's token; ``None`` if there was none.
        secret: The second half of the caller's session token.
    """
    if secret is not None and secret_matches(session.private.token_hash, secret):
        return True
    if principal is None:
        return False
    if principal.has(Scope.WRITE) and principal.covers(session.workspace):
        return True
    return principal.has(Scope.CONNECT) and principal.owns(session)


def mint_session_secret() -> str:
    """Return 256 random bits as text, for the part of a session token after the dot."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """Return the hash of a secret; for 256 random bits no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def secret_matches(kept: str | None, secret: str) -> bool:
    """Whether *kept* is the hash of *secret*."""
    return kept is not None and compare_digest(kept, hash_secret(secret))


def split_session_token(text: str) -> tuple[str, str] | None:
    """Return the session's id and the secret, or ``None`` if *text* is no session token."""
    match = _SESSION_TOKEN.fullmatch(text)
    return (match[1], match[2]) if match else None


class Authenticator:
    """Maps tokens to principals.

    Args:
        settings: Keys and claim names.

    Raises:
        SettingsError: A key in the settings cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._known: list[tuple[bytes, Principal]] = []
        if settings.admin_key is not None:
            self._known.append((_digest(settings.admin_key), admin()))
        for key in settings.api_keys:
            principal = Principal(
                name=key.name,
                scopes=frozenset(map(Scope, key.scopes)),
                account=key.account,
                workspace=key.workspace,
            )
            self._known.append((bytes.fromhex(key.sha256), principal))
        self._verifier = Verifier(settings) if settings.jwt_key or settings.jwks else None

    async def start(self, now_ms: int) -> None:
        """Read the key set, so that the first caller need not wait; a failure is no error."""
        if self._verifier is not None and self._verifier.keys.is_set:
            await self._verifier.keys.refresh(now_ms)

    async def authenticate(self, token: str | None, now_ms: int) -> Principal:
        """Return the principal of *token*.

        Args:
            token: The token of the request; ``None`` if there was none.
            now_ms: Milliseconds since the Unix epoch.

        Raises:
            Unauthorized: The token is missing, unknown, forged or for another audience.
            TokenExpired: The token has expired.
            Unavailable: The key set has not been read yet.
        """
        if not token or len(token) > TOKEN_MAX or not token.isascii():
            raise Unauthorized
        digest = _digest(token)
        found = None
        for known, principal in self._known:  # all of them, so that timing tells nothing
            if compare_digest(known, digest):
                found = principal
        if found is not None:
            return found
        if self._verifier is None:
            raise Unauthorized
        return principal_of_claims(await self._verifier.verify(token, now_ms))


def principal_of_claims(claims: Claims) -> Principal:
    """Return whom the claims of a verified token speak of.

    Raises:
        Unauthorized: As :meth:`Principal.of_token`.
    """
    return Principal.of_token(
        claims.account or "token",
        claims.scopes,
        account=claims.account,
        workspace=claims.workspace,
        expires_at=None if claims.expires_at is None else claims.expires_at + LEEWAY_MS,
    )


def admin() -> Principal:
    """Return the principal of the admin key."""
    return Principal(name=ADMIN, scopes=frozenset({Scope.ADMIN}))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def kept_admin_key(data_dir: Path) -> str:
    """Return the admin key in *data_dir*, and create it if there is none.

    This is for a gateway without authentication. Gateways that start concurrently on one folder
    agree on one key.

    Raises:
        OSError: The folder cannot be written.
        SettingsError: The file that should hold it is empty.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / "admin_key"
    if not path.exists():
        ours = write_private(path, secrets.token_urlsafe(32).encode())
        try:
            os.link(ours, path)  # the first one wins; a reader never sees half a key
        except FileExistsError:
            pass
        finally:
            ours.unlink()
    if not (key := path.read_text(encoding="ascii").strip()):
        raise SettingsError([f"data_dir: the file {path} is empty; remove it"])
    return key


def write_private(path: Path, data: bytes) -> Path:
    """Write *data* to a private file beside *path*, synced to disk; return its path."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        beside.unlink()
        raise
    return beside
