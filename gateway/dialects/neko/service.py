"""Service: authentication, logins and changes of sessions, for neko's REST API and socket.

These are the rules of this door only; the rules of a session are in the core.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Final
from uuid import uuid4
from weakref import WeakKeyDictionary

from msgspec import UNSET
from starlette.types import Scope as AsgiScope

from gateway.auth import principals
from gateway.auth.principals import Scope
from gateway.context import Context, caller_key
from gateway.core import errors
from gateway.core.command import Close, Kick, Unwatch, Update
from gateway.core.errors import GatewayError, NotFound, SessionClosed
from gateway.core.model import Session, new_session
from gateway.core.query import View
from gateway.dialects.neko import members
from gateway.dialects.neko.control import Control
from gateway.dialects.neko.render import Refused, is_there, profile_of
from gateway.dialects.neko.rooms import DIALECT, VIEW, Rooms, room_of
from gateway.dialects.neko.schema import NekoSettings, ProfileChange, merged
from gateway.http.pipeline import Pipeline
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

    pipeline: Pipeline  # set by the routes; a batch goes through it again

    def __init__(self, context: Context) -> None:
        self.context = context
        self.node = context.node
        defaults = NekoSettings(merciful_reconnect=context.settings.neko_merciful_reconnect)
        self.rooms = Rooms(context.node, defaults)
        self.control = Control(context.node, self.rooms)
        self.members = members.Members(context.node.documents, context.users)
        self.client_lines = Throttle()  # of all clients together
        self.started = asyncio.Event()  # the rooms are kept from now on

    # --- authentication

    async def caller(self, token: str) -> members.NekoCaller:
        """Return the caller of *token*: a member, or the API session.

        Raises:
            Unauthorized: Nobody's.
            Unavailable: The store did not answer.
        """
        session_id, secret = principals.split_session_token(token) or ("", "")
        session = await self._found(session_id) if session_id else None  # a short JWT fits, too
        kept = session.private.token_hash if session and members.is_login(session) else None
        if session is not None and principals.secret_matches(kept, secret):
            return members.caller_of(session)
        now_ms = self.context.wall_ms()
        return members.virtual(await self.context.authenticator.authenticate(token, now_ms))

    def sessions(self, caller: members.NekoCaller) -> list[Session]:
        """Return the open sessions that *caller* sees."""
        return self.node.all_in(View(visibility=caller.visibility))

    async def session(self, name: str, caller: members.NekoCaller) -> Session | None:
        """Return the open session called *name*, if *caller* sees it."""
        session = self.node.documents.resolve(members.HANDLES, name) or await self._found(name)
        if session is None or members.shown_id(session) != name:
            return None
        return session if caller.visibility.allows(session) else None

    async def _found(self, session_id: str) -> Session | None:
        with suppress(NotFound, SessionClosed):
            return await self.node.find(session_id)
        return None

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
            raise errors.LimitExceeded("There are too many sessions.")
        before = node.documents.resolve(members.HANDLES, name)
        if before is not None:
            if is_there(before):
                raise Refused(422, "session already connected")
            await self.close(before, by=name, reason="logged in again")
        principal, secret = member.principal, principals.mint_session_secret()
        private = members.private_of(name, principal.visibility(), principals.hash_secret(secret))
        session = new_session(
            str(uuid4()),
            name=member.profile.name or None,
            account=principal.account,
            workspace=principal.workspace,
            service=SERVICE,
            profile=member.profile,
            grace_ms=GRACE_MS,
            private=private,
        )
        try:
            await node.documents.claim(members.HANDLES, name, session.id)
        except errors.IdUnavailable:  # another login with this name is in progress
            raise Refused(422, "session already connected") from None
        return await node.open(session), f"{session.id}.{secret}"

    # --- changes

    async def close(self, session: Session, *, by: str, reason: str | None = None) -> None:
        """Close *session*; one that is closed already is no error."""
        with suppress(NotFound, SessionClosed):
            await self.node.apply(session.id, Close(by=by, reason=reason))

    async def disconnect(self, session: Session) -> None:
        """End the connection and the watch of *session*; the session stays.

        Raises:
            NotFound: It is gone.
            SessionClosed: It is closed.
        """
        with suppress(errors.NotConnected):
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
            name = UNSET if wanted.name is UNSET else profile.name or None
            change = Update(revision=session.revision, profile=profile, name=name)
            try:
                await self.node.apply(session.id, change)
                return
            except errors.RevisionMismatch:  # another request was faster: merge with the new record
                session = await self.node.find(session.id)
        raise errors.Conflict

    def merciful(self, session: Session) -> bool:
        """Whether a second socket of *session* takes the place of the first."""
        return self.rooms.room(room_of(session)).settings.merciful_reconnect


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
    with node.subscribe(VIEW, node.position(VIEW.hash32)) as subscription:
        subscription.is_client = False
        rooms.start()
        service.started.set()
        while True:
            if isinstance(await subscription.next(), Restart):
                rooms.start()
            while rooms.ended:
                key, grant = rooms.ended.pop(0)
                try:
                    await service.control.forget(key, grant)
                except GatewayError as error:
                    facts = {"reason": error.code}
                    log.warning("a room still names a host that is gone", extra=facts)
