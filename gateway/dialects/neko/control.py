"""Control: the operations of a member on its room: control, settings and messages.

REST and the socket both use them. A refusal is a :class:`Refused`, which REST answers and a socket
ignores, as neko does. Writes go to the room's document; an operation that is refused on the newest
document changes nothing.

Not here: the effects on others (``rooms``).
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec import to_builtins
from msgspec.json import encode

from gateway.core.document import MESSAGE_MAX_BYTES, Message, Recipients
from gateway.core.errors import Invalid
from gateway.core.model import Session, check_object
from gateway.dialects.neko.members import NekoCaller, shown_id
from gateway.dialects.neko.render import Refused
from gateway.dialects.neko.rooms import ASKS_FOR_CONTROL, ROOMS, Body, Room, Rooms, may_host
from gateway.dialects.neko.schema import SettingsChange, merged
from gateway.node import Node

SUBJECT_MAX: Final = 128  # characters of the topic of a message
OURS: Final = "neko:"  # prefix of subjects that only the gateway uses


class Unchanged(Exception):
    """Raised to leave a document unchanged."""


class Control:
    """Control, settings and messages of all rooms.

    Args:
        node: The node.
        rooms: Its rooms.
    """

    def __init__(self, node: Node, rooms: Rooms) -> None:
        self._node = node
        self._rooms = rooms

    def room_of(self, caller: NekoCaller) -> Room:
        """Return the room that *caller* is in."""
        return self._rooms.room(caller.workspace or "")

    def host_id(self, caller: NekoCaller) -> str | None:
        """Return the id of the host; empty if *caller* may not see it."""
        host = self._node.sessions.get(self.room_of(caller).host or "")
        if host is None:
            return None
        return shown_id(host) if caller.visibility.allows(host) else ""

    def is_host(self, caller: NekoCaller) -> bool:
        """Whether *caller* has control."""
        return caller.session is not None and self.room_of(caller).host == caller.session.id

    def check_may_host(self, caller: NekoCaller) -> None:
        """Raise unless *caller* may take part in control.

        Raises:
            Refused: It may not.
        """
        if not caller.profile.can_host:
            raise Refused(403, "session cannot host")
        if self.room_of(caller).settings.private_mode and not caller.profile.is_admin:
            raise Refused(422, "private mode is enabled")

    async def request(self, caller: NekoCaller, *, ask: bool = True) -> bool:
        """Take control if it is free, else *ask* the host; return whether *caller* has it.

        Raises:
            Refused: *caller* may not have it.
        """
        self.check_may_host(caller)
        room = self.room_of(caller)
        session = _session_of(caller)
        if room.shown.locked_controls and not caller.profile.is_admin:
            raise Refused(403, "controls are locked")
        if room.host == session.id:
            return True
        if room.host is None or room.settings.implicit_hosting:
            await self._give(caller, session, only_if_free=not room.settings.implicit_hosting)
            if room.host == session.id:
                return True
        if ask and room.host is not None:
            await self._node.publish(
                Message(to=Recipients(session=room.host), topic=ASKS_FOR_CONTROL, sender=session.id)
            )
        return False

    async def release(self, caller: NekoCaller) -> None:
        """Give control up.

        Raises:
            Refused: *caller* does not have it.
        """
        self.check_may_host(caller)
        if not self.is_host(caller):
            raise Refused(422, "session is not the host")
        await self.reset(caller)

    async def take(self, caller: NekoCaller) -> None:
        """Take control from any host; for admins."""
        self.check_may_host(caller)
        await self._give(caller, _session_of(caller))

    async def reset(self, caller: NekoCaller) -> None:
        """Take control away from the host; for admins."""
        self.check_may_host(caller)
        ended = self.room_of(caller).grant
        await self.forget(caller.workspace or "", ended, grant="", by=caller.id)

    async def give(self, caller: NekoCaller, target: Session | None) -> None:
        """Give control to *target*; for admins and the host.

        Raises:
            Refused: *target* does not exist, or may not have it.
        """
        self.check_may_host(caller)
        if not (caller.profile.is_admin or self.is_host(caller)):
            raise Refused(403, "session is not host")
        if target is None or (target.workspace or "") != (caller.workspace or ""):
            raise Refused(404, "target session was not found")
        if not may_host(self.room_of(caller), target):
            raise Refused(400, "target session is not allowed to host")
        await self._give(caller, target)

    async def _give(self, caller: NekoCaller, to: Session, *, only_if_free: bool = False) -> None:
        room = self.room_of(caller)
        grant = secrets.token_hex(8)

        def change(body: Body) -> Body:
            held = body.get("grant", "") != room.grant or room.host is not None
            if only_if_free and body.get("host") and held:
                raise Unchanged
            return {**body, "host": to.id, "grant": grant, "by": caller.id}

        await self._write(caller.workspace or "", change)

    async def forget(self, key: str, ended: str, **facts: str) -> None:
        """Record in a room's document that control was lost.

        Args:
            key: The key of the room.
            ended: The grant of control; a newer one stays.
            facts: What else changes in the document.
        """

        def change(body: Body) -> Body:
            if body.get("grant") != ended or "host" not in body:
                raise Unchanged
            return {name: value for name, value in body.items() if name != "host"} | facts

        await self._write(key, change)

    async def change_settings(self, caller: NekoCaller, wanted: SettingsChange) -> None:
        """Change the settings; a host who may not have control then loses it.

        Raises:
            Invalid: The plugins' settings are nested too deep.
            LimitExceeded: They are too large.
        """

        def change(body: Body) -> Body:
            before = self._rooms.settings_in(body)
            after = merged(before, wanted, nulls=True)
            if after == before:
                raise Unchanged
            return {**body, "settings": to_builtins(after), "by": caller.id}

        await self._write(caller.workspace or "", change)

    async def _write(self, key: str, change: Callable[[Body], Body]) -> None:
        with suppress(Unchanged):
            await self._node.documents.write(ROOMS, key, change)

    async def say(self, caller: NekoCaller, to: Session | None, subject: str, body: object) -> None:
        """Send a message to one session, or to all others that *caller* sees.

        Raises:
            Invalid: The message is not acceptable, or there is no recipient.
        """
        sender = _session_of(caller).id
        if not 0 < len(subject) <= SUBJECT_MAX or "\0" in subject or subject.startswith(OURS):
            raise Invalid(f"A subject has 1 to {SUBJECT_MAX} characters.")
        check_object(body, "body", nulls=True)
        if len(encode(body)) > MESSAGE_MAX_BYTES:
            raise Invalid(f"A message holds at most {MESSAGE_MAX_BYTES} bytes.")
        if to is None and caller.visibility.by not in ("all", "workspace"):
            raise Invalid("This session sees nobody.")
        recipients = Recipients(session=to.id) if to else Recipients(workspace=caller.workspace)
        message = Message(to=recipients, topic=subject, body=body, sender=sender)
        await self._node.publish(message)


def _session_of(caller: NekoCaller) -> Session:
    if caller.session is None:
        raise Refused(403, "session cannot host")
    return caller.session
