"""Service: authentication, logins and changes of sessions, for neko's REST API and socket.

These are the rules of this door only; the rules of a session are in the core.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Final
from uuid import uuid4
from weakref import WeakKeyDictionary

from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, replace
from starlette.types import Scope as AsgiScope

from gateway.auth.principals import (
    Scope,
    hash_secret,
    mint_session_secret,
    secret_matches,
    split_session_token,
)
from gateway.context import Context, caller_key
from gateway.core.command import Close, Kick, Unwatch, Update
from gateway.core.errors import (
    Conflict,
    GatewayError,
    IdUnavailable,
    LimitExceeded,
    NotConnected,
    NotFound,
    RevisionMismatch,
    SessionClosed,
)
from gateway.core.model import Profile, Session, check_object
from gateway.dialects.neko.control import Control
from gateway.dialects.neko.errors import Refused
from gateway.dialects.neko.login import (
    HANDLES,
    NekoCaller,
    caller_of,
    is_login,
    private_of,
    shown_id,
    virtual,
)
from gateway.dialects.neko.members import Member, Members
from gateway.dialects.neko.render import is_there, profile_of
from gateway.dialects.neko.rooms import DIALECT, VIEW, Rooms, room_of
from gateway.dialects.neko.schema import NekoSettings, ProfileChange
from gateway.logs.throttle import Throttle
from gateway.node import Restart

GRACE_MS: Final = 5_000  # a client that reconnects within this was never away; neko's constant
ATTEMPTS: Final = 5  # to change a profile that others keep changing
SERVICE: Final = "neko"  # the service of sessions that are opened here

log = logging.getLogger(__name__)


class Service:
    """neko on one node.

    Args:
        context: The node and its surroundings.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.node = context.node
        defaults = NekoSettings(merciful_reconnect=context.settings.neko_merciful_reconnect)
        self.rooms = Rooms(context.node, defaults)
        self.control = Control(context.node, self.rooms)
        self.members = Members(context.node.documents, context.users)
        self.client_lines = Throttle()  # of all clients together
        self.started = asyncio.Event()  # the rooms are kept from now on

    # --- authentication

    async def caller(self, token: str) -> NekoCaller:
        """Return the caller of *token*: a member, or the API session.

        Raises:
            Unauthorized: Nobody's.
            Unavailable: The store did not answer.
        """
        session = await self._login_of(token)
        if session is not None:
            return caller_of(session)
        context = self.context
        return virtual(await context.authenticator.authenticate(token, context.wall_ms()))

    async def _login_of(self, token: str) -> Session | None:
        """Return the session that a login here opened with *token*; a short JWT looks like one."""
        parts = split_session_token(token)
        if parts is None:
            return None
        try:
            session = await self.node.find(parts[0])
        except (NotFound, SessionClosed):
            return None
        is_own = is_login(session) and secret_matches(session.private.token_hash, parts[1])
        return session if is_own else None

    def sessions(self, caller: NekoCaller) -> list[Session]:
        """Return the open sessions that *caller* sees."""
        return self.node.all_in(caller.view)

    async def session(self, name: str, caller: NekoCaller) -> Session | None:
        """Return the open session called *name*, if *caller* sees it."""
        session = self.node.documents.resolve(HANDLES, name)
        if session is None:
            try:
                session = await self.node.find(name)
            except (NotFound, SessionClosed):
                return None
            if shown_id(session) != name:
                return None
        return session if caller.visibility.allows(session) else None

    # --- login

    async def login(self, scope: AsgiScope, name: str, password: str) -> tuple[Session, str]:
        """Open a session without a connection; return it and its token.

        Raises:
            Unauthorized: The name or the password is wrong.
            RateLimited: Too many logins come from this address.
            Refused: The member is connected already, or logins are locked.
            GatewayError: As ``Node.open``.
        """
        node, context = self.node, self.context
        member = await context.checked_login(
            scope,
            name,
            lambda: self.members.verify(name, password, context.wall_ms()),
            lambda member: caller_key(member.principal),
        )
        if not member.principal.has(Scope.CONNECT):
            raise Refused(403, "login is disabled for this session")
        room = self.rooms.room(member.principal.workspace or "")
        if room.settings.locked_logins and not member.profile.is_admin:
            raise Refused(403, "logins are locked")
        if len(node.sessions) >= context.settings.max_sessions:
            raise LimitExceeded("There are too many sessions.")
        before = node.documents.resolve(HANDLES, name)
        if before is not None:
            if is_there(before):
                raise Refused(422, "session already connected")
            await self.close(before, by=name, reason="logged in again")
        session, secret = _opened(member), mint_session_secret()
        session = replace(
            session,
            private=private_of(name, member.principal.visibility(), hash_secret(secret)),
        )
        try:
            await node.documents.claim(HANDLES, name, session.id)
        except IdUnavailable:  # another login with this name is in progress
            raise Refused(422, "session already connected") from None
        return await node.open(session), f"{session.id}.{secret}"

    # --- changes

    async def close(self, session: Session, *, by: str, reason: str | None = None) -> None:
        """Close *session*; one that is closed already is no error."""
        try:
            await self.node.apply(session.id, Close(by=by, reason=reason))
        except (NotFound, SessionClosed):
            return

    async def disconnect(self, session: Session) -> None:
        """End the connection and the watch of *session*; the session stays.

        Raises:
            NotFound: It is gone.
            SessionClosed: It is closed.
        """
        with suppress(NotConnected):
            session = await self.node.apply(session.id, Kick())
        if session.is_watching:
            await self.node.apply(session.id, Unwatch())

    async def set_profile(self, session: Session, wanted: ProfileChange) -> None:
        """Change the profile of *session*; members that *wanted* leaves out stay.

        Raises:
            Invalid: It cannot be kept.
            LimitExceeded: It is too large.
            NotFound: The session is gone.
            SessionClosed: It is closed.
            Conflict: Others keep changing it.
        """
        for _ in range(ATTEMPTS):
            profile = merged(profile_of(session), wanted)
            name: str | UnsetType | None = UNSET
            if wanted.name is not UNSET:
                name = profile.name or None
            change = Update(revision=session.revision, profile=profile, name=name)
            try:
                await self.node.apply(session.id, change)
                return
            except RevisionMismatch:  # another request was faster: merge with the new record
                session = await self.node.find(session.id)
        raise Conflict

    def merciful(self, session: Session) -> bool:
        """Whether a second socket of *session* takes the place of the first."""
        return self.rooms.room(room_of(session)).settings.merciful_reconnect


