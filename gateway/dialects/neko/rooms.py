"""Rooms: settings and control of each room, and the events that follow from a change.

There is a room for each workspace, and one for all sessions without one. A room is one document.
State that depends on the document *and* on the sessions is derived, so that it cannot drift: a host
that is gone has no control, and with control protection the controls are locked while no admin is
present. So the events of both belong to the commit that caused them, and have neko's order on every
node.

All sockets of a node read one channel. Its renderer, :meth:`Rooms.render`, sees every change once
and in order, and keeps what was announced. Lost control stays lost: each grant of control has a new
``grant`` in the document, and a grant that ended does not count again.

Not here: the operations of members (``control``), the sockets (``session_socket``).
"""

import logging
from typing import Any, Final

from msgspec import ValidationError, convert
from msgspec.structs import replace

from gateway.core.document import Message
from gateway.core.event import DocumentEntry, MessageEntry, SessionEntry, disconnect_cause
from gateway.core.model import Cause, Session
from gateway.core.public import rfc3339
from gateway.core.query import View, Visibility
from gateway.dialects.neko import render
from gateway.dialects.neko.members import shown_id
from gateway.dialects.neko.schema import NekoSettings, Said
from gateway.node import CommitView, EventItem, Node
from gateway.realtime.contest import is_contest

DIALECT: Final = "neko"
ROOMS: Final = "neko.room"  # kind of the documents; the key is the workspace, "" for none
VIEW: Final = View(visibility=Visibility("all"), dialect=DIALECT)  # of this node's one channel
ROOMS_KEPT: Final = 10_000  # above it, empty rooms with default settings are dropped
ASKS_FOR_CONTROL: Final = "neko:control/request"  # topic; what clients send may not begin so

Body = dict[str, Any]

log = logging.getLogger(__name__)


class News(EventItem, frozen=True, gc=False):
    """One message and its recipients; a field that is unset does not restrict them.

    Args:
        about: Only those who may see this session.
        blind: The message for those who may not see it.
        room: Only sockets of this room.
        sees_room: Only sockets that see everybody in their room, or only those that do not.
        workspace: Only sockets of this workspace.
        only: Only the sockets of this session.
        but: Not the sockets of this session.
        fence: For the socket of the session ``only``: the record, and how its connection ended, if
            that just happened; nothing is sent.
    """

    about: Session | None = None
    blind: bytes | None = None
    room: str | None = None
    sees_room: bool | None = None
    workspace: str | None = None
    only: str | None = None
    but: str | None = None
    fence: tuple[Session, Cause | None] | None = None


class Room:
    """One room as this node announced it."""

    def __init__(self, settings: NekoSettings) -> None:
        self.settings = settings  # those of the document
        self.shown = settings  # as clients get them
        self.is_changed = False  # whether there is a document
        self.grant = ""
        self.wanted: str | None = None  # the session that the grant names, until it lost control
        self.host: str | None = None  # the session that has control
        self.admins: set[str] = set()  # ids of sessions
        self.left_at: dict[bool, int] = {}  # when the last admin (true) and user (false) left


def room_of(session: Session) -> str:
    """Return the key of the room that *session* is in."""
    return session.workspace or ""


