"""State: the numbers and names that the parts of this dialect share on one node.

Plex identifies accounts, devices, items and library sections by numbers; the gateway has names. A
name gets its number when it is first shown and keeps it on every node and after every restart,
because numbers are documents. Items that a Plex player reports have a number already, which is
kept; assigned numbers start above those. Beyond ``NAMES_MAX`` names of a kind a number is derived
from the name: it is as stable and not stored, and among a million names two are equal with a chance
of less than one half.
"""

import asyncio
import re
from collections.abc import Iterator
from hashlib import sha1, sha256
from typing import Any, Final
from weakref import WeakValueDictionary

from gateway.auth.principals import Principal
from gateway.context import Context
from gateway.core.errors import Conflict
from gateway.core.event import HistoryRow
from gateway.core.model import Client, Session, Stream, Watch
from gateway.core.position import Position
from gateway.core.query import View, Visibility
from gateway.dialects.plex.render import Ids, is_transcode, transcode_session
from gateway.dialects.plex.schema import OWNER, TranscodeSession
from gateway.node import Documents, Node

DIALECT: Final = "plex"
ACCOUNT: Final = "plex.account"
DEVICE: Final = "plex.device"
ITEM: Final = "plex.item"
SECTION: Final = "plex.section"

NAMES_MAX: Final = 100_000  # of one kind that are stored: about 15 MB in every node
ATTEMPTS: Final = 5  # to get a number while other nodes take them
OWN_ITEMS: Final = 1_000_000_000  # rating keys of players are below; with what is given, 31 bits
DERIVED_FROM: Final = 1 << 40  # numbers made from names are above, and fit JavaScript's 53 bits

_FROM: Final = {ACCOUNT: OWNER, DEVICE: 0, ITEM: OWN_ITEMS, SECTION: 0}
_OWN_ITEM: Final = re.compile(r"(?:/library/metadata/)?([1-9][0-9]{0,8})", re.ASCII)
_LATER: Final = re.compile(r"([0-9]{1,18})-(.+)", re.ASCII | re.DOTALL)


class Numbers:
    """Names to numbers and back."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._giving = asyncio.Lock()  # the counter of a kind is one document: one at a time

    def known(self, kind: str, name: str) -> int | None:
        """Return the number of *name*, if it has one by now."""
        if kind == ITEM and (own := _OWN_ITEM.fullmatch(name)):
            return int(own[1])
        body = self._documents.get(kind, name)
        if body is not None:
            return _FROM[kind] + int(body["number"])
        return self._derived(name) if self._is_full(kind) else None

    def all(self, kind: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Return number, name and facts of all that are written down."""
        for name, body in self._documents.all(kind):
            yield _FROM[kind] + int(body["number"]), name, body

    async def of(self, owner: Session | HistoryRow, watch: Watch, now_ms: int) -> Ids:
        """Return the numbers of a session or row, given now where there are none."""
        account, workspace, client = owner.account, owner.workspace, owner.client
        device = None
        if client and client.key:
            device = await self.device(client.key, client, owner.name, now_ms)
        return Ids(
            item=await self.give(ITEM, watch.key),
            account=OWNER if account is None else await self.give(ACCOUNT, account),
            section=None if workspace is None else await self.give(SECTION, workspace),
            device=device,
        )

    async def give(self, kind: str, name: str) -> int:
        """Return the number of *name*, given now if it has none.

        Raises:
            Conflict: Others were faster again and again.
            GatewayError: As ``Node.apply``.
        """
        number = self.known(kind, name)
        if number is not None:
            return number
        async with self._giving:
            for _ in range(ATTEMPTS):
                if self._is_full(kind):
                    return self._derived(name)
                try:
                    return _FROM[kind] + await self._documents.number(kind, name)
                except Conflict:
                    continue
        raise Conflict

    async def device(self, key: str, client: Client, name: str | None, now_ms: int) -> int:
        """Return the number of a player; what is known of it is kept with the number."""
        known = self.known(DEVICE, key)
        if known is not None:
            return known
        number = await self.give(DEVICE, key)
        if number < DERIVED_FROM:
            told = device_facts(client, name)
            await self._documents.write(
                DEVICE, key, lambda body: {**told, "created_at": now_ms, **body}
            )
        return number

    def _is_full(self, kind: str) -> bool:
        counter = self._documents.get("counter", kind)
        return counter is not None and int(counter["last"]) >= NAMES_MAX

    def _derived(self, name: str) -> int:
        return DERIVED_FROM + int.from_bytes(sha256(name.encode()).digest()[:5], "big")


