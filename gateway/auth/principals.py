"""Auth: who a token says you are, what you may do, and what you may see.

A token is the admin key, an API key, or a JWT (``tokens``). All that is known of a caller stands in
a :class:`Principal`; doors ask it and nothing else. An unknown token and a wrong one get the same
answer, after the same work. A session token is no login: it proves that its bearer opened one
session, and only a hash of it is kept.
Not here: where in a request a token stands (``credentials``), passwords (``users``).
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

from gateway.auth.tokens import LEEWAY_MS, Verifier
from gateway.core.errors import Forbidden, Unauthorized
from gateway.core.model import Session
from gateway.core.query import Visibility
from gateway.settings import Settings, SettingsError

TOKEN_MAX: Final = 8192  # characters; a longer one fits no address and no usual header
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
    """Who a caller is.

    Args:
        name: For logs and for ``by``; says nothing about rights.
        scopes: What may be done.
        account: The caller's own account.
        workspace: The only workspace the scopes are good for; ``None`` is all.
        session: The one session that was shown to be the caller's own.
        expires_at: Milliseconds since the Unix epoch from which the token is refused.
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
        """Return who shows the token of a session and nothing else."""
        return cls(
            name=f"session {session_id}", scopes=frozenset({Scope.CONNECT}), session=session_id
        )

    def has(self, scope: Scope) -> bool:
        """Whether *scope* is granted, by itself or by ``admin``."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """Do nothing if *scope* is granted.

        Raises:
            Forbidden: It is not.
        """
        if not self.has(scope):
            raise Forbidden(f"The scope {scope} is needed.")

    @property
    def is_full(self) -> bool:
        """Whether sessions are shown with addresses, nodes and profiles."""
        return self.has(Scope.WRITE)

    def visibility(self) -> Visibility:
        """Return what may be seen at all."""
        if Scope.ADMIN in self.scopes:
            return Visibility("all")
        if Scope.READ in self.scopes:
            return Visibility("workspace", self.workspace) if self.workspace else Visibility("all")
        if self.account:
            return Visibility("account", self.account, self.workspace or "")
        return Visibility("session", self.session) if self.session else Visibility()

    def covers(self, workspace: str | None) -> bool:
        """Whether the scopes are good for a session of *workspace*."""
        return self.workspace in (None, workspace) or Scope.ADMIN in self.scopes

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
        """Return who goes on after *newer* was shown on a live connection.

        Raises:
            Forbidden: It is somebody else's, or grants something else.
        """
        for one in ("account", "workspace", "scopes"):
            if getattr(self, one) != getattr(newer, one):
                raise Forbidden(f"A refresh must keep the {one}.")
        return newer


def is_bound_admin(scopes: Iterable[str], workspace: str | None) -> bool:
    """Whether *scopes* would make an administrator of one workspace.

    ``admin`` goes beyond every workspace, so the two contradict each other, and whoever wrote both
    down meant less than ``admin`` grants. ``connect read write close`` administer one workspace.
    """
    return workspace is not None and Scope.ADMIN in scopes


def may_attach(session: Session, principal: Principal | None, secret: str | None) -> bool:
    """Whether a connection may become *session*'s.

    Args:
        session: The open session.
        principal: Who the caller's token says; ``None`` if there was none.
        secret: The second half of the session token that was shown.
    """
    if secret is not None and secret_matches(session.private.token_hash, secret):
        return True
    if principal is None:
        return False
    if principal.has(Scope.WRITE) and principal.covers(session.workspace):
        return True
    return principal.has(Scope.CONNECT) and principal.owns(session)


def mint_session_secret() -> str:
    """Return 256 random bits as text: the half of a session token after the dot."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """Return what is kept of a secret; 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def secret_matches(kept: str | None, secret: str) -> bool:
    """Whether *secret* is the one of which *kept* is the hash."""
    return kept is not None and compare_digest(kept, hash_secret(secret))


def split_session_token(text: str) -> tuple[str, str] | None:
    """Return the session's id and the secret, or ``None`` if *text* is no session token."""
    match = _SESSION_TOKEN.fullmatch(text)
    return (match[1], match[2]) if match else None


class Authenticator:
    """Says whose a token is.

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
        """Read the key set, so that the first caller need not wait for it; it may fail."""
        if self._verifier is not None and self._verifier.keys.is_set:
            await self._verifier.keys.refresh(now_ms)

    async def authenticate(self, token: str | None, now_ms: int) -> Principal:
        """Return whose *token* is.

        Args:
            token: As it was shown; ``None`` if there was none.
            now_ms: Milliseconds since the Unix epoch.

        Raises:
            Unauthorized: It is missing, unknown, forged or not meant for us.
            TokenExpired: It was good once.
            Unavailable: The keys that could check it cannot be read yet.
        """
        if not token or len(token) > TOKEN_MAX or not token.isascii():
            raise Unauthorized
        digest = _digest(token)
        found = None
        for known, principal in self._known:  # to the end: time must not tell which one it was
            if compare_digest(known, digest):
                found = principal
        if found is not None:
            return found
        if self._verifier is None:
            raise Unauthorized
        claims = await self._verifier.verify(token, now_ms)
        return Principal.of_token(
            claims.account or "token",
            claims.scopes,
            account=claims.account,
            workspace=claims.workspace,
            expires_at=None if claims.expires_at is None else claims.expires_at + LEEWAY_MS,
        )


def admin() -> Principal:
    """Return who shows the admin key."""
    return Principal(name=ADMIN, scopes=frozenset({Scope.ADMIN}))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def kept_admin_key(data_dir: Path) -> str:
    """Return the admin key in *data_dir*, made the first time; for a gateway without auth.

    Gateways that start at once on one folder agree on one key.

    Raises:
        OSError: The folder cannot be written.
        SettingsError: The file that should hold it is empty.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / "admin_key"
    if not path.exists():
        ours = write_private(path, secrets.token_urlsafe(32).encode())
        try:
            os.link(ours, path)  # who is first wins; a reader never sees half a key
        except FileExistsError:
            pass
        finally:
            ours.unlink()
    if not (key := path.read_text(encoding="ascii").strip()):
        raise SettingsError([f"data_dir: the file {path} is empty; remove it"])
    return key


def write_private(path: Path, data: bytes) -> Path:
    """Write *data* beside *path*, safe on disk, for our eyes only; return where."""
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
