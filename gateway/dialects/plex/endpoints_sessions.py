"""Sessions: the endpoints of the server, playbacks, transcodes, accounts and devices.

Reading needs ``read``, ending ``close``. What a caller may not see is answered as unknown.

Not here: the history and its items (``endpoints_history``), players that report
(``endpoints_timeline``), pushes (``codec``).
"""

from functools import partial
from typing import Final, TypeVar

from starlette.responses import Response

from gateway.auth.principals import Principal, Scope
from gateway.core.command import Close, EndStream
from gateway.core.errors import BadRequest, Forbidden, NotFound, UnknownStream, UpgradeRequired
from gateway.core.event import HistoryRow
from gateway.core.model import Client, Session, Stream
from gateway.core.query import Filter, View
from gateway.dialects.plex import codec, render, schema
from gateway.dialects.plex.codec import PushStreamCodec, too_slow, wanted
from gateway.dialects.plex.endpoints_history import may_see
from gateway.dialects.plex.query import TerminateQuery
from gateway.dialects.plex.schema import OWNER, Account, Device
from gateway.dialects.plex.state import ACCOUNT, DEVICE, PlexEndpoints, device_facts
from gateway.dialects.plex.style import METADATA, PlexCall, container, listing, refusal
from gateway.http.endpoint import JSON, paced
from gateway.http.request import read_pairs
from gateway.realtime.handshake import check_room
from gateway.realtime.sse import EventStream

REASON_MAX: Final = 1024  # characters of a reason: what a session keeps of it
ACCOUNTS: Final = schema.Container(identifier="com.plexapp.system.accounts")
DEVICES: Final = schema.Container(identifier="com.plexapp.system.devices")

Transcode = tuple[Session, Stream]
Player = tuple[Client, str | None, int]
"""A client, what its newest session is called, and since when it was seen, in milliseconds."""

T = TypeVar("T", Account, Device)


