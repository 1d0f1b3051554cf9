"""Doors: what Plex's clients see and end: the server, what plays, transcodes, people, players.

``read`` shows, ``close`` ends. What a caller may not see is unknown to it.
Not here: the history (``history``), players that report (``playback``), pushes (``live``).
"""

from functools import partial
from typing import Final

from starlette.responses import Response

from gateway.auth.principals import Scope
from gateway.core.command import Close, EndStream
from gateway.core.errors import (
    BadRequest,
    Forbidden,
    NotFound,
    UnknownStream,
    UpgradeRequired,
)
from gateway.core.event import HistoryRow
from gateway.core.model import Client, Session, Stream
from gateway.core.query import Filter, View
from gateway.dialects.plex import server, words
from gateway.dialects.plex.door import Call, as_it_is, container, listing
from gateway.dialects.plex.history import may_see
from gateway.dialects.plex.live import EventStream
from gateway.dialects.plex.numbers import ACCOUNT, DEVICE, device_facts
from gateway.dialects.plex.shapes import (
    OWNER,
    OWNER_NAME,
    is_transcode,
    metadata,
    transcode_session,
)
from gateway.dialects.plex.state import Plex
from gateway.dialects.plex.xml import METADATA

REASON_MAX: Final = 1024  # characters of a reason: what a session keeps of it
ACCOUNTS: Final = words.Container(size=0, identifier=words.IDENTIFIER_ACCOUNTS)
DEVICES: Final = words.Container(size=0, identifier=words.IDENTIFIER_DEVICES)

Transcode = tuple[Session, Stream]


