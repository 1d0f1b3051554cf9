"""Members: the people who may log in, and the callers that they become.

The users of the gateway's users file are members, and so are those that an admin adds here. The
latter are documents with an argon2 hash. For the former a document holds at most the profile that
an admin gave them, because their names and passwords are in the file (``gateway user``). A member
sees others of its room if it has the scope ``read``.

neko's session id is the member's name, but an id of the gateway is never reused. So the name is a
*handle*, which is claimed before the session is opened. The session keeps the name, and how much
its member may see, in its private part, which no client can change. The bearer token is the
session's own, so any node can check it against the record.

A caller with a key or a JWT of the gateway is what neko calls the API session: it has rights but no
session, and no other caller sees it.

Not here: the login itself (``service``), where a token is in a request (``style``), the effects of
a change on open sessions (``endpoints_sessions``).
"""

import asyncio
import logging
from typing import Any, Final

from msgspec import Struct, ValidationError, convert, to_builtins
from msgspec.structs import replace

from gateway.auth.passwords import PASSWORD_MAX
from gateway.auth.principals import ADMIN, Principal, Scope
from gateway.auth.users import User, Users
from gateway.context import CallerKey
from gateway.core.errors import Unauthorized
from gateway.core.model import Private, Profile, Session
from gateway.core.query import Visibility
from gateway.dialects.neko.render import VIRTUAL_ID, VIRTUAL_NAME, Refused, profile_of
from gateway.dialects.neko.schema import NEW_PROFILE
from gateway.node import Documents
from gateway.settings import SettingsError

HANDLES: Final = "neko.handle"  # kind of the documents that map names to sessions
_ID, _SEES = "neko.id", "neko.sees"  # no environment variable's name holds a dot
MEMBERS: Final = "neko.member"  # kind of the documents; the key is the name
MEMBERS_MAX: Final = 10_000  # members that were added here

log = logging.getLogger(__name__)


class NekoCaller(Struct, frozen=True, kw_only=True):
    """The caller of a request or a socket.

    Args:
        id: The id of the caller's session in neko.
        profile: What the caller may do.
        visibility: What the caller may see.
        workspace: Its room; ``None`` is the room of all without a workspace.
        session: Its session as it was found; ``None`` for the API session.
        key_name: The name of the key or token of the API session.
    """

    id: str
    profile: Profile
    visibility: Visibility
    workspace: str | None
    session: Session | None
    key_name: str = ""


def caller_key(caller: NekoCaller) -> CallerKey:
    """Return the key of the caller for the rate limit."""
    return CallerKey(caller.id, caller.workspace, caller.key_name or None)


def private_of(name: str, visibility: Visibility, token_hash: str) -> Private:
    """Return the private part of a session that is opened by a login."""
    return Private(token_hash=token_hash, environment={_ID: name, _SEES: visibility.by})


def _kept(session: Session) -> dict[str, str]:
    """Return the data of a login; only logins open sessions with a token *and* an environment."""
    private = session.private
    return private.environment or {} if private.token_hash is not None else {}


def shown_id(session: Session) -> str:
    """Return the id of *session* in neko: its member's name, or its own id."""
    return _kept(session).get(_ID, session.id)


def is_login(session: Session) -> bool:
    """Whether *session* was opened by a login here, so that its token speaks for a member."""
    return _ID in _kept(session)


def caller_of(session: Session) -> NekoCaller:
    """Return the member whose login opened *session*."""
    match _kept(session).get(_SEES):
        case "all":
            visibility = Visibility("all")
        case "workspace":
            visibility = Visibility("workspace", session.workspace or "")
        case "account":
            visibility = Visibility("account", session.account or "", session.workspace or "")
        case _:
            visibility = Visibility("session", session.id)
    return NekoCaller(
        id=shown_id(session),
        profile=profile_of(session),
        visibility=visibility,
        workspace=session.workspace,
        session=session,
    )


