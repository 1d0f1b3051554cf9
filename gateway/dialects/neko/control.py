"""Control: the operations of a member on its room: control, settings and messages.

REST and the socket both use them. A refusal is a :class:`Refused`, which REST answers and a socket
ignores, as neko does. Writes go to the room's document; an operation that is refused on the newest
document changes nothing.

Not here: the effects on others (``rooms``).
"""

import secrets
from collections.abc import Callable
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType, to_builtins
from msgspec.json import encode
from msgspec.structs import replace

from gateway.core.document import MESSAGE_MAX_BYTES, Message, Recipients
from gateway.core.errors import Invalid
from gateway.core.model import Session, check_object
from gateway.dialects.neko.errors import Refused
from gateway.dialects.neko.login import NekoCaller, shown_id
from gateway.dialects.neko.render import is_there, profile_of
from gateway.dialects.neko.rooms import ASKS_FOR_CONTROL, ROOMS, Room, Rooms
from gateway.dialects.neko.schema import Int32, NekoSettings
from gateway.node import Node

SUBJECT_MAX: Final = 128  # characters of the topic of a message
OURS: Final = "neko:"  # prefix of subjects that only the gateway uses

Body = dict[str, Any]


class Unchanged(Exception):
    """Raised to leave a document unchanged."""


class SettingsChange(Struct, frozen=True, kw_only=True):
    """A change of settings: those that are given, and of ``plugins`` those that are named."""

    private_mode: bool | UnsetType = UNSET
    locked_logins: bool | UnsetType = UNSET
    locked_controls: bool | UnsetType = UNSET
    control_protection: bool | UnsetType = UNSET
    implicit_hosting: bool | UnsetType = UNSET
    inactive_cursors: bool | UnsetType = UNSET
    merciful_reconnect: bool | UnsetType = UNSET
    heartbeat_interval: Int32 | UnsetType = UNSET
    plugins: Body | UnsetType = UNSET


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
        if room.locked and not caller.profile.is_admin:
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
        room = self.room_of(caller)
        if caller.session is None or room.host != caller.session.id:
            raise Refused(422, "session is not the host")
        await self._reset(caller, room)

    async def take(self, caller: NekoCaller) -> None:
        """Take control from any host; for admins."""
        self.check_may_host(caller)
        await self._give(caller, _session_of(caller))

    async def reset(self, caller: NekoCaller) -> None:
        """Take control away from the host; for admins."""
        self.check_may_host(caller)
        await self._reset(caller, self.room_of(caller))

    async def give(self, caller: NekoCaller, target: Session | None) -> None:
        """Give control to *target*; for admins and the host.

        Raises:
            Refused: *target* does not exist, or may not have it.
        """
        self.check_may_host(caller)
        room = self.room_of(caller)
        is_host = caller.session is not None and room.host == caller.session.id
        if not (caller.profile.is_admin or is_host):
            raise Refused(403, "session is not host")
        if target is None or (target.workspace or "") != (caller.workspace or ""):
            raise Refused(404, "target session was not found")
        profile = profile_of(target)
        held_back = (room.locked or room.settings.private_mode) and not profile.is_admin
        if not profile.can_host or held_back or not is_there(target):
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

    async def _reset(self, caller: NekoCaller, room: Room) -> None:
        grant = room.grant

        def change(body: Body) -> Body:
            if body.get("grant") != grant:
                raise Unchanged
            return _without_host(body, caller.id)

        await self._write(caller.workspace or "", change)

    async def forget(self, key: str, grant: str) -> None:
        """Record in a room's document that control was lost, as it was announced."""

        def change(body: Body) -> Body:
            if body.get("grant") != grant or "host" not in body:
                raise Unchanged
            return {name: value for name, value in body.items() if name != "host"}

        await self._write(key, change)

    async def change_settings(self, caller: NekoCaller, wanted: SettingsChange) -> None:
        """Change the settings; a host who may not have control then loses it.

        Raises:
            Invalid: The plugins' settings are nested too deep.
            LimitExceeded: They are too large.
        """
        given = {
            name: value
            for name in wanted.__struct_fields__
            if (value := getattr(wanted, name)) is not UNSET
        }
        check_object(given.get("plugins"), "plugins", nulls=True)

        def change(body: Body) -> Body:
            before = self._rooms.settings_in(body)
            plugins = {**before.plugins, **given.get("plugins", {})}
            after = replace(before, **{**given, "plugins": plugins})
            if after == before:
                raise Unchanged
            return {**body, "settings": to_builtins(after), "by": caller.id}

        await self._write(caller.workspace or "", change)

    async def _write(self, key: str, change: Callable[[Body], Body]) -> None:
        try:
            await self._node.documents.write(ROOMS, key, change)
        except Unchanged:
            return

    # --- messages

    async def unicast(
        self, caller: NekoCaller, target: Session, subject: str, body: object
    ) -> None:
        """Send a message to one session.

        Raises:
            Invalid: The message is not acceptable.
        """
        _check_said(subject, body)
        await self._say(caller, Recipients(session=target.id), subject, body)

    async def broadcast(self, caller: NekoCaller, subject: str, body: object) -> None:
        """Send a message to all others that *caller* sees.

        Raises:
            Invalid: The message is not acceptable, or there is no recipient.
        """
        _check_said(subject, body)
        match caller.visibility.by:
            case "all" if caller.workspace is None:
                to = Recipients()
            case "all" | "workspace":
                to = Recipients(workspace=caller.workspace)
            case _:
                raise Invalid("This session sees nobody.")
        await self._say(caller, to, subject, body)

    async def _say(self, caller: NekoCaller, to: Recipients, subject: str, body: object) -> None:
        sender = _session_of(caller).id
        await self._node.publish(Message(to=to, topic=subject, body=body, sender=sender))


def _session_of(caller: NekoCaller) -> Session:
    if caller.session is None:
        raise Refused(403, "session cannot host")
    return caller.session


def _without_host(body: Body, by: str) -> Body:
    kept = {name: value for name, value in body.items() if name != "host"}
    return {**kept, "grant": "", "by": by}


def _check_said(subject: str, body: object) -> None:
    if not 0 < len(subject) <= SUBJECT_MAX or "\0" in subject or subject.startswith(OURS):
        raise Invalid(f"A subject has 1 to {SUBJECT_MAX} characters.")
    check_object(body, "body", nulls=True)
    if len(encode(body)) > MESSAGE_MAX_BYTES:
        raise Invalid(f"A message holds at most {MESSAGE_MAX_BYTES} bytes.")


__all__ = ["Control", "NekoSettings", "SettingsChange", "Unchanged"]