class Doors:
    """Answers about everything but the history.

    Args:
        plex: What this dialect shares.
    """

    def __init__(self, plex: Plex) -> None:
        self._plex = plex
        self._node = plex.node

    # --- the server

    async def root(self, call: Call) -> Response:
        """Say what this server can do."""
        count = len(self._transcodes(call))
        may_kick = call.principal.has(Scope.CLOSE)
        return container(call, server.root(self._plex.machine, count, may_kick=may_kick))

    async def identity(self, call: Call) -> Response:
        """Say which server this is, to anybody."""
        return container(call, server.identity(self._plex.machine))

    async def empty(self, call: Call) -> Response:
        """List what this server never has: players to control, jobs."""
        return container(call, words.Container(size=0))

    async def unknown(self, call: Call) -> Response:
        """Refuse a path or a thing that is not there."""
        del call
        raise NotFound

    async def upgrade(self, call: Call) -> Response:
        """Refuse a plain request to the WebSocket's path."""
        del call
        raise UpgradeRequired

    async def events(self, call: Call) -> Response:
        """Push what happens, as server-sent events."""
        return EventStream(self._plex, call)

    # --- what plays

    async def sessions(self, call: Call) -> Response:
        """List what plays now."""
        call.principal.require(Scope.READ)
        view = View(filter=Filter(watching=True), visibility=call.principal.visibility())
        found = self._node.replica.all_in(view)
        return await listing(call, METADATA, found, partial(self._metadata, call))

    async def _metadata(self, call: Call, session: Session) -> words.Metadata:
        now_ms = self._node.clock.now_ms()
        watch = session.watch
        if watch is None:  # never: only those that watch are listed
            raise NotFound
        ids = await self._plex.numbers.of(session, watch, now_ms)
        first = self._plex.transcodes.first(session, call.principal.visibility(), now_ms)
        return metadata(
            session,
            watch,
            ids,
            now_ms,
            transcode=first[1] if first else None,
            full=call.principal.is_full,
            media=not call.wants_json,
        )

    async def terminate(self, call: Call) -> Response:
        """End a session; its client is told why."""
        principal = call.principal
        principal.require(Scope.CLOSE)
        if "sessionId" not in {name for name, _ in call.pairs}:
            raise BadRequest("sessionId is missing")
        session_id, reason = call.parameter("sessionId"), call.parameter("reason")
        if session_id is None:
            raise Forbidden("sessionId is empty")
        if reason and (len(reason) > REASON_MAX or "\0" in reason):
            raise BadRequest(f"reason has at most {REASON_MAX} characters, none of them NUL")
        session = await self._node.find(session_id)
        self._check_closable(call, session)
        await self._node.apply(session.id, Close(reason=reason, by=principal.name))
        return Response(status_code=200, headers={"Cache-Control": "no-cache"})

    def _check_closable(self, call: Call, session: Session) -> None:
        if not call.principal.visibility().allows(session):
            raise NotFound
        if not call.principal.covers(session.workspace):
            raise Forbidden("This token is good for another library section")

    # --- transcodes

    async def transcodes(self, call: Call) -> Response:
        """List the transcodes of all sessions."""
        call.principal.require(Scope.READ)
        found = self._transcodes(call)
        return await listing(call, "TranscodeSession", found, partial(self._transcode, call))

    def _transcodes(self, call: Call) -> list[Transcode]:
        view = View(visibility=call.principal.visibility())
        return [
            (session, stream)
            for session in self._node.replica.all_in(view)
            for stream in session.streams
            if is_transcode(stream)
        ]

    async def _transcode(self, call: Call, found: Transcode) -> words.TranscodeSession:
        name = self._plex.transcodes.name(*found, call.principal.visibility())
        return transcode_session(*found, name, self._node.clock.now_ms())

    async def stop_transcode(self, call: Call) -> Response:
        """End a transcode; its client is asked to, and is told nothing else."""
        call.principal.require(Scope.CLOSE)
        name, visibility = call.path["key"], call.principal.visibility()
        find = self._plex.transcodes.find
        found = find(name, visibility) or find(name.rstrip("/"), visibility)
        if found is None:
            raise UnknownStream
        session, stream = found
        self._check_closable(call, session)
        await self._node.apply(session.id, EndStream(key=stream.key))
        return Response(status_code=204)

    # --- people and players

    async def accounts(self, call: Call) -> Response:
        """List the people whose sessions the caller may see, and the owner."""
        found = await self._accounts(call)
        return await listing(call, "Account", found, as_it_is, around=ACCOUNTS)

    async def account(self, call: Call) -> Response:
        """Show one of them."""
        found = [one for one in await self._accounts(call) if str(one.id) == call.path["id"]]
        if not found:
            raise NotFound
        return await listing(call, "Account", found, as_it_is, around=ACCOUNTS)

    async def _accounts(self, call: Call) -> list[words.Account]:
        owners, _ = self._seen(call)
        found = {OWNER: server.account(OWNER, OWNER_NAME)}
        for name in owners:
            number = await self._plex.numbers.give(ACCOUNT, name)
            found[number] = server.account(number, name)
        return [found[number] for number in sorted(found)]

    async def devices(self, call: Call) -> Response:
        """List the players whose sessions the caller may see."""
        found = await self._devices(call)
        return await listing(call, "Device", found, as_it_is, around=DEVICES)

    async def device(self, call: Call) -> Response:
        """Show one of them."""
        found = [one for one in await self._devices(call) if str(one.id) == call.path["id"]]
        if not found:
            raise NotFound
        return await listing(call, "Device", found, as_it_is, around=DEVICES)

    async def _devices(self, call: Call) -> list[words.Device]:
        """Return the players; of each only what its sessions in the caller's view tell.

        What is kept with a number comes from whoever was first to show a client of that key, which
        may have been another workspace: only those who see all sessions are told that.
        """
        found: dict[int, words.Device] = {}
        if call.principal.visibility().by == "all":
            for number, key, facts in self._plex.numbers.all(DEVICE):
                found[number] = server.device(number, key, facts)
        for key, (client, name, since_ms) in self._seen(call)[1].items():
            number = await self._plex.numbers.device(key, client, name, since_ms)
            if number not in found:
                facts = {**device_facts(client, name), "created_at": since_ms}
                found[number] = server.device(number, key, facts)
        return [found[number] for number in sorted(found)]

    def _seen(self, call: Call) -> tuple[set[str], dict[str, tuple[Client, str | None, int]]]:
        """Return accounts and clients of all sessions, open or past, that the caller may see.

        Each client comes with the name of its newest session and the start of its oldest.

        Raises:
            Forbidden: It may not see any but its own.
        """
        call.principal.require(Scope.READ)
        visibility = call.principal.visibility()
        accounts: set[str] = set()
        clients: dict[str, tuple[Client, str | None, int]] = {}
        if visibility.by == "all":
            accounts.update(name for _, name, _ in self._plex.numbers.all(ACCOUNT))
        owners: list[HistoryRow | Session] = [
            row for row in self._node.replica.history if may_see(visibility, row)
        ]
        owners += self._node.replica.all_in(View(visibility=visibility))
        for owner in owners:
            if owner.account is not None:
                accounts.add(owner.account)
            if owner.client is not None and owner.client.key:
                key = owner.client.key
                began_ms = owner.started_at if isinstance(owner, HistoryRow) else owner.created_at
                since_ms = min(began_ms, clients[key][2]) if key in clients else began_ms
                clients[key] = (owner.client, owner.name, since_ms)
        return accounts, clients