class SessionEndpoints(PlexEndpoints):
    """All endpoints but those of the history and of players."""

    # --- the server

    async def root(self, call: PlexCall) -> Response:
        """Say what this server can do."""
        word = schema.Root(
            machine_identifier=self._plex.machine,
            owner_features=schema.KICK if call.caller.has(Scope.CLOSE) else "",
            transcoder_active_video_sessions=len(self._transcodes(call.caller)),
        )
        return container(call, word)

    async def identity(self, call: PlexCall) -> Response:
        """Say which server this is, to anybody."""
        return container(call, schema.Identity(machine_identifier=self._plex.machine))

    async def empty(self, call: PlexCall) -> Response:
        """List what this server never has: players to control, jobs, recorders."""
        return container(call, schema.Container())

    async def unknown(self, call: PlexCall) -> Response:
        """Refuse a thing that is not there."""
        del call
        raise NotFound

    async def upgrade(self, call: PlexCall) -> Response:
        """Refuse a plain request to the WebSocket's path."""
        del call
        raise UpgradeRequired

    async def events(self, call: PlexCall) -> Response:
        """Push what happens, as server-sent events."""
        check_room(call.context)
        view = self._plex.pushes_to(call.caller)
        here = self._node.position(view.hash32)
        return EventStream(
            call.context,
            call.caller,
            PushStreamCodec(self._plex, wanted(read_pairs(call.request.scope)), too_slow),
            lambda: self._node.subscribe(view, here),
            refuse=lambda error: refusal(error, as_json=call.media == JSON),
            heartbeat_s=codec.PING_S,
        )

    # --- what plays

    async def list_sessions(self, call: PlexCall) -> Response:
        """List what plays now."""
        view = View(filter=Filter(watching=True), visibility=call.caller.visibility())
        found = self._node.all_in(view)
        return await listing(call, METADATA, found, partial(self._metadata, call))

    async def _metadata(self, call: PlexCall, session: Session) -> schema.Metadata:
        now_ms = self._node.now_ms()
        watch = session.watch
        if watch is None:  # never: only those that watch are listed
            raise NotFound
        ids = await self._numbers.of(session, watch, now_ms)
        first = self._plex.transcodes.first(session, call.caller.visibility(), now_ms)
        return render.metadata(
            session,
            watch,
            ids,
            now_ms,
            transcode=first[1] if first else None,
            full=call.caller.is_full,
            media=call.media != JSON,
        )

    async def terminate(self, call: PlexCall) -> Response:
        """End a session; its client is told why."""
        asked: TerminateQuery = call.query
        if asked.session_id is None:
            if "sessionId" in dict(read_pairs(call.request.scope)):
                raise Forbidden("sessionId is empty")
            raise BadRequest("sessionId is missing")
        reason = asked.reason
        if reason and (len(reason) > REASON_MAX or "\0" in reason):
            raise BadRequest(f"reason has at most {REASON_MAX} characters, none of them NUL")
        session = await self._node.find(asked.session_id)
        _check_closable(call.caller, session)
        await self._node.apply(session.id, Close(reason=reason, by=call.caller.name))
        return Response()

    # --- transcodes

    async def list_transcodes(self, call: PlexCall) -> Response:
        """List the transcodes of all sessions."""
        found = self._transcodes(call.caller)
        return await listing(call, "TranscodeSession", found, partial(self._transcode, call))

    def _transcodes(self, caller: Principal) -> list[Transcode]:
        return [
            (session, stream)
            for session in self._node.all_in(View(visibility=caller.visibility()))
            for stream in session.streams
            if render.is_transcode(stream)
        ]

    async def _transcode(self, call: PlexCall, found: Transcode) -> schema.TranscodeSession:
        name = self._plex.transcodes.name(*found, call.caller.visibility())
        return render.transcode_session(*found, name, self._node.now_ms())

    async def stop_transcode(self, call: PlexCall) -> Response:
        """End a transcode; its client is asked to, and is told nothing else."""
        name, visibility = call.path["key"], call.caller.visibility()
        find = self._plex.transcodes.find
        found = find(name, visibility) or find(name.rstrip("/"), visibility)
        if found is None:
            raise UnknownStream
        session, stream = found
        _check_closable(call.caller, session)
        await self._node.apply(session.id, EndStream(key=stream.key))
        return Response(status_code=204)

    # --- people and players

    async def accounts(self, call: PlexCall) -> Response:
        """List the people whose sessions the caller may see, and the owner; or show one."""
        found = _numbered(await self._accounts(call), call)
        return await listing(call, "Account", found, around=ACCOUNTS)

    async def _accounts(self, call: PlexCall) -> list[Account]:
        found = {OWNER: render.OWNER_NAME}
        for name in (await self._seen(call.caller))[0]:
            found[await self._numbers.give(ACCOUNT, name)] = name
        return [
            Account(id=number, key=f"/accounts/{number}", name=found[number])
            for number in sorted(found)
        ]

    async def devices(self, call: PlexCall) -> Response:
        """List the players whose sessions the caller may see; or show one."""
        found = _numbered(await self._devices(call), call)
        return await listing(call, "Device", found, around=DEVICES)

    async def _devices(self, call: PlexCall) -> list[Device]:
        """Return the players; of each only what its sessions in the caller's view tell.

        The data that is kept with a number comes from the first client with that key, perhaps in
        another workspace, so only callers who see all sessions get it.
        """
        found: dict[int, Device] = {}
        if call.caller.visibility().by == "all":
            for number, key, facts in self._numbers.all(DEVICE):
                found[number] = render.device(number, key, facts)
        for key, (client, name, since_ms) in (await self._seen(call.caller))[1].items():
            number = await self._numbers.device(key, client, name, since_ms)
            if number not in found:
                facts = {**device_facts(client, name), "created_at": since_ms}
                found[number] = render.device(number, key, facts)
        return [found[number] for number in sorted(found)]

    async def _seen(self, caller: Principal) -> tuple[set[str], dict[str, Player]]:
        """Return accounts and clients of all sessions, open or past, that the caller may see."""
        visibility = caller.visibility()
        accounts: set[str] = set()
        clients: dict[str, Player] = {}
        if visibility.by == "all":
            accounts.update(name for _, name, _ in self._numbers.all(ACCOUNT))
        rows = [row for row in self._node.recent_history() if may_see(visibility, row)]
        sessions = self._node.all_in(View(visibility=visibility))
        owners: list[HistoryRow | Session] = [*rows, *sessions]
        async for owner in paced(owners):
            if owner.account is not None:
                accounts.add(owner.account)
            if owner.client is not None and owner.client.key:
                key = owner.client.key
                since_ms = owner.started_at if isinstance(owner, HistoryRow) else owner.created_at
                if key in clients:
                    since_ms = min(since_ms, clients[key][2])
                clients[key] = (owner.client, owner.name, since_ms)
        return accounts, clients


def _numbered(found: list[T], call: PlexCall) -> list[T]:
    """Return all, or the one whose number the path names."""
    number = call.path.get("id")
    named = [one for one in found if number in (None, str(one.id))]
    if not named and number is not None:
        raise NotFound
    return named


def _check_closable(caller: Principal, session: Session) -> None:
    if not caller.visibility().allows(session):
        raise NotFound
    if not caller.covers(session.workspace):
        raise Forbidden("This token is good for another library section")
