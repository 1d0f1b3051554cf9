"""Visit: one client in its session, from what it hears first to how it ends.

The commit stands before ``system/init``, so whoever is greeted is also announced. A new client
hears, in this order: everything there is, as an admin what admins hear, its own state, the plugins;
then the news of the channel. What ends it comes the same way, so it hears everything before its
end, and is told why.

A client that is too slow, or whose connection another node ended by mistake, is cut without a word:
who hears ``system/disconnect`` stays away, who does not is back within the grace.

Not here: what changes mean (``rooms``), what members may do (``control``).
"""

import logging
from contextlib import ExitStack
from functools import partial
from typing import Final

from msgspec.structs import asdict
from starlette.websockets import WebSocket

from gateway.auth.credentials import client_address, headers, networks
from gateway.connections.lifecycle import ConnectionEnded, ServerClose
from gateway.core.command import Connect
from gateway.core.errors import (
    AlreadyConnected,
    CloseCode,
    GatewayError,
    NotFound,
    SessionClosed,
    SessionClosing,
)
from gateway.core.model import Connection, Session
from gateway.dialects.neko.errors import NO_SESSION
from gateway.dialects.neko.line import INPUT, Farewell, NekoLine, understood
from gateway.dialects.neko.login import Caller, caller_of, shown_id
from gateway.dialects.neko.render import (
    HEARTBEAT,
    PLUGINS,
    control_host,
    event,
    is_there,
    session_data,
    state_of,
)
from gateway.dialects.neko.rooms import VIEW, Fence, News, room_of
from gateway.dialects.neko.schema import (
    Admin,
    BroadcastStatus,
    ClientEvent,
    Init,
    LogLine,
    ScreenConfiguration,
    Spoken,
    StateOf,
)
from gateway.dialects.neko.service import Service, connection_id
from gateway.live.channel import Subscription
from gateway.live.outbound import Tick

LOG_LINES_MAX: Final = 20  # lines of a client's log that are taken from one message
LOG_LINE_MAX: Final = 500  # characters of such a line
USER_AGENT_MAX: Final = 512  # characters that are kept of it

MAY_NOT_CONNECT: Final = "connection disabled"
CONNECTED: Final = "already connected"
REPLACED: Final = "connection replaced"
DISCONNECTED: Final = "session disconnected"
DELETED: Final = "session deleted"
PROFILE_CHANGED: Final = "profile changed"

ENDED_BY_OTHERS: Final = frozenset({REPLACED, DISCONNECTED, DELETED})

log = logging.getLogger(__name__)


