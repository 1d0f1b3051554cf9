"""Login: the data that a login keeps in its session, and the caller of a token.

neko's session id is the member's name, but an id of the gateway is never reused. So the name is a
*handle*, which is claimed before the session is opened. The session keeps the name, and how much
its member may see, in its private part, which no client can change. The bearer token is the
session's own, so any node can check it against the record.

A caller with a key or a JWT of the gateway is what neko calls the API session: it has rights but no
session, and no other caller sees it.

Not here: passwords (``members``), where a token is in a request (``style``).
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.auth.principals import Principal, Scope
from gateway.context import CallerKey
from gateway.core.model import Private, Profile, Session
from gateway.core.query import View, Visibility
from gateway.dialects.neko.render import VIRTUAL_ID, VIRTUAL_NAME, profile_of

HANDLES: Final = "neko.handle"  # kind of the documents that map names to sessions
_ID, _SEES = "neko.id", "neko.sees"  # no environment variable's name holds a dot


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

    @property
    def view(self) -> View:
        """The view of sessions that this caller may see."""
        return View(visibility=self.visibility)


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
    return Profile(
        name=name,
        is_admin=principal.has(Scope.WRITE) and principal.has(Scope.CLOSE),
        can_login=True,
        can_connect=True,
        can_watch=True,
        can_host=True,
        can_share_media=True,
        can_access_clipboard=True,
        sends_inactive_cursor=True,
        can_see_inactive_cursors=False,
    )