class Rooms:
    """All rooms, on one node.

    Args:
        node: The node; its documents hold the rooms.
        defaults: The settings of a room that nobody changed.
    """

    def __init__(self, node: Node, defaults: NekoSettings) -> None:
        self.ended: list[tuple[str, str]] = []  # rooms and grants of lost control, to be recorded
        self._node = node
        self._defaults = defaults
        self._rooms: dict[str, Room] = {}
        self.listeners: set[object] = set()  # sockets; without any, sessions' events are skipped

    def start(self) -> None:
        """Build all rooms from the replica, which must not change until the channel exists."""
        self._rooms.clear()
        for session in self._node.sessions.values():
            self._note(session)
        for key, body in self._node.documents.all(ROOMS):
            self._update(key, "", body=body)

    def room(self, key: str) -> Room:
        """Return the room of *key*, and create it if there is none."""
        known = self._rooms.get(key)
        if known is None:
            if len(self._rooms) >= ROOMS_KEPT:
                self._rooms = {
                    one: room for one, room in self._rooms.items() if room.is_changed or room.admins
                }
            known = self._rooms[key] = Room(self._defaults)
        return known

    def settings_in(self, body: Body) -> NekoSettings:
        """Return the settings that a room's document holds."""
        try:
            return convert(body.get("settings", self._defaults), NekoSettings)
        except ValidationError:  # of another version
            log.warning("the settings of a room cannot be read")
            return self._defaults

    def left_at(self, seen: Visibility, *, admin: bool) -> str | None:
        """Return when the last one left the rooms of which *seen* shows everybody."""
        rooms = list(self._rooms.values()) if seen.by == "all" else []
        if seen.by == "workspace":
            rooms = [self.room(seen.value)]
        at = max((room.left_at[admin] for room in rooms if admin in room.left_at), default=None)
        return None if at is None else rfc3339(at)

    def _note(self, session: Session) -> None:
        """Update whether an admin is present, and when sessions left."""
        room = self.room(room_of(session))
        is_admin = render.profile_of(session).is_admin
        if render.is_there(session):
            if is_admin:
                room.admins.add(session.id)
                return
        elif session.connection:
            left_at = session.disconnected_at or session.closed_at or 0
            room.left_at[is_admin] = max(left_at, room.left_at.get(is_admin, 0))
        room.admins.discard(session.id)

    # --- the renderer

    def render(self, view: View, change: CommitView) -> list[EventItem]:
        """Return the events of *change* for the sockets of this node; called once for each."""
        del view
        match change.entry:
            case SessionEntry():
                return [*self._session_news(change.entry, change.before)]
            case DocumentEntry() if change.entry.document.kind == ROOMS:
                document = change.entry.document
                by = document.body.get("by", render.VIRTUAL_ID)
                return [*self._update(document.key, by, body=document.body)]
            case MessageEntry():
                return [*self._message_news(change.entry.message)]
        return []

    def _session_news(self, entry: SessionEntry, before: Session | None) -> list[News]:
        record = entry.record
        shown = shown_id(record)
        self._note(record)
        consequences = self._update(room_of(record), shown, changed=record)
        if not self.listeners:
            return consequences  # empty unless something is to be tidied up
        first, last = render.told(shown, before, record)
        fence = (record, disconnect_cause(entry.events))
        news = [News("session", data, about=record) for data in first]
        news.append(News("fence", b"", only=record.id, fence=fence))
        news.extend(consequences)
        news.extend(News("session", data, about=record) for data in last)
        if record.closed:
            news[-1] = replace(news[-1], but=record.id)
        return news

    def _update(
        self, key: str, by: str, *, changed: Session | None = None, body: Body | None = None
    ) -> list[News]:
        """Derive the state of a room again, and return the events of what is different.

        Args:
            key: The key of the room.
            by: The id, in neko, of the session that caused it.
            changed: The record of a session that changed.
            body: The new document of the room.
        """
        room = self.room(key)
        shown_before, host_before = room.shown, room.host
        if body is not None:
            room.settings, room.is_changed = self.settings_in(body), True
            if body.get("grant", "") != room.grant:
                room.grant, room.wanted = body.get("grant", ""), body.get("host")
        settings = room.settings
        locked = settings.locked_controls or (settings.control_protection and not room.admins)
        if body is not None or locked != shown_before.locked_controls:
            room.shown = replace(settings, locked_controls=locked)
        is_own = changed is not None and changed.id == room.wanted
        wanted = changed if is_own else self._node.sessions.get(room.wanted or "")
        host = wanted if wanted is not None and may_host(room, wanted) else None
        room.host = host.id if host else None
        if host is None and host_before is not None and host_before == room.wanted:
            room.wanted = None
            self.ended.append((key, room.grant))
        news: list[News] = []
        if room.host != host_before:
            news.extend(_host_news(key, by, host))
        if room.shown != shown_before:
            wide, blind = (
                render.event("system/settings", render.about(who, room.shown)) for who in (by, "")
            )
            news.append(News("settings", wide, room=key, sees_room=True))
            news.append(News("settings", blind, room=key, sees_room=False))
        return news

    def _message_news(self, message: Message) -> list[News]:
        sender = self._known(message.sender)
        to = message.to.session
        if to is None:
            said = render.event("send/broadcast", Said(sender, message.topic, message.body))
            return [News("send", said, workspace=message.to.workspace, but=message.sender)]
        if is_contest(message):
            return []
        if message.topic == ASKS_FOR_CONTROL:
            return [News("control", render.event("control/request", {"id": sender}), only=to)]
        receiver = self._known(to)
        unicast = render.event("send/unicast", Said(sender, message.topic, message.body, receiver))
        return [News("send", unicast, only=to)]

    def _known(self, session_id: str | None) -> str:
        """Return the id that a session is shown by; the name of anything else stays."""
        session = self._node.sessions.get(session_id or "")
        return shown_id(session) if session else session_id or render.VIRTUAL_ID


def may_host(room: Room, session: Session) -> bool:
    """Whether *session* may have control of *room*."""
    profile = render.profile_of(session)
    held_back = room.shown.locked_controls or room.settings.private_mode
    return render.is_there(session) and profile.can_host and (profile.is_admin or not held_back)


def _host_news(key: str, by: str, host: Session | None) -> list[News]:
    host_id = shown_id(host) if host else None
    wide, own = (
        render.event("control/host", render.about(who, render.control(host_id)))
        for who in (by, host_id or "")
    )
    blind = render.event("control/host", render.about("", render.control("" if host else None)))
    return [
        News("control", wide, room=key, sees_room=True),
        News("control", own, room=key, sees_room=False, about=host, blind=blind),
    ]