def _opened(member: Member) -> Session:
    principal = member.principal
    return Session(
        id=str(uuid4()),
        number=0,
        revision=0,
        created_at=0,
        name=member.profile.name or None,
        account=principal.account,
        workspace=principal.workspace,
        service=SERVICE,
        profile=member.profile,
        grace_ms=GRACE_MS,
    )


def merged(profile: Profile, wanted: ProfileChange) -> Profile:
    """Return *profile* with what *wanted* names; of the plugins' settings those that it names.

    Raises:
        Invalid: The plugins' settings cannot be kept.
    """
    given = {name: value for name, value in asdict(wanted).items() if value is not UNSET}
    plugins = given.get("plugins", {})
    check_object(plugins, "plugins")
    return replace(profile, **{**given, "plugins": {**profile.plugins, **plugins}})


_services: Final[WeakKeyDictionary[object, Service]] = WeakKeyDictionary()


def service_of(context: Context) -> Service:
    """Return the one service of a node: its routes and its background work share it."""
    service = _services.get(context.node)
    if service is None:
        service = _services[context.node] = Service(context)
    return service


async def run(context: Context) -> None:
    """Follow every change for the rooms of this node, for ever."""
    service = service_of(context)
    node, rooms = service.node, service.rooms
    node.register(DIALECT, rooms.render)
    position = node.position(VIEW.hash32)
    with node.subscribe(VIEW, position) as subscription:
        rooms.start()
        service.started.set()
        while True:
            if isinstance(await subscription.next(), Restart):
                rooms.start()
            for key, grant in rooms.take_ended():
                try:
                    await service.control.forget(key, grant)
                except GatewayError as error:
                    log.warning(
                        "a room still names a host that is gone", extra={"reason": error.code}
                    )