class Visit:
    """One client in its session.

    Args:
        service: neko on this node.
        websocket: The connection, as the server gave it.
        line: The same, as we speak on it.
        caller: Who it is.
        session: The caller's session.
    """

    def __init__(
        self,
        service: Service,
        websocket: WebSocket,
        line: NekoLine,
        caller: Caller,
        session: Session,
    ) -> None:
        self._service = service
        self._node = service.node
        self._line = line
        self._caller = caller
        self._session = session
        self._room = room_of(session)
        self._connection = _connection(service, websocket)
        self._sockets = service.context.connections

    async def live(self) -> ConnectionEnded:
        """Attach, serve the client until one of the two ends it, record how; return that.

        Raises:
            Farewell: It may not attach.
            GatewayError: It could not.
        """
        node, session_id, own_id = self._node, self._session.id, self._connection.id
        with ExitStack() as stack:
            stack.enter_context(node.holding(session_id, own_id))
            self._sockets.announce_handover(own_id)
            stack.callback(self._sockets.complete_handover, own_id)
            await self._attach()
            # Nothing may wait from here to the greeting: it is one moment's picture.
            position = self._node.replica.position(VIEW.hash32)
            stack.enter_context(self._service.rooms.heard())
            subscription = stack.enter_context(node.subscribe(VIEW, position))
            try:
                greeting = self._greeting()
            except ConnectionEnded as over:
                ended = over
            else:
                self._line.on_message = partial(node.touch, session_id)
                hear = self._hear(subscription, greeting)
                ended = await self._line.run(_silence, hear, self._line.beat(), self._work())
        if not (isinstance(ended, Farewell) and ended.message in ENDED_BY_OTHERS):
            await node.disconnect(session_id, own_id, ended.cause)
        return ended

    async def _attach(self) -> None:
        merciful = self._service.merciful(self._session)
        if not merciful and is_there(self._session):
            raise Farewell(CONNECTED)
        attach = Connect(connection=self._connection, displace=merciful, readmit=True)
        try:
            self._session = await self._node.apply(self._session.id, attach)
        except AlreadyConnected:
            raise Farewell(CONNECTED) from None
        except (NotFound, SessionClosed):
            raise Farewell(NO_SESSION) from None
        except SessionClosing:
            raise Farewell(MAY_NOT_CONNECT) from None

    def _greeting(self) -> list[bytes]:
        """Return what a new client hears first.

        Raises:
            Farewell: It was over before it began.
            Goodbye: This node has not heard of it.
        """
        service = self._service
        session = self._node.replica.sessions.get(self._session.id)
        if session is None:
            raise Farewell(DELETED)
        if session.revision < self._session.revision:
            raise self._cut_off()
        self._check(Fence(session))
        self._caller = caller_of(session)
        own, control = self._caller.id, service.control
        data = Init(
            session_id=own,
            control_host=control_host("", control.host_id(self._caller)),
            screen_size=ScreenConfiguration(),
            sessions={
                (name := shown_id(known)): session_data(name, known)
                for known in service.sessions(self._caller)
            },
            settings=control.room_of(self._caller).shown,
        )
        texts = [event("system/init", data)]
        if self._caller.profile.is_admin:
            texts.append(
                event("system/admin", Admin(broadcast_status=BroadcastStatus(is_active=False)))
            )
        state = StateOf(id=own, **asdict(state_of(session)))
        return [*texts, event("session/state", state), *PLUGINS]

    # --- what the client hears

    async def _hear(self, subscription: Subscription, greeting: list[bytes]) -> None:
        for text in greeting:
            await self._line.send(text)
        self._sockets.complete_handover(self._connection.id)
        while True:
            delivery = await subscription.next()
            if not isinstance(
                delivery, Tick
            ):  # too slow, or history was lost: it has to start over
                raise ServerClose(CloseCode.TOO_SLOW, "too_slow", self._line.reconnect_after_ms())
            for item in delivery.items:
                if isinstance(item, News):
                    await self._hear_one(item)

    async def _hear_one(self, news: News) -> None:
        own = self._session.id
        if news.only not in (None, own) or news.but == own:
            return
        if news.fence is not None:
            await self._fenced(news.fence)
            return
        caller = self._caller
        if news.room not in (None, self._room):
            return
        if news.workspace not in (None, caller.workspace):
            return
        if news.sees_room not in (None, caller.visibility.by in ("all", "workspace")):
            return
        data: bytes | None = news.data
        if news.about is not None and not caller.visibility.allows(news.about):
            data = news.blind
        if data:
            await self._line.send(data)

    async def _fenced(self, fence: Fence) -> None:
        held = fence.record.connection
        if held is not None and held.id != self._connection.id:
            await self._sockets.wait_handover(held.id, is_here=held.node == self._node.id)
        self._check(fence)
        self._caller = caller_of(fence.record)

    def _check(self, fence: Fence) -> None:
        """Do nothing as long as the record names this connection.

        Raises:
            Farewell: It does not, or the client may not be connected any more.
            Goodbye: Another node ended it, although the client is here.
        """
        record, held = fence.record, fence.record.connection
        if record.closed:
            raise Farewell(DELETED)
        if held is None or held.id != self._connection.id:
            raise Farewell(REPLACED)
        if held.ended_at is not None:
            if fence.cause == "kicked":
                raise Farewell(DISCONNECTED)
            raise self._cut_off()
        profile = caller_of(record).profile
        if not (profile.can_login and profile.can_connect):
            raise Farewell(PROFILE_CHANGED)

    def _cut_off(self) -> ServerClose:
        return ServerClose(CloseCode.SERVER_ERROR, "cut_off", self._line.reconnect_after_ms())

    # --- what the client says

    async def _work(self) -> None:
        while True:
            said = await self._line.inbox.get()
            try:
                if self._is_valid():  # else displaced; the end is on its way
                    await self._do(said)
            except GatewayError as error:
                log.debug("%s of %s is refused: %s", said.event, self._caller.id, error)
            finally:
                self._line.inbox.task_done()

    def _is_valid(self) -> bool:
        session = self._node.replica.sessions.get(self._session.id)
        held = session.connection if session and session.is_connected else None
        return held is not None and held.id == self._connection.id

    async def _do(self, said: ClientEvent) -> None:
        control = self._service.control
        kind, _, what = said.event.partition("/")
        match kind, what:
            case "control", "request":
                await control.request(self._caller)
            case "control", "release":
                await control.release(self._caller)
            case "control", _ if said.event.startswith(INPUT):
                await control.request(self._caller, ask=False)
            case "send", "unicast":
                if (one := understood(said.payload, Spoken)) is not None:
                    await self._unicast(one)
            case "send", "broadcast":
                if (one := understood(said.payload, Spoken)) is not None:
                    await control.broadcast(self._caller, one.subject, one.body)
            case "system", "logs":
                for line in (understood(said.payload, list[LogLine]) or [])[:LOG_LINES_MAX]:
                    log.info("%s logs: %.*r", self._caller.id, LOG_LINE_MAX, line.message)
            case _:
                log.debug("unknown event %.64s", said.event)

    async def _unicast(self, said: Spoken) -> None:
        target = await self._service.session(said.receiver, self._caller)
        if target is not None:
            await self._service.control.unicast(self._caller, target, said.subject, said.body)


def _silence() -> bytes:
    return HEARTBEAT


def _connection(service: Service, websocket: WebSocket) -> Connection:
    node, settings = service.node, service.context.settings
    peer = client_address(websocket.scope, networks(settings.trusted_proxies))
    agents = headers(websocket.scope, b"user-agent")
    return Connection(
        id=connection_id(),
        node=node.id,
        connected_at=node.clock.now_ms(),
        address=peer.address,
        port=peer.port,
        tls=peer.tls,
        user_agent=agents[0][:USER_AGENT_MAX] if agents else None,
    )
