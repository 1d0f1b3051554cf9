"""Members: the people who may log in, as neko lists and changes them.

The users of the gateway's users file are members, and so are those that an admin adds here. The
latter are documents with an argon2 hash. For the former a document holds at most the profile that
an admin gave them, because their names and passwords are in the file (``gateway user``). A member
sees others of its room if it has the scope ``read``.

Not here: the effects of a change on open sessions (``endpoints_members``).
"""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct, ValidationError, convert, to_builtins
from msgspec.structs import replace

from gateway.auth.passwords import PASSWORD_MAX
from gateway.auth.principals import ADMIN, Principal, Scope
from gateway.auth.users import User, Users
from gateway.core.errors import Unauthorized
from gateway.core.model import Profile
from gateway.dialects.neko.errors import Refused
from gateway.dialects.neko.login import NekoCaller, default_profile
from gateway.node import Documents
from gateway.settings import SettingsError

MEMBERS: Final = "neko.member"  # kind of the documents; the key is the name
MEMBERS_MAX: Final = 10_000  # members that were added here

log = logging.getLogger(__name__)


class Kept(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored form of a member; one without a hash stands in the users file."""

    profile: Profile | None = None
    hash: str | None = None
    scopes: tuple[Scope, ...] = ()
    workspace: str | None = None


class Member(Struct, frozen=True, kw_only=True):
    """A person who may log in."""

    name: str
    profile: Profile
    principal: Principal
    is_of_file: bool


class Members:
    """All members.

    Args:
        documents: Where those are kept who were added here.
        users: The users file.
    """

    def __init__(self, documents: Documents, users: Users) -> None:
        self._documents = documents
        self._users = users

    # --- reads

    async def verify(self, name: str, password: str, now_ms: int) -> Member:
        """Return the member that logs in.

        Raises:
            Unauthorized: There is no such member, or the password is wrong; they look the same.
            Overloaded: Too many log in at once.
        """
        kept = self._kept(name)
        if kept is None or kept.hash is None:
            principal = await self._users.verify(name, password, now_ms)
            return _member(name, kept, principal, is_of_file=True)
        is_long = len(password) > PASSWORD_MAX
        if is_long or not await self._users.passwords.matches(kept.hash, password, now_ms):
            raise Unauthorized
        return _member(name, kept, _principal(name, kept), is_of_file=False)

    async def get(self, name: str, caller: NekoCaller) -> Member | None:
        """Return the member of this *name*, if *caller* may see it."""
        kept = self._kept(name)
        if kept is not None and kept.hash is not None:
            member = _member(name, kept, _principal(name, kept), is_of_file=False)
        else:
            user = (await self._people()).get(name)
            if user is None:
                return None
            member = _member(name, kept, user.principal(name), is_of_file=True)
        return member if _is_seen(member, caller) else None

    async def all(self, caller: NekoCaller) -> list[Member]:
        """Return the members whom *caller* may see, by name."""
        people = await self._people()
        found = {
            name: _member(name, self._kept(name), user.principal(name), is_of_file=True)
            for name, user in people.items()
        }
        for name, kept in self._all_kept():
            if kept.hash is not None:
                found[name] = _member(name, kept, _principal(name, kept), is_of_file=False)
        return [member for _, member in sorted(found.items()) if _is_seen(member, caller)]

    async def _people(self) -> dict[str, User]:
        try:
            return await asyncio.to_thread(self._users.list)
        except SettingsError:
            log.exception("the users file cannot be read")
            return {}

    def _kept(self, name: str) -> Kept | None:
        body = self._documents.get(MEMBERS, name)
        return None if body is None else _read(name, body)

    def _all_kept(self) -> Iterator[tuple[str, Kept]]:
        for name, body in self._documents.all(MEMBERS):
            if (kept := _read(name, body)) is not None:
                yield name, kept

    # --- changes

    async def add(self, name: str, password: str, profile: Profile, caller: NekoCaller) -> None:
        """Add a member who sees what *caller* sees.

        Raises:
            Refused: The name is taken, the maximum of members is reached, or *caller* sees no
            others,
                so that the new member would see more than *caller*.
            LimitExceeded: The profile is too large.
        """
        if caller.visibility.by not in ("all", "workspace"):
            raise Refused(403, "session sees no other members")
        if name == ADMIN or name in await self._people() or self._kept(name) is not None:
            raise Refused(422, "member already exists")
        if sum(1 for _ in self._documents.all(MEMBERS)) >= MEMBERS_MAX:
            raise Refused(422, "there are too many members")
        kept = Kept(
            profile=profile,
            hash=await self._hash(password),
            scopes=(Scope.CONNECT, Scope.READ),
            workspace=caller.visibility.value or None,
        )

        def change(body: dict[str, Any]) -> dict[str, Any]:
            if body:  # another request was faster
                raise Refused(422, "member already exists")
            return _body(kept)

        await self._documents.write(MEMBERS, name, change)

    async def set_profile(self, name: str, profile: Profile) -> None:
        """Store a member's *profile*."""
        await self._change(name, profile=profile)

    async def set_password(self, member: Member, password: str) -> None:
        """Change a member's password.

        Raises:
            Refused: It stands in the users file.
        """
        _check_is_ours(member)
        await self._change(member.name, hash=await self._hash(password))

    async def remove(self, member: Member) -> None:
        """Delete a member.

        Raises:
            Refused: It stands in the users file.
        """
        _check_is_ours(member)
        await self._documents.write(MEMBERS, member.name, lambda _: {})

    async def _change(self, name: str, **facts: object) -> None:
        def change(body: dict[str, Any]) -> dict[str, Any]:
            return _body(replace(_read(name, body) or Kept(), **facts))

        await self._documents.write(MEMBERS, name, change)

    async def _hash(self, password: str) -> str:
        if len(password) > PASSWORD_MAX:
            raise Refused(400, "password is too long")
        return await self._users.passwords.hash(password)


def _member(name: str, kept: Kept | None, principal: Principal, *, is_of_file: bool) -> Member:
    profile = kept.profile if kept else None
    return Member(
        name=name,
        profile=profile or default_profile(name, principal),
        principal=principal,
        is_of_file=is_of_file,
    )


def _principal(name: str, kept: Kept) -> Principal:
    return Principal(
        name=name, scopes=frozenset(kept.scopes), account=name, workspace=kept.workspace
    )


def _is_seen(member: Member, caller: NekoCaller) -> bool:
    match caller.visibility.by:
        case "all":
            return True
        case "workspace":
            return member.principal.workspace == caller.visibility.value
        case _:
            return member.name == caller.id


def _check_is_ours(member: Member) -> None:
    if member.is_of_file:
        raise Refused(403, "member stands in the users file: change it there")


def _read(name: str, body: dict[str, Any]) -> Kept | None:
    try:
        return convert(body, Kept) if body else None
    except ValidationError:  # of another version
        log.warning("a member cannot be read", extra={"member": name})
        return None


def _body(kept: Kept) -> dict[str, Any]:
    body: dict[str, Any] = to_builtins(kept)
    return body