def virtual(principal: Principal) -> NekoCaller:
    """Return the API session of a caller with a key or token of the gateway."""
    return NekoCaller(
        id=VIRTUAL_ID,
        profile=replace(
            default_profile(VIRTUAL_NAME, principal),
            can_connect=False,
            can_share_media=False,
            sends_inactive_cursor=False,
            can_see_inactive_cursors=False,
        ),
        visibility=principal.visibility(),
        workspace=principal.workspace,
        session=None,
        key_name=principal.name,
    )


def default_profile(name: str, principal: Principal) -> Profile:
    """Return a profile whose rights follow from the scopes, for lack of another one."""
    is_admin = principal.has(Scope.WRITE) and principal.has(Scope.CLOSE)
    return replace(NEW_PROFILE, name=name, is_admin=is_admin, can_see_inactive_cursors=False)


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
            return _member(name, kept, await self._users.verify(name, password, now_ms))
        is_long = len(password) > PASSWORD_MAX
        if is_long or not await self._users.passwords.matches(kept.hash, password, now_ms):
            raise Unauthorized
        return _member(name, kept)

    async def get(self, name: str, caller: NekoCaller) -> Member:
        """Return the member of this *name*.

        Raises:
            Refused: There is none, or *caller* may not see it.
        """
        kept = self._kept(name)
        if kept is not None and kept.hash is not None:
            member: Member | None = _member(name, kept)
        else:
            user = (await self._people()).get(name)
            member = _member(name, kept, user.principal(name)) if user else None
        if member is None or not _is_seen(member, caller):
            raise Refused(404, "member not found")
        return member

    async def all(self, caller: NekoCaller) -> list[Member]:
        """Return the members whom *caller* may see, by name."""
        found = {
            name: _member(name, self._kept(name), user.principal(name))
            for name, user in (await self._people()).items()
        }
        for name, body in self._documents.all(MEMBERS):
            kept = _read(name, body)
            if kept is not None and kept.hash is not None:
                found[name] = _member(name, kept)
        return [member for _, member in sorted(found.items()) if _is_seen(member, caller)]

    async def _people(self) -> dict[str, User]:
        try:
            return await asyncio.to_thread(self._users.list)
        except SettingsError:
            log.exception("the users file cannot be read")
            return {}

    def _kept(self, name: str) -> Kept | None:
        return _read(name, self._documents.get(MEMBERS, name))

    # --- changes

    async def add(self, name: str, password: str, profile: Profile, caller: NekoCaller) -> None:
        """Add a member who sees what *caller* sees.

        Raises:
            Refused: The name is taken, the maximum of members is reached, or *caller* sees no
                others, so that the new member would see more than *caller*.
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
            return dict(to_builtins(kept))

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
            return dict(to_builtins(replace(_read(name, body) or Kept(), **facts)))

        await self._documents.write(MEMBERS, name, change)

    async def _hash(self, password: str) -> str:
        if len(password) > PASSWORD_MAX:
            raise Refused(400, "password is too long")
        return await self._users.passwords.hash(password)


def _member(name: str, kept: Kept | None, of_file: Principal | None = None) -> Member:
    """Return a member of the users file, or with *kept* alone one that was added here."""
    kept = kept or Kept()
    principal = of_file or Principal(
        name=name, scopes=frozenset(kept.scopes), account=name, workspace=kept.workspace
    )
    return Member(
        name=name,
        profile=kept.profile or default_profile(name, principal),
        principal=principal,
        is_of_file=of_file is not None,
    )


def _is_seen(member: Member, caller: NekoCaller) -> bool:
    if caller.visibility.by == "workspace":
        return member.principal.workspace == caller.visibility.value
    return caller.visibility.by == "all" or member.name == caller.id


def _check_is_ours(member: Member) -> None:
    if member.is_of_file:
        raise Refused(403, "member stands in the users file: change it there")


def _read(name: str, body: dict[str, Any] | None) -> Kept | None:
    try:
        return convert(body, Kept) if body else None
    except ValidationError:  # of another version
        log.warning("a member cannot be read", extra={"member": name})
        return None