def device_facts(client: Client, name: str | None) -> dict[str, Any]:
    """Return what is kept of a player, whose session is called *name*, beside its number."""
    facts = {"name": name or client.device or client.product, "platform": client.platform}
    return {fact: text for fact, text in facts.items() if text}


class Transcodes:
    """The transcodes of all sessions by name.

    A stream's key is unique in its session; Plex wants one that is unique altogether. Of the
    sessions that a caller sees the oldest with a key has it for itself, in the others the session's
    number stands before it; sessions out of sight do not count.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seen: Position | None = None
        self._holders: dict[str, list[Session]] = {}

    def name(self, session: Session, stream: Stream, visibility: Visibility) -> str:
        """Return the name of a transcode, also of one that has just ended."""
        for other in self._table().get(stream.key, ()):
            if other.id != session.id and _age(other) < _age(session) and visibility.allows(other):
                return f"{session.number}-{stream.key}"
        return stream.key

    def find(self, name: str, visibility: Visibility) -> tuple[Session, Stream] | None:
        """Return the transcode of this name; one with a number before it is always found."""
        holders = list(filter(visibility.allows, self._table().get(name, ())))
        if holders:
            oldest = min(holders, key=_age)
            return oldest, next(known for known in _transcodes(oldest) if known.key == name)
        later = _LATER.fullmatch(name)
        session = self._node.numbered(int(later[1])) if later else None
        if later and session and visibility.allows(session):
            for stream in _transcodes(session):
                if stream.key == later[2]:
                    return session, stream
        return None

    def first(
        self, session: Session, visibility: Visibility, now_ms: int
    ) -> tuple[str, TranscodeSession] | None:
        """Return name and shape of the transcode that belongs to what a session watches."""
        for stream in _transcodes(session):
            name = self.name(session, stream, visibility)
            return name, transcode_session(session, stream, name, now_ms)
        return None

    def _table(self) -> dict[str, list[Session]]:
        """Return who has which key; looked up once for all questions between two changes."""
        seen = self._node.position()
        if self._seen != seen:
            self._holders = {}
            for session in self._node.sessions.values():
                for stream in _transcodes(session):
                    self._holders.setdefault(stream.key, []).append(session)
            self._seen = seen
        return self._holders


def _transcodes(session: Session) -> list[Stream]:
    return [stream for stream in session.streams if is_transcode(stream)]


def _age(session: Session) -> tuple[int, int]:
    return session.created_at, session.number


class Plex:
    """The shared state of this dialect."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.node = context.node
        self.numbers = Numbers(context.node.documents)
        self.transcodes = Transcodes(context.node)
        self.turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Who reports for which playback at this moment, by handle."""

    @property
    def machine(self) -> str:
        """The server's identifier: the same on all nodes and for as long as the data lives."""
        return sha1(b"plex machine " + self.node.secret, usedforsecurity=False).hexdigest()

    def pushes_to(self, caller: Principal) -> View:
        """Return what *caller* is told of."""
        return View(visibility=caller.visibility(), dialect=DIALECT)


class PlexEndpoints:
    """Base of those who answer."""

    def __init__(self, plex: Plex) -> None:
        self._plex = plex
        self._node = plex.node
        self._numbers = plex.numbers
