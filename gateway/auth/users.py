"""Users: people who log in with a name and a password, stored in one file.

The file is JSON: names to argon2 hashes, scopes and perhaps a workspace and an account. It is
replaced as a whole, so a reader sees the old or the new one, and it is read again when it changes.
An unknown name costs as much time as a wrong password.

Not here: hashing (``passwords``), tokens (``tokens``).
"""

import fcntl
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hmac import compare_digest
from pathlib import Path
from typing import Annotated

import msgspec
from argon2 import PasswordHasher
from msgspec import Meta, Struct

from gateway.auth.passwords import PASSWORD_MAX, PasswordHashing
from gateway.auth.principals import (
    ADMIN,
    BOUND_ADMIN,
    Principal,
    Scope,
    admin,
    is_bound_admin,
    write_private,
)
from gateway.core.errors import Invalid, NotFound, Unauthorized
from gateway.core.model import IdName, Name
from gateway.settings import SettingsError

Password = Annotated[str, Meta(min_length=1, max_length=PASSWORD_MAX)]

log = logging.getLogger(__name__)


class User(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A user; without an ``account`` the name is the account."""

    hash: Annotated[str, Meta(pattern=r"^\$argon2")]
    scopes: tuple[Scope, ...] = ()
    workspace: Name | None = None
    account: Name | None = None

    @property
    def is_bound_admin(self) -> bool:
        """Whether both ``admin`` and a workspace are given; such a user may not log in."""
        return is_bound_admin(self.scopes, self.workspace)

    def principal(self, name: str) -> Principal:
        """Return who logged in."""
        return Principal(
            name=name,
            scopes=frozenset(self.scopes),
            workspace=self.workspace,
            account=self.account or name,
        )


_File = dict[Name, User]


class Users:
    """The users of one file.

    Args:
        path: The file; without one there are no users.
        admin_key: If set, the password of the user ``admin``.
        hasher: How passwords are hashed.

    Raises:
        SettingsError: The file is there and cannot be read.
    """

    def __init__(
        self, path: Path, *, admin_key: str | None = None, hasher: PasswordHasher | None = None
    ) -> None:
        self._path = path
        self._admin_key = admin_key
        self.passwords = PasswordHashing(hasher)
        self._known: Mapping[str, User] = {}
        self._version: tuple[int, ...] | None = None
        version = self._stat()
        self._known, self._version = _usable(_read(path)), version

    def close(self) -> None:
        """Stop the threads that hash after their current work."""
        self.passwords.close()

    async def verify(self, name: str, password: str, now_ms: int) -> Principal:
        """Return the principal of a user who logs in.

        Args:
            name: The name that was sent.
            password: The password that was sent.
            now_ms: Milliseconds since the Unix epoch.

        Raises:
            Unauthorized: There is no such user, or the password is wrong; they look the same.
            Overloaded: Too many log in at once.
        """
        if not 0 < len(password) <= PASSWORD_MAX:
            raise Unauthorized("The name or the password is wrong.")
        given = password.encode(errors="surrogatepass")
        if name == ADMIN and self._admin_key and compare_digest(self._admin_key.encode(), given):
            return admin()
        self._reload()
        user = self._known.get(name)
        kept = user.hash if user else ""
        if not await self.passwords.matches(kept, password, now_ms) or user is None:
            raise Unauthorized("The name or the password is wrong.")
        return user.principal(name)

    def _stat(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _reload(self) -> None:
        version = self._stat()
        if version == self._version:
            return
        self._version = version
        try:
            self._known = _usable(_read(self._path))
        except SettingsError as error:
            log.error(  # noqa: TRY400 - the reason says it all
                "the users file cannot be read: the users of before stay",
                extra={"reason": str(error)},
            )

    def list(self) -> dict[str, User]:
        """Return all users who may log in, by name.

        Raises:
            SettingsError: The file cannot be read.
        """
        return {name: user for name, user in self.read_all().items() if not user.is_bound_admin}

    def read_all(self) -> dict[str, User]:
        """Return all users in the file, by name, even those who may not log in.

        Raises:
            SettingsError: The file cannot be read.
        """
        return dict(sorted(_read(self._path).items()))

    def add(
        self,
        name: str,
        password: str,
        *,
        scopes: Iterable[Scope] = (),
        workspace: str | None = None,
        account: str | None = None,
    ) -> None:
        """Add a user, or replace the one of this name.

        Raises:
            Invalid: The name, the password or another value is not acceptable.
            SettingsError: The file cannot be read.
            OSError: It cannot be written.
        """
        try:
            msgspec.convert(password, Password)
            user = msgspec.convert(
                {
                    "hash": self.passwords.hash_now(password),
                    "scopes": sorted(set(scopes)),
                    **({"workspace": workspace} if workspace is not None else {}),
                    **({"account": account} if account is not None else {}),
                },
                User,
            )
            msgspec.convert(name, IdName)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            raise Invalid(str(error)) from error
        if user.is_bound_admin:
            raise Invalid(BOUND_ADMIN)
        with self._changing() as known:
            known[name] = user

    def remove(self, name: str) -> None:
        """Remove a user, who cannot log in any more; open connections stay.

        Raises:
            NotFound: There is no user of this name.
            SettingsError: The file cannot be read.
            OSError: It cannot be written.
        """
        with self._changing() as known:
            if known.pop(name, None) is None:
                raise NotFound("There is no user of this name.")

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        """Lock the file, yield its users for a change, and write them."""
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = _read(self._path)
            yield known
            data = msgspec.json.format(msgspec.json.encode(known, order="sorted"))
            beside = write_private(self._path, data + b"\n")
            if os.geteuid() == 0 and self._path.exists():
                before = self._path.stat()  # keep the owner, if root runs the command
                os.chown(beside, before.st_uid, before.st_gid)
            beside.replace(self._path)
        finally:
            os.close(lock)


def _usable(known: _File) -> _File:
    """Return those who may log in; tell of the others in the log."""
    for name, user in known.items():
        if user.is_bound_admin:
            log.error(
                "a user of the users file is ignored",
                extra={"account": name, "reason": BOUND_ADMIN},
            )
    return {name: user for name, user in known.items() if not user.is_bound_admin}


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError([f"users_file: cannot read {path}: {error}"]) from None
